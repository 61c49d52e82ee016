from __future__ import annotations

import pytest
from msgspec.structs import replace

from orchestrator.model import FailureClass, Order, Outcome, Placing, StageKind
from orchestrator.protocol import Bye, Kills, Message, Orders
from orchestrator.service import agents
from orchestrator.service.agents import Line, Site
from orchestrator.service.breaker import OPENS_AT


def order(token: str, *, adopt: bool = False) -> Order:
    return Order(token, StageKind.COMMAND, "1", adopt=adopt)


def sent(heard: list[Message]) -> list[str]:
    return [o.token for m in heard if isinstance(m, Orders) for o in m.orders]


def test_orders_wait_for_an_agent_and_go_out_in_order() -> None:
    site, heard = Site("local"), []  # type: ignore[var-annotated]
    for token in ("a", "b"):
        site.order(order(token))
    site.flush()
    assert site.load == (2, 0)
    site.attach(object(), heard.append, [])
    assert sent(heard) == ["a", "b"]
    assert site.load == (0, 2)


def test_the_window_is_kept() -> None:
    site, heard = Site("local"), []  # type: ignore[var-annotated]
    site.attach(object(), heard.append, [])
    for n in range(agents.WINDOW + 5):
        site.order(order(str(n)))
    site.flush()
    assert len(sent(heard)) == agents.WINDOW
    site.ended("0", Outcome())
    site.flush()
    assert len(sent(heard)) == agents.WINDOW + 1


def test_a_new_agent_gets_what_the_old_one_held_to_look_for() -> None:
    site = Site("local")
    site.attach(object(), lambda m: None, [])
    for token in ("a", "b"):
        site.order(order(token))
    site.flush()
    heard: list[Message] = []
    site.attach(object(), heard.append, ["b"])
    assert sent(heard) == ["a"]
    assert isinstance(heard[0], Orders)
    assert heard[0].orders[0].adopt


def test_an_agent_that_outlived_the_service_is_not_asked_twice() -> None:
    site, heard = Site("local"), []  # type: ignore[var-annotated]
    site.order(order("a", adopt=True))
    site.attach(object(), heard.append, ["a"])
    assert sent(heard) == []
    assert site.load == (0, 1)


def test_the_end_of_an_old_connection_leaves_the_new_one() -> None:
    site, old, new = Site("local"), object(), object()
    site.attach(old, lambda m: None, [])
    site.attach(new, lambda m: None, [])
    site.detach(old)
    assert site.connected
    site.detach(new)
    assert not site.connected


def test_killing_what_never_left_ends_it_here() -> None:
    site = Site("local")
    site.order(order("a"))
    assert site.kill(["a"]) == ["a"]
    heard: list[Message] = []
    site.attach(object(), heard.append, [])
    assert heard == []


def test_a_kill_is_repeated_to_the_next_agent_until_it_is_seen_to_end() -> None:
    site = Site("local")
    site.order(order("a", adopt=True))
    assert site.kill(["a"]) == []
    heard: list[Message] = []
    site.attach(object(), heard.append, [])
    assert heard == [Orders((order("a", adopt=True),)), Kills(("a",))]
    site.ended("a", Outcome())
    again: list[Message] = []
    site.attach(object(), again.append, [])
    assert again == []


def test_dismissal() -> None:
    site, heard = Site("local"), []  # type: ignore[var-annotated]
    site.dismiss()
    site.attach(object(), heard.append, [])
    site.dismiss()
    assert heard == [Bye()]


def test_a_live_scan_waits_for_what_the_agent_has_and_for_nothing_else() -> None:
    site, heard = Site("local"), []  # type: ignore[var-annotated]
    site.attach(object(), heard.append, [])
    for n in range(3 * agents.WINDOW):
        site.order(replace(order(f"backfill.{n}"), placing=Placing(priority="backfill")))
    site.flush()
    site.order(replace(order("live"), placing=Placing(priority="live")))
    site.ended("backfill.0", Outcome())
    site.flush()
    assert sent(heard)[agents.WINDOW :] == ["live"]


def test_how_a_site_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(agents.time, "monotonic", lambda: now)
    site = Site("local")
    assert site.line(now) == Line("local", False, False, None, 0, 0, 0.0, 0.0)
    monkeypatch.setattr(agents, "WINDOW", 1)
    for token in ("r.0.1", "r.1.1", "r.2.1"):
        site.order(order(token))
        now += 10.0
    assert site.line(now) == Line("local", False, False, None, 3, 0, 30.0, 0.0)
    key = object()
    site.attach(key, lambda m: None, [])
    site.heard_at = now
    assert site.line(now + 1) == Line("local", True, False, 1.0, 2, 1, 21.0, 31.0)
    site.detach(key)
    site.attach(object(), lambda m: None, [])  # what is looked for again is as old as it was
    assert site.line(now + 1).oldest_sent_s == 31.0
    site.ended("r.0.1", Outcome())
    assert site.line(now + 1) == Line("local", True, False, 1.0, 2, 0, 21.0, 0.0)
    site.kill(["r.1.1", "r.2.1"])
    assert site.line(now + 1) == Line("local", True, False, 1.0, 0, 0, 0.0, 0.0)


def test_a_site_that_fails_run_after_run_stands_shut() -> None:
    site = Site("local")
    for run in range(OPENS_AT):
        site.order(order(f"{run}.0.1"))
        site.ended(f"{run}.0.1", Outcome(FailureClass.DOWN, "away"))
    assert site.line(0.0).shut
