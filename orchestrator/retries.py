"""What follows a failed attempt of one task: the next one after a while, or a hold. Pure, on records alone.

A hold uses no budget: a site that is down, or one that does not accept who we are, says nothing about the work. The
task is tried again by itself, ever more rarely; whoever learns that the cause is gone asks for it at once.
"""

from __future__ import annotations

import re
import zlib

from msgspec.structs import replace

from orchestrator.events import TaskEnded
from orchestrator.model import (
    RUN_GOING,
    FailureClass,
    Hold,
    Outcome,
    RetryRule,
    Run,
    RunStatus,
    StageKind,
    StagePlan,
    StageStatus,
    Task,
    TaskStatus,
)

# How often a task on hold is tried. A person has to act before an identity is accepted again; a site comes back by
# itself.
PROBES = {
    FailureClass.AUTHENTICATION: RetryRule(FailureClass.AUTHENTICATION, 0, delay_s=60.0, delay_max_s=3600.0),
    FailureClass.DOWN: RetryRule(FailureClass.DOWN, 0, delay_s=30.0, delay_max_s=900.0),
}
ADDRESS = re.compile(r"https?://[!#-;=?-~]+")  # printable ASCII without quotes and angle brackets


def delay_s(rule: RetryRule, used: int, seed: str) -> float:
    """Seconds before the next attempt: exponential, capped, spread by ±20 % so that failures do not return in step."""
    spread = 0.8 + 0.4 * (zlib.crc32(seed.encode(errors="surrogateescape")) % 1000) / 999
    exponent = min(used, 64)  # more would leave the range of floats long after the cap has won
    return min(rule.delay_s * rule.factor**exponent, rule.delay_max_s) * spread


def again(task: Task, event: TaskEnded, plan: StagePlan, run_id: str) -> Task | None:
    """The task as it waits for its next attempt; None when the stage has no budget left for this class."""
    failure = event.outcome.failure
    rule = next((r for r in plan.retries if r.failure is failure), None)
    used = task.used.get(str(failure), 0)
    if rule is None or used >= rule.most:
        return None
    return replace(
        task,
        status=TaskStatus.BACKOFF,
        due_at=event.at + delay_s(rule, used, f"{run_id}.{task.number}.{task.attempt}"),
        used={**task.used, str(failure): used + 1},
        outcome=event.outcome,
        hold=None,
    )


def held(task: Task, event: TaskEnded, run_id: str) -> Task:
    """The task on hold: since when it was first, whatever has been tried in between."""
    outcome = event.outcome
    assert outcome.failure is not None
    before = task.hold if task.hold is not None and task.hold.cause is outcome.failure else None
    since, probes = (before.since, before.probes + 1) if before else (event.at, 0)
    return replace(
        task,
        status=TaskStatus.ON_HOLD,
        due_at=event.at + delay_s(PROBES[outcome.failure], probes, f"{run_id}.{task.number}.{probes}"),
        outcome=outcome,
        hold=Hold(outcome.failure, outcome.reason, since, probes, _where_to_mend(outcome)),
    )


def _where_to_mend(outcome: Outcome) -> str:
    """What is known, or the address in the words of whoever did not let us in."""
    if outcome.link:
        return outcome.link
    found = ADDRESS.search(outcome.reason) if outcome.failure is FailureClass.AUTHENTICATION else None
    return found[0].rstrip(".,;:)'") if found else ""


def unsure(task: Task) -> bool:
    """Is it on hold with an attempt that may have begun all the same?"""
    return task.status is TaskStatus.ON_HOLD and task.outcome is not None and task.outcome.unsure


def left_going(task: Task, plan: StagePlan) -> bool:
    """Does it wait to be tried again while a transfer of it may go on, at a service that moves files without us?"""
    if plan.kind is not StageKind.TRANSFER or task.status not in (TaskStatus.ON_HOLD, TaskStatus.BACKOFF):
        return False
    return task.outcome is not None and (bool(task.outcome.link) or task.outcome.failure is FailureClass.LOST)


def next_attempt(task: Task, at: float, site: str) -> Task:
    """The task with its next attempt; after an unsure one the same again, where it was, to be looked for first."""
    same = unsure(task)
    return replace(
        task,
        status=TaskStatus.PENDING,
        attempt=task.attempt if same else task.attempt + 1,
        due_at=0.0,
        started_at=0.0,
        submitted_at=at,
        site=task.site if same else site,
    )


def reads_as(run: Run) -> RunStatus:
    """RUNNING or HELD, for a run that is either: it is held when each task that could go on is on hold."""
    if run.status not in RUN_GOING:
        return run.status
    held = going = False
    for stage in run.stages.values():
        if stage.status is StageStatus.RUNNING and stage.on_hold:
            held = True
            going = going or (stage.on_hold < stage.open and _side_by_side(run, stage.name))
        elif stage.status in (StageStatus.OPENING, StageStatus.RUNNING):
            going = True
    return RunStatus.HELD if held and not going else RunStatus.RUNNING


def _side_by_side(run: Run, name: str) -> bool:
    return next(p.parallel for p in run.plan.stages if p.name == name)
