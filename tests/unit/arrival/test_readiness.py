"""Whole or not, from what was observed: the rule itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.arrival.contents import Contents, Shape
from orchestrator.arrival.readiness import DX_DARK, DX_DATA, DX_FLAT, DX_THETA, Ask, Facts, Layout, Need, judge, number

SEEN = Facts(1, 100.0, writer_asked=True, writer=False)


def facts(**more: Any) -> Facts:
    return Facts(**{f: getattr(SEEN, f) for f in SEEN.__struct_fields__} | more)


def shapes(**counts: int) -> dict[str, Shape | None]:
    names = {"data": DX_DATA, "theta": DX_THETA, "flat": DX_FLAT, "dark": DX_DARK}
    return {names[n]: Shape((count, 4, 4), True) for n, count in counts.items()}


def test_settled_by_what_we_saw_and_then_closed() -> None:
    need = Need(settle_s=2.0)
    early = judge(need, Facts(5, 1.5))
    assert not early.whole
    assert early.wait_s == 0.5
    assert judge(need, Facts(5, 2.0)).ask is Ask.WRITER
    assert judge(need, Facts(5, 2.0, writer_asked=True, writer=True)).reason == "its writer has it open"
    assert judge(need, Facts(5, 2.0, writer_asked=True, writer=False)).whole


def test_a_writer_that_cannot_be_seen_must_be_silent_for_longer_unless_there_is_proof() -> None:
    unseen = Facts(5, 3.0, writer_asked=True, writer=None)
    assert judge(Need(), unseen).wait_s == 27.0
    assert judge(Need(), facts(writer=None)).whole
    assert judge(Need(closed=False), Facts(5, 3.0)).whole
    assert judge(Need(sentinel="{stem}.done"), facts(still_s=3.0, writer=None, sentinel=True)).whole


def test_an_empty_file_is_not_whole_unless_its_rule_says_so() -> None:
    assert judge(Need(), facts(size=0)).reason == "it is empty"
    assert judge(Need(empty=True), facts(size=0)).whole


@pytest.mark.parametrize(
    ("need", "ask", "missing", "there"),
    [
        (Need(sentinel="x.done"), Ask.SENTINEL, {"sentinel": False}, {"sentinel": True}),
        (Need(end_marker="END"), Ask.TAIL, {"tail": False}, {"tail": True}),
        (Need(parts=True), Ask.PARTS, {"lacking": "part 3 is not there"}, {"lacking": ""}),
    ],
)
def test_each_condition_is_asked_for_and_judged(
    need: Need, ask: Ask, missing: dict[str, Any], there: dict[str, Any]
) -> None:
    assert judge(need, SEEN).ask is ask
    refused = judge(need, facts(**missing))
    assert not refused.whole
    assert refused.reason
    assert judge(need, facts(**there)).whole


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (Contents(broken="truncated"), "truncated"),
        (Contents(writing=True), "marked as open for writing"),
        (Contents(values={"/n": None}), "does not say"),
        (Contents(values={"/n": 4}, shapes={"/d": None}), "no dataset"),
        (Contents(values={"/n": 4}, shapes={"/d": Shape((0, 2), True)}), "is empty"),
        (Contents(values={"/n": 4}, shapes={"/d": Shape((3, 2), True)}), "3 of 4 frames"),
        (Contents(values={"/n": 4}, shapes={"/d": Shape((4, 2), False)}), "not written to its end"),
        (Contents(values={"/n": "4"}, shapes={"/d": Shape((4, 2), True)}), ""),
    ],
)
def test_the_declared_frames(seen: Contents, said: str) -> None:
    need = Need(frames="/d", expected="/n")
    assert judge(need, SEEN).ask is Ask.CONTENTS
    verdict = judge(need, facts(contents=seen))
    assert said in verdict.reason
    assert verdict.whole is (not said)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({}, "no dataset /exchange/theta"),
        ({"theta": 9}, "no dataset /exchange/data"),
        ({"theta": 9, "data": 8}, "8 projections for 9 angles"),
        ({"theta": 9, "data": 9}, "no dataset /exchange/data_white"),
        ({"theta": 9, "data": 9, "flat": 2}, "no dataset /exchange/data_dark"),
        ({"theta": 9, "data": 9, "flat": 2, "dark": 1}, ""),
    ],
)
def test_dxchange(counts: dict[str, int], said: str) -> None:
    verdict = judge(Need(layout=Layout.DXCHANGE), facts(contents=Contents(shapes=shapes(**counts))))
    assert said in verdict.reason
    assert verdict.whole is (not said)


@pytest.mark.parametrize(
    ("entries", "whole"), [({}, False), ({"a": "2026", "b": ""}, False), ({"a": "2026"}, True), (None, False)]
)
def test_nexus(entries: dict[str, str] | None, whole: bool) -> None:
    assert judge(Need(layout=Layout.NEXUS), facts(contents=Contents(entries=entries))).whole is whole


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (5, 5),
        ("7", 7),
        (3.0, 3),
        (3.5, None),
        (0, None),
        (-1, None),
        (True, None),
        ([1, 2], None),
        ("x", None),
        (None, None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_what_counts_as_a_count(value: Any, count: int | None) -> None:
    assert number(value) == count


FACTS = st.builds(
    Facts,
    size=st.integers(0, 2),
    still_s=st.sampled_from([0.0, 1.0, 1e9]),
    writer_asked=st.booleans(),
    writer=st.sampled_from([None, True, False]),
    sentinel=st.sampled_from([None, True, False]),
    tail=st.sampled_from([None, True, False]),
    lacking=st.sampled_from([None, "", "part 1"]),
    contents=st.sampled_from(
        [None, Contents(), Contents(broken="x"), Contents(shapes={"/d": Shape((3,), True)}, entries={"e": "t"})]
    ),
)
NEEDS = st.builds(
    Need,
    settle_s=st.just(1.0),
    closed=st.booleans(),
    sentinel=st.sampled_from(["", "s"]),
    end_marker=st.sampled_from(["", "E"]),
    frames=st.sampled_from(["", "/d"]),
    expected=st.just(3),
    layout=st.sampled_from([Layout.NONE, Layout.NEXUS]),
    parts=st.booleans(),
)


@given(NEEDS, FACTS)
def test_whole_only_when_nothing_asked_for_is_against_it(need: Need, seen: Facts) -> None:
    verdict = judge(need, seen)
    assert [verdict.whole, verdict.ask is not None, bool(verdict.reason)].count(True) == 1
    if verdict.whole:
        assert seen.size
        assert seen.still_s >= need.settle_s
        assert not (need.closed and (not seen.writer_asked or seen.writer))
        assert not need.sentinel or seen.sentinel
        assert not need.end_marker or seen.tail
        assert not need.parts or seen.lacking == ""
        assert not need.frames or (seen.contents and seen.contents.shapes)
        assert need.layout is Layout.NONE or (seen.contents and seen.contents.entries)


@given(NEEDS, FACTS, st.floats(0.0, 1e6))
def test_more_stillness_never_makes_a_file_less_whole(need: Need, seen: Facts, more_s: float) -> None:
    longer = Facts(**{f: getattr(seen, f) for f in seen.__struct_fields__} | {"still_s": seen.still_s + more_s})
    assert not judge(need, seen).whole or judge(need, longer).whole
