"""The transition of a run, by examples and by random histories with losses, duplicates and disorder."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from orchestrator import events as e
from orchestrator import states as s
from orchestrator.model import (
    RUN_ENDED,
    STAGE_PASSED,
    TASK_ENDED,
    FailureClass,
    Outcome,
    Plan,
    Repeat,
    RetryRule,
    Run,
    RunStatus,
    StageKind,
    StagePlan,
    StageStatus,
    TaskStatus,
)


def make_run(*stages: StagePlan) -> Run:
    return Run("r", Plan("w", "o", stages), 0.0, variables=Map())


def stage(name: str, *after: str, **more: object) -> StagePlan:
    return StagePlan(name, StageKind.COMMAND, after=after, **more)  # type: ignore[arg-type]


@dataclass
class World:
    """Carries out commands and answers with events, so that a whole history can be driven from a test."""

    run: Run
    at: float = 0.0
    launched: list[tuple[int, int]] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)
    wakes: list[e.Wake] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    finished: list[RunStatus] = field(default_factory=list)
    items: int = 1
    satisfied_at: int = 1

    def feed(self, event: e.Event) -> None:
        queue = [event]
        while queue:
            step = s.advance(self.run, queue.pop(0))
            for number in set(self.run.tasks) | set(step.run.tasks):
                same = self.run.tasks.get(number) == step.run.tasks.get(number)
                assert same or number in step.touched, "a task changed without being named"
            self.run = step.run
            self.check()
            for command in step.commands:
                match command:
                    case e.OpenStage():
                        self.opened.append(command.stage)
                        per_file = s.stage_plan(self.run, command.stage).per_file
                        drafts = (
                            tuple(e.TaskDraft(item=f"f{i}") for i in range(self.items))
                            if per_file
                            else (e.TaskDraft(),)
                        )
                        queue.append(e.StageOpened(self.at, command.stage, command.repetition, drafts))
                    case e.DecideRepeat():
                        done = self.run.stages[command.stage].repetition >= self.satisfied_at
                        queue.append(e.RepeatDecided(self.at, command.stage, done))
                    case e.Launch():
                        task = self.run.tasks[command.number]
                        assert task.status is TaskStatus.PENDING or command.adopt
                        for before in s.stage_plan(self.run, task.stage).after:
                            assert self.run.stages[before].status in STAGE_PASSED
                        self.launched.append((task.number, task.attempt))
                    case e.Kill():
                        self.killed.append(command.number)
                    case e.Wake():
                        self.wakes.append(command)
                    case e.Finished():
                        self.finished.append(command.status)

    def check(self) -> None:
        for state in self.run.stages.values():
            tasks = [t for t in self.run.tasks.values() if t.stage == state.name]
            if state.status is StageStatus.DONE:
                assert state.done == state.tasks, "a stage is done only when every task of it is"
            if state.status is StageStatus.RUNNING:
                assert state.open == sum(t.status not in TASK_ENDED for t in tasks)
        if self.run.status in RUN_ENDED:
            assert all(t.status in TASK_ENDED for t in self.run.tasks.values())
        if self.run.status is RunStatus.DONE:
            assert all(x.status in STAGE_PASSED for x in self.run.stages.values())

    def end(self, number: int, failure: FailureClass | None = None, **more: object) -> None:
        task = self.run.tasks[number]
        outcome = Outcome(failure, "why" if failure else "", **more)  # type: ignore[arg-type]
        self.feed(e.TaskEnded(self.at, number, task.attempt, outcome))


def begun(*stages: StagePlan, **more: int) -> World:
    world = World(make_run(*stages), **more)
    world.feed(e.Begun(0.0))
    return world


def test_stages_run_in_order_and_the_run_is_done() -> None:
    world = begun(stage("a"), stage("b", "a"), stage("c", "a", "b"))
    for number in range(3):
        assert world.opened == ["a", "b", "c"][: number + 1]
        world.end(number)
    assert world.run.status is RunStatus.DONE
    assert world.finished == [RunStatus.DONE]


def test_independent_stages_run_side_by_side() -> None:
    world = begun(stage("a"), stage("b", "a"), stage("c", "a"), stage("d", "b", "c"))
    world.end(0)
    assert world.opened == ["a", "b", "c"]
    world.end(1)
    assert world.opened == ["a", "b", "c"]
    world.end(2)
    assert world.opened[-1] == "d"


def test_a_failure_lets_the_neighbour_end_and_opens_nothing_more() -> None:
    world = begun(stage("a"), stage("b"), stage("c", "b"))
    world.end(0, FailureClass.USER)
    assert world.run.status is RunStatus.RUNNING
    world.end(1)
    assert world.run.status is RunStatus.FAILED
    assert world.run.stages["b"].status is StageStatus.DONE
    assert world.run.stages["c"].status is StageStatus.PENDING
    assert world.run.error == "stage 'a': why"


def test_a_failed_file_does_not_stop_the_others_side_by_side() -> None:
    world = begun(stage("a", per_file=True), items=3)
    world.end(1, FailureClass.USER)
    world.end(0)
    world.end(2)
    assert world.run.status is RunStatus.FAILED
    assert world.run.stages["a"].reason == "why"


def test_one_by_one_stops_at_the_first_failure() -> None:
    world = begun(stage("a", per_file=True, parallel=False), items=3)
    assert world.launched == [(0, 1)]
    world.end(0)
    assert world.launched == [(0, 1), (1, 1)]
    world.end(1, FailureClass.USER)
    assert [t.status for t in world.run.tasks.values()] == [TaskStatus.DONE, TaskStatus.FAILED, TaskStatus.ABORTED]
    assert world.run.status is RunStatus.FAILED


def test_each_failure_class_has_its_own_budget_and_the_delay_grows() -> None:
    rules = (
        RetryRule(FailureClass.TRANSIENT, 2, delay_s=10.0),
        RetryRule(FailureClass.LOST, 1, delay_s=1.0),
    )
    world = begun(stage("a", retries=rules))
    waits = []
    for failure in (FailureClass.TRANSIENT, FailureClass.LOST, FailureClass.TRANSIENT):
        world.end(0, failure)
        assert world.run.tasks[0].status is TaskStatus.BACKOFF
        waits.append(world.wakes[-1].at - world.at)
        world.at = world.wakes[-1].at
        world.feed(e.TaskDue(world.at - 0.5, 0))  # too early: nothing
        assert world.run.tasks[0].status is TaskStatus.BACKOFF
        world.feed(e.TaskDue(world.at, 0))
    assert world.launched == [(0, 1), (0, 2), (0, 3), (0, 4)]
    assert 8 <= waits[0] <= 12
    assert 0.8 <= waits[1] <= 1.2
    assert 16 <= waits[2] <= 24
    world.end(0, FailureClass.TRANSIENT)
    assert world.run.status is RunStatus.FAILED


def test_repetitions_wait_their_period_and_end_at_the_condition() -> None:
    world = begun(stage("a", repeat=Repeat(10.0, "x", 5)), satisfied_at=3)
    world.end(0)
    assert world.wakes == [e.Wake(1, 10.0)]
    assert world.launched == [(0, 1)]
    world.at = 10.0
    world.feed(e.TaskDue(10.0, 1))
    world.at = 12.0
    world.end(1)
    assert world.wakes[-1] == e.Wake(2, 22.0)
    world.at = 22.0
    world.feed(e.TaskDue(22.0, 2))
    world.end(2)
    assert world.run.status is RunStatus.DONE
    assert world.run.stages["a"].repetition == 3


def test_reaching_max_repeats_fails_the_stage() -> None:
    world = begun(stage("a", repeat=Repeat(0.0, "x == y", 2)), satisfied_at=9)
    world.end(0)
    world.end(1)
    assert world.run.status is RunStatus.FAILED
    assert "maxRepeats" in world.run.error


def test_captures_become_variables_of_the_run_and_of_the_file() -> None:
    world = begun(stage("a", per_file=True), stage("b", "a"), items=2)
    world.end(0, captures={"x": "first"})
    world.end(1, captures={"x": "second"})
    assert world.run.variables["x"] == "second"
    assert world.run.item_variables["f0", "x"] == "first"


def test_cancel_ends_what_runs_and_what_waits() -> None:
    world = begun(stage("a", per_file=True, retries=(RetryRule(FailureClass.TRANSIENT, 1),)), stage("b", "a"), items=3)
    world.end(0, FailureClass.TRANSIENT)  # waits for its next attempt
    world.feed(e.TaskStarted(0.0, 1, 1))
    world.feed(e.CancelAsked(0.0))
    assert world.run.status is RunStatus.ABORTING
    assert world.killed == [1, 2]
    world.end(1, FailureClass.CANCELLED)
    world.end(2)  # ended well just before it was killed
    assert world.run.status is RunStatus.ABORTED
    assert world.finished == [RunStatus.ABORTED]


def test_a_cancelled_run_with_nothing_running_is_over_at_once() -> None:
    world = begun(stage("a", retries=(RetryRule(FailureClass.TRANSIENT, 1),)))
    world.end(0, FailureClass.TRANSIENT)
    world.feed(e.CancelAsked(0.0))
    assert world.run.status is RunStatus.ABORTED


def test_retry_repeats_only_what_did_not_pass() -> None:
    world = begun(stage("a"), stage("b", "a", per_file=True), stage("c", "b"), items=2)
    world.end(0)
    world.end(1)
    world.end(2, FailureClass.USER)
    assert world.run.status is RunStatus.FAILED
    world.feed(e.RetryAsked(1.0))
    assert world.opened == ["a", "b", "b"]
    assert world.launched[-1] == (3, 1)
    assert world.run.tasks[3].item == "f1"
    world.end(3)
    world.end(4)
    assert world.run.status is RunStatus.DONE


def test_retry_from_a_stage_repeats_it_and_all_after_it() -> None:
    world = begun(stage("a"), stage("b", "a", per_file=True), stage("c", "b"), items=2)
    for number in range(4):
        world.end(number)
    assert world.run.status is RunStatus.DONE
    world.feed(e.RetryAsked(1.0, "b"))
    assert world.opened == ["a", "b", "c", "b"]
    world.end(4)
    world.end(5)
    world.end(6)
    assert world.run.status is RunStatus.DONE
    assert world.finished == [RunStatus.DONE, RunStatus.DONE]


def test_after_a_restart_everything_outstanding_is_said_again() -> None:
    world = begun(stage("a", per_file=True), items=2)
    world.end(0)
    world.launched.clear()
    world.feed(e.Recovered(5.0))
    assert world.launched == [(1, 1)]


FAILURES = [None, None, None, *FailureClass]


@st.composite
def plans(draw: st.DrawFn) -> tuple[StagePlan, ...]:
    names = [f"s{i}" for i in range(draw(st.integers(1, 5)))]
    return tuple(
        stage(
            name,
            *draw(st.lists(st.sampled_from(names[:i]), unique=True) if i else st.just([])),
            per_file=draw(st.booleans()),
            parallel=draw(st.booleans()),
            repeat=draw(st.sampled_from([None, Repeat(0.0, "u", 3)])),
            retries=draw(
                st.sampled_from([(), (RetryRule(FailureClass.TRANSIENT, 2), RetryRule(FailureClass.LOST, 3))])
            ),
        )
        for i, name in enumerate(names)
    )


@given(plans(), st.integers(0, 2**32), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_every_history_ends_and_keeps_the_rules(stages: tuple[StagePlan, ...], seed: int, items: int) -> None:
    """Random outcomes, duplicates, stale and early events, restarts, a cancel: the run always comes to an end."""
    dice = random.Random(seed)
    world = World(make_run(*stages), items=items, satisfied_at=dice.randint(1, 4))
    world.feed(e.Begun(0.0))
    past: list[e.Event] = [e.Begun(0.0)]
    for _ in range(600):
        if world.run.status in RUN_ENDED:
            break
        world.at += 1.0
        open_tasks = [t for t in world.run.tasks.values() if t.status not in TASK_ENDED and not t.held]
        event: e.Event
        roll = dice.random()
        if roll < 0.15 and past:
            event = dice.choice(past)  # again, and late
        elif roll < 0.2:
            event = e.Recovered(world.at)
        elif roll < 0.21:
            event = e.CancelAsked(world.at)
        elif open_tasks:
            task = dice.choice(open_tasks)
            if task.due_at and dice.random() < 0.8:
                event = e.TaskDue(world.at + 1000.0, task.number)
            elif dice.random() < 0.3:
                event = e.TaskStarted(world.at, task.number, task.attempt)
            else:
                failure = dice.choice(FAILURES)
                event = e.TaskEnded(world.at, task.number, task.attempt, Outcome(failure, "x"))
        else:
            continue
        past.append(event)
        world.feed(event)
    assert world.run.status in RUN_ENDED
    assert world.finished == [world.run.status]
