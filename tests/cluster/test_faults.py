"""What goes wrong on a real Slurm: nothing is lost, nothing runs twice, and `why` names the cause."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.model import FailureClass, RunStatus
from slurm import reservations
from slurm.client import Slurm
from slurm.cluster import Cluster, profile_toml
from tests.cluster import slurm as trial
from tests.cluster.product import Product, attempts, product

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with trial.running() as here:
        yield here


@pytest.fixture(scope="module")
def shared(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    slurm = Slurm(environment=cluster.environment)
    changes = {
        "execution": {"mode": "batch"},
        "policies": {"fallback": ["wait 3 s", "queue realtime"]},
        "scheduler": {"command_timeout_s": 6.0},
    }
    with product(tmp_path_factory.mktemp("faults"), profile_toml(cluster, **changes), slurm) as made:
        patient = {**changes, "policies": {"fallback": []}, "identity": {"name": "patient"}}
        (made.home / "sites" / "patient.toml").write_text(profile_toml(cluster, **patient))
        hurried = {**patient, "scheduler": {"command_timeout_s": 3.0, "down_after_s": 5.0}}
        hurried["identity"] = {"name": "hurried"}
        (made.home / "sites" / "hurried.toml").write_text(profile_toml(cluster, **hurried))
        yield made


@pytest.fixture
def here(shared: Product, cluster: Cluster) -> Iterator[Product]:
    yield shared
    slurm = slurm_of(shared)
    slurm.cancel([j.id for j in slurm.mine("bw")])
    for name in slurm.reservations():
        slurm.calls.run(["scontrol", "delete", f"ReservationName={name}"])
    trial.until_idle(cluster)


def slurm_of(here: Product) -> Slurm:
    assert isinstance(here.scheduler, Slurm)
    return here.scheduler


def test_the_controller_is_paused_while_jobs_are_submitted(here: Product, cluster: Cluster) -> None:
    """Fifty pauses of random lengths, some longer than a submit waits: one job per token, always."""
    dice = random.Random(4)
    runs = []
    for number in range(50):
        runs.append(here.start({"01-A": here.stage(f"paused-{number}")}))
        time.sleep(dice.uniform(0.0, 0.15))
        cluster.pause_controller()
        time.sleep(dice.choice([0.05, 0.3, 0.6, 1.0]) if number % 10 else 7.5)
        cluster.resume_controller()
    for number, run_id in enumerate(runs):
        run = here.wait(run_id)
        assert (run.status, attempts(run)) == (RunStatus.DONE, [1]), run.error
        assert len(here.began(f"paused-{number}")) == 1
        assert len(here.ended(f"paused-{number}")) == 1


def test_the_controller_is_down_for_a_minute(here: Product, cluster: Cluster) -> None:
    before = here.start({"01-A": here.stage("down-before", 30)})
    here.until_began("down-before")
    cluster.stop_controller()
    try:
        begun = time.monotonic()
        while_down = here.start({"01-A": here.stage("down-while")})
        said = here.until_why(while_down, "does not answer")
        assert said.contact
        time.sleep(max(0.0, 60.0 - (time.monotonic() - begun)))
    finally:
        cluster.start_controller()
    for name, run_id in (("down-before", before), ("down-while", while_down)):
        run = here.wait(run_id)
        assert (run.status, attempts(run)) == (RunStatus.DONE, [1]), run.error
        assert len(here.began(name)) == len(here.ended(name)) == 1


@pytest.mark.parametrize("mode", ["batch", "pilot"])
def test_a_site_that_is_down_holds_its_runs_and_they_go_on_by_themselves(
    mode: str, here: Product, cluster: Cluster
) -> None:
    cluster.stop_controller()
    try:
        run_id = here.start({"01-A": here.stage(f"held-{mode}")}, site="hurried", mode=mode)
        said = here.until_why(run_id, "on hold because site 'hurried' is down")
        assert said.contact
        assert here.client.run(run_id).status is RunStatus.HELD
        assert here.client.stop_service()
    finally:
        cluster.start_controller()
    here.client.ensure_service()
    run = here.wait(run_id, 150)
    assert (run.status, [t.used for t in run.tasks.values()]) == (RunStatus.DONE, [{}]), run.error
    assert len(here.began(f"held-{mode}")) == len(here.ended(f"held-{mode}")) == 1


def test_a_held_run_that_is_cancelled_is_over_when_its_site_can_say_that_there_is_no_job(
    here: Product, cluster: Cluster
) -> None:
    cluster.stop_controller()
    try:
        run_id = here.start({"01-A": here.stage("held-cancelled")}, site="hurried")
        here.until_why(run_id, "on hold because site 'hurried' is down")
        here.client.cancel(run_id)
        here.until_why(run_id, "It is being cancelled")
    finally:
        cluster.start_controller()
    assert here.wait(run_id).status is RunStatus.ABORTED
    assert here.jobs_of(run_id) == []
    assert here.began("held-cancelled") == []


def test_a_node_dies(here: Product, cluster: Cluster) -> None:
    run_id = here.start({"01-A": here.stage("node", 120)})
    here.until_began("node")
    (name,) = here.jobs_of(run_id)[0].nodes
    here.go("node")  # the next attempt is short
    cluster.kill_node(name)
    try:
        run = here.wait(run_id, 150)
    finally:
        cluster.start_node(name)
    assert (run.status, attempts(run)) == (RunStatus.DONE, [2]), run.error
    assert [t.used for t in run.tasks.values()] == [{FailureClass.NODE: 1}]
    assert len(here.ended("node")) == 1


def test_a_job_is_preempted_by_realtime(here: Product, cluster: Cluster) -> None:
    nodes = cluster.plan.nodes
    low = here.start({"01-A": here.stage("low", 100, queue="regular", resources={"nodes": nodes, "coresPerRank": 2})})
    here.until_began("low")
    high = here.run({"01-A": here.stage("high", 0, queue="realtime", resources={"nodes": nodes, "coresPerRank": 2})})
    assert high.status is RunStatus.DONE
    here.go("low")
    run = here.wait(low)
    assert (run.status, attempts(run)) == (RunStatus.DONE, [2]), run.error
    assert [t.used for t in run.tasks.values()] == [{FailureClass.PREEMPTED: 1}]
    assert len(set(here.began("low"))) == 2
    assert len(here.ended("low")) == nodes  # once on each of its ranks
    assert len(set(here.ended("low"))) == 1


def test_walltime_exceeded_is_repeated_once_and_longer(here: Product) -> None:
    stage = here.stage("slow", 80, resources={"walltime": 60})
    run_id = here.start({"01-A": stage})
    here.until_began("slow", 2, 100)
    here.go("slow")
    run = here.wait(run_id)
    assert (run.status, attempts(run)) == (RunStatus.DONE, [2]), run.error
    assert [t.used for t in run.tasks.values()] == [{FailureClass.WALLTIME: 1}]
    assert len(here.began("slow")) == 2
    assert len(here.ended("slow")) == 1
    limits = [job.walltime_s for job in here.jobs_of(run.id)]
    assert limits[-1] == 120.0


def test_a_walltime_that_cannot_be_longer_fails_and_says_so(here: Product) -> None:
    stage = here.stage("slower", 300, queue="debug", resources={"walltime": 60}, retries={"walltime": 0})
    run = here.run({"01-A": stage}, 120)
    assert run.status is RunStatus.FAILED
    said = here.why(run.id)
    assert "walltime of 60 s" in said.sentence
    assert "walltime" in said.next
    assert here.ended("slower") == []


def test_a_job_that_needs_more_memory_gets_more_once(here: Product) -> None:
    program = here.work / "hungry.py"
    program.write_text(
        "import time\nx = bytearray(600_000_000)\nfor i in range(0, len(x), 4096): x[i] = 1\ntime.sleep(30)\n"
    )
    run = here.run({"01-A": {"command": f"python3 {program}", "resources": {"memory": "200MB"}}})
    assert (run.status, attempts(run)) == (RunStatus.FAILED, [2])
    assert [t.used for t in run.tasks.values()] == [{FailureClass.MEMORY: 1}]
    said = here.why(run.id)
    assert "used more memory than it had" in said.sentence
    assert "`memory`" in said.next


def occupied(slurm: Slurm, name: str, until_s: float) -> None:
    """A reservation of one node that is open, and full."""
    now = time.time()
    reservations.create(slurm, name, from_at=now, until_at=now + until_s, nodes=1, users=["root"])
    words = [f"--reservation={name}", f"--job-name=bw-fills-{name}", "--exclusive", "--time=5", "--wrap=sleep 300"]
    answer = slurm.calls.run(["sbatch", "--parsable", *words])
    assert answer.rc == 0, answer


def test_a_reservation_ends_while_a_job_waits_in_it(here: Product) -> None:
    slurm = slurm_of(here)
    occupied(slurm, "doomed", 600)
    run_id = here.start({"01-A": here.stage("doomed")}, site="patient", reservation="doomed")
    said = here.until_why(run_id, "in reservation 'doomed' waits for free nodes")
    assert said.contact
    number = here.job(run_id)
    reservations.extend(slurm, "doomed", until_at=time.time() + 3)
    run = here.wait(run_id)
    assert run.status is RunStatus.DONE, run.error
    assert [t.used for t in run.tasks.values()] == [{FailureClass.RESERVATION: 1}]
    assert number not in here.began("doomed")
    assert len(here.ended("doomed")) == 1


def test_a_reservation_is_full_for_longer_than_the_policy_waits(here: Product) -> None:
    slurm = slurm_of(here)
    occupied(slurm, "full", 600)
    run_id = here.start({"01-A": here.stage("full")}, reservation="full")
    run = here.wait(run_id)
    assert run.status is RunStatus.DONE, run.error
    assert [t.used for t in run.tasks.values()] == [{FailureClass.RESERVATION: 1}]
    (last,) = [job for job in here.jobs_of(run_id) if job.id in here.ended("full")]
    assert (last.queue, last.reservation) == ("realtime", "")


def test_a_job_waits_for_its_reservation_to_open(here: Product) -> None:
    slurm, opens = slurm_of(here), time.time() + 20
    reservations.create(slurm, "soon", from_at=opens, until_at=opens + 600, nodes=1, users=["root"])
    run_id = here.start({"01-A": here.stage("soon")}, reservation="soon")
    here.until_why(run_id, "waits for its reservation 'soon', which opens at ")
    run = here.wait(run_id)
    assert (run.status, attempts(run)) == (RunStatus.DONE, [1]), run.error
    assert here.jobs_of(run_id)[0].started_at >= opens - 1


def test_a_job_is_cancelled_outside(here: Product) -> None:
    run_id = here.start({"01-A": here.stage("outside", 60)})
    here.until_began("outside")
    slurm_of(here).calls.run(["scancel", here.job(run_id)])
    run = here.wait(run_id)
    assert (run.status, attempts(run)) == (RunStatus.FAILED, [1])
    said = here.why(run_id)
    assert "was cancelled from outside" in said.sentence
    assert said.next
    assert here.ended("outside") == []


def test_a_job_is_held_outside(here: Product) -> None:
    """Its partition starts nothing meanwhile, so that the hold comes before the job's beginning."""
    slurm = slurm_of(here)
    slurm.calls.run(["scontrol", "update", "PartitionName=regular", "State=DOWN"])
    try:
        run_id = here.start({"01-A": here.stage("held", resources={"coresPerRank": 2}, queue="regular")}, account="")
        slurm.calls.run(["scontrol", "hold", here.job(run_id)])
    finally:
        slurm.calls.run(["scontrol", "update", "PartitionName=regular", "State=UP"])
    here.until_why(run_id, "is held")
    assert here.began("held") == []
    slurm.calls.run(["scontrol", "release", here.job(run_id)])
    assert here.wait(run_id).status is RunStatus.DONE


