"""The agent of a real Slurm dies, with warm workers in the queue and at work: what runs is gone on with, what has
ended is known, and nothing is left that burns the allocation."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator import codec, locks
from orchestrator.agent import attach
from orchestrator.model import FailureClass, Run, RunStatus
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
    states = [state for _, state in attach.states(here.home / "agents" / site / "pilots") if state is not None]
    return [psutil.Process(state.pid) for state in states]


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
