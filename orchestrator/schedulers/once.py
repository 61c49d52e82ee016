"""One job per token, whatever happens to the answer of a submit command. The same rules for every scheduler.

A job is absent only after two trusted looks that began after the submit had ended, `APART_S` apart: a request may still
sit in the scheduler's own queue when its command has been given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from orchestrator.jobs import ALIVE, Job, JobState, SchedulerSilent
from orchestrator.schedulers.calls import NotStarted

log = structlog.get_logger()

APART_S = 2.0
ATTEMPTS = 2
NEVER_RAN = frozenset({JobState.CANCELLED, JobState.REFUSED, JobState.GONE})


def submit_once(
    token: str,
    *,
    known: bool,
    submit: Callable[[], str],
    find: Callable[[], Sequence[Job]],
    cancel: Callable[[Sequence[str]], None],
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """The id of the one job of `token`. Raises what `submit` and `find` raise."""
    if known and (found := _look_twice(find, sleep)):
        return _keep_one(token, found, cancel)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return submit()
        except NotStarted:
            raise
        except SchedulerSilent as silent:
            log.warning("submit_answer_lost", token=token, attempt=attempt, sentence=silent.sentence)
        if found := _look_twice(find, sleep):
            return _keep_one(token, found, cancel)
    raise SchedulerSilent("The scheduler has lost our job twice.", "Try again later.")


def _look_twice(find: Callable[[], Sequence[Job]], sleep: Callable[[float], None]) -> Sequence[Job]:
    found = find()
    if not found:
        sleep(APART_S)
        found = find()
    return found


def order(job: Job) -> tuple[int, float, int, str]:
    """The job to keep comes first: the one that runs or ran, as it holds the claim on the token; then the oldest."""
    if job.state in (JobState.RUNNING, JobState.SUSPENDED):
        rank = 0
    elif job.state is JobState.ENDING:
        rank = 3  # perhaps a duplicate that we have deleted ourselves, before it started
    elif job.state in ALIVE:
        rank = 2
    else:
        rank = 4 if job.state in NEVER_RAN else 1
    digits = job.id.partition(".")[0]
    return rank, job.submitted_at, int(digits) if digits.isdecimal() else 0, job.id


def _keep_one(token: str, found: Sequence[Job], cancel: Callable[[Sequence[str]], None]) -> str:
    kept, *others = sorted(found, key=order)
    if alive := [job.id for job in others if job.state in ALIVE]:
        log.warning("token_has_several_jobs", token=token, kept=kept.id, cancelled=alive)
        cancel(alive)
    return kept.id
