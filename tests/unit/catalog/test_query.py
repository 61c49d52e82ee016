"""Conditions as people write them."""

from __future__ import annotations

import math

import pytest

from orchestrator.catalog import query
from orchestrator.errors import ArgumentError
from orchestrator.store.catalog_search import Match

DAY = 1795219200.0  # 2026-11-21


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sample=bone", Match("sample", "bone")),
        ("/entry/sample/name == Wet bone ", Match("entry/sample/name", "Wet bone")),
        ("energy=20", Match("energy", None, 20.0, 20.0)),
        ("energy >= 2e1", Match("energy", None, 20.0)),
        ("energy>20", Match("energy", None, 20.0, open_low=True)),
        ("energy<=20", Match("energy", None, -math.inf, 20.0)),
        ("energy<20", Match("energy", None, -math.inf, 20.0, open_high=True)),
        ("energy=20..30", Match("energy", None, 20.0, 30.0)),
        ("energy=20..", Match("energy", None, 20.0)),
        ("note=a..b=c", Match("note", "a..b=c")),
        ("note=...", Match("note", "...")),
        ("wet=true", Match("wet", "true")),
        ("t=nan", Match("t", "nan")),
        ("start=2026-11-21", Match("start", None, DAY, DAY + 86400, open_high=True)),
        ("start>=2026-11-21", Match("start", None, DAY)),
        ("start>2026-11-21", Match("start", None, DAY + 86400)),
        ("start<=2026-11-21", Match("start", None, -math.inf, DAY + 86400, open_high=True)),
        ("start<2026-11-21", Match("start", None, -math.inf, DAY, open_high=True)),
        ("start=2026-11-21..2026-11-22", Match("start", None, DAY, DAY + 2 * 86400, open_high=True)),
        ("start>=2026-11-21T00:00:00Z", Match("start", None, DAY)),
    ],
)
def test_what_can_be_read(text: str, expected: Match) -> None:
    assert query.match(text) == expected


@pytest.mark.parametrize(
    ("text", "at", "why"),
    [
        ("energy", 7, "sign"),
        ("", 1, "sign"),
        ("=20", 1, "key is missing"),
        ("/ = 5", 1, "key is missing"),
        ("energy>=", 9, "value is missing"),
        ("energy>>20", 8, "second sign"),
        ("energy> twenty", 9, "neither a number"),
        ("energy>nan", 8, "neither a number"),
        ("energy=5..x", 11, "neither a number"),
        ("energy=30..20", 8, "ends before"),
        ("energy!=20", 7, "not among"),
        ("\udcff\n", 3, "sign"),
    ],
)
def test_what_cannot_is_refused_with_the_place(text: str, at: int, why: str) -> None:
    with pytest.raises(ArgumentError, match=rf"at character {at}: .*{why}") as caught:
        query.match(text)
    assert "KEY>=VALUE" in caught.value.hint


def test_values() -> None:
    texts = ("7", "-1.5", "1e3", "007", "true", "bone", "2026-11-21", "nan", "+5", "0.5", "", "1e999")
    assert [query.value(t) for t in texts] == [
        *(7, -1.5, 1000.0, "007", True, "bone", "2026-11-21", "nan", "+5", 0.5, "", "1e999")
    ]
