"""What the engine counts of what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator import events
from orchestrator.definition import loader
from orchestrator.definition.plan import compile_plan
from orchestrator.engine.loop import Engine, new_run
from orchestrator.engine.tally import PHASE_BOUNDS, Histogram, Tally
from orchestrator.model import FailureClass, Outcome
from orchestrator.records import Costs
from orchestrator.store.database import Database
from tests.conftest import workflow

WELL = Outcome(started_at=110.0, ended_at=150.0, transfer_s=7.0, checks_s=3.0)


def counted(tmp_path: Path, *outcomes: Outcome, late: bool = False, **stage: Any) -> Tally:
    """After a run of one stage whose attempts end like this; `late`: each is told twice."""
    database = Database(f"sqlite:///{tmp_path}/x.db")
    database.upgrade()
    engine = Engine(database, tmp_path, clock=lambda: 100.0)
    plan = compile_plan(loader.load(workflow(s1={"command": "true", **stage})), {}, directory="/")
    engine.submit(new_run("r", plan, 1.0))
    engine.turn()
    for attempt, outcome in enumerate(outcomes, 1):
        for _ in range(1 + late):
            engine.feed("r", events.TaskEnded(200.0, 0, attempt, outcome))
        engine.turn()
        engine.due(1e9)
        engine.turn()
    return engine.tally


def test_phases_of_an_attempt_by_site(tmp_path: Path) -> None:
    tally = counted(tmp_path, WELL)
    assert {key: h.total for key, h in tally.phases.items()} == {
        ("local", "queue"): 10.0,
        ("local", "compute"): 30.0,
        ("local", "transfer"): 7.0,
        ("local", "checks"): 3.0,
    }
    assert tally.finished == {"done": 1}
    assert (tally.failures, tally.retries) == ({}, {})
    assert sum(tally.turns.counts) == sum(tally.writes.counts) == 2


def test_retries_and_failures_by_cause_each_once(tmp_path: Path) -> None:
    lost, wrong = Outcome(FailureClass.LOST, "gone"), Outcome(FailureClass.USER, "no")
    tally = counted(tmp_path, lost, wrong, late=True)
    assert tally.failures == {FailureClass.LOST.value: 1, FailureClass.USER.value: 1}
    assert tally.retries == {FailureClass.LOST.value: 1}
    assert tally.finished == {"failed": 1}
    assert tally.phases == {}, "what never started took no time"


def test_a_hold_is_no_retry(tmp_path: Path) -> None:
    tally = counted(tmp_path, Outcome(FailureClass.DOWN, "away"))
    assert tally.holds == tally.failures == {FailureClass.DOWN.value: 1}
    assert tally.retries == {}


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_a_histogram_counts_each_observation_once_where_it_belongs(values: list[float]) -> None:
    made = Histogram(PHASE_BOUNDS)
    for value in values:
        made.add(value)
    below = [sum(made.counts[: i + 1]) for i in range(len(PHASE_BOUNDS))]
    assert below == [sum(v <= bound for v in values) for bound in PHASE_BOUNDS]
    assert sum(made.counts) == len(values)


def test_a_phase_that_was_not_is_not_observed() -> None:
    tally = Tally()
    tally.took("far", Costs(queue_s=0.0, compute_s=1.0))
    assert set(tally.phases) == {("far", "queue"), ("far", "compute")}
