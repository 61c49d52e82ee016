"""The one transition of a run: `advance(run, event)` gives the run after the event and the commands it causes.

Pure: no clock (events carry `at`), no I/O, no randomness (jitter is derived from the task). Everything the engine
does is a command from here, everything it learns is an event to here. Events may come late, twice or in any order: one
that does not fit the present state changes nothing.

Rules decided here and nowhere else:

* A stage opens when every stage of its `after` passed (done or skipped). When a stage has failed, no further stage
  opens; what runs already is left to end, because its result is worth keeping, and then the run is failed.
* In a stage over files each file is a task. Side by side, a failed file does not stop the others; one by one
  (`parallelExec` false) it does. Either way the stage fails.
* A failed attempt is repeated as long as the stage's rule for that failure class has budget; each class has its own.
* A repetition (`repeat*`) opens as soon as the one before ended, starts `repeatPeriod` seconds after, and reaching
  `maxRepeats` without the condition fails the stage.
* A stage whose site is `auto` is placed before it opens, and again, elsewhere, when the site refused it. An attempt
  stays with the site that it was given.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple

from immutables import Map
from msgspec.structs import replace

from orchestrator.events import (
    Begun,
    CancelAsked,
    Command,
    DecideRepeat,
    Event,
    Finished,
    Kill,
    Launch,
    OpenStage,
    Place,
    Recovered,
    RepeatDecided,
    RetryAsked,
    StageOpened,
    StagePlaced,
    StageRefused,
    StageSkipped,
    TaskDue,
    TaskEnded,
    TaskStarted,
    Wake,
)
from orchestrator.model import (
    RUN_ENDED,
    STAGE_ENDED,
    STAGE_PASSED,
    TASK_ENDED,
    FailureClass,
    Outcome,
    RetryRule,
    Run,
    RunStatus,
    StageKind,
    StagePlan,
    StageState,
    StageStatus,
    Task,
    TaskStatus,
)

AUTO = "auto"


class Step(NamedTuple):
    run: Run
    commands: tuple[Command, ...]
    touched: frozenset[int]  # numbers of the tasks that differ from before


# -------------------------------------------------------------------------------------------------------- advance


def advance(run: Run, event: Event) -> Step:
    change = _Change(run)
    match event:
        case TaskEnded():
            change.task_ended(event)
        case TaskStarted():
            change.task_started(event)
        case StageOpened():
            change.stage_opened(event)
        case StagePlaced():
            change.stage_placed(event)
        case StageSkipped():
            if change.opening(event.stage):
                change.end_stage(event.stage, StageStatus.SKIPPED, event.at, event.reason)
        case StageRefused():
            stage = run.stages.get(event.stage)
            if stage is not None and stage.status in (StageStatus.OPENING, StageStatus.RUNNING):
                change.end_stage(event.stage, StageStatus.FAILED, event.at, event.reason)
        case RepeatDecided():
            change.repeat_decided(event)
        case TaskDue():
            change.task_due(event)
        case Begun():
            change.begun(event)
        case CancelAsked():
            change.cancel(event)
        case RetryAsked():
            change.retry(event)
        case Recovered():
            change.recovered(event)
    return Step(change.run, tuple(change.commands), frozenset(change.touched))


def stage_plan(run: Run, name: str) -> StagePlan:
    for plan in run.plan.stages:
        if plan.name == name:
            return plan
    raise KeyError(name)


def retry_delay_s(rule: RetryRule, used: int, seed: str) -> float:
    """Seconds before the next attempt: exponential, capped, spread by ±20 % so that failures do not return in step."""
    spread = 0.8 + 0.4 * (zlib.crc32(seed.encode(errors="surrogateescape")) % 1000) / 999
    return min(rule.delay_s * rule.factor**used, rule.delay_max_s) * spread


class _Change:
    """A run being changed by one event."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.commands: list[Command] = []
        self.touched: set[int] = set()

    # ---- small writes

    def put_task(self, task: Task) -> None:
        self.run = replace(self.run, tasks=self.run.tasks.set(task.number, task))
        self.touched.add(task.number)

    def put_stage(self, stage: StageState) -> None:
        self.run = replace(self.run, stages=self.run.stages.set(stage.name, stage))

    def opening(self, name: str) -> bool:
        stage = self.run.stages.get(name)
        return stage is not None and stage.status is StageStatus.OPENING

    def tasks_of(self, name: str) -> Iterable[Task]:
        return [t for t in self.run.tasks.values() if t.stage == name]

    # ---- stages

    def begun(self, event: Begun) -> None:
        if self.run.status is not RunStatus.PENDING or self.run.stages:
            return
        stages = Map({p.name: StageState(p.name) for p in self.run.plan.stages})
        self.run = replace(self.run, status=RunStatus.RUNNING, started_at=event.at, stages=stages)
        self.open_ready(event.at)

    def open_ready(self, at: float) -> None:
        """Open each stage whose turn has come; end the run when none is open and none can open."""
        run = self.run
        states = run.stages
        failing = any(s.status is StageStatus.FAILED for s in states.values())
        if run.status is RunStatus.RUNNING and not failing:
            for plan in run.plan.stages:
                if states[plan.name].status is StageStatus.PENDING and all(
                    states[a].status in STAGE_PASSED for a in plan.after
                ):
                    self.put_stage(replace(states[plan.name], status=StageStatus.OPENING, repetition=1))
                    self.run = replace(self.run, stage=plan.name)
                    self.open_or_place(plan)
        self.end_if_over(at, failing)

    def open_or_place(self, plan: StagePlan) -> None:
        stage = self.run.stages[plan.name]
        if plan.placing.site == AUTO and plan.kind is not StageKind.WORKFLOW and not stage.site:
            self.commands.append(Place(plan.name))
            return
        if not stage.site:
            self.put_stage(replace(stage, site=plan.placing.site))
        self.commands.append(OpenStage(plan.name, stage.repetition))

    def stage_placed(self, event: StagePlaced) -> None:
        stage = self.run.stages.get(event.stage)
        if stage is None or stage.status not in (StageStatus.OPENING, StageStatus.RUNNING):
            return
        first = stage.status is StageStatus.OPENING and not stage.site
        self.put_stage(
            replace(stage, site=event.site, queue=event.queue, reservation=event.reservation, placed=event.sentence)
        )
        if first:
            self.commands.append(OpenStage(event.stage, stage.repetition))

    def end_if_over(self, at: float, failing: bool) -> None:
        states = self.run.stages.values()
        if any(s.status in (StageStatus.OPENING, StageStatus.RUNNING) for s in states):
            return
        if self.run.status is RunStatus.ABORTING:
            self.end_run(RunStatus.ABORTED, at)
        elif failing:
            self.end_run(RunStatus.FAILED, at)
        elif all(s.status in STAGE_ENDED for s in states):
            self.end_run(RunStatus.DONE, at)

    def end_run(self, status: RunStatus, at: float) -> None:
        self.run = replace(self.run, status=status, ended_at=at)
        self.commands.append(Finished(status))

    def stage_opened(self, event: StageOpened) -> None:
        stage = self.run.stages.get(event.stage)
        if stage is None or stage.status is not StageStatus.OPENING or stage.repetition != event.repetition:
            return
        plan = stage_plan(self.run, event.stage)
        first = event.repetition == 1
        kept = {t.item for t in self.tasks_of(event.stage) if t.status is TaskStatus.DONE} if plan.per_file else set()
        drafts = [d for d in event.drafts if not (first and d.item in kept)]
        due_at = 0.0 if first or plan.repeat is None else event.at + plan.repeat.period_s
        stage = replace(
            stage,
            status=StageStatus.RUNNING,
            started_at=event.at if first else stage.started_at,
            tasks=stage.tasks + len(event.drafts),
            done=stage.done + len(event.drafts) - len(drafts),
            open=len(drafts),
        )
        self.put_stage(stage)
        number = self.run.next_number
        tasks = self.run.tasks.mutate()
        for index, draft in enumerate(drafts):
            held = index > 0 and not plan.parallel
            tasks[number] = Task(
                number,
                event.stage,
                item=draft.item,
                repetition=event.repetition,
                command=draft.command,
                call=draft.call,
                arguments=draft.arguments,
                working_dir=draft.working_dir,
                expect=draft.expect,
                submitted_at=event.at,
                site=stage.site,
                due_at=due_at,
                held=held,
            )
            self.touched.add(number)
            if due_at and not held:
                self.commands.append(Wake(number, due_at))
            elif not held:
                self.commands.append(Launch(number))
            number += 1
        self.run = replace(self.run, tasks=tasks.finish(), next_number=number)
        if not drafts:
            self.tasks_over(event.stage, event.at)

    def tasks_over(self, name: str, at: float) -> None:
        """No task of this stage is open any more."""
        stage = self.run.stages[name]
        if self.run.status is RunStatus.ABORTING:
            self.end_stage(name, StageStatus.ABORTED, at, "cancelled")
        elif stage.failed:
            reason = next(
                (
                    t.outcome.reason
                    for t in self.tasks_of(name)
                    if t.status in (TaskStatus.FAILED, TaskStatus.TIMEOUT) and t.outcome
                ),
                "a task failed",
            )
            more = f" ({stage.failed} of {stage.tasks} tasks failed)" if stage.failed > 1 else ""
            self.end_stage(name, StageStatus.FAILED, at, reason + more)
        elif stage_plan(self.run, name).repeat is not None:
            self.commands.append(DecideRepeat(name))
        else:
            self.end_stage(name, StageStatus.DONE, at)

    def repeat_decided(self, event: RepeatDecided) -> None:
        stage = self.run.stages.get(event.stage)
        if stage is None or stage.status is not StageStatus.RUNNING or stage.open:
            return
        repeat = stage_plan(self.run, event.stage).repeat
        if event.satisfied or repeat is None:
            self.end_stage(event.stage, StageStatus.DONE, event.at)
        elif stage.repetition >= repeat.most:
            reason = f"after {repeat.most} runs (maxRepeats) the condition {repeat.until!r} still did not hold"
            self.end_stage(event.stage, StageStatus.FAILED, event.at, reason)
        else:
            self.put_stage(replace(stage, status=StageStatus.OPENING, repetition=stage.repetition + 1))
            self.commands.append(OpenStage(event.stage, stage.repetition + 1))

    def end_stage(self, name: str, status: StageStatus, at: float, reason: str = "") -> None:
        stage = self.run.stages[name]
        started_at = stage.started_at or (0.0 if status is StageStatus.SKIPPED else at)
        self.put_stage(replace(stage, status=status, started_at=started_at, ended_at=at, reason=reason))
        if status is StageStatus.FAILED and not self.run.error:
            self.run = replace(self.run, error=f"stage {name!r}: {reason}")
        self.open_ready(at)

    # ---- tasks

    def task_started(self, event: TaskStarted) -> None:
        task = self.run.tasks.get(event.number)
        if task is not None and task.attempt == event.attempt and task.status is TaskStatus.PENDING:
            self.put_task(replace(task, status=TaskStatus.RUNNING, started_at=event.at, due_at=0.0))

    def task_ended(self, event: TaskEnded) -> None:
        task = self.run.tasks.get(event.number)
        if task is None or task.attempt != event.attempt or task.status not in (TaskStatus.PENDING, TaskStatus.RUNNING):
            return
        outcome = event.outcome
        if outcome.failure is FailureClass.CANCELLED and self.run.status is not RunStatus.ABORTING:
            # Ended from outside, without our asking: the work is not done.
            outcome = replace(outcome, failure=FailureClass.LOST, reason="ended from outside")
            event = replace(event, outcome=outcome)
        if outcome.failure is None:
            self.close_task(task, TaskStatus.DONE, event.at, outcome)
        elif self.run.status is RunStatus.ABORTING:
            self.close_task(task, TaskStatus.ABORTED, event.at, outcome)
        elif not self.try_again(task, event):
            timeout = outcome.failure is FailureClass.TIMEOUT
            self.close_task(task, TaskStatus.TIMEOUT if timeout else TaskStatus.FAILED, event.at, outcome)

    def try_again(self, task: Task, event: TaskEnded) -> bool:
        failure = event.outcome.failure
        rule = next((r for r in stage_plan(self.run, task.stage).retries if r.failure is failure), None)
        used = task.used.get(str(failure), 0)
        if rule is None or used >= rule.most:
            return False
        due_at = event.at + retry_delay_s(rule, used, f"{self.run.id}.{task.number}.{task.attempt}")
        self.put_task(
            replace(
                task,
                status=TaskStatus.BACKOFF,
                due_at=due_at,
                used={**task.used, str(failure): used + 1},
                outcome=event.outcome,
            )
        )
        self.commands.append(Wake(task.number, due_at))
        if failure in (FailureClass.SITE, FailureClass.RESERVATION):
            self.move(task, event.outcome)
        return True

    def move(self, task: Task, outcome: Outcome) -> None:
        """The site would not have it: on to the one its policy names, or for `auto` to the next best."""
        name, stage = task.stage, self.run.stages[task.stage]
        if stage.site != task.site:
            return  # it has moved since this attempt was sent
        if outcome.elsewhere:
            self.put_stage(replace(stage, site=outcome.elsewhere, queue="", reservation="", placed=outcome.reason))
        elif outcome.failure is FailureClass.SITE and stage_plan(self.run, name).placing.site == AUTO:
            self.commands.append(Place(name, but=(stage.site,)))

    def task_due(self, event: TaskDue) -> None:
        task = self.run.tasks.get(event.number)
        if task is None or self.run.status is not RunStatus.RUNNING or event.at < task.due_at or not task.due_at:
            return
        if task.status is TaskStatus.BACKOFF:
            self.put_task(
                replace(
                    task,
                    status=TaskStatus.PENDING,
                    attempt=task.attempt + 1,
                    due_at=0.0,
                    started_at=0.0,
                    submitted_at=event.at,
                    site=self.run.stages[task.stage].site,
                )
            )
            self.commands.append(Launch(task.number))
        elif task.status is TaskStatus.PENDING and not task.held:
            self.put_task(replace(task, due_at=0.0))
            self.commands.append(Launch(task.number))

    def close_task(self, task: Task, status: TaskStatus, at: float, outcome: Outcome | None) -> None:
        started_at = (outcome.started_at if outcome else 0.0) or task.started_at
        ended_at = (outcome.ended_at if outcome else 0.0) or at
        closed = replace(
            task,
            status=status,
            started_at=started_at,
            ended_at=ended_at,
            outcome=outcome,
            due_at=0.0,
            held=False,
        )
        self.put_task(closed)
        if status is TaskStatus.DONE and outcome is not None and outcome.captures:
            self.keep_captures(task, outcome.captures)
        stage = self.run.stages[task.stage]
        stage = replace(
            stage,
            open=stage.open - 1,
            done=stage.done + (status is TaskStatus.DONE),
            failed=stage.failed + (status in (TaskStatus.FAILED, TaskStatus.TIMEOUT)),
        )
        self.put_stage(stage)
        if status is not TaskStatus.ABORTED and stage.open:
            self.release_next(closed, at)
        elif not stage.open and stage.status is StageStatus.RUNNING:
            self.tasks_over(task.stage, at)

    def release_next(self, task: Task, at: float) -> None:
        """One by one: after a success start the next file (they are numbered in order), after a failure start none."""
        if stage_plan(self.run, task.stage).parallel:
            return
        if task.status is not TaskStatus.DONE:
            for waiting in [t for t in self.tasks_of(task.stage) if t.held]:
                self.close_task(waiting, TaskStatus.ABORTED, at, None)
            return
        following = self.run.tasks.get(task.number + 1)
        if following is not None and following.held and following.stage == task.stage:
            self.put_task(replace(following, held=False))
            self.commands.append(Launch(following.number))

    def keep_captures(self, task: Task, captures: dict[str, str]) -> None:
        run = self.run
        values = run.variables.update(captures)
        per_item = run.item_variables
        if task.item is not None:
            per_item = per_item.update({(task.item, name): value for name, value in captures.items()})
        self.run = replace(run, variables=values, item_variables=per_item)

    # ---- wishes of people, and restarts

    def cancel(self, event: CancelAsked) -> None:
        if self.run.status in RUN_ENDED or self.run.status is RunStatus.ABORTING:
            return
        self.run = replace(self.run, status=RunStatus.ABORTING, error=self.run.error or event.reason)
        for stage in self.run.stages.values():
            if stage.status is StageStatus.OPENING:
                self.put_stage(
                    replace(stage, status=StageStatus.ABORTED, ended_at=event.at, reason="cancelled", open=0)
                )
        for task in self.run.tasks.values():
            if task.status in TASK_ENDED:
                continue
            if task.status is TaskStatus.BACKOFF or task.held or task.due_at:
                self.close_task(task, TaskStatus.ABORTED, event.at, task.outcome)
            else:
                self.commands.append(Kill(task.number, task.attempt))
        self.end_if_over_unless_ended(event.at)

    def end_if_over_unless_ended(self, at: float) -> None:
        if self.run.status not in RUN_ENDED:
            self.end_if_over(at, failing=False)

    def retry(self, event: RetryAsked) -> None:
        run = self.run
        if run.status not in RUN_ENDED:
            return
        again = {s.name for s in run.stages.values() if s.status not in STAGE_PASSED}
        if event.stage:
            again |= {event.stage}
        for plan in run.plan.stages:  # in topological order, so one pass finds every descendant
            if again & set(plan.after):
                again.add(plan.name)
        if not again:
            return
        whole = {event.stage} if event.stage else set()
        for plan in run.plan.stages:
            if whole & set(plan.after):
                whole.add(plan.name)
        tasks = run.tasks
        for task in run.tasks.values():
            if task.stage in whole and task.status is TaskStatus.DONE:
                tasks = tasks.set(task.number, replace(task, status=TaskStatus.ABORTED))
                self.touched.add(task.number)
        stages = run.stages.update({name: StageState(name) for name in again})
        self.run = replace(run, tasks=tasks, stages=stages, status=RunStatus.RUNNING, error="", ended_at=0.0)
        self.open_ready(event.at)

    def recovered(self, event: Recovered) -> None:
        run = self.run
        if run.status in RUN_ENDED:
            return
        if run.status is RunStatus.PENDING:
            self.begun(Begun(event.at))
            return
        for stage in run.stages.values():
            if stage.status is StageStatus.OPENING:
                self.open_or_place(stage_plan(run, stage.name))
            elif stage.status is StageStatus.RUNNING and not stage.open:
                self.commands.append(DecideRepeat(stage.name))
        for task in run.tasks.values():
            if task.status in TASK_ENDED or task.held:
                continue
            if task.due_at:
                self.commands.append(Wake(task.number, task.due_at))
            elif run.status is RunStatus.ABORTING:
                self.commands.append(Kill(task.number, task.attempt))
            else:
                self.commands.append(Launch(task.number, adopt=True))
