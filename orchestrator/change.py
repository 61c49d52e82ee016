"""A run being changed by one event: the stages of it, which open, end and end the run. Pure; `states` has the rest."""

from __future__ import annotations

from collections.abc import Iterable

from immutables import Map
from msgspec.structs import replace

from orchestrator import retries
from orchestrator.events import (
    Begun,
    Command,
    DecideRepeat,
    Finished,
    Launch,
    OpenStage,
    Place,
    RepeatDecided,
    StageOpened,
    StagePlaced,
    Wake,
)
from orchestrator.model import (
    RUN_GOING,
    STAGE_ENDED,
    STAGE_PASSED,
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


def stage_plan(run: Run, name: str) -> StagePlan:
    for plan in run.plan.stages:
        if plan.name == name:
            return plan
    raise KeyError(name)


class Change:
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

    def wake(self, task: Task, at: float) -> None:
        """Its next attempt is due at this time, whatever was planned."""
        self.put_task(replace(task, due_at=at))
        self.commands.append(Wake(task.number, at))

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
        if run.status in RUN_GOING and not failing:
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
        elif stage.on_hold and event.site != stage.site:  # what waits for the site before need not wait any more
            for task in self.tasks_of(event.stage):
                if task.status is TaskStatus.ON_HOLD and not retries.unsure(task):
                    self.wake(task, event.at)

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
