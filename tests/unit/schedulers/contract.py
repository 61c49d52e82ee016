"""What every scheduler promises (`orchestrator.jobs.Scheduler`), as tests that each adapter's own file inherits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator import jobscript
from orchestrator.errors import UserError
from orchestrator.jobs import ALIVE, OVER, WAITING, Job, JobSpec, JobState, Refused, Scheduler, SchedulerSilent

Switch = Callable[[], contextlib.AbstractContextManager[object]]


@dataclass
class Bench:
    """One scheduler on the bench: how to open it, and the faults that it can be given."""

    open: Callable[[], Scheduler]
    directory: Path
    silent: Switch | None = None  # no command is answered
    lost_answer: Switch | None = None  # a submit is carried out and its answer lost
    waiting: Mapping[str, Any] = field(default_factory=dict)  # what makes a job wait; empty: nothing does
    warned: JobState = JobState.WALLTIME  # what it calls a job that ends by itself with another status when warned
    end_s: float = 20.0
    scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        self.scheduler = self.open()

    def spec(
        self, token: str, argv: Sequence[str], *, init: Sequence[str] = (), environment: dict[str, str] | None = None,
        **more: Any
    ) -> JobSpec:  # fmt: skip
        place = self.directory / token
        script = jobscript.body(argv, record=str(place) + ".record", init=init, environment=environment)
        values: dict[str, Any] = {
            "token": token,
            "script": script,
            "stdout": f"{place}.out",
            "stderr": f"{place}.err",
            "directory": str(self.directory),
            "walltime_s": 300.0,
        }
        return JobSpec(**values | more)

    def run(self, token: str, argv: Sequence[str], **more: Any) -> str:
        return self.scheduler.submit_once(self.spec(token, argv, **more))

    def until(self, number: str, states: Sequence[JobState] | frozenset[JobState] = OVER) -> Job:
        deadline = time.monotonic() + self.end_s
        while (job := self.scheduler.jobs([number])[number]).state not in states:
            assert time.monotonic() < deadline, f"{job} did not become one of {sorted(states)}"
            time.sleep(0.1)
        return job

    def record(self, token: str) -> jobscript.Record | None:
        """The record, which may appear an instant after the scheduler has said that the job is over."""
        deadline = time.monotonic() + 15
        while (found := jobscript.read(f"{self.directory / token}.record")) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + self.end_s
        while not (self.directory / name).exists():
            assert time.monotonic() < deadline, f"{name} did not appear"
            time.sleep(0.05)


class SchedulerContract:
    """Inherited by the tests of each adapter, which give the fixture `bench`."""

    def test_it_says_who_it_is(self, bench: Bench) -> None:
        assert bench.scheduler.ping()
        assert bench.scheduler.kind

    def test_a_job_runs_to_its_end(self, bench: Bench) -> None:
        number = bench.run("bw-runs", ["bash", "-c", "echo out; echo err >&2; pwd"])
        job = bench.until(number)
        assert (job.state, job.token, job.exit_status) == (JobState.DONE, "bw-runs", 0)
        left = bench.record("bw-runs")
        assert left is not None
        assert (left.status, left.step) == (0, "run")
        assert left.job
        assert (bench.directory / "bw-runs.out").read_text() == f"out\n{bench.directory}\n"
        assert (bench.directory / "bw-runs.err").read_text() == "err\n"
        assert abs(job.submitted_at - time.time()) < 120
        assert job.submitted_at - 2 <= job.started_at <= job.ended_at <= time.time() + 2

    @pytest.mark.parametrize("status", [3, 99, 100])
    def test_a_job_that_fails_leaves_its_status(self, bench: Bench, status: int) -> None:
        token = f"bw-fails-{status}"
        job = bench.until(bench.run(token, ["bash", "-c", f"exit {status}"]))
        assert job.state is JobState.FAILED
        assert job.reason
        left = bench.record(token)
        assert left is not None
        assert left.status == status

    def test_a_line_of_the_profile_that_fails_is_step_init(self, bench: Bench) -> None:
        job = bench.until(bench.run("bw-init", ["true"], init=["false"]))
        assert job.state is JobState.FAILED
        left = bench.record("bw-init")
        assert left is not None
        assert left.step == "init"

    def test_jobs_are_found_again_by_their_token(self, bench: Bench) -> None:
        first = bench.run("bw-find-1", ["sleep", "60"])
        second = bench.run("bw-find-2", ["sleep", "60"])
        other = bench.open()
        assert [job.id for job in other.find("bw-find-1")] == [first]
        assert other.find("bw-find") == []
        assert {job.id for job in other.mine("bw-find-")} == {first, second}
        assert other.mine("bw-other-") == []
        assert other.submit_once(bench.spec("bw-find-1", ["sleep", "60"]), known=True) == first
        other.cancel([first, second])
        for number in (first, second):
            bench.until(number)
        assert bench.scheduler.mine("bw-find-") == []

    def test_a_job_that_is_over_is_found_by_its_token(self, bench: Bench) -> None:
        number = bench.run("bw-over", ["true"])
        bench.until(number)
        assert [job.id for job in bench.open().find("bw-over")] == [number]
        assert bench.open().submit_once(bench.spec("bw-over", ["true"]), known=True) == number

    def test_all_jobs_in_one_look(self, bench: Bench) -> None:
        numbers = [bench.run(f"bw-many-{n}", ["true"]) for n in range(6)]
        for number in numbers:
            bench.until(number)
        found = bench.open().jobs([*numbers, "999999"])
        assert {found[n].state for n in numbers} == {JobState.DONE}
        assert found["999999"].state is JobState.GONE
        assert bench.scheduler.jobs([]) == {}

    def test_a_running_job_is_cancelled_and_gets_its_time(self, bench: Bench) -> None:
        payload = "trap 'echo tidy >bw-tidy; exit 4' TERM; touch bw-ready; while :; do sleep 0.1; done"
        number = bench.run("bw-cancel", ["bash", "-c", payload])
        bench.wait_for("bw-ready")
        running = bench.until(number, [JobState.RUNNING])
        assert running.nodes
        assert running.started_at
        bench.scheduler.cancel([number])
        assert bench.until(number).state is JobState.CANCELLED
        bench.wait_for("bw-tidy")
        left = bench.record("bw-cancel")
        assert left is not None
        assert left.status == 4
        assert left.signal
        bench.scheduler.cancel([number, "999999"])

    def test_a_waiting_job_is_cancelled(self, bench: Bench) -> None:
        if not bench.waiting:
            pytest.skip("nothing waits with this scheduler")
        number = bench.run("bw-wait", ["touch", "ran"], **bench.waiting)
        job = bench.until(number, WAITING)
        deadline = time.monotonic() + bench.end_s
        while not (job := bench.scheduler.jobs([number])[number]).reason:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert not job.reason.endswith(".")
        bench.scheduler.cancel([number])
        assert bench.until(number).state in (JobState.CANCELLED, JobState.GONE)
        assert not (bench.directory / "ran").exists()

    def test_a_job_is_warned_before_its_time_is_over(self, bench: Bench) -> None:
        payload = "trap 'exit 6' TERM; touch bw-warn; while :; do sleep 0.1; done"
        number = bench.run("bw-warned", ["bash", "-c", payload], walltime_s=60.0, warning_s=57.0)
        job = bench.until(number)
        assert job.state is bench.warned
        assert job.walltime_s == 60
        left = bench.record("bw-warned")
        assert left is not None
        assert left.status == 6

    def test_two_submits_of_one_token_run_once(self, bench: Bench) -> None:
        spec = bench.spec("bw-twice", ["bash", "-c", "echo ran >>bw-twice.ran; sleep 0.5"])
        numbers = {bench.scheduler.submit_once(spec), bench.open().submit_once(spec)}
        for number in numbers:
            bench.until(number)
        assert (bench.directory / "bw-twice.ran").read_text() == "ran\n"

    def test_an_answer_that_is_lost_leaves_one_job(self, bench: Bench) -> None:
        if bench.lost_answer is None:
            pytest.skip("no answer is lost with this scheduler")
        with bench.lost_answer():
            number = bench.run("bw-lost", ["bash", "-c", "echo ran >>bw-lost.ran"])
        assert bench.until(number).state is JobState.DONE
        assert [job.id for job in bench.scheduler.find("bw-lost")] == [number]
        assert (bench.directory / "bw-lost.ran").read_text() == "ran\n"

    def test_silence_is_never_absence(self, bench: Bench) -> None:
        number = bench.run("bw-silent", ["sleep", "60"])
        if bench.silent is not None:
            with bench.silent():
                for ask in (
                    bench.scheduler.ping,
                    lambda: bench.scheduler.jobs([number]),
                    lambda: bench.scheduler.find("bw-silent"),
                    lambda: bench.scheduler.mine("bw-"),
                    lambda: bench.scheduler.cancel(["999999"]),  # what is sent now may be carried out later
                    bench.scheduler.queues,
                    lambda: bench.scheduler.submit_once(bench.spec("bw-unheard", ["true"])),
                ):
                    with pytest.raises(SchedulerSilent):
                        ask()
        assert bench.scheduler.jobs([number])[number].state in ALIVE
        bench.scheduler.cancel([number])
        bench.until(number)

    @pytest.mark.parametrize("token", ["", "1abc", "a b", "a;b", "-N", "a\nb", "a" * 200, "a/b", "$(x)", "a:b"])
    def test_a_token_that_is_no_name_is_refused(self, bench: Bench, token: str) -> None:
        spec = JobSpec(token, "true\n", stdout="/dev/null", stderr="/dev/null")
        with pytest.raises(UserError):
            bench.scheduler.submit_once(spec)

    @pytest.mark.parametrize("path", ["relative", "/a:b", "/a,b", "/$HOME", "/a\nb", "/a\0b", ""])
    def test_a_path_that_means_something_else_is_refused(self, bench: Bench, path: str) -> None:
        for name in ("stdout", "stderr", "directory"):
            with pytest.raises(UserError):
                bench.run("bw-path", ["true"], **{name: path})
        assert bench.scheduler.find("bw-path") == []

    def test_words_of_a_script_are_never_directives(self, bench: Bench) -> None:
        hostile = "\n#$ -N bw-other\n#PBS -N bw-other\n#SBATCH -J bw-other\n"
        number = bench.run("bw-own", ["printf", "%s", hostile])
        assert bench.until(number).token == "bw-own"
        assert (bench.directory / "bw-own.out").read_text() == hostile

    def test_a_path_with_blanks_is_one_path(self, bench: Bench) -> None:
        place = bench.directory / "a b"
        place.mkdir()
        number = bench.run("bw-blank", ["pwd"], directory=str(place), stdout=str(place / "o u t"))
        assert bench.until(number).state is JobState.DONE
        assert (place / "o u t").read_text() == f"{place}\n"

    def test_a_reservation_that_is_not_there_is_refused(self, bench: Bench) -> None:
        with pytest.raises(Refused):
            bench.run("bw-reserved", ["true"], reservation="nothere")

    def test_what_there_is(self, bench: Bench) -> None:
        queues = bench.scheduler.queues()
        assert queues
        assert all(name == queue.name and queue.open for name, queue in queues.items())
        assert bench.scheduler.reservations() == {}
        accounts = bench.scheduler.accounts()
        assert accounts is None or isinstance(accounts, frozenset)
        bench.scheduler.starts_at(bench.spec("bw-when", ["true"]))
