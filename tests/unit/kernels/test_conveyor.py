"""Reading, working and writing side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from kernels.conveyor import convey


def test_all_parts_pass_in_order_and_the_work_stays_in_this_thread() -> None:
    written: list[tuple[int, int]] = []
    workers: set[int] = set()

    def work(part: int, raw: int) -> int:
        workers.add(threading.get_ident())
        return raw + 1

    convey(range(7), read=lambda n: n * 10, work=work, write=lambda n, result: written.append((n, result)))
    assert written == [(n, n * 10 + 1) for n in range(7)]
    assert workers == {threading.get_ident()}
    convey([], read=lambda n: n, work=work, write=lambda n, result: written.append((n, result)))
    assert len(written) == 7


def test_reading_and_writing_go_on_beside_the_work() -> None:
    """Work on a part ends only when the next is read and the one before is written: one at a time would stand still."""
    read, written = [threading.Event() for _ in range(4)], [threading.Event() for _ in range(4)]

    def work(part: int, raw: None) -> None:
        if part + 1 < len(read):
            assert read[part + 1].wait(30)
        if part:
            assert written[part - 1].wait(30)

    convey(range(4), read=lambda n: read[n].set(), work=work, write=lambda n, _: written[n].set())
    assert all(event.is_set() for event in (*read, *written))


def test_no_more_than_two_parts_wait_at_a_station() -> None:
    held, most, lock = 0, 0, threading.Lock()

    def count(more: int) -> None:
        nonlocal held, most
        with lock:
            held += more
            most = max(most, held)

    convey(range(40), read=lambda n: count(1), work=lambda n, raw: None, write=lambda n, result: count(-1))
    assert held == 0
    assert most <= 4  # one coming, one in work, one done, one being written


@pytest.mark.parametrize("station", ["read", "work", "write"])
def test_the_first_failure_ends_it(station: str) -> None:
    seen: dict[str, list[int]] = {"read": [], "work": [], "write": []}

    def at(name: str) -> Callable[..., Any]:
        def station_of(part: int, *_: Any) -> None:
            seen[name].append(part)
            if name == station and part == 3:
                raise ValueError(f"{name} of {part}")

        return station_of

    with pytest.raises(ValueError, match=f"{station} of 3"):
        convey(range(100), read=at("read"), work=at("work"), write=at("write"))
    assert max(seen["read"]) <= 6
    assert seen["write"] == sorted(seen["write"])
