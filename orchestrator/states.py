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
* An attempt that the site could not take, because it is down or does not accept who we are, uses no budget: its task is
  on hold and is tried again by itself. A run is held when each task that could go on is on hold.
* A repetition (`repeat*`) opens as soon as the one before ended, starts `repeatPeriod` seconds after, and reaching
  `maxRepeats` without the condition fails the stage.
* A stage whose site is `auto` is placed before it opens, and again, elsewhere, when the site refused it. An attempt
  stays with the site that it was given.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from orchestrator import retries
from orchestrator.change import AUTO, Change, stage_plan
from orchestrator.events import (
    Begun,
    CancelAsked,
    Command,
    DecideRepeat,
    Event,
    Kill,
    Launch,
    Place,
    Recovered,
    RepeatDecided,
    ResumeAsked,
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
    HOLDING,
    RUN_ENDED,
    RUN_GOING,
    STAGE_PASSED,
    TASK_ENDED,
    FailureClass,
    Outcome,
    Run,
    RunStatus,
    StageState,
    StageStatus,
    Task,
    TaskStatus,
)


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
        case ResumeAsked():
            change.resume(event)
        case Recovered():
            change.recovered(event)
    change.settle()
    return Step(change.run, tuple(change.commands), frozenset(change.touched))


class _Change(Change):
    """The tasks of a run, and what people wish of it."""

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
        elif self.run.status is RunStatus.ABORTING and outcome.unsure:
            self.end_unsure(replace(task, outcome=outcome), event.at)
        elif self.run.status is RunStatus.ABORTING:
            self.close_task(task, TaskStatus.ABORTED, event.at, outcome)
        elif outcome.failure in HOLDING:
            self.hold(task, event)
        elif not self.try_again(task, event):
            timeout = outcome.failure is FailureClass.TIMEOUT
            self.close_task(task, TaskStatus.TIMEOUT if timeout else TaskStatus.FAILED, event.at, outcome)

    def hold(self, task: Task, event: TaskEnded) -> None:
        held = retries.held(task, event, self.run.id)
        self.put_task(held)
        self.commands.append(Wake(held.number, held.due_at))
        stage = self.run.stages[task.stage]
        self.put_stage(replace(stage, on_hold=stage.on_hold + 1))
        outcome = event.outcome
        # What has run there and found something else down would find the same from anywhere.
        if outcome.failure is FailureClass.DOWN and not outcome.unsure and outcome.exit_status is None:
            self.move(task, outcome)

    def end_unsure(self, task: Task, at: float) -> None:
        """It is over only when nothing of its attempt is found. That is asked for a moment later: whoever has just
        reported the attempt is to have forgotten it by then."""
        self.leave_hold(task)
        self.wake(replace(task, status=TaskStatus.PENDING), at)

    def leave_hold(self, task: Task) -> None:
        if task.status is TaskStatus.ON_HOLD:
            stage = self.run.stages[task.stage]
            self.put_stage(replace(stage, on_hold=stage.on_hold - 1))

    def try_again(self, task: Task, event: TaskEnded) -> bool:
        waiting = retries.again(task, event, stage_plan(self.run, task.stage), self.run.id)
        if waiting is None:
            return False
        self.put_task(waiting)
        self.commands.append(Wake(task.number, waiting.due_at))
        if event.outcome.failure in (FailureClass.SITE, FailureClass.RESERVATION):
            self.move(task, event.outcome)
        return True

    def move(self, task: Task, outcome: Outcome) -> None:
        """The site would not have it: on to the one its policy names, or for `auto` to the next best."""
        name, stage = task.stage, self.run.stages[task.stage]
        if stage.site != task.site:
            return  # it has moved since this attempt was sent
        if outcome.elsewhere:
            self.put_stage(replace(stage, site=outcome.elsewhere, queue="", reservation="", placed=outcome.reason))
        elif outcome.failure is not FailureClass.RESERVATION and stage_plan(self.run, name).placing.site == AUTO:
            self.commands.append(Place(name, but=(stage.site,)))

    def task_due(self, event: TaskDue) -> None:
        task = self.run.tasks.get(event.number)
        if task is None or self.run.status in RUN_ENDED or event.at < task.due_at or not task.due_at:
            return
        if self.run.status is RunStatus.ABORTING:
            self.put_task(replace(task, due_at=0.0))
            self.commands.append(Kill(task.number, task.attempt))
        elif task.status in (TaskStatus.BACKOFF, TaskStatus.ON_HOLD):
            self.leave_hold(task)
            self.put_task(retries.next_attempt(task, event.at, self.run.stages[task.stage].site))
            self.commands.append(Launch(task.number, adopt=retries.unsure(task)))
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
            hold=None,
        )
        self.leave_hold(task)
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
            if retries.unsure(task) or retries.left_going(task, stage_plan(self.run, task.stage)):
                self.end_unsure(task, event.at)
            elif task.status is TaskStatus.BACKOFF or task.held or task.due_at:
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

    def resume(self, event: ResumeAsked) -> None:
        if self.run.status in RUN_GOING and any(s.on_hold for s in self.run.stages.values()):
            for task in self.run.tasks.values():
                if task.status is TaskStatus.ON_HOLD and (not event.sites or task.site in event.sites):
                    self.wake(task, event.at)

    def settle(self) -> None:
        status = retries.reads_as(self.run)
        if status is not self.run.status:
            self.run = replace(self.run, status=status)

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


__all__ = ["AUTO", "Step", "advance", "stage_plan"]
