"""The agent of a real Slurm dies, with warm workers in the queue and at work: what runs is gone on with, what has
ended is known, and nothing is left that burns the allocation."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator import locks
from orchestrator.agent import attach
from orchestrator.jobs import OVER
from orchestrator.model import FailureClass, Run, RunStatus, TaskStatus
from slurm.client import Slurm
from slurm.cluster import Cluster, profile_toml
from tests.cluster import slurm as trial
from tests.cluster.product import Product, attempts, product

pytestmark = pytest.mark.timeout(240)

LEASE_S = 6.0  # of the site `brief`
WORKERS_END_S = 40.0  # once their interchange has gone


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with trial.running() as here:
        yield here


@pytest.fixture(scope="module")
def shared(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    slurm = Slurm(environment=cluster.environment)
    with product(tmp_path_factory.mktemp("recovery"), profile_toml(cluster), slurm) as made:
        brief = {"identity": {"name": "brief"}, "execution": {"lease_s": LEASE_S, "silent_s": 30.0}}
        (made.home / "sites" / "brief.toml").write_text(profile_toml(cluster, **brief))
        yield made


@pytest.fixture
def here(shared: Product, cluster: Cluster) -> Iterator[Product]:
    yield shared
    shared.client.stop_service()
    slurm = shared.scheduler
    shared.until(lambda: not slurm.mine("bw"), 30, "an empty queue after the agents were stopped in order")
    trial.until_idle(cluster)


def call(here: Product, name: str, seconds: float = 0.0) -> dict[str, Any]:
    arguments = {"stem": str(here.work / name), "seconds": seconds}
    return {"function": "tests.cluster.calls:mark", "arguments": arguments, "after": []}


def kill_agent(here: Product, site: str = "trial", number: int = signal.SIGKILL) -> int:
    pid = agent(here, site)
    assert pid
    os.kill(pid, number)
    return pid


def agent(here: Product, site: str = "trial") -> int:
    return locks.holder(locks.agent_lock(here.home, site))


def until_another(here: Product, before: int, site: str = "trial") -> None:
    here.until(lambda: agent(here, site) not in (0, before), 30, "the next agent")


def interchanges(here: Product, site: str = "trial") -> list[psutil.Process]:
    return [psutil.Process(state.pid) for _, state in states(here, site) if state is not None]


def pilots(here: Product) -> set[str]:
    return {job.id for job in here.scheduler.mine("bwp-")}


def once(here: Product, run: Run, *names: str) -> None:
    assert run.status is RunStatus.DONE, run.error
    assert set(attempts(run)) == {1}
    for name in names:
        assert (len(here.began(name)), len(here.ended(name))) == (1, 1), name


def test_calls_go_on_under_an_agent_that_dies_twice(here: Product) -> None:
    """The ones at work, those that wait for a worker, and those that end while there is no agent."""
    names = ["long-a", "long-b", *(f"short-{n}" for n in range(40)), "after-a", "after-b"]
    lengths = {"long-a": 60.0, "long-b": 60.0, "after-a": 3.0, "after-b": 3.0}
    run_id = here.start({f"{n:02}-{name}": call(here, name, lengths.get(name, 0.0)) for n, name in enumerate(names, 1)})
    here.until_began("long-a")
    here.until_began("long-b")
    before = pilots(here)
    for _ in range(2):
        killed = kill_agent(here)
        until_another(here, killed)
        here.until(lambda: interchanges(here), 20, "an interchange")
        time.sleep(2)
    here.go("long-a")
    here.go("long-b")
    run = here.wait(run_id)
    once(here, run, *names)
    assert pilots(here) == before


def test_what_ended_without_an_agent_or_interchange_is_not_repeated(here: Product) -> None:
    """Nobody was left to tell of its end, but its outcome lies on the disk."""
    run_id = here.start({"01-a": call(here, "unheard", 60.0)})
    here.until_began("unheard")
    time.sleep(1)  # a shorter one is not worth being written down
    stop_service(here)
    (interchange,) = interchanges(here)
    kill_agent(here)
    interchange.kill()
    here.go("unheard")
    here.until(lambda: here.ended("unheard"), 10, "its end")
    time.sleep(1)
    once(here, here.wait(run_id), "unheard")


def test_many_short_calls_in_flight_are_done_once_each(here: Product) -> None:
    names = [f"many-{n}" for n in range(150)]
    run_id = here.start({f"{n:03}-x": call(here, name) for n, name in enumerate(names, 1)})
    here.until(lambda: sum(bool(here.ended(name)) for name in names) > 20, 60, "some of them to end")
    kill_agent(here)
    once(here, here.wait(run_id), *names)


def test_an_agent_dies_while_its_block_waits_in_the_queue(here: Product, cluster: Cluster) -> None:
    cluster.run("scontrol", "update", "PartitionName=regular", "State=DOWN")
    try:
        run_id = here.start({"01-a": call(here, "queued")}, queue="regular")
        here.until(lambda: pilots(here), 30, "a block in the queue")
        here.until(lambda: any(s and s.blocks for _, s in states(here)), 10, "the block to be written down")
        before = pilots(here)
        until_another(here, kill_agent(here))
        time.sleep(3)
        assert pilots(here) == before
    finally:
        cluster.run("scontrol", "update", "PartitionName=regular", "State=UP")
    once(here, here.wait(run_id), "queued")
    assert here.began("queued") == sorted(before)


def test_an_interchange_is_killed(here: Product) -> None:
    """What it knew is gone: its calls at work are lost and begun again, with other blocks. Other pilots go on."""
    run_id = here.start({"01-a": call(here, "orphaned", 60.0), "02-b": call(here, "before")})
    here.until_began("orphaned")
    here.until(lambda: here.client.run(run_id).tasks[1].status is TaskStatus.DONE, 20, "the end of the short one")
    before, (interchange,) = pilots(here), interchanges(here)
    other = here.start({"01-a": call(here, "beside", 60.0)}, queue="debug")
    here.until_began("beside")
    interchange.kill()
    here.until_began("orphaned", 2)
    here.go("orphaned")
    here.go("beside")
    run = here.wait(run_id)
    assert run.status is RunStatus.DONE, run.error
    assert [t.used for t in run.tasks.values()] == [{FailureClass.LOST: 1}, {}]
    assert len(here.ended("orphaned")) == len(here.began("before")) == 1
    once(here, here.wait(other), "beside")
    here.until(lambda: not pilots(here) & before, WORKERS_END_S, "the end of the blocks without an interchange")


def test_both_the_agent_and_the_interchange_are_killed(here: Product) -> None:
    run_id = here.start({"01-a": call(here, "both", 60.0)})
    here.until_began("both")
    (interchange,) = interchanges(here)
    before = pilots(here)
    kill_agent(here)
    interchange.kill()
    here.until(lambda: not pilots(here) & before, WORKERS_END_S, "the end of the blocks that nobody goes on with")
    here.go("both")
    run = here.wait(run_id)
    assert run.status is RunStatus.DONE, run.error
    assert len(here.ended("both")) == 1


def test_a_stopped_agent_goes_on_within_the_lease(here: Product) -> None:
    run_id = here.start({"01-a": call(here, "paused", 60.0)})
    here.until_began("paused")
    pid = kill_agent(here, number=signal.SIGSTOP)
    here.go("paused")
    time.sleep(10)
    os.kill(pid, signal.SIGCONT)
    once(here, here.wait(run_id), "paused")
    assert agent(here) == pid


def test_an_agent_is_stopped_for_longer_than_the_lease(here: Product) -> None:
    """Its blocks end meanwhile; it sees that, and begins anew."""
    run_id = here.start({"01-a": call(here, "late", 60.0), "02-b": call(here, "done", 1.0)}, site="brief")
    here.until_began("late")
    before, pid = pilots(here), kill_agent(here, "brief", signal.SIGSTOP)
    here.until(lambda: not pilots(here) & before, LEASE_S + WORKERS_END_S, "the end of its blocks")
    os.kill(pid, signal.SIGCONT)
    here.go("late")
    run = here.wait(run_id)
    assert run.status is RunStatus.DONE, run.error
    assert (len(here.ended("late")), len(here.began("done"))) == (1, 1)


def test_no_block_outlives_its_lease_when_no_agent_comes(here: Product, cluster: Cluster) -> None:
    """Neither one at work nor one that waits: it ends as soon as it starts."""
    run_id = here.start({"01-a": call(here, "alone", 60.0)}, site="brief")
    here.until_began("alone")
    cluster.run("scontrol", "update", "PartitionName=debug", "State=DOWN")
    try:
        never = here.start({"01-a": call(here, "never")}, site="brief", queue="debug")
        here.until(lambda: len(pilots(here)) == 2, 30, "a block in the queue")
        left = interchanges(here, "brief")
        stop_service(here)
        kill_agent(here, "brief")
        here.until(lambda: len(pilots(here)) == 1, LEASE_S + WORKERS_END_S, "the end of the block at work")
    finally:
        cluster.run("scontrol", "update", "PartitionName=debug", "State=UP")
    here.until(lambda: not pilots(here), 90, "the end of the other")  # Slurm may look at its queue once a minute only
    here.until(lambda: not any(map(_lives, left)), 20, "the end of the interchanges")
    assert here.began("never") == here.ended("alone") == []
    for unfinished in (run_id, never):
        here.client.cancel(unfinished)
        assert here.wait(unfinished).status is RunStatus.ABORTED


def test_an_agent_that_is_stopped_in_order_leaves_nothing(here: Product) -> None:
    run_id = here.start({"01-a": call(here, "ordered", 60.0)})
    here.until_began("ordered")
    before, left = pilots(here), interchanges(here)
    stop_service(here)  # it would start the next one
    kill_agent(here, number=signal.SIGTERM)
    here.until(lambda: not agent(here), 30, "the end of the agent")
    here.until(lambda: not pilots(here), 15, "an empty queue")
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in left)
    assert states(here) == []
    here.go("ordered")
    run = here.wait(run_id)
    assert run.status is RunStatus.DONE, run.error
    assert len(here.ended("ordered")) == 1
    assert not pilots(here) & before


def test_a_cancel_reaches_a_call_that_no_agent_was_there_for(here: Product) -> None:
    run_id = here.start({"01-a": call(here, "unwanted", 60.0)})
    here.until_began("unwanted")
    stop_service(here)
    kill_agent(here)
    here.client.cancel(run_id)
    assert here.wait(run_id).status is RunStatus.ABORTED
    time.sleep(2)
    here.go("unwanted")
    time.sleep(1)
    assert here.ended("unwanted") == []


@pytest.mark.parametrize("mode", ["batch", "pilot"])
def test_a_job_that_runs_by_its_scheduler_alone_is_lost(here: Product, cluster: Cluster, mode: str) -> None:
    """Its node died and was back before anybody missed it."""
    name = f"ghost-{mode}"
    run_id = here.start({"01-a": call(here, name, 120.0)}, site="brief", mode=mode)
    here.until_began(name)
    number = here.began(name)[0]
    (node,) = here.scheduler.jobs([number])[number].nodes
    cluster.kill_node(node)
    cluster.start_node(node)
    here.go(name)
    run = here.wait(run_id, 150)
    assert run.status is RunStatus.DONE, run.error
    assert [t.used for t in run.tasks.values()] == [{FailureClass.LOST: 1}]
    assert len(here.ended(name)) == 1
    here.until(lambda: here.scheduler.jobs([number])[number].state in OVER, 60, "the end of the ghost")


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def stop_service(here: Product) -> None:
    """At once, and its agents with it not: nobody starts them again."""
    pid = locks.holder(locks.service_lock(here.home))
    assert pid
    os.kill(pid, signal.SIGKILL)
    here.until(lambda: locks.holder(locks.service_lock(here.home)) != pid, 10, "the end of the service")


def states(here: Product, site: str = "trial") -> list[tuple[Path, attach.State | None]]:
    return attach.states(here.home / "agents" / site / "pilots")