def test_a_cancel_reaches_the_scheduler(here: Product) -> None:
    run_id = here.start({"01-A": here.stage("cancel", 60)})
    here.until_began("cancel")
    here.client.cancel(run_id)
    assert here.wait(run_id).status is RunStatus.ABORTED
    assert here.scheduler.mine(f"bw-{run_id}") == []
    assert here.ended("cancel") == []


def test_a_waiting_job_is_cancelled(here: Product) -> None:
    run_id = here.start({"01-A": here.stage("waiting", resources={"nodes": 4, "coresPerRank": 2})})
    here.job(run_id)
    here.client.cancel(run_id)
    assert here.wait(run_id).status is RunStatus.ABORTED
    assert here.scheduler.mine(f"bw-{run_id}") == []


def test_exit_zero_without_an_exit_record_is_no_success(here: Product, tmp_path: Path) -> None:
    """A job whose payload was killed, and whose script ended well all the same."""
    command = "bash -c 'kill -9 $PPID; sleep 1'"
    run = here.run({"01-A": {"command": command, "retries": 0}})
    assert run.status is RunStatus.FAILED
    assert run.tasks[0].outcome is not None
    assert run.tasks[0].outcome.failure is FailureClass.LOST
    assert "no exit record" in here.why(run.id).sentence


