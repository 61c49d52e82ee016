"""Holds: what a site that is down, or one that does not accept who we are, does to a run."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import events as e
from orchestrator.definition.extensions import OF_JOBS
from orchestrator.model import (
    HOLDING,
    TASK_ENDED,
    FailureClass,
    Outcome,
    Placing,
    RetryRule,
    RunStatus,
    TaskStatus,
)
from tests.unit.test_states import World, begun, due, stage

DOWN, AUTHENTICATION = FailureClass.DOWN, FailureClass.AUTHENTICATION


@pytest.mark.parametrize("failure", sorted(HOLDING))
def test_a_hold_uses_no_budget_and_the_run_goes_on_by_itself(failure: FailureClass) -> None:
    world = begun(stage("a"))
    waits = []
    for probe in range(12):
        world.end(0, failure)
        task = world.run.tasks[0]
        assert (world.run.status, task.status, task.used) == (RunStatus.HELD, TaskStatus.ON_HOLD, {})
        assert task.hold is not None
        assert (task.hold.reason, task.hold.since, task.hold.probes) == ("why", 0.0, probe)
        waits.append(world.wakes[-1].at - world.at)
        due(world)
        assert world.run.status is RunStatus.RUNNING
    assert waits[0] < 75
    assert sorted(waits[:4]) == waits[:4], "it is tried ever more rarely"
    assert max(waits) < 1.2 * 3600, "and never gives up"
    world.end(0)
    assert (world.run.status, world.run.tasks[0].hold) == (RunStatus.DONE, None)


@pytest.mark.parametrize(
    ("failure", "reason", "link"),
    [
        (AUTHENTICATION, "consent is needed: https://sign.in/to?a=1&b=2.", "https://sign.in/to?a=1&b=2"),
        (AUTHENTICATION, "sign in (at http://sign.in/) first", "http://sign.in/"),
        (AUTHENTICATION, "see 'https://sign.in'\x1b[31m", "https://sign.in"),
        (AUTHENTICATION, "your ticket has expired", ""),
        (DOWN, "https://api.site does not answer", ""),
    ],
)
def test_who_does_not_let_us_in_says_where_to_sign_in(failure: FailureClass, reason: str, link: str) -> None:
    world = begun(stage("a"))
    world.feed(e.TaskEnded(1.0, 0, 1, Outcome(failure, reason)))
    hold = world.run.tasks[0].hold
    assert hold is not None
    assert (hold.reason, hold.link) == (reason, link)


def test_resuming_tries_at_once_what_is_on_hold_there() -> None:
    world = begun(stage("a", placing=Placing(site="far")), stage("b", placing=Placing(site="near")))
    world.end(0, AUTHENTICATION)
    world.end(1, AUTHENTICATION)
    assert world.run.status is RunStatus.HELD
    wakes = len(world.wakes)
    world.feed(e.ResumeAsked(5.0, ("far",)))
    assert world.wakes[wakes:] == [e.Wake(0, 5.0)]
    world.feed(e.TaskDue(5.0, 0))
    assert world.launched[-1] == (0, 2)
    assert world.run.tasks[1].status is TaskStatus.ON_HOLD


def test_an_attempt_that_may_have_begun_is_looked_for_and_not_replaced() -> None:
    world = begun(stage("a"))
    world.end(0, DOWN, unsure=True)
    due(world)
    assert world.launched == [(0, 1), (0, 1)]
    world.end(0)
    assert world.run.status is RunStatus.DONE


def test_cancelling_ends_a_hold_at_once_unless_its_attempt_may_have_begun() -> None:
    world = begun(stage("a", per_file=True), items=2)
    world.end(0, AUTHENTICATION)
    world.end(1, DOWN, unsure=True)
    world.feed(e.CancelAsked(1.0))
    assert (world.run.status, world.killed) == (RunStatus.ABORTING, [])
    world.feed(e.Recovered(2.0))
    due(world)
    assert world.killed == [1]
    world.feed(e.Recovered(3.0))
    assert world.killed == [1, 1], "it is asked for again after a restart"
    world.end(1, FailureClass.CANCELLED)
    assert world.run.status is RunStatus.ABORTED


def test_an_attempt_that_may_have_begun_ends_a_cancelled_run_only_when_it_is_known() -> None:
    world = begun(stage("a"))
    world.feed(e.CancelAsked(1.0))
    world.at = 2.0
    world.end(0, DOWN, unsure=True)
    assert world.run.status is RunStatus.ABORTING
    due(world)
    assert world.killed == [0, 0]
    world.end(0, FailureClass.CANCELLED)
    assert world.run.status is RunStatus.ABORTED


def test_a_run_of_which_something_goes_on_is_not_held() -> None:
    world = begun(stage("a", per_file=True), items=2)
    world.end(0, DOWN)
    assert world.run.status is RunStatus.RUNNING
    world.end(1)
    assert world.run.status is RunStatus.HELD


def test_one_by_one_a_hold_holds_those_behind_it() -> None:
    world = begun(stage("a", per_file=True, parallel=False), items=3)
    world.end(0, DOWN)
    assert world.run.status is RunStatus.HELD
    due(world)
    world.end(0)
    assert world.launched[-1] == (1, 1)


def test_a_hold_survives_a_restart() -> None:
    world = begun(stage("a"))
    world.end(0, DOWN)
    world.feed(e.Recovered(1.0))
    assert world.wakes[-1] == world.wakes[-2]
    assert world.run.status is RunStatus.HELD


def test_a_stage_without_a_fixed_site_leaves_one_that_is_down() -> None:
    world = begun(stage("a", placing=Placing(site="auto"), retries=tuple(OF_JOBS.values())))
    world.feed(e.StagePlaced(1.0, "a", "far"))
    world.end(0, DOWN)
    assert world.placed[-1] == e.Place("a", but=("far",))
    world.feed(e.StagePlaced(2.0, "a", "near"))
    due(world)
    assert (world.run.tasks[0].site, world.launched[-1]) == ("near", (0, 2))


def test_what_finds_something_else_down_stays_with_its_site() -> None:
    world = begun(stage("a", placing=Placing(site="auto")))
    world.feed(e.StagePlaced(1.0, "a", "far"))
    world.end(0, DOWN, exit_status=75)
    assert world.placed == [e.Place("a")]
    due(world)
    assert (world.run.tasks[0].site, world.launched[-1]) == ("far", (0, 2))


def test_an_attempt_that_may_have_begun_stays_with_its_site() -> None:
    world = begun(stage("a", placing=Placing(site="auto")))
    world.feed(e.StagePlaced(1.0, "a", "far"))
    world.end(0, DOWN, unsure=True)
    assert world.placed == [e.Place("a")]
    world.feed(e.StagePlaced(2.0, "a", "near"))
    assert world.run.tasks[0].status is TaskStatus.ON_HOLD


def test_another_failure_between_begins_the_hold_anew() -> None:
    world = begun(stage("a", retries=(RetryRule(FailureClass.LOST, 1),)))
    world.end(0, DOWN)
    due(world)
    world.end(0, FailureClass.LOST)
    due(world)
    world.end(0, DOWN)
    hold = world.run.tasks[0].hold
    assert hold is not None
    assert (hold.since, hold.probes) == (world.at, 0)


@given(st.integers(0, 2**32), st.integers(1, 4), st.booleans())
@settings(max_examples=200, deadline=None)
def test_whatever_is_held_a_site_that_works_again_finishes_it(seed: int, items: int, parallel: bool) -> None:
    """Random holds, restarts and resumes; then everything that is due ends well: the run is done, each file once."""
    dice = random.Random(seed)
    world: World = begun(stage("a", per_file=True, parallel=parallel), stage("b", "a"), items=items)
    for _ in range(60):
        world.at += 100.0
        roll = dice.random()
        open_tasks = [t for t in world.run.tasks.values() if t.status not in TASK_ENDED and not t.held]
        if not open_tasks:
            break
        task = dice.choice(open_tasks)
        if roll < 0.1:
            world.feed(e.Recovered(world.at))
        elif roll < 0.2:
            world.feed(e.ResumeAsked(world.at))
        elif task.due_at:
            world.feed(e.TaskDue(world.at, task.number))
        else:
            failure = dice.choice([None, DOWN, AUTHENTICATION])
            world.end(task.number, failure, unsure=failure is DOWN and dice.random() < 0.5)
    for _ in range(2 * (items + 1)):
        for task in list(world.run.tasks.values()):
            if task.status is TaskStatus.ON_HOLD:
                world.feed(e.TaskDue(task.due_at, task.number))
            now = world.run.tasks[task.number]
            if now.status is TaskStatus.PENDING and not now.held:
                world.end(task.number)
    assert world.run.status is RunStatus.DONE
    assert sorted(t.item or "" for t in world.run.tasks.values()) == ["", *(f"f{i}" for i in range(items))]
