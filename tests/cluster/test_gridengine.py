"""Grid Engine itself: the contract of all schedulers, and what only it does. Skipped, with the reason, without it."""

from __future__ import annotations

import os
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import schedulers
from orchestrator.jobs import Job, JobState, Refused, ReservationGone, SchedulerSilent
from orchestrator.schedulers.sge import GridEngine
from sites.schema import SiteProfile
from tests.cluster import gridengine, real
from tests.cluster.gridengine import SLOTS, GridEngineHere
from tests.unit.schedulers.contract import Bench, SchedulerContract

COMMANDS = ("qsub", "qstat", "qdel", "qacct", "qconf", "qrsub", "qrstat", "qrdel")
LOST = "Unable to run job: failed receiving gdi request response for mid=1 (got syncron message receive timeout error)."


@pytest.fixture(scope="session")
def engine() -> Iterator[GridEngineHere]:
    if reason := gridengine.missing():
        pytest.skip(reason)
    with gridengine.running() as here:
        yield here


@pytest.fixture
def bench(engine: GridEngineHere, tmp_path: Path) -> Iterator[Bench]:
    made = real.bench(
        tmp_path,
        lambda folder, seconds: GridEngine(environment=engine.environment, bin_dir=folder, timeout_s=seconds),
        commands={name: gridengine.PROGRAMS / name for name in COMMANDS},
        submit="qsub",
        lost=LOST,
        pause=engine.pause_master,
        resume=engine.resume_master,
        silent_s=1.5,
        waiting={"ranks_per_node": SLOTS + 1},
        end_s=40,
    )
    yield made
    left = made.scheduler.mine("bw-")
    made.scheduler.cancel([job.id for job in left])
    for job in left:
        made.until(job.id)


