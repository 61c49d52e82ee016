"""How an attempt in a batch job has ended, from three witnesses: the outcome that the payload wrote, the record of the
job's script, and what the scheduler says. Pure.

Only the first can say that it went well. The others name the cause when it is missing.
"""

from __future__ import annotations

import re

from msgspec import Struct
from msgspec.structs import replace

from orchestrator.jobs import Job, JobState
from orchestrator.jobscript import Record
from orchestrator.model import FailureClass, Outcome

OUT_OF_MEMORY = re.compile(r"(?i)exceeded (?:\w+ )?memory limit|oom[-_ ]?kill|out of memory")  # words of schedulers
WARNED = "ALRM"  # the signal of the script's own timer
NEAR_S = 5.0  # clocks and signals are no more exact than this

CLASSES = {
    JobState.CANCELLED: FailureClass.OUTSIDE,
    JobState.WALLTIME: FailureClass.WALLTIME,
    JobState.MEMORY: FailureClass.MEMORY,
    JobState.NODE: FailureClass.NODE,
    JobState.PREEMPTED: FailureClass.PREEMPTED,
    JobState.REFUSED: FailureClass.SITE,
}
_WORDS = {
    JobState.CANCELLED: "was cancelled from outside",
    JobState.WALLTIME: "was over before the work was",
    JobState.MEMORY: "used more memory than it had",
    JobState.NODE: "lost a node",
    JobState.PREEMPTED: "was ended to make room for another job",
    JobState.REFUSED: "cannot be started",
    JobState.GONE: "is not known to the scheduler any more and left no exit record",
    JobState.DONE: "ended with exit status 0 and left no exit record, which is no success",
    JobState.FAILED: "failed and left no exit record",
}


class Limits(Struct, frozen=True):
    """Of the job: how long it may last, how long before that it is warned, and the longest that could be asked for."""

    walltime_s: float = 0.0
    warning_s: float = 0.0
    longest_s: float = 0.0


def of(job: Job, outcome: Outcome | None, record: Record | None, limits: Limits, *, last_words: str = "") -> Outcome:
    """The outcome of the attempt. `last_words`: the end of what the script said on stderr."""
    if outcome is not None and outcome.failure is not FailureClass.CANCELLED:
        return replace(outcome, job=job.id)
    failure, reason = _cause(job, record, limits)
    if outcome is None and record is not None and record.step == "init" and not record.signal:
        failure = FailureClass.SITE
        reason = f"job {job.id}: the environment could not be prepared (exit status {record.status})"
    if outcome is None and failure in (FailureClass.LOST, FailureClass.OUTSIDE) and OUT_OF_MEMORY.search(last_words):
        failure, reason = FailureClass.MEMORY, f"job {job.id} {_WORDS[JobState.MEMORY]}: {last_words}"
    if outcome is None and last_words and failure in (FailureClass.SITE, FailureClass.LOST):
        reason = f"{reason}: {last_words}"
    if failure is FailureClass.WALLTIME:
        asked = f"its walltime of {limits.walltime_s:g} s"
        if limits.longest_s and limits.walltime_s >= limits.longest_s:
            failure = FailureClass.TIMEOUT  # asking for more would be refused
            reason = f"job {job.id} was ended after {asked}, and the queue allows no longer"
        else:
            reason = f"job {job.id} was ended after {asked}"
    base = outcome or Outcome(started_at=job.started_at, ended_at=job.ended_at)
    return replace(base, failure=failure, reason=reason, job=job.id)


def _cause(job: Job, record: Record | None, limits: Limits) -> tuple[FailureClass, str]:
    state = job.state
    if state not in CLASSES and record is not None and record.signal:
        # asked to end and over in time: schedulers call that failed, cancelled or done as it comes
        state = JobState.WALLTIME if _near_the_end(job, record, limits) else JobState.CANCELLED
    words = _WORDS.get(state, f"ended as {state.value}")
    more = f" ({job.reason})" if job.reason else ""
    failure = CLASSES.get(state, FailureClass.LOST)
    if failure is FailureClass.OUTSIDE and _near_the_end(job, record, limits):
        failure = FailureClass.WALLTIME  # what is cancelled at the moment of its walltime was cancelled for that
    return failure, f"job {job.id} {words}{more}"


def _near_the_end(job: Job, record: Record | None, limits: Limits) -> bool:
    if record is not None and record.signal == WARNED:
        return True
    if not limits.walltime_s:
        return False
    if record is not None and record.signal:
        return record.ended - record.started >= limits.walltime_s - limits.warning_s - NEAR_S
    if job.started_at and job.ended_at:
        return job.ended_at - job.started_at >= limits.walltime_s - NEAR_S
    return False
