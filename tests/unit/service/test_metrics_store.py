"""What readers of figures cost the store, and what they get when it hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import Denied, Unavailable
from orchestrator.service.http import context, metrics
from orchestrator.service.http.context import Context
from orchestrator.settings import Settings
from orchestrator.store import search, tokens
from orchestrator.store.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(f"sqlite:///{tmp_path}/x.db") as made:
        made.upgrade()
        yield made


class Counting:
    """In place of the count of runs, which takes as long as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.may_answer = threading.Event()
        monkeypatch.setattr(search, "counts", self)

    def __call__(self, _database: Database) -> dict[str, int]:
        self.asked += 1
        assert self.may_answer.wait(30.0)
        return {"done": 3}


def test_many_readers_ask_the_store_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    counting, asked = Counting(monkeypatch), metrics.Asked(database)
    with ThreadPoolExecutor(8) as readers:
        answers = [readers.submit(asked.answer) for _ in range(8)]
        time.sleep(0.1)
        counting.may_answer.set()
        assert {a.result().runs["done"] for a in answers} == {3}
    assert asked.answer().up
    assert counting.asked == 1


def test_a_store_that_hangs_costs_readers_their_patience_and_is_back_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, asked = Counting(monkeypatch), metrics.Asked(database)
    monkeypatch.setattr(metrics, "PATIENCE_S", 0.05)
    assert [asked.answer().up for _ in range(3)] == [False] * 3
    assert counting.asked == 1, "it is not asked again before it has answered"
    counting.may_answer.set()
    over = time.monotonic() + 10
    while not asked.answer().up:
        assert time.monotonic() < over


def test_an_answer_is_asked_for_again_when_it_is_old(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    counting, asked = Counting(monkeypatch), metrics.Asked(database)
    counting.may_answer.set()
    monkeypatch.setattr(metrics, "KEPT_S", 0.0)
    monkeypatch.setattr(metrics, "SHARE", 0.0)
    for _ in range(3):
        assert asked.answer().up
    assert counting.asked == 3


def test_a_token_is_believed_while_the_store_is_away_but_not_for_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    made, text = tokens.create(database, name="ann", role="viewer", site="", now=now, expires_at=now + 60)
    here = Context(Settings(home=Path("/nowhere")), database, lambda: None)
    monkeypatch.setattr(context, "KNOWN_S", 0.0)
    assert here.principal(f"Bearer {text}").name == "ann"
    find = tokens.find

    def away(*_: Any, **__: Any) -> None:
        raise Unavailable("The database is away.")

    monkeypatch.setattr(tokens, "find", away)
    assert here.principal(f"Bearer {text}").name == "ann"
    with pytest.raises(Unavailable):
        here.principal(f"Bearer {text}x")
    monkeypatch.setattr(context, "AWAY_S", 0.0)
    with pytest.raises(Unavailable):
        here.principal(f"Bearer {text}")

    monkeypatch.setattr(context, "AWAY_S", 300.0)
    monkeypatch.setattr(tokens, "find", find)
    tokens.revoke(database, made.id, now=now)
    with pytest.raises(Denied):
        here.principal(f"Bearer {text}")
    monkeypatch.setattr(tokens, "find", away)
    with pytest.raises(Unavailable):  # it was seen revoked
        here.principal(f"Bearer {text}")
