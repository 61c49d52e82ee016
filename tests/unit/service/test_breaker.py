"""The circuit breaker of a site: when it opens, how it tries, when it closes, and that others go on."""

from __future__ import annotations

import pytest

from orchestrator.model import FailureClass, Order, Outcome, StageKind
from orchestrator.protocol import Message, Orders
from orchestrator.service.agents import Site
from orchestrator.service.breaker import LONGEST_WAIT_S, OPENS_AT, PASSES_S, WAIT_S, Breaker

DOWN = Outcome(FailureClass.DOWN, "nobody answers.")


class World:
    """A site with an agent that hears and does nothing, at a time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.site = Site("far", clock=lambda: self.now, spread=lambda: 0.5)
        self.heard: list[Message] = []
        self.site.attach(self, self.heard.append, [])
        self.number = 0

    @property
    def breaker(self) -> Breaker:
        return self.site.breaker

    def order(self, count: int = 1) -> list[str]:
        tokens = [f"run{self.number + n}.0.1" for n in range(count)]
        self.number += count
        for token in tokens:
            self.site.order(Order(token, StageKind.COMMAND, "1"))
        self.site.flush()
        return tokens

    @property
    def sent(self) -> list[str]:
        return [o.token for m in self.heard if isinstance(m, Orders) for o in m.orders]

    def opened(self) -> None:
        for token in self.order(OPENS_AT):
            self.site.ended(token, DOWN)
        assert self.breaker.since
        self.heard.clear()


@pytest.fixture
def world() -> World:
    return World()


def test_it_opens_after_failures_of_different_runs_in_a_row(world: World) -> None:
    first, second, third = world.order(3)
    for token in (first, first, second):
        world.site.ended(token, DOWN)
    assert not world.breaker.since
    world.site.ended(third, DOWN)
    assert world.breaker.since == world.now
    world.heard.clear()
    world.order(10)
    assert world.sent == []


def test_a_success_between_starts_the_count_anew(world: World) -> None:
    tokens = world.order(2 * OPENS_AT)
    for n, token in enumerate(tokens):
        world.site.ended(token, Outcome() if n == OPENS_AT - 1 else DOWN)
    assert world.breaker.since, "three in a row after it"
    world = World()
    tokens = world.order(2 * OPENS_AT - 2)
    for n, token in enumerate(tokens):
        world.site.ended(token, Outcome() if n == OPENS_AT - 1 else DOWN)
    assert not world.breaker.since


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(FailureClass.USER, "exit status 1", exit_status=1),
        Outcome(FailureClass.SITE, "Invalid qos."),  # refused: perhaps its own fault
        Outcome(FailureClass.AUTHENTICATION, "exit status 77", exit_status=77),  # it ran here
        Outcome(FailureClass.DOWN, "the collection is paused", exit_status=75),  # the same
        Outcome(FailureClass.CANCELLED, "cancelled"),
        Outcome(FailureClass.LOST, "the worker was lost"),
    ],
    ids=lambda o: o.reason,
)
def test_what_is_not_the_fault_of_the_site_never_opens_it(outcome: Outcome, world: World) -> None:
    for token in world.order(10):
        world.site.ended(token, outcome)
    assert not world.breaker.since


@pytest.mark.parametrize(
    "outcome",
    [DOWN, Outcome(FailureClass.AUTHENTICATION, "expired"), Outcome(FailureClass.SITE, "no worker", job="7")],
    ids=lambda o: o.reason,
)
def test_what_is_the_fault_of_the_site_opens_it(outcome: Outcome, world: World) -> None:
    for token in world.order(OPENS_AT):
        world.site.ended(token, outcome)
    assert world.breaker.since


def test_one_order_tries_after_a_wait_that_grows_to_a_limit(world: World) -> None:
    world.opened()
    world.order(5)
    waits = []
    for _ in range(8):
        asked = world.now
        while not world.sent:
            world.now += 1.0
            world.site.tend()
        waits.append(world.now - asked)
        (probe,) = world.sent
        world.heard.clear()
        world.site.tend()
        assert world.sent == [], "one at a time"
        world.site.ended(probe, DOWN)
        world.site.order(Order(probe, StageKind.COMMAND, "1"))
    assert waits[:3] == [WAIT_S, 2 * WAIT_S, 4 * WAIT_S]
    assert waits[-1] == LONGEST_WAIT_S


def test_it_closes_at_the_first_sign_of_work_and_everything_goes(world: World) -> None:
    world.opened()
    tokens = world.order(4)
    world.now += WAIT_S
    world.site.tend()
    assert world.sent == tokens[:1]
    world.breaker.began()
    assert world.site.tend(), "what is on hold there is to be resumed"
    assert world.sent == tokens
    assert not world.site.tend()


def test_an_order_that_waits_long_in_a_queue_was_taken(world: World) -> None:
    world.opened()
    world.order(2)
    world.now += WAIT_S
    world.site.tend()
    world.now += PASSES_S + 1
    assert world.site.tend()
    assert len(world.sent) == 2


def test_a_try_that_came_to_nothing_is_made_again(world: World) -> None:
    world.opened()
    first, second = world.order(2)
    world.now += WAIT_S
    world.site.tend()
    world.site.ended(first, Outcome(FailureClass.CANCELLED, "cancelled"))
    world.site.tend()
    assert world.sent == [first, second]
    world.site.attach(object(), world.heard.append, [])  # its agent has died with it
    assert world.sent == [first, second, second], "what may run already is looked for"


def test_a_person_may_have_it_tried_at_once(world: World) -> None:
    world.opened()
    world.order(2)
    world.breaker.try_now()
    world.site.tend()
    assert len(world.sent) == 1


def test_it_says_why_and_when(world: World) -> None:
    assert world.breaker.sentence == ""
    world.opened()
    sentence = "3 runs in a row have failed there (nobody answers); one attempt tries it in 30 s"
    assert world.breaker.sentence == sentence
    world.order()
    world.now += WAIT_S
    world.site.tend()
    assert world.breaker.sentence.endswith("one attempt is trying it now")


def test_several_sites_are_not_tried_in_step() -> None:
    found = set()
    for spread in (0.0, 0.5, 1.0):
        breaker = Breaker(clock=lambda: 1.0, spread=lambda s=spread: s)  # type: ignore[misc]
        for n in range(OPENS_AT):
            breaker.ended(f"r{n}.0.1", DOWN)
        found.add(breaker.sentence.rpartition(" in ")[2])
    assert found == {"24 s", "30 s", "36 s"}
