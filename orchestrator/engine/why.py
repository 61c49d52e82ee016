"""Why a run is where it is: what it waits for or why it failed, since when, whom to call, what to do next. Pure.

Nothing waits silently: every state of a run has an answer here.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from orchestrator.model import (
    HOLDING,
    TASK_ENDED,
    FailureClass,
    Run,
    RunStatus,
    StageKind,
    StagePlan,
    StageState,
    StageStatus,
    Task,
    TaskStatus,
    token,
)


class Facts(Struct, frozen=True):
    """What is known beside the run itself."""

    now: float
    service: bool = True  # one answers
    agents: tuple[str, ...] = ()  # sites whose agent is connected
    site: str = "local"  # of stages that name none
    contacts: dict[str, str] = {}  # site -> whom to call
    progress: dict[str, tuple[float, str]] = {}  # token -> fraction, text
    waits: dict[str, tuple[float, str]] = {}  # token -> since when, for what; run:stage while a site is chosen
    shut: dict[str, tuple[float, str]] = {}  # site to which nothing is sent -> since when, why
    children: dict[int, str] = {}  # number of a task -> the child run it started
    cancelled_at: float = 0.0


class Why(Struct, frozen=True):
    sentence: str
    since: float = 0.0
    contact: str = ""
    next: str = ""
    details: tuple[str, ...] = ()


NEXT: dict[FailureClass, str] = {
    FailureClass.USER: "Read `beamway logs {run} {number} --stderr`, mend the cause, then `beamway retry {run}`; "
    "a changed definition or argument needs a new run.",
    FailureClass.BAD_OUTPUT: "Compare the failed checks with what the stage wrote (`beamway logs {run} {number}`), "
    "then `beamway retry {run}`.",
    FailureClass.BAD_INPUT: "Look at the input file: is it whole, is it the right one? Then `beamway retry {run}`.",
    FailureClass.TRANSIENT: "It said that another time may go better: `beamway retry {run}`.",
    FailureClass.LOST: "Its worker died, often for want of memory; see `beamway status`, then `beamway retry {run}`.",
    FailureClass.NODE: "Nodes keep dying under it; ask the site, then `beamway retry {run}`.",
    FailureClass.PREEMPTED: "Take a queue whose jobs are not preempted (`--queue`), or `beamway retry {run}`.",
    FailureClass.WALLTIME: "Give the stage more `walltime` in its `resources` in a new run, or `beamway retry {run}`.",
    FailureClass.MEMORY: "Give the stage more `memory` in its `resources` in a new run, or `beamway retry {run}`.",
    FailureClass.RESERVATION: "See `beamway site show` for the reservation, then `beamway retry {run}`.",
    FailureClass.SITE: "`beamway site check SITE --live` tells what is wrong there; then `beamway retry {run}`.",
    FailureClass.DOWN: "`beamway site check SITE` tells whether it answers again; then `beamway retry {run}`.",
    FailureClass.AUTHENTICATION: "Sign in there again, or let the site's contact do it; then `beamway retry {run}`.",
    FailureClass.OUTSIDE: "Ask who ended it and why; `beamway retry {run}` runs again what did not pass.",
    FailureClass.TIMEOUT: "Give the stage a longer `timeout` in a new run, or `beamway retry {run}`.",
    FailureClass.CANCELLED: "`beamway retry {run}` runs again what did not pass.",
}


# Failures about which the site's contact knows more than the user does.
THEIRS = frozenset({FailureClass.LOST, FailureClass.NODE, FailureClass.SITE, FailureClass.OUTSIDE}) | HOLDING


def why(run: Run, facts: Facts) -> Why:
    match run.status:
        case RunStatus.DONE:
            return _done(run)
        case RunStatus.FAILED:
            return _failed(run, facts)
        case RunStatus.ABORTED:
            more = f"`beamway retry {run.id}` runs again what did not pass."
            return Why(f"It was cancelled: {run.error}.", run.ended_at, next=more)
        case RunStatus.ABORTING:
            answer = _aborting(run, facts)
        case RunStatus.PENDING:
            answer = Why("It is accepted and on disk; the engine has not begun it yet.", run.created_at)
        case RunStatus.RUNNING | RunStatus.HELD:
            answer = _running(run, facts)
    if facts.service:
        return answer
    sentence = "No service runs, so nothing goes on; the run is safe on disk."
    more = f"`beamway watch {run.id}` or `beamway up` starts the service."
    return Why(sentence, _last_seen(run), next=more, details=(answer.sentence, *answer.details))


# ------------------------------------------------------------------------------------------------------- it is over


def _done(run: Run) -> Why:
    checked = sum(1 for t in run.tasks.values() if t.status is TaskStatus.DONE and t.outcome and t.outcome.findings)
    products = sum(len(t.outcome.products) for t in run.tasks.values() if t.status is TaskStatus.DONE and t.outcome)
    if checked:
        sentence = f"It is done: every declared output passed its checks ({_count(products, 'product')})."
    else:
        sentence = "It is done: every command ended with 0. No stage declares outputs, so none was checked."
    more = f"`beamway show {run.id}` lists what it cost" + (" and what came out." if products else ".")
    details = tuple(f"Stage {s.name!r} was skipped: {s.reason}." for s in run.stages.values() if _skipped(s))
    return Why(sentence, run.ended_at, next=more, details=details)


def _skipped(stage: StageState) -> bool:
    return stage.status is StageStatus.SKIPPED


def _failed(run: Run, facts: Facts) -> Why:
    broken = [s for s in run.stages.values() if s.status is StageStatus.FAILED]
    stage = min(broken, key=lambda s: s.ended_at, default=None)
    if stage is None:
        return Why(f"It failed: {run.error or 'no reason was given'}.", run.ended_at)
    task = next((t for t in _tasks(run, stage.name) if t.status in (TaskStatus.FAILED, TaskStatus.TIMEOUT)), None)
    sentence = f"Stage {stage.name!r} failed: {stage.reason.rstrip('.')}."
    never = [p.name for p in run.plan.stages if p.name in run.stages and _never_began(run.stages[p.name])]
    unbegun = (f"Not begun because of it: {', '.join(never)}.",) if never else ()
    if task is None or task.outcome is None:
        more = "Mend the definition, the arguments or the files it names, and start a new run."
        return Why(sentence, stage.ended_at, next=more, details=unbegun)
    outcome = task.outcome
    failure = outcome.failure or FailureClass.USER
    plan = _plan(run, stage.name)
    if plan.kind is StageKind.WORKFLOW:
        more = f"`beamway why {facts.children.get(task.number, run.id)}`"
    else:
        more = NEXT[failure].format(run=run.id, number=task.number)
    status = "" if outcome.exit_status is None else f", exit status {outcome.exit_status}"
    details = [f"Task {task.number}, attempt {task.attempt}: {failure.value}{status}."]
    details += [f"Its file: {task.item}."] if task.item is not None else []
    details += [f"Check failed: {f.path}: {f.check}; seen: {f.seen}." for f in outcome.findings if not f.passed]
    details += [f"Its command: {task.command}"] if task.command else []
    details += [f"Its stderr: {outcome.stderr}"] if outcome.stderr else []
    ours = failure in THEIRS
    details += [f"Its job: {outcome.job} at site {_site(task, facts)!r}."] if outcome.job else []
    contact = facts.contacts.get(_site(task, facts), "") if ours else ""
    return Why(sentence, stage.ended_at, contact=contact, next=more, details=(*details, *unbegun))


def _never_began(stage: StageState) -> bool:
    return stage.status in (StageStatus.PENDING, StageStatus.ABORTED) and not stage.tasks


# --------------------------------------------------------------------------------------------------------- it waits


def _aborting(run: Run, facts: Facts) -> Why:
    left = [t for t in run.tasks.values() if t.status not in TASK_ENDED]
    sites = sorted({_site(t, facts) for t in left})
    away = [s for s in sites if s not in facts.agents]
    since = facts.cancelled_at or _last_seen(run)
    if away:
        sentence = f"It is being cancelled and waits for the agent of {_list(away)} to end {_count(len(left), 'task')}."
        return Why(sentence, since, _contact(away[0], facts), "`beamway status` shows the agents.")
    sentence = f"It is being cancelled; {_count(len(left), 'task')} of it still to end."
    return Why(sentence, since, next="A process that does not end is killed after a few seconds.")


def _running(run: Run, facts: Facts) -> Why:
    waits = []
    for plan in run.plan.stages:
        stage = run.stages.get(plan.name)
        if stage is not None and stage.status in (StageStatus.OPENING, StageStatus.RUNNING):
            waits.append(_stage(run, plan, stage, facts))
    failed = [s for s in run.stages.values() if s.status is StageStatus.FAILED]
    if not waits:
        return Why("The engine is about to open its next stage.", _last_seen(run))
    first, *others = waits
    details = [*first.details, *(w.sentence for w in others)]
    details += [f"Stage {s.name!r} has failed ({s.reason}); when what runs has ended, the run fails." for s in failed]
    return replace(first, details=tuple(details), next=first.next or f"`beamway watch {run.id}` shows it live.")


def _stage(run: Run, plan: StagePlan, stage: StageState, facts: Facts) -> Why:
    name = f"Stage {plan.name!r}"
    placing = facts.waits.get(f"{run.id}:{plan.name}")
    if placing is not None:
        return Why(f"{name}: {placing[1].rstrip('.')}.", placing[0])
    if stage.status is StageStatus.OPENING:
        return Why(f"{name} is being opened: condition, files and variables are worked out.", _last_seen(run))
    left = [t for t in _tasks(run, plan.name) if t.status not in TASK_ENDED]
    if not left:
        return Why(f"{name}: whether to repeat it is being decided.", _last_seen(run))
    held = _on_hold(run, plan, left, facts)
    left = [t for t in left if t.status is not TaskStatus.ON_HOLD]
    if held is not None and (not plan.parallel or not left):
        return held
    answer = _going(run, plan, left, facts)
    more = [held.sentence] if held is not None else []
    more += [f"Task {t.number} was on hold ({t.hold.reason.rstrip('.')}) and is being tried." for t in left if t.hold][
        :3
    ]
    return replace(answer, details=(*answer.details, *more))


def _going(run: Run, plan: StagePlan, left: list[Task], facts: Facts) -> Why:
    for question in (_child_runs, _agent_away, _at_work, _backing_off, _repeats, _queued):
        answer = question(run, plan, left, facts)
        if answer is not None:
            return answer
    return Why(f"Stage {plan.name!r} waits for {_count(len(left), 'task')}.", min(t.submitted_at for t in left))


def _on_hold(run: Run, plan: StagePlan, left: list[Task], facts: Facts) -> Why | None:
    held = [(t, t.hold) for t in left if t.status is TaskStatus.ON_HOLD and t.hold is not None]
    if not held:
        return None
    task, hold = min(held, key=lambda h: h[1].since)
    site = _site(task, facts)
    known = " is down" if hold.cause is FailureClass.DOWN else " does not let us in"
    because = f"because site {site!r}{known} ({hold.reason.rstrip('.')})"
    ran = task.outcome is not None and task.outcome.exit_status is not None
    if ran and plan.kind is StageKind.TRANSFER:  # the fault is at one of its ends
        because = f"({hold.reason.rstrip('.')})"
    due_s = max(0.0, min(t.due_at for t, _ in held) - facts.now)
    sentence = (
        f"Stage {plan.name!r}, {_count(len(held), 'task')}, on hold {because}; "
        f"it is tried again by itself in {due_s:.0f} s."
    )
    first = f"{'Look' if plan.kind is StageKind.TRANSFER else 'Sign in'} at {hold.link}. " if hold.link else ""
    more = f"{first}`beamway resume {run.id}` tries at once."
    return Why(sentence, hold.since, _contact(site, facts), more)


Question = Callable[[Run, StagePlan, list[Task], Facts], Why | None]


def _child_runs(run: Run, plan: StagePlan, left: list[Task], facts: Facts) -> Why | None:
    if plan.kind is not StageKind.WORKFLOW:
        return None
    children = [facts.children[t.number] for t in left if t.number in facts.children]
    sentence = f"Stage {plan.name!r} waits for {_count(len(left), 'child run')} of workflow {plan.call!r}."
    more = f"`beamway why {children[0]}`" if children else ""
    return Why(
        sentence, min(t.submitted_at for t in left), next=more, details=tuple(f"Child run {c}." for c in children)
    )


def _agent_away(run: Run, plan: StagePlan, left: list[Task], facts: Facts) -> Why | None:
    site = next((s for t in left if (s := _site(t, facts)) not in facts.agents), "")
    if not site or not facts.service:
        return None
    sentence = f"Stage {plan.name!r} waits for the agent of site {site!r}, which is not connected."
    more = f"The service starts it again by itself; `beamway status` shows it, logs/agent-{site}.log says why it went."
    return Why(sentence, min(t.started_at or t.submitted_at for t in left), _contact(site, facts), more)


def _at_work(run: Run, plan: StagePlan, left: list[Task], facts: Facts) -> Why | None:
    busy = [t for t in left if t.status is TaskStatus.RUNNING]
    if not busy:
        return None
    details = []
    for task in busy[:5]:
        known = facts.progress.get(token(run.id, task.number, task.attempt))
        if known is not None:
            details.append(f"Task {task.number}: {known[0]:.0%} {known[1]}".rstrip())
    rest = len(left) - len(busy)
    more = f", {rest} more wait for a free worker or for those before" if rest else ""
    sentence = f"Stage {plan.name!r} is computing: {_count(len(busy), 'task')} at work{more}."
    follow = f"`beamway logs {run.id} {busy[0].number} -f` shows its output."
    return Why(sentence, min(t.started_at for t in busy), next=follow, details=tuple(details))


def _backing_off(run: Run, plan: StagePlan, left: list[Task], facts: Facts) -> Why | None:
    waiting = [t for t in left if t.status is TaskStatus.BACKOFF]
    if not waiting:
        return None
    task = min(waiting, key=lambda t: t.due_at)
    reason = task.outcome.reason if task.outcome else "no reason was given"
    sentence = (
        f"Stage {plan.name!r}: attempt {task.attempt} of task {task.number} failed ({reason.rstrip('.')}); "
        f"the next is due in {max(0.0, task.due_at - facts.now):.0f} s."
    )
    since = (task.outcome.ended_at if task.outcome else 0.0) or task.submitted_at
    follow = f"`beamway logs {run.id} {task.number} --stderr` shows what it said."
    contact = ""
    if task.outcome is not None and task.outcome.failure in THEIRS:
        contact = _contact(_site(task, facts), facts)
    return Why(sentence, since, contact, follow)


def _repeats(run: Run, plan: StagePlan, left: list[Task], facts: Facts) -> Why | None:
    later = [t for t in left if t.due_at]
    if not later or plan.repeat is None:
        return None
    task = min(later, key=lambda t: t.due_at)
    sentence = (
        f"Stage {plan.name!r}: repetition {task.repetition} of at most {plan.repeat.most} starts in "
        f"{max(0.0, task.due_at - facts.now):.0f} s; it ends when {plan.repeat.until}."
    )
    return Why(sentence, task.submitted_at)


def _queued(run: Run, plan: StagePlan, left: list[Task], facts: Facts) -> Why | None:
    site = _site(left[0], facts)
    ready = [t for t in left if not t.held]
    if site in facts.shut:
        since, text = facts.shut[site]
        tasks = _count(len(left), "task")
        sentence = f"Stage {plan.name!r}, {tasks}: nothing new is sent to site {site!r}, because {text}."
        return Why(sentence, since, _contact(site, facts), f"`beamway resume --site {site}` after it was mended.")
    for task in ready:
        wait = facts.waits.get(token(run.id, task.number, task.attempt))
        if wait is not None:
            sentence = f"Stage {plan.name!r}, {_count(len(left), 'task')}, at site {site!r}: {wait[1].rstrip('.')}."
            return Why(sentence, wait[0], _contact(site, facts), details=_placed(run, plan))
    sentence = f"Stage {plan.name!r}: {_count(len(left), 'task')} waiting for a free worker of site {site!r}."
    since = min(t.submitted_at for t in ready or left)
    return Why(sentence, since, _contact(site, facts))


# ----------------------------------------------------------------------------------------------------- small things


def _tasks(run: Run, stage: str) -> list[Task]:
    return sorted((t for t in run.tasks.values() if t.stage == stage), key=lambda t: t.number)


def _plan(run: Run, name: str) -> StagePlan:
    return next(p for p in run.plan.stages if p.name == name)


def _placed(run: Run, plan: StagePlan) -> tuple[str, ...]:
    placed = run.stages[plan.name].placed
    return (f"It was placed there: {placed.rstrip('.')}.",) if placed else ()


def _site(task: Task, facts: Facts) -> str:
    site = task.site
    return facts.site if site in ("", "auto") else site


def _contact(site: str, facts: Facts) -> str:
    return facts.contacts.get(site, "")


def _last_seen(run: Run) -> float:
    """The newest moment that the run itself knows of."""
    moments = [run.created_at, run.started_at, run.ended_at]
    moments += [m for s in run.stages.values() for m in (s.started_at, s.ended_at)]
    moments += [m for t in run.tasks.values() for m in (t.submitted_at, t.started_at, t.ended_at)]
    return max(moments)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _list(names: list[str]) -> str:
    return ", ".join(repr(n) for n in names)
