"""Runs, watches and arrivals as people and programs see them: what each stage cost, what came out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from orchestrator.codec import iso
from orchestrator.model import STAGE_ENDED, Hold, Product, Run, StagePlan, StageState, Task, TaskStatus, split_token
from orchestrator.store.arrivals import Arrival
from orchestrator.store.letters import Letter
from orchestrator.store.search import Summary
from orchestrator.store.watches import Watched

START_S = 15.0  # within which a watcher is there
SILENT_S = 60.0  # of a watch that has not been looked at for so long it is said


class Costs(Struct, frozen=True):
    """Seconds of a stage, summed over its tasks (the last attempt of each); a stage of parallel tasks sums to more
    than its wall time."""

    queue_s: float = 0.0
    transfer_s: float = 0.0
    compute_s: float = 0.0
    checks_s: float = 0.0


class StageLine(Struct, frozen=True):
    plan: StagePlan
    state: StageState
    costs: Costs
    wall_s: float | None


def costs(plan: StagePlan, tasks: list[Task]) -> Costs:
    queue = transfer = compute = checks = 0.0
    for task in tasks:
        outcome = task.outcome
        started = (outcome.started_at if outcome else 0.0) or task.started_at
        if not started:
            continue
        wanted = task.submitted_at + (plan.repeat.period_s if plan.repeat and task.repetition > 1 else 0.0)
        queue += max(0.0, started - wanted)
        if outcome is not None:
            transfer += outcome.transfer_s
            checks += outcome.checks_s
            compute += max(0.0, (outcome.ended_at or started) - started - outcome.transfer_s - outcome.checks_s)
    return Costs(queue, transfer, compute, checks)


def stage_lines(run: Run) -> list[StageLine]:
    """One line per stage of the plan, in its order."""
    by_stage: dict[str, list[Task]] = {}
    for task in run.tasks.values():
        if task.status is not TaskStatus.ABORTED or task.outcome is not None:
            by_stage.setdefault(task.stage, []).append(task)
    lines = []
    for plan in run.plan.stages:
        state = run.stages.get(plan.name) or StageState(plan.name)
        ended = state.status in STAGE_ENDED and state.started_at
        wall_s = max(0.0, state.ended_at - state.started_at) if ended else None
        lines.append(StageLine(plan, state, costs(plan, _current(by_stage.get(plan.name, []))), wall_s))
    return lines


def _current(tasks: list[Task]) -> list[Task]:
    """Without the tasks that a retry has replaced: of each file and repetition the newest counts."""
    newest = {(t.item, t.repetition): t for t in sorted(tasks, key=lambda t: t.number)}
    return list(newest.values())


def going_on(run: Run, progress: Mapping[str, tuple[float, str]]) -> list[dict[str, Any]]:
    """How far the tasks are that say so of themselves: kernels and transfers in the same way."""
    found = []
    for token, (fraction, text) in sorted(progress.items()):
        task = run.tasks.get(split_token(token)[1])
        if task is not None:
            found.append({"stage": task.stage, "task": task.number, "fraction": fraction, "text": text})
    return found


def outputs(run: Run) -> list[tuple[str, Product]]:
    """(stage, product) of every output that passed its checks and stands, a path written twice only once."""
    found: dict[str, tuple[str, Product]] = {}
    for task in sorted(run.tasks.values(), key=lambda t: t.number):
        if task.status is TaskStatus.DONE and task.outcome is not None:
            for product in task.outcome.products:
                found[product.path] = (task.stage, product)
    return list(found.values())


def metrics(run: Run) -> dict[str, dict[str, Any]]:
    """stage → what its kernels measured; for a stage over files the last that ended well."""
    found: dict[str, dict[str, Any]] = {}
    for task in sorted(run.tasks.values(), key=lambda t: t.number):
        if task.status is TaskStatus.DONE and task.outcome is not None and task.outcome.metrics:
            found[task.stage] = dict(task.outcome.metrics)
    return found


def warnings(run: Run) -> list[tuple[str, str]]:
    """(stage, `CODE: SENTENCE`) of what its kernels have said of their products, each once."""
    tasks = sorted(run.tasks.values(), key=lambda t: t.number)
    ended = [(t.stage, t.outcome) for t in tasks if t.status is TaskStatus.DONE and t.outcome is not None]
    return list(dict.fromkeys((stage, said) for stage, outcome in ended for said in outcome.warnings))


def run_record(run: Run) -> dict[str, Any]:
    """The JSON of a run."""
    return {
        "id": run.id,
        "workflow": run.plan.workflow,
        "owner": run.plan.owner,
        "status": run.status.value,
        "stage": run.stage,
        "error": run.error,
        "created_at": iso(run.created_at),
        "started_at": iso(run.started_at),
        "ended_at": iso(run.ended_at),
        "run_s": round(run.ended_at - run.started_at, 6) if run.ended_at and run.started_at else None,
        "directory": run.plan.directory,
        "arguments": {name: run.plan.variables[name] for name in run.plan.supplied if name in run.plan.variables},
        "variables": dict(run.variables),
        "parent": run.parent or None,
        "instead_of": run.instead_of or None,
        "stages": [_stage_record(line) for line in stage_lines(run)],
        "outputs": [
            {"path": p.path, "bytes": p.bytes, "description": p.description, "stage": stage}
            for stage, p in outputs(run)
        ],
        "metrics": metrics(run),
        "warnings": [{"stage": stage, "warning": said} for stage, said in warnings(run)],
        "holds": [_hold_record(task, task.hold) for task in on_hold(run) if task.hold is not None],
    }


def on_hold(run: Run) -> list[Task]:
    """The tasks on hold, the one that is so the longest first."""
    found = [t for t in run.tasks.values() if t.status is TaskStatus.ON_HOLD and t.hold is not None]
    return sorted(found, key=lambda t: (t.hold.since if t.hold else 0.0, t.number))


def _hold_record(task: Task, hold: Hold) -> dict[str, Any]:
    return {
        "number": task.number,
        "stage": task.stage,
        "site": task.site,
        "cause": hold.cause.value,
        "reason": hold.reason,
        "since": iso(hold.since),
        "next_attempt": iso(task.due_at),
        "probes": hold.probes,
        "link": hold.link or None,
    }


def _stage_record(line: StageLine) -> dict[str, Any]:
    state = line.state
    return {
        "name": state.name,
        "kind": line.plan.kind.value,
        "status": state.status.value,
        "reason": state.reason,
        "tasks": state.tasks,
        "done": state.done,
        "failed": state.failed,
        "held": state.on_hold,
        "repetition": state.repetition,
        "started_at": iso(state.started_at),
        "ended_at": iso(state.ended_at),
        "wall_s": None if line.wall_s is None else round(line.wall_s, 6),
        "queue_s": round(line.costs.queue_s, 6),
        "transfer_s": round(line.costs.transfer_s, 6),
        "compute_s": round(line.costs.compute_s, 6),
        "checks_s": round(line.costs.checks_s, 6),
    }


def letter_record(letter: Letter) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in Letter.__struct_fields__} | {"at": iso(letter.at)}


def summary_record(line: Summary) -> dict[str, Any]:
    return {
        "id": line.id,
        "workflow": line.workflow,
        "experiment": line.experiment or None,
        "owner": line.owner,
        "status": line.status.value,
        "stage": line.stage,
        "error": line.error,
        "created_at": iso(line.created_at),
        "started_at": iso(line.started_at),
        "ended_at": iso(line.ended_at),
        "parent": line.parent or None,
    }


def watch_state(watched: Watched, now: float) -> str:
    """`stopped`, `wrong`: it cannot be watched, `unseen`: no watcher looks at it, or `watched`."""
    report = watched.report
    if watched.watch.stopped_at:
        return "stopped"
    if report is None or now > report.at + SILENT_S:
        return "unseen"
    return "wrong" if report.error else "watched"


def watch_trouble(watched: Watched, now: float) -> str:
    """What is wrong with a watch; empty when nothing is."""
    watch, report = watched.watch, watched.report
    state = watch_state(watched, now)
    if state == "wrong" and report is not None:
        return f"{watch.name}: {report.error}"
    if state == "unseen" and (report is not None or now > watch.created_at + START_S):
        since = f"for {now - report.at:.0f} s" if report is not None else "yet"
        return f"{watch.name}: no watcher of site {watch.site} has looked at it {since}."
    if state == "watched" and report is not None and report.troubles:
        place, reason = next(iter(report.troubles.items()))
        more = f" (and {len(report.troubles) - 1} other places)" if len(report.troubles) > 1 else ""
        return f"{watch.name}: '{place}' cannot be looked at: {reason}{more}" if place else f"{watch.name}: {reason}"
    return ""


def watch_record(watched: Watched, now: float) -> dict[str, Any]:
    watch, report = watched.watch, watched.report
    return {
        "name": watch.name,
        "state": watch_state(watched, now),
        "experiment": watch.experiment,
        "directory": watch.directory,
        "site": watch.site,
        "owner": watch.owner,
        "created_at": iso(watch.created_at),
        "stopped_at": iso(watch.stopped_at),
        "error": report.error if report else "",
        "seen_at": iso(report.at) if report else None,
        "scanned_at": iso(report.scanned_at) if report else None,
        "scan_s": report.scan_s if report else 0.0,
        "waiting": report.waiting if report else 0,
        "polls": report.polls if report else "",
        "troubles": report.troubles if report else {},
        "arrivals": watched.arrivals,
        "rules": watch.rules,
        "base": watch.base,
    }


def arrival_record(arrival: Arrival) -> dict[str, Any]:
    return {
        "id": arrival.id,
        "watch": arrival.watch,
        "experiment": arrival.experiment,
        "name": arrival.name,
        "state": arrival.state.value,
        "reason": arrival.reason,
        "rule": arrival.rule,
        "workflow": arrival.workflow,
        "arguments": arrival.arguments,
        "bytes": arrival.fingerprint[2],
        "checksum": arrival.checksum,
        "run": arrival.run_id or None,
        "seen_at": iso(arrival.seen_at),
        "decided_at": iso(arrival.decided_at),
    }
