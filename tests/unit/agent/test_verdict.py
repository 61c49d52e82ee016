"""What became of an attempt in a batch job: only what the payload itself wrote can be a success."""

from __future__ import annotations

import pytest

from orchestrator.agent import verdict
from orchestrator.agent.verdict import Limits
from orchestrator.jobs import OVER, Job, JobState
from orchestrator.jobscript import Record
from orchestrator.model import FailureClass, Outcome

CLASSES = {
    JobState.DONE: FailureClass.LOST,
    JobState.FAILED: FailureClass.LOST,
    JobState.GONE: FailureClass.LOST,
    JobState.CANCELLED: FailureClass.OUTSIDE,
    JobState.WALLTIME: FailureClass.WALLTIME,
    JobState.MEMORY: FailureClass.MEMORY,
    JobState.NODE: FailureClass.NODE,
    JobState.PREEMPTED: FailureClass.PREEMPTED,
    JobState.REFUSED: FailureClass.SITE,
}
HOUR = Limits(walltime_s=3600, warning_s=60)


def job(state: JobState, **more: object) -> Job:
    return Job("7", "bw-r.0.1", state, **more)  # type: ignore[arg-type]


def record(lasted_s: float = 10.0, *, signal: str = "", status: int = 0, step: str = "run") -> Record:
    return Record("7", "n1", 1000.0, 1000.0 + lasted_s, signal, status, step)


def test_every_end_that_a_scheduler_names_is_known() -> None:
    assert CLASSES.keys() == OVER


@pytest.mark.parametrize("state", sorted(OVER))
@pytest.mark.parametrize("left", [None, record(), record(status=1)], ids=["no record", "status 0", "status 1"])
def test_without_an_outcome_no_end_is_a_success(state: JobState, left: Record | None) -> None:
    outcome = verdict.of(job(state), None, left, HOUR)
    assert outcome.failure is CLASSES[state]
    assert outcome.reason.startswith("job 7 ")
    assert outcome.job == "7"


@pytest.mark.parametrize("state", sorted(OVER))
def test_what_the_payload_wrote_goes_before_what_the_scheduler_says(state: JobState) -> None:
    assert verdict.of(job(state), Outcome(metrics={"n": 1}), None, HOUR) == Outcome(metrics={"n": 1}, job="7")
    bad = Outcome(FailureClass.BAD_OUTPUT, "it is empty")
    assert verdict.of(job(state), bad, record(status=1), HOUR).failure is FailureClass.BAD_OUTPUT


def test_the_words_of_the_scheduler_are_passed_on() -> None:
    outcome = verdict.of(job(JobState.NODE, reason="node n3 went down"), None, None, HOUR)
    assert outcome.reason == "job 7 lost a node (node n3 went down)"


def test_an_environment_that_cannot_be_prepared_is_the_fault_of_the_site() -> None:
    outcome = verdict.of(job(JobState.FAILED), None, record(status=127, step="init"), HOUR, last_words="no such module")
    assert outcome.failure is FailureClass.SITE
    assert outcome.reason == "job 7: the environment could not be prepared (exit status 127): no such module"


def test_last_words_belong_to_losses_only() -> None:
    assert verdict.of(job(JobState.GONE), None, None, HOUR, last_words="oops").reason.endswith(": oops")
    assert "oops" not in verdict.of(job(JobState.PREEMPTED), None, None, HOUR, last_words="oops").reason


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED, JobState.GONE, JobState.CANCELLED])
@pytest.mark.parametrize("outcome", [None, Outcome(FailureClass.CANCELLED, "asked to end")])
def test_a_signal_at_the_end_of_the_walltime_is_the_walltime(state: JobState, outcome: Outcome | None) -> None:
    found = verdict.of(job(state), outcome, record(3538, signal="TERM", status=1), HOUR)
    assert found.failure is FailureClass.WALLTIME
    assert found.reason == "job 7 was ended after its walltime of 3600 s"


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED, JobState.GONE, JobState.CANCELLED])
def test_a_signal_before_that_came_from_somebody(state: JobState) -> None:
    found = verdict.of(job(state), Outcome(FailureClass.CANCELLED), record(100, signal="TERM", status=1), HOUR)
    assert found.failure is FailureClass.OUTSIDE


def test_a_job_that_is_cancelled_at_its_walltime_without_a_record_was_cancelled_for_that() -> None:
    seen = job(JobState.CANCELLED, started_at=1000.0, ended_at=4599.0)
    assert verdict.of(seen, None, None, HOUR).failure is FailureClass.WALLTIME


def test_preemption_stays_preemption_although_a_signal_came() -> None:
    found = verdict.of(job(JobState.PREEMPTED), Outcome(FailureClass.CANCELLED), record(3550, signal="TERM"), HOUR)
    assert found.failure is FailureClass.PREEMPTED


def test_a_walltime_that_cannot_grow_is_a_timeout() -> None:
    limits = Limits(walltime_s=3600, warning_s=60, longest_s=3600)
    found = verdict.of(job(JobState.WALLTIME), None, None, limits)
    assert found.failure is FailureClass.TIMEOUT
    assert found.reason.endswith("and the queue allows no longer")


def test_the_times_of_the_job_stand_in_for_those_of_the_attempt() -> None:
    found = verdict.of(job(JobState.NODE, started_at=5.0, ended_at=9.0), None, None, HOUR)
    assert (found.started_at, found.ended_at) == (5.0, 9.0)