def test_a_job_that_slurm_has_forgotten(here: Product, cluster: Cluster) -> None:
    """Its record tells how it ended, although the agent and Slurm have both looked away."""
    run_id = here.start({"01-A": here.stage("forgotten", 5)})
    here.until_began("forgotten")
    here.client.stop_service()
    number = here.jobs_of(run_id)[0].id
    here.until(lambda: here.scheduler.jobs([number])[number].state.value == "gone", 100, "Slurm to forget")
    run = here.wait(run_id)
    assert (run.status, attempts(run)) == (RunStatus.DONE, [1]), run.error
    assert len(here.began("forgotten")) == 1


@pytest.mark.parametrize("mode", ["batch", "pilot"])
def test_parallel_tasks_of_several_sizes_side_by_side(here: Product, mode: str) -> None:
    sizes = [(1, 2), (2, 1), (2, 2), (3, 1), (4, 2)]
    stages = {
        f"0{n}-{nodes}x{ranks}": {
            "function": "tests.cluster.calls:rank_of",
            "arguments": {"path": str(here.work / f"{mode}-{nodes}x{ranks}")},
            "resources": {"nodes": nodes, "ranksPerNode": ranks},
            "after": [],
        }
        for n, (nodes, ranks) in enumerate(sizes, 1)
    }
    run = here.run(stages, 200, mode=mode)
    assert run.status is RunStatus.DONE, run.error
    for nodes, ranks in sizes:
        seen = [line.split() for line in (here.work / f"{mode}-{nodes}x{ranks}").read_text().splitlines()]
        assert sorted(int(rank) for rank, _ in seen) == list(range(nodes * ranks))
        assert len({host for _, host in seen}) == nodes
