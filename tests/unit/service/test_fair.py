"""Which order goes next: live first, then shares by weight; nobody starves, nothing is lost or sent twice."""

from __future__ import annotations

import time
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model import Order, Placing, StageKind
from orchestrator.service import fair
from orchestrator.service.fair import Waiting


def order(token: str, experiment: str = "", priority: str = "") -> Order:
    return Order(token, StageKind.COMMAND, "1", experiment=experiment, placing=Placing(priority=priority))


def filled(*groups: tuple[str, str, int]) -> Waiting:
    """(experiment, priority, how many), one after the other."""
    waiting = Waiting()
    for experiment, priority, count in groups:
        for n in range(count):
            waiting.put(order(f"{experiment}{priority}.{n}", experiment, priority))
    return waiting


def taken(waiting: Waiting, count: int) -> list[Order]:
    return [waiting.take() for _ in range(count)]


def shares(orders: list[Order]) -> Counter[str]:
    return Counter(o.experiment for o in orders)


def test_one_experiment_is_served_in_the_order_in_which_it_came() -> None:
    assert [o.token for o in taken(filled(("a", "", 5)), 5)] == [f"a.{n}" for n in range(5)]


def test_experiments_share_whoever_came_first_with_how_much() -> None:
    waiting = filled(("a", "", 1000), ("b", "", 50), ("c", "", 50))
    assert shares(taken(waiting, 30)) == {"a": 10, "b": 10, "c": 10}


def test_an_experiment_that_comes_late_is_served_next_and_does_not_catch_up() -> None:
    waiting = filled(("a", "", 1000))
    taken(waiting, 500)
    for n in range(100):
        waiting.put(order(f"b.{n}", "b"))
    first = taken(waiting, 20)
    assert "b" in shares(first[:2])
    assert shares(first) == {"a": 10, "b": 10}


def test_leaving_and_coming_again_gains_nothing() -> None:
    waiting = filled(("a", "", 100), ("b", "", 100))
    served = []
    for n in range(90):
        if f"c.{n - 1}" not in waiting:
            waiting.put(order(f"c.{n}", "c"))
        served.append(waiting.take())
    assert max(shares(served).values()) - min(shares(served).values()) <= 2


def test_live_goes_before_a_backfill_of_a_hundred_thousand() -> None:
    waiting = filled(("a", "backfill", 100_000), ("b", "", 1000))
    waiting.put(order("live", "c", "live"))
    assert waiting.take().token == "live"


def test_live_scans_share_among_themselves() -> None:
    waiting = filled(("a", "live", 100), ("b", "live", 100), ("c", "", 100))
    assert shares(taken(waiting, 20)) == {"a": 10, "b": 10}


def test_backfill_gets_less_and_never_nothing() -> None:
    waiting = filled(("a", "backfill", 200), ("b", "normal", 200))
    assert shares(taken(waiting, 90)) == {"a": 10, "b": 80}


def test_what_an_agent_had_before_is_looked_for_first() -> None:
    waiting = filled(("a", "live", 3))
    waiting.put_first(order("lost", "b"))
    assert waiting["lost"].experiment == "b"
    assert [o.token for o in taken(waiting, 2)] == ["lost", "alive.0"]


def test_what_is_taken_back_is_never_sent() -> None:
    waiting = filled(("a", "", 3), ("b", "", 1))
    waiting.pop("a.1")
    waiting.pop("b.0")
    assert [o.token for o in taken(waiting, len(waiting))] == ["a.0", "a.2"]
    assert (len(waiting), "b.0" in waiting) == (0, False)


def test_experiments_that_are_gone_are_forgotten() -> None:
    waiting = Waiting()
    for n in range(3 * fair.MOST_IDLE):
        waiting.put(order(str(n), experiment=str(n)))
        waiting.take()
    assert len(waiting._others._flows) <= fair.MOST_IDLE


def test_an_order_costs_microseconds_among_many() -> None:
    """A hundred thousand of a thousand experiments; the bound is a tenth of what storing a transition costs."""
    orders = [order(str(n), experiment=str(n % 1000)) for n in range(100_000)]
    begun = time.process_time()
    waiting = Waiting()
    for made in orders:
        waiting.put(made)
    taken(waiting, len(orders))
    assert (time.process_time() - begun) / len(orders) < 50e-6


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "first", "take", "pop"]),
        st.sampled_from("abc"),
        st.sampled_from(["", "live", "backfill"]),
    ),
    max_size=80,
)


@given(ACTIONS)
def test_each_order_is_taken_once_or_taken_back(actions: list[tuple[str, str, str]]) -> None:
    waiting, there = Waiting(), set()
    for n, (action, experiment, priority) in enumerate(actions):
        if action == "put":
            waiting.put(order(str(n), experiment, priority))
            there.add(str(n))
        elif action == "first":
            waiting.put_first(order(str(n), experiment, priority))
            there.add(str(n))
        elif there:
            token = waiting.take().token if action == "take" else waiting.pop(min(there)).token
            there.remove(token)
        assert waiting.tokens() == there
        assert len(waiting) == len(there)
    assert {o.token for o in taken(waiting, len(waiting))} == there


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=30, max_size=200))
def test_nobody_with_work_waits_longer_than_the_weights_say(others: list[str]) -> None:
    """One backfill order among floods of normal ones: at most eight turns of each other experiment come before it."""
    waiting = Waiting()
    for n, experiment in enumerate(others):
        waiting.put(order(f"{n}", experiment))
    taken(waiting, 5)
    waiting.put(order("slow", "d", "backfill"))
    waiting.put(order("slow2", "d", "backfill"))
    sent = [o.token for o in taken(waiting, len(waiting))]
    assert sent.index("slow2") <= 9 * len(set(others)) + 2
