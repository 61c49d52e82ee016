"""The transition of a run, by examples and by random histories with losses, duplicates and disorder."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from orchestrator import events as e
from orchestrator import states as s
from orchestrator.definition.extensions import OF_JOBS as OF_JOBS_RULES
from orchestrator.model import (
    RUN_ENDED,
    STAGE_PASSED,
    TASK_ENDED,
    FailureClass,
    Outcome,
    Placing,
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


def stage(name: str, *after: str, kind: StageKind = StageKind.COMMAND, **more: object) -> StagePlan:
    return StagePlan(name, kind, after=after, **more)  # type: ignore[arg-type]


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
    placed: list[e.Place] = field(default_factory=list)

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
                    case e.Place():
                        self.placed.append(command)
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
            assert state.on_hold == sum(t.status is TaskStatus.ON_HOLD for t in tasks)
        if self.run.status is RunStatus.HELD:
            going = [t for t in self.run.tasks.values() if t.status not in TASK_ENDED and not t.held]
            assert going
            assert all(t.status is TaskStatus.ON_HOLD and t.hold and t.hold.reason for t in going)
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


@pytest.mark.parametrize(
    ("outcome", "asked"),
    [
        (Outcome(FailureClass.DOWN, "paused", exit_status=75, link="https://x"), [0]),
        (Outcome(FailureClass.LOST, "the worker was lost"), [0]),
        (Outcome(FailureClass.DOWN, "no server", exit_status=75), []),
        (Outcome(FailureClass.TRANSIENT, "full"), []),
    ],
)
def test_a_transfer_that_may_go_on_is_asked_for_its_end(outcome: Outcome, asked: list[int]) -> None:
    rules = tuple(RetryRule(failure, 1) for failure in (FailureClass.TRANSIENT, FailureClass.LOST))
    world = begun(stage("a", kind=StageKind.TRANSFER, retries=rules))
    world.feed(e.TaskEnded(0.0, 0, 1, outcome))
    world.feed(e.CancelAsked(1.0))
    if asked:
        assert world.run.status is RunStatus.ABORTING
        world.feed(e.Recovered(2.0))
        due(world)
        world.end(0, FailureClass.CANCELLED)
    assert world.killed == asked
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
            kind=draw(st.sampled_from([StageKind.COMMAND, StageKind.TRANSFER])),
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
        elif roll < 0.23:
            event = e.ResumeAsked(world.at, dice.choice([(), ("",), ("elsewhere",)]))
        elif open_tasks:
            task = dice.choice(open_tasks)
            if task.due_at and dice.random() < 0.8:
                event = e.TaskDue(world.at + 5000.0, task.number)
            elif dice.random() < 0.3:
                event = e.TaskStarted(world.at, task.number, task.attempt)
            else:
                failure = dice.choice(FAILURES)
                unsure, link = failure is FailureClass.DOWN and dice.random() < 0.5, dice.choice(["", "https://x"])
                outcome = Outcome(failure, "x", unsure=unsure, link=link)
                event = e.TaskEnded(world.at, task.number, task.attempt, outcome)
        else:
            continue
        past.append(event)
        world.feed(event)
    assert world.run.status in RUN_ENDED
    assert world.finished == [world.run.status]


# ------------------------------------------------------------------------------------------------------- the place

OF_JOBS = tuple(OF_JOBS_RULES.values())
ANYWHERE = {"placing": Placing(site="auto"), "retries": OF_JOBS}


def due(world: World) -> None:
    """The time of the last wish to be woken has come."""
    wake = world.wakes[-1]
    world.at = wake.at
    world.feed(e.TaskDue(wake.at, wake.number))


def test_a_stage_whose_site_is_auto_opens_when_it_has_one() -> None:
    world = begun(stage("a", **ANYWHERE))
    assert (world.placed, world.opened, world.launched) == ([e.Place("a")], [], [])
    world.feed(e.StagePlaced(1.0, "a", "far", "it is idle", "fast", "beam"))
    state = world.run.stages["a"]
    assert (state.site, state.queue, state.reservation, state.placed) == ("far", "fast", "beam", "it is idle")
    assert (world.opened, world.run.tasks[0].site) == (["a"], "far")


def test_an_answer_that_comes_twice_opens_once() -> None:
    world = begun(stage("a", **ANYWHERE))
    for site in ("far", "near"):
        world.feed(e.StagePlaced(1.0, "a", site))
    assert world.launched == [(0, 1)]


def test_a_stage_with_a_site_is_not_placed() -> None:
    world = begun(stage("a", placing=Placing(site="far")), stage("b", "a"))
    assert world.placed == []
    world.end(0)
    assert [world.run.tasks[n].site for n in (0, 1)] == ["far", ""]


def test_a_stage_that_no_site_can_take_fails_with_the_reason() -> None:
    world = begun(stage("a", **ANYWHERE))
    world.feed(e.StageRefused(1.0, "a", "no site has GPUs"))
    assert world.run.status is RunStatus.FAILED
    assert world.run.error == "stage 'a': no site has GPUs"


def test_a_run_cancelled_while_a_site_is_chosen_is_over_and_the_answer_comes_to_nothing() -> None:
    world = begun(stage("a", **ANYWHERE))
    world.feed(e.CancelAsked(1.0))
    world.feed(e.StagePlaced(2.0, "a", "far"))
    assert world.run.status is RunStatus.ABORTED
    assert world.launched == []


def test_after_a_restart_a_site_is_chosen_again_and_a_chosen_one_is_kept() -> None:
    world = begun(stage("a", **ANYWHERE))
    world.feed(e.Recovered(1.0))
    assert world.placed == [e.Place("a"), e.Place("a")]
    world.feed(e.StagePlaced(1.0, "a", "far"))
    world.feed(e.Recovered(2.0))
    assert len(world.placed) == 2
    assert world.run.tasks[0].site == "far"


def test_a_site_that_refuses_a_stage_without_a_fixed_site_is_left_for_another() -> None:
    world = begun(stage("a", **ANYWHERE))
    world.feed(e.StagePlaced(1.0, "a", "far"))
    world.end(0, FailureClass.SITE)
    assert world.placed[-1] == e.Place("a", but=("far",))
    world.feed(e.StagePlaced(2.0, "a", "near"))
    assert world.run.tasks[0].site == "far", "the attempt that was made stays with its site"
    due(world)
    assert (world.run.tasks[0].site, world.run.tasks[0].attempt) == ("near", 2)


def test_a_site_that_was_named_is_tried_again_and_not_left() -> None:
    world = begun(stage("a", placing=Placing(site="far"), retries=OF_JOBS))
    world.end(0, FailureClass.SITE)
    due(world)
    assert (world.placed, world.run.tasks[0].site) == ([], "far")


@pytest.mark.parametrize("failure", [FailureClass.SITE, FailureClass.RESERVATION])
@pytest.mark.parametrize("site", ["auto", "far"])
def test_the_site_that_the_policy_names_is_next(failure: FailureClass, site: str) -> None:
    world = begun(stage("a", placing=Placing(site=site), retries=OF_JOBS))
    world.feed(e.StagePlaced(1.0, "a", "far", queue="fast", reservation="beam"))
    world.end(0, failure, elsewhere="near")
    due(world)
    state = world.run.stages["a"]
    assert (world.run.tasks[0].site, state.queue, state.reservation, state.placed) == ("near", "", "", "why")


def test_an_attempt_of_the_site_before_does_not_move_the_stage_again() -> None:
    world = begun(stage("a", per_file=True, **ANYWHERE), items=2)
    world.feed(e.StagePlaced(1.0, "a", "far"))
    world.end(0, FailureClass.SITE)
    world.feed(e.StagePlaced(2.0, "a", "near"))
    asked = len(world.placed)
    world.end(1, FailureClass.SITE)
    assert len(world.placed) == asked, "it would say: not `near`, which has refused nothing"
    world.end(1, FailureClass.RESERVATION, elsewhere="third")
    assert world.run.stages["a"].site == "near"


def test_a_reservation_that_is_gone_without_a_policy_is_tried_again_where_it_was() -> None:
    world = begun(stage("a", **ANYWHERE))
    world.feed(e.StagePlaced(1.0, "a", "far"))
    world.end(0, FailureClass.RESERVATION)
    assert world.placed == [e.Place("a")]


def test_a_retry_of_the_run_chooses_anew() -> None:
    world = begun(stage("a", **ANYWHERE))
    world.feed(e.StagePlaced(1.0, "a", "far"))
    world.end(0, FailureClass.USER)
    world.feed(e.RetryAsked(2.0))
    assert world.placed == [e.Place("a"), e.Place("a")]


@pytest.mark.parametrize("rule", OF_JOBS, ids=[r.failure for r in OF_JOBS])
def test_each_failure_of_jobs_has_its_own_budget(rule: RetryRule) -> None:
    world = begun(stage("a", retries=OF_JOBS))
    other = FailureClass.NODE if rule.failure is not FailureClass.NODE else FailureClass.SITE
    world.end(0, other)
    due(world)
    for used in range(rule.most):
        world.end(0, rule.failure)
        assert world.run.tasks[0].used == {other: 1, rule.failure: used + 1}
        due(world)
    assert world.run.status is RunStatus.RUNNING
    world.end(0, rule.failure)
    assert world.run.status is RunStatus.FAILED


def test_what_somebody_ended_outside_is_not_begun_again() -> None:
    world = begun(stage("a", retries=OF_JOBS))
    world.end(0, FailureClass.OUTSIDE)
    assert world.run.status is RunStatus.FAILED