class TestGridEngine(SchedulerContract):
    def test_an_answer_that_comes_too_late_leaves_one_job(self, bench: Bench, engine: GridEngineHere) -> None:
        """The master takes the request when it goes on, long after its command has been given up."""
        scheduler = bench.scheduler
        assert isinstance(scheduler, GridEngine)
        scheduler.calls.timeout_s = 1.5
        spec = bench.spec("bw-late", ["bash", "-c", "echo ran >>bw-late.ran"])
        engine.pause_master()
        try:
            with pytest.raises(SchedulerSilent):
                scheduler.submit_once(spec)
        finally:
            engine.resume_master()
        scheduler.calls.timeout_s = 15
        number = scheduler.submit_once(spec, known=True)
        bench.until(number)
        time.sleep(3)
        assert (bench.directory / "bw-late.ran").read_text() == "ran\n"

    def test_a_job_that_cannot_be_started_is_refused_with_its_words(self, bench: Bench) -> None:
        number = bench.run("bw-eqw", ["true"], directory="/no/such/place")
        job = bench.until(number, [JobState.REFUSED])
        assert "/no/such/place" in job.reason
        assert job.word == "Eqw"
        assert bench.scheduler.mine("bw-eqw") == []
        bench.scheduler.cancel([number])
        deadline = time.monotonic() + 20
        while bench.scheduler.jobs([number])[number].word == "Eqw":
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def test_a_job_that_takes_too_long_is_killed_at_its_walltime(self, bench: Bench) -> None:
        number = bench.run("bw-long", ["bash", "-c", "trap '' TERM USR1 USR2; sleep 100"], walltime_s=2.0)
        job = bench.until(number)
        assert job.state is JobState.WALLTIME
        assert job.reason

    def test_a_job_that_is_killed_by_somebody_else_has_failed(self, bench: Bench, engine: GridEngineHere) -> None:
        number = bench.run("bw-gone", ["bash", "-c", "touch bw-up; sleep 100"])
        bench.wait_for("bw-up")
        engine.ask("qdel", number)
        job = bench.until(number)
        assert job.state is JobState.FAILED
        assert job.reason

    def test_a_held_job_is_held(self, bench: Bench) -> None:
        number = bench.run("bw-held", ["true"], options=("-h",))
        assert bench.until(number, [JobState.HELD]).reason

    def test_a_suspended_job_is_suspended(self, bench: Bench, engine: GridEngineHere) -> None:
        number = bench.run("bw-stop", ["bash", "-c", "touch bw-up; sleep 100"])
        bench.wait_for("bw-up")
        bench.until(number, [JobState.RUNNING])
        engine.ask("qmod", "-sj", number)
        assert bench.until(number, [JobState.SUSPENDED]).reason
        engine.ask("qmod", "-usj", number)

    @pytest.mark.parametrize(
        ("wrong", "word"),
        [
            ({"queue": "nope.q"}, "nope.q"),
            ({"account": "nope"}, "nope"),
            ({"options": ("-l", "fpga=1")}, "fpga"),
            ({"exclusive": True}, "exclusive"),
        ],
    )
    def test_what_the_site_has_not_is_refused_in_its_words(
        self, bench: Bench, wrong: dict[str, object], word: str
    ) -> None:
        with pytest.raises(Refused, match=word):
            bench.run("bw-wrong", ["true"], **wrong)
        assert bench.scheduler.find("bw-wrong") == []

    def test_a_reservation_by_number_that_is_not_there_is_gone(self, bench: Bench) -> None:
        with pytest.raises(ReservationGone):
            bench.run("bw-wrong", ["true"], reservation="4711")

    def test_a_job_runs_in_its_reservation(self, bench: Bench) -> None:
        scheduler = bench.scheduler
        assert isinstance(scheduler, GridEngine)
        start = time.time() + 3
        number = scheduler.reserve("bw-beam", from_at=start, until_at=start + 300, slots=2)
        try:
            held = scheduler.reservations()["bw-beam"]
            assert abs(held.from_at - start) <= 1
            assert abs(held.until_at - start - 300) <= 1
            assert held.queue == "all.q"
            assert held.node_count == 1
            job = bench.until(bench.run("bw-in", ["true"], reservation="bw-beam", walltime_s=60.0))
            assert job.state is JobState.DONE
            assert job.reservation == number
            assert job.started_at >= start - 1
            assert scheduler.reservations()["bw-beam"].active
        finally:
            scheduler.release(number)
        assert scheduler.reservations() == {}

    def test_slots_and_memory_are_asked_for(self, bench: Bench, engine: GridEngineHere) -> None:
        number = bench.run(
            "bw-slots",
            ["bash", "-c", "echo $NSLOTS $PE; sleep 100"],
            nodes=2,
            ranks_per_node=2,
            memory_bytes=1 << 20,
            queue="all.q",
        )
        bench.until(number, [JobState.RUNNING])
        asked = engine.ask("qstat", "-j", number)
        assert "mem_free=512K" in asked
        assert "h_rt=300" in asked
        deadline = time.monotonic() + 10
        while not (out := (bench.directory / "bw-slots.out").read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert out == "4 mpi\n"

    def test_a_look_is_a_few_calls_whatever_the_number_of_jobs(self, bench: Bench) -> None:
        scheduler = bench.scheduler
        assert isinstance(scheduler, GridEngine)
        numbers = [bench.run(f"bw-few-{n}", ["true"], options=("-h",)) for n in range(12)]
        before = scheduler.calls.count
        assert {job.state for job in scheduler.jobs(numbers).values()} == {JobState.HELD}
        assert scheduler.calls.count - before == 1
        scheduler.cancel(numbers)
        for number in numbers:
            bench.until(number)
        before = scheduler.calls.count
        scheduler.jobs(numbers)
        assert scheduler.calls.count - before <= 2

    def test_looks_from_many_threads(self, bench: Bench) -> None:
        numbers = [bench.run(f"bw-threads-{n}", ["sleep", "1"]) for n in range(4)]
        seen: list[dict[str, Job]] = []
        threads = [threading.Thread(target=lambda: seen.append(bench.scheduler.jobs(numbers))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 8
        assert all(found.keys() == set(numbers) for found in seen)

    def test_a_restarted_master_remembers(self, bench: Bench, engine: GridEngineHere) -> None:
        number = bench.run("bw-restart", ["bash", "-c", "touch bw-up; sleep 4"])
        bench.wait_for("bw-up")
        engine.kill_master()
        with pytest.raises(SchedulerSilent):
            bench.scheduler.jobs([number])
        engine.restart_master()
        assert bench.until(number).state is JobState.DONE

    def test_a_profile_opens_it(self, engine: GridEngineHere, tmp_path: Path) -> None:
        profile = SiteProfile.model_validate(tomllib.loads(engine.profile_toml("ge", scratch=tmp_path)))
        scheduler = schedulers.of(profile)
        assert scheduler.kind == "sge"
        assert scheduler.ping().startswith("SGE")
        assert scheduler.queues()["all.q"].idle_nodes >= 0
        assert os.environ.get("SGE_ROOT") != engine.environment["SGE_ROOT"]
