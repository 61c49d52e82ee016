"""Concurrent clients of two services, one of which is killed: what they were told can all have been so."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections import Counter
from math import inf
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client import Client
from orchestrator.model import RUN_ENDED
from orchestrator.store.database import Database
from tests.chaos.callers import Asker, History
from tests.chaos.history import Heard, Listed, Saw, What, Wished
from tests.conftest import workflow
from tests.http.test_takeover import WITHIN_S, Pair, until
from tests.postgres import Postgres

pytestmark = pytest.mark.timeout(120)

BEFORE_S, AFTER_S = 20.0, 20.0  # at most


class Work:
    """Definitions of runs that end well, fail the first time, wait for a door to open, or take a while."""

    def __init__(self, place: Path) -> None:
        self.place, self._chance = place, random.Random(1)

    def __call__(self) -> dict[str, Any]:
        first = self._chance.choice(
            (
                {"command": "true"},
                {"command": "sleep 1"},
                {"command": f"test -e {self.place}/$request || {{ touch {self.place}/$request; exit 1; }}"},
                {
                    "command": f"test -e {self.place}/door || exit 77",
                    "retries": {"authentication": {"exitCodes": [77]}},
                },
            )
        )
        return workflow(s01=first, s02={"command": "echo $request"})


def test_what_clients_are_told_can_have_been(postgres: Postgres, tmp_path: Path) -> None:
    with contextlib.closing(Pair(tmp_path, postgres.new_database())) as pair:
        pair.agent("one")
        work = Work(pair.marks)
        history = History(pair.client)
        for number in range(4):
            history.add(Asker(history, pair.client, number, work, 0.15))
        history.start()
        until(lambda: _accepted(history)[What.SUBMIT] > 10, BEFORE_S, "some runs")
        os.killpg(pair.first.pid, signal.SIGKILL)
        until(pair.b.ready, WITHIN_S, "the other service")
        at = len(history.ops)
        until(lambda: all(_accepted(history, at)[what] for what in What), AFTER_S, "a wish of each kind")
        history.over.set()
        (work.place / "door").touch()
        with pair.client() as client:
            until(lambda: _all_over(client), 30.0, "the end of all runs")
        with Database(pair.database) as database:
            wrong = history.stop(database, lambda run: run.plan.variables["request"])
        assert not wrong, "\n".join(wrong)
    _was_a_trial(history)


def _all_over(client: Client) -> bool:
    client.resume(site="local")
    return set(client.counts()) <= RUN_ENDED


def _accepted(history: History, since: int = 0) -> Counter[What]:
    return Counter(op.what for op in history.ops[since:] if isinstance(op, Wished) and op.end < inf)


def _was_a_trial(history: History) -> None:
    """It did happen that there was no answer, and there was something to see."""
    happened = Counter(type(op).__name__ for op in history.ops)
    assert any(op.what is What.SUBMIT and op.end == inf for op in history.ops if isinstance(op, Wished))
    assert happened[Saw.__name__] > 50, happened
    assert happened[Listed.__name__] > 3, happened
    assert happened[Heard.__name__] > 100, happened
