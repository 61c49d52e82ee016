"""An attempt as the agent gets it: with what earlier attempts have taught, and at another site without its names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from immutables import Map

from orchestrator.engine import orders
from orchestrator.model import (
    FailureClass,
    Order,
    Placing,
    Plan,
    Resources,
    RetryRule,
    Run,
    StageKind,
    StagePlan,
    StageState,
    Task,
)

ASKED = Placing(site="far", queue="gpu-large", account="mine", reservation="shift", mode="batch")


def order(
    *, placing: Placing = ASKED, state: StageState | None = None, used: dict[str, int] | None = None, **more: object
) -> Order:
    plan = StagePlan("a", StageKind.KERNEL, placing=placing, **more)  # type: ignore[arg-type]
    state = state or StageState("a", site=placing.site)
    task = Task(3, "a", attempt=2, site=state.site, used=used or {})
    stages = Map({"a": state})
    run = Run("r", Plan("w", "o", (plan,)), 0.0, stages=stages, variables=Map({"experimentName": "e1"}))
    return orders.order(run, task, plan, Path("/home/runs"), adopt=False)


def test_its_token_is_run_task_and_attempt() -> None:
    made = order()
    assert (made.token, made.log_dir, made.experiment) == ("r.3.2", "/home/runs/r/logs", "e1")


def test_the_name_of_a_run_is_not_interned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 would have it in memory for ever."""
    interned: set[str] = set()
    monkeypatch.setattr(sys, "intern", lambda text: interned.add(text) or text)
    order()
    assert "r" not in interned


def test_what_the_stage_asks_for_goes_with_it() -> None:
    assert order().placing == ASKED


def test_names_of_one_site_mean_nothing_at_another() -> None:
    moved = order(state=StageState("a", site="near"))
    assert moved.placing == Placing(site="near", mode="batch")


def test_a_use_of_a_queue_means_the_same_everywhere() -> None:
    for use in orders.USES:
        moved = order(placing=Placing(site="far", queue=use), state=StageState("a", site="near"))
        assert moved.placing.queue == use


def test_what_was_chosen_with_the_site_goes_first() -> None:
    state = StageState("a", site="near", queue="fast", reservation="beam")
    assert order(placing=Placing(site="auto", queue="demand"), state=state).placing == Placing(
        site="near", queue="fast", reservation="beam"
    )


@pytest.mark.parametrize(
    ("failure", "longer", "larger"),
    [(FailureClass.WALLTIME, 2.0, 1.0), (FailureClass.MEMORY, 1.0, 2.0), (FailureClass.NODE, 1.0, 1.0)],
)
def test_an_attempt_after_one_that_had_too_little_gets_more(
    failure: FailureClass, longer: float, larger: float
) -> None:
    resources = order(used={str(failure): 1}, resources=Resources(walltime_s=600, memory_bytes=100)).resources
    assert (resources.longer, resources.larger) == (longer, larger)
    assert (resources.walltime_s, resources.memory_bytes) == (600, 100), "what was asked stays to be read"


def test_more_is_given_each_time() -> None:
    used = {str(FailureClass.WALLTIME): 2, str(FailureClass.MEMORY): 3}
    assert (order(used=used).resources.longer, order(used=used).resources.larger) == (4.0, 8.0)


def test_exit_codes_that_mean_try_again_go_with_it() -> None:
    rules = (RetryRule(FailureClass.LOST, 3), RetryRule(FailureClass.TRANSIENT, 1, exit_codes=(9,)))
    assert order(retries=rules).transient_codes == (9,)
    assert order().transient_codes == ()


def test_exit_codes_that_mean_sign_in_first() -> None:
    rules = (RetryRule(FailureClass.AUTHENTICATION, 0, exit_codes=(77,)),)
    assert order(retries=rules).authentication_codes == (77,)
