"""Slurm itself: the contract of all schedulers, and what only it does. Skipped, with the reason, without it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.agent import verdict
from orchestrator.errors import UserError
from orchestrator.jobs import Job, JobState, Refused, ReservationGone, SchedulerSilent
from slurm import reservations
from slurm.client import Slurm
from slurm.cluster import Cluster
from tests.cluster import real
from tests.cluster import slurm as trial
from tests.unit.schedulers.contract import Bench, SchedulerContract

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "sinfo", "scontrol", "sacctmgr")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with trial.running() as here:
        yield here


@pytest.fixture(scope="module")
def accounted() -> Iterator[Cluster]:
    with trial.running(accounting=True) as here:
        yield here


@pytest.fixture
def bench(cluster: Cluster, tmp_path: Path) -> Iterator[Bench]:
    yield (made := bench_of(cluster, tmp_path))
    clear(made)


@pytest.fixture
def accounted_bench(accounted: Cluster, tmp_path: Path) -> Iterator[Bench]:
    yield (made := bench_of(accounted, tmp_path / "accounted"))
    clear(made)


def clear(bench: Bench) -> None:
    slurm = slurm_of(bench)
    slurm.cancel([job.id for job in slurm.mine("bw-")])
    for name in slurm.reservations():
        reservations.delete(slurm, name)


def bench_of(cluster: Cluster, directory: Path) -> Bench:
    return real.bench(
        directory,
        lambda folder, seconds: Slurm(environment=cluster.environment, bin_dir=folder, timeout_s=seconds),
        commands={name: Path(shutil.which(name) or name) for name in COMMANDS},
        submit="sbatch",
        lost="sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        pause=cluster.pause_controller,
        resume=cluster.resume_controller,
        silent_s=1.0,
        waiting={"options": ("--begin=now+1hour",)},
        warned=JobState.FAILED,
        end_s=90,
    )


def slurm_of(bench: Bench) -> Slurm:
    assert isinstance(bench.scheduler, Slurm)
    return bench.scheduler


class TestSlurm(SchedulerContract):
    def test_one_call_tells_of_all_jobs(self, bench: Bench) -> None:
        slurm = slurm_of(bench)
        numbers = [bench.run(f"bw-bulk-{n}", ["sleep", "60"]) for n in range(8)]
        slurm.jobs(numbers)
        before = slurm.calls.count
        assert len(slurm.jobs(numbers)) == 8
        assert slurm.calls.count == before + 1
        slurm.cancel(numbers)
        assert slurm.calls.count == before + 2
        for number in numbers:
            bench.until(number)

    def test_a_job_gets_the_devices_of_its_node(self, bench: Bench) -> None:
        bench.until(bench.run("bw-gpus", ["bash", "-c", "echo $CUDA_VISIBLE_DEVICES"], gpus_per_node=2))
        assert (bench.directory / "bw-gpus.out").read_text() == "0,1\n"

    def test_a_job_on_several_nodes(self, bench: Bench) -> None:
        number = bench.run("bw-wide", ["srun", "bash", "-c", "echo $SLURM_PROCID"], nodes=2, ranks_per_node=2)
        job = bench.until(number)
        assert job.state is JobState.DONE
        assert len(job.nodes) == 2
        assert sorted((bench.directory / "bw-wide.out").read_text().split()) == ["0", "1", "2", "3"]

    @pytest.mark.parametrize(
        ("asked", "word"),
        [
            ({"queue": "nothere"}, "partition"),
            ({"nodes": 400}, "more|More"),
            ({"gpus_per_node": 9}, "configuration"),
            ({"options": ("--nonsense",)}, "nonsense"),
            ({"queue": "debug", "walltime_s": 7200.0}, "time"),
        ],
    )
    def test_what_slurm_will_not_have_is_refused_in_its_words(
        self, bench: Bench, asked: dict[str, object], word: str
    ) -> None:
        with pytest.raises(Refused, match=word):
            bench.run("bw-refused", ["true"], **asked)
        assert slurm_of(bench).mine("bw-refused") == []  # it may keep a failed one

    def test_it_says_when_a_job_would_start(self, bench: Bench) -> None:
        at = slurm_of(bench).starts_at(bench.spec("bw-when", ["true"]))
        assert at is not None
        assert abs(at - time.time()) < 60

    def test_a_job_waits_for_its_reservation_and_says_when_that_opens(self, bench: Bench) -> None:
        slurm = slurm_of(bench)
        opens = time.time() + 3600
        made = reservations.create(slurm, "later", from_at=opens, until_at=opens + 3600, nodes=1, users=["root"])
        assert abs(made.from_at - opens) < 2
        assert not made.active
        number = bench.run("bw-later", ["true"], reservation="later")
        clock = time.strftime("%H:%M", time.localtime(made.from_at))
        job = self.waiting_with_reason(bench, number)
        assert job.reason == f"waits for its reservation 'later', which opens at {clock}"
        reservations.detach(slurm, number)
        assert bench.until(number).state is JobState.DONE
        reservations.delete(slurm, "later")
        assert "later" not in slurm.reservations()

    def test_a_reservation_is_prolonged_and_jobs_moved_into_it(self, bench: Bench) -> None:
        slurm = slurm_of(bench)
        now = time.time()
        reservations.create(slurm, "beam", from_at=now, until_at=now + 600, nodes=2, users=["root"])
        reservations.extend(slurm, "beam", until_at=now + 1200)
        there = slurm.reservations()["beam"]
        assert abs(there.until_at - now - 1200) < 2
        assert (there.node_count, there.active, there.users) == (2, True, ("root",))
        number = bench.run("bw-in", ["true"], reservation="beam")
        done = bench.until(number)
        assert done.state is JobState.DONE
        assert set(done.nodes) <= set(there.nodes)
        other = bench.run("bw-moved", ["true"], reservation="", options=("--hold",))
        assert slurm.jobs([other])[other].state is JobState.HELD
        reservations.attach(slurm, other, "beam")
        assert slurm.jobs([other])[other].reservation == "beam"

    @pytest.mark.parametrize("name", ["", "-x", "a b", "a;b", "a=b", "a,b"])
    def test_a_name_that_is_none_makes_no_reservation(self, bench: Bench, name: str) -> None:
        now = time.time()
        with pytest.raises(UserError):
            reservations.create(slurm_of(bench), name, from_at=now, until_at=now + 60, nodes=1, users=["root"])

    def test_a_reservation_larger_than_the_machine_is_refused(self, bench: Bench) -> None:
        now = time.time()
        with pytest.raises(Refused):
            reservations.create(slurm_of(bench), "big", from_at=now, until_at=now + 600, nodes=99, users=["root"])
        with pytest.raises(ReservationGone):
            bench.run("bw-big", ["true"], reservation="big")

    def test_a_job_is_preempted_by_one_with_more_right(self, bench: Bench, cluster: Cluster) -> None:
        nodes = cluster.plan.nodes
        low = bench.run("bw-low", ["sleep", "100"], queue="regular", nodes=nodes, exclusive=True)
        bench.until(low, [JobState.RUNNING])
        high = bench.run("bw-high", ["true"], queue="realtime", nodes=nodes, exclusive=True)
        assert bench.until(high).state is JobState.DONE
        seen = bench.until(low)
        assert seen.state is JobState.PREEMPTED
        assert seen.reason

    def test_a_job_whose_node_dies(self, bench: Bench, cluster: Cluster) -> None:
        number = bench.run("bw-node", ["sleep", "100"])
        (name,) = bench.until(number, [JobState.RUNNING]).nodes
        cluster.kill_node(name)
        try:
            assert bench.until(number).state in (JobState.NODE, JobState.GONE)
        finally:
            cluster.start_node(name)
            trial.until_idle(cluster)

    def test_a_controller_that_is_down_is_silent_and_forgets_nothing(self, bench: Bench, cluster: Cluster) -> None:
        slurm = slurm_of(bench)
        number = bench.run("bw-down", ["sleep", "3"])
        cluster.stop_controller()
        try:
            slurm.calls.timeout_s = 3
            with pytest.raises(SchedulerSilent):
                slurm.jobs([number])
            with pytest.raises(SchedulerSilent):
                slurm.submit_once(bench.spec("bw-down-2", ["true"]))
        finally:
            slurm.calls.timeout_s = 15
            cluster.start_controller()
        assert bench.until(number).state is JobState.DONE

    def waiting_with_reason(self, bench: Bench, number: str) -> Job:
        deadline = time.monotonic() + 30
        while "reservation" not in (job := slurm_of(bench).jobs([number])[number]).reason:
            assert time.monotonic() < deadline, job
            time.sleep(0.2)
        return job


def test_accounts_are_those_of_the_accounting(bench: Bench, accounted_bench: Bench) -> None:
    assert slurm_of(bench).accounts() is None
    assert {"beamline", "other"} <= (slurm_of(accounted_bench).accounts() or frozenset())
    with pytest.raises(Refused, match="account"):
        accounted_bench.run("bw-account", ["true"], account="nobody")


def test_a_job_that_slurm_has_forgotten_is_gone_or_accounted_for(bench: Bench, accounted_bench: Bench) -> None:
    numbers = [one.run("bw-forgotten", ["bash", "-c", "exit 5"]) for one in (bench, accounted_bench)]
    for one, number in zip((bench, accounted_bench), numbers, strict=True):
        one.until(number)
        deadline = time.monotonic() + 90
        while number in slurm_of(one).ask(["squeue", "--states=all", "--noheader", "--format=%i"]).out.split():
            assert time.monotonic() < deadline
            time.sleep(1)
    assert bench.open().jobs(numbers[:1])[numbers[0]].state is JobState.GONE
    assert bench.open().find("bw-forgotten") == []
    job = accounted_bench.open().jobs(numbers[1:])[numbers[1]]
    assert (job.state, job.exit_status, job.token) == (JobState.FAILED, 5, "bw-forgotten")
    assert [j.id for j in accounted_bench.open().find("bw-forgotten")] == numbers[1:]


def test_a_job_that_uses_more_memory_than_it_asked_for_says_so_on_its_stderr(bench: Bench) -> None:
    hungry = "x = bytearray(400_000_000)\nimport time\nfor i in range(0, len(x), 4096): x[i] = 1\ntime.sleep(60)"
    number = bench.run("bw-hungry", ["python3", "-c", hungry], memory_bytes=100_000_000)
    job = bench.until(number)
    assert job.state in (JobState.MEMORY, JobState.FAILED)  # without control groups Slurm calls it failed
    assert verdict.OUT_OF_MEMORY.search((bench.directory / "bw-hungry.err").read_text())
