"""The checker of histories: it accepts what can have been, and finds each thing that cannot."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pytest

from orchestrator.model import RunStatus
from tests.chaos.history import Heard, Kept, Listed, Op, Saw, State, What, Wished, wrong

PENDING, RUNNING, HELD = RunStatus.PENDING, RunStatus.RUNNING, RunStatus.HELD
ABORTING, ABORTED = RunStatus.ABORTING, RunStatus.ABORTED
DONE, FAILED = RunStatus.DONE, RunStatus.FAILED


def submit(begin: float, end: float, run: str = "r", request: str = "q") -> Wished:
    return Wished(begin, end, What.SUBMIT, run, request)


def wish(begin: float, end: float, what: What, run: str = "r") -> Wished:
    return Wished(begin, end, what, run)


def saw(begin: float, end: float, status: State, run: str = "r") -> Saw:
    return Saw(begin, end, run, status)


def kept(status: RunStatus | None = DONE, **others: tuple[str, RunStatus]) -> Kept:
    """A run `r` of request `q`, and others; each has begun, and the number of that event is its place."""
    runs = ({} if status is None else {"r": ("q", status)}) | others
    return Kept(100.0, runs, {seq: (run, "run begun") for seq, run in enumerate(runs, 1)})


ASKED = submit(0, 1)
LEGAL: dict[str, tuple[Sequence[Op], Kept]] = {
    "nothing": ([], kept(None)),
    "a run goes on": ([ASKED, saw(2, 3, PENDING), saw(4, 5, RUNNING), saw(6, 7, DONE)], kept()),
    "seen while it is asked for": ([submit(0, 9), saw(1, 2, None), saw(3, 4, RUNNING), saw(5, 6, DONE)], kept()),
    "looks side by side": ([ASKED, saw(2, 9, RUNNING), saw(3, 8, DONE), saw(4, 7, PENDING)], kept()),
    "held and going": ([ASKED, saw(2, 3, RUNNING), saw(4, 5, HELD), saw(6, 7, RUNNING)], kept()),
    "not yet there": ([saw(0, 1, None), Listed(0, 1, {}), submit(2, 3)], kept()),
    "in the list": ([ASKED, Listed(2, 3, {"r": RUNNING}), Listed(4, 5, {"r": DONE})], kept()),
    "no answer and no run": ([submit(0, inf, ""), saw(1, 2, None), Listed(2, 3, {})], kept(None)),
    "no answer and a run": (
        [submit(0, inf, ""), Listed(1, 2, {}), saw(3, 4, RUNNING), Listed(5, 6, {"r": DONE})],
        kept(),
    ),
    "asked twice": ([submit(0, inf, ""), saw(1, 2, RUNNING), submit(3, 4), saw(5, 6, RUNNING)], kept()),
    "cancelled": ([ASKED, saw(2, 3, RUNNING), wish(4, 5, What.CANCEL), saw(6, 7, ABORTING)], kept(ABORTED)),
    "a cancel that comes too late": ([ASKED, wish(2, 3, What.CANCEL), saw(4, 5, DONE)], kept()),
    "a cancel without an answer": (
        [ASKED, wish(2, inf, What.CANCEL), saw(3, 4, RUNNING), saw(8, 9, ABORTED)],
        kept(ABORTED),
    ),
    "and one that never came": ([ASKED, wish(2, inf, What.CANCEL), saw(3, 4, RUNNING)], kept()),
    "tried again": ([ASKED, saw(2, 3, FAILED), wish(4, 5, What.RETRY), saw(6, 7, RUNNING)], kept()),
    "tried again without an answer": (
        [ASKED, saw(2, 3, FAILED), wish(4, inf, What.RETRY), saw(90, 91, RUNNING)],
        kept(),
    ),
    "seen while it is tried again": (
        [
            ASKED,
            saw(2, 3, FAILED),
            wish(4, 9, What.RETRY),
            saw(5, 6, FAILED),
            saw(6.5, 7, RUNNING),
            saw(8, 10, RUNNING),
        ],
        kept(FAILED),
    ),
    "resumed": ([ASKED, saw(2, 3, HELD), wish(4, 5, What.RESUME), saw(6, 7, RUNNING)], kept()),
    "two retries": (
        [
            ASKED,
            wish(2, 9, What.RETRY),
            wish(2, 9, What.RETRY),
            saw(3, 4, RUNNING),
            saw(5, 6, FAILED),
            saw(7, 8, RUNNING),
        ],
        kept(),
    ),
    "a stream": ([submit(0, 1), Heard("l", 0, "", ""), Heard("l", 1, "r", "run begun")], kept()),
    "a stream from later on": ([submit(0, 1), Heard("l", 1, "", "")], kept()),
    "a stream beyond the end": (
        [submit(0, 1), Heard("l", 0, "", ""), Heard("l", 1, "r", "run begun"), Heard("l", 2, "r", "late")],
        kept(),
    ),
}

ILLEGAL: dict[str, tuple[Sequence[Op], Kept, str]] = {
    "lost to a look": ([ASKED, saw(2, 3, None)], kept(), "r was pending and was seen to be not there"),
    "lost to the list": ([ASKED, Listed(2, 3, {})], kept(), "r was pending and was seen to be not there"),
    "lost again": ([submit(0, inf, ""), saw(1, 2, RUNNING), saw(3, 4, None)], kept(), "was seen to be not there"),
    "lost in the end": ([ASKED, saw(2, 3, RUNNING)], kept(None), "acknowledged as r, and in the end is no run"),
    "back": ([ASKED, saw(2, 3, RUNNING), saw(4, 5, PENDING)], kept(), "was running and was seen to be pending"),
    "back for another": (
        [ASKED, Listed(2, 3, {"r": DONE}), saw(4, 5, RUNNING)],
        kept(),
        "was done and was seen to be running",
    ),
    "ended otherwise": ([ASKED, saw(2, 3, FAILED)], kept(DONE), "was failed and was seen to be done"),
    "going again": ([ASKED, wish(2, 3, What.RETRY), saw(4, 5, FAILED), saw(6, 7, RUNNING)], kept(), "was failed and"),
    "one retry, back twice": (
        [ASKED, saw(2, 3, FAILED), wish(3, 90, What.RETRY), saw(4, 5, RUNNING), saw(6, 7, FAILED), saw(8, 9, RUNNING)],
        kept(),
        "was failed and was seen to be running",
    ),
    "before the retry": (
        [ASKED, saw(2, 3, FAILED), saw(4, 5, RUNNING), wish(6, 7, What.RETRY)],
        kept(),
        "was failed and",
    ),
    "back by a resume": (
        [ASKED, saw(2, 3, FAILED), wish(4, 5, What.RESUME), saw(6, 7, RUNNING)],
        kept(),
        "took a resume",
    ),
    "aborted by nobody": ([ASKED, saw(2, 3, ABORTED)], kept(ABORTED), "was pending and was seen to be aborted"),
    "a cancel forgotten": ([ASKED, wish(2, 3, What.CANCEL), saw(4, 5, RUNNING)], kept(), "and was seen to be running"),
    "a cancel undone": (
        [ASKED, wish(2, 3, What.CANCEL), saw(4, 5, ABORTING)],
        kept(DONE),
        "was aborting and was seen to be done",
    ),
    "there before it was asked": (
        [saw(0, 1, RUNNING), submit(2, 3)],
        kept(),
        "was not there and was seen to be running",
    ),
    "seen by nobody's wish": ([Listed(0, 1, {"x": DONE})], kept(None), "x was not there and was seen to be done"),
    "kept by nobody's wish": ([ASKED], kept(x=("p", DONE)), "nobody asked for x"),
    "two runs of a request": ([ASKED], kept(x=("q", DONE)), "request q has become the runs r, x"),
    "two ids of a request": ([ASKED, submit(2, 3, "x")], kept(x=("q", DONE)), "request q was acknowledged as r, x"),
    "two runs without an answer": ([submit(0, inf, "")], kept(x=("q", DONE)), "request q has become the runs r, x"),
    "begun twice": (
        [ASKED],
        Kept(9.0, {"r": ("q", DONE)}, {1: ("r", "run begun"), 2: ("r", "run begun")}),
        "begun 2 times",
    ),
    "not whole": ([ASKED], Kept(9.0, {"r": ("q", DONE)}, {}), "r has begun 0 times"),
    "a stream that repeats": (
        [ASKED, Heard("l", 0, "", ""), Heard("l", 1, "r", "run begun"), Heard("l", 1, "r", "run begun")],
        kept(),
        "l heard 1 after 1",
    ),
    "a stream that steps back": (
        [
            ASKED,
            submit(0, 1, "x", "p"),
            Heard("l", 0, "", ""),
            Heard("l", 2, "x", "run begun"),
            Heard("l", 1, "r", "run begun"),
        ],
        kept(x=("p", DONE)),
        "heard 1 after 2",
    ),
    "a stream with a gap": (
        [ASKED, submit(0, 1, "x", "p"), Heard("l", 0, "", ""), Heard("l", 2, "x", "run begun")],
        kept(x=("p", DONE)),
        "never heard of 1 events, the first is 1 (r run begun)",
    ),
    "a stream that ends": ([ASKED, Heard("l", 0, "", "")], kept(), "never heard of 1 events"),
    "a stream of its own": (
        [ASKED, Heard("l", 0, "", ""), Heard("l", 1, "r", "run ended")],
        kept(),
        "heard 1 as r run ended, and the store has r run begun",
    ),
}


@pytest.mark.parametrize(("ops", "in_the_end"), LEGAL.values(), ids=LEGAL)
def test_what_can_have_been(ops: Sequence[Op], in_the_end: Kept) -> None:
    assert wrong(ops, in_the_end) == []


@pytest.mark.parametrize(("ops", "in_the_end", "words"), ILLEGAL.values(), ids=ILLEGAL)
def test_what_cannot_have_been(ops: Sequence[Op], in_the_end: Kept, words: str) -> None:
    found = wrong(ops, in_the_end)
    assert any(words in sentence for sentence in found), found


def test_notes_of_several_clients_come_in_any_order() -> None:
    ops, in_the_end = LEGAL["seen while it is tried again"]
    assert wrong(ops[::-1], in_the_end) == []


def test_a_long_history_is_looked_through_at_once() -> None:
    """Many looks side by side, and wishes without an answer, which may come anywhere."""
    ops: list[Op] = [ASKED, *(submit(i, inf) for i in range(20)), *(wish(i, inf, What.RETRY) for i in range(3))]
    ops += [saw(i * 0.1, i * 0.1 + 1.0, RUNNING) for i in range(20, 600)]
    assert wrong(ops, kept(FAILED)) == []
    assert wrong([*ops, saw(70, 71, PENDING)], kept(FAILED)) != []
