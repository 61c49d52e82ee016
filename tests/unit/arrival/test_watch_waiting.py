"""When a scan finds more than can be looked at, or kept in mind, it waits, and loses nothing by that."""

from __future__ import annotations

import functools
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.arrival import tree as trees
from orchestrator.arrival.tree import Tree
from orchestrator.arrival.watch import Watcher
from tests.unit.arrival.test_watch import RULES, Bench, Service, put

FILES, ROOM = 45, 10


def crowded(bench: Bench, monkeypatch: pytest.MonkeyPatch, content: str = "{}") -> tuple[Path, Tree]:
    """A tree of more files, in a folder each, than may wait at once, and found two at a time."""
    monkeypatch.setattr(trees, "MOST_WAITING", ROOM)
    directory = bench.watch()
    for number in range(FILES):
        put(directory / f"{number}/x.h5").write_text(content.format(number))
    return directory, in_small_batches(bench, monkeypatch)


def in_small_batches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setattr(trees, "BATCH", 2)
    tree = bench.watcher.trees["w"]
    monkeypatch.setattr(tree.root, "scan", functools.partial(tree.root.scan, batch=2))
    return tree


def test_more_files_than_may_wait_at_once_are_all_taken_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MOST_WAITING", ROOM)
    tree = bench.watch()
    for number in range(FILES):
        put(tree / f"{number}.h5")
    most = 0
    for _ in range(40):
        bench.settle(0.5)
        most = max(most, bench.watcher.trees["w"].waiting)
    assert len(bench.service.files) == FILES
    assert most <= ROOM


def test_a_scan_waits_until_there_is_room_for_what_it_finds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not found again by the next scan, which may be minutes away."""
    _, tree = crowded(bench, monkeypatch)
    bench.settle(0.5)
    assert tree.scans == 0
    assert ROOM - 1 <= tree.waiting <= ROOM
    assert 0.0 < tree.next_s < 1.0, "it rests until the first of them may be looked at"
    while not tree.scans:
        bench.settle(0.25)
    bench.settle(0.75)
    assert tree.scans == 1
    assert len(bench.service.files) == FILES


def test_a_directory_that_vanishes_while_its_scan_waits_is_taken_up_when_it_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, tree = crowded(bench, monkeypatch)
    bench.settle(0.5)
    assert (tree.scans, tree.waiting > 0) == (0, True)
    directory.rename(bench.place / "away")
    bench.settle()
    assert "not there any more" in tree.troubles[""]
    put(directory / "b.h5")
    bench.settle(8.0)
    assert bench.service.files == ["b.h5"]


def test_files_that_do_not_become_whole_keep_no_scan_from_going_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, tree = crowded(bench, monkeypatch, content="")
    bench.settle(10.0)
    assert tree.waiting == ROOM
    assert tree.scans > 2


def test_a_scan_finds_no_more_than_can_be_looked_at_and_what_that_takes_is_not_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "DECISIONS", 10)
    directory = bench.watch(rules=RULES.replace("settle_s = 1", "settle_s = 0"))
    for number in range(300):
        put(directory / f"{number // 5}/{number}.h5")
    tree = in_small_batches(bench, monkeypatch)
    judge, most = tree._evidence.judge, 0

    def slow(*given: Any) -> Any:
        nonlocal most
        bench.time += 0.2
        most = max(most, tree.waiting)
        return judge(*given)

    monkeypatch.setattr(tree._evidence, "judge", slow)
    begun = bench.time
    while not tree.scans:
        bench.watcher.turn()
    assert bench.time - begun > 50.0
    assert tree.scan_s == 0.0
    assert most <= 20
    bench.settle(10.0)
    assert len(bench.service.files) == 300


def test_hints_wake_nobody_while_the_first_scan_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are taken when it is over, and would keep the loop from resting until then."""
    monkeypatch.setattr(trees, "MOST_WAITING", 1)
    (tmp_path / "w").mkdir()
    over, turns = threading.Event(), list[float]()
    with Watcher(bench.database, Service()) as watcher:
        rules = RULES.replace("settle_s = 1", "settle_s = 600").format(directory=tmp_path / "w", experiment="e")
        put(tmp_path / "w/first.h5")
        tree = watcher.add("w", rules)
        hints = watcher._hints["w"]
        if hints.why_not:
            pytest.skip(hints.why_not)
        loop = threading.Thread(target=watcher.run, args=(over, lambda: turns.append(time.monotonic())))
        loop.start()
        try:
            end = time.monotonic() + 30.0
            while not hints.heard.is_set() and time.monotonic() < end:
                put(tmp_path / "w/second.h5")
                time.sleep(0.05)
            assert hints.heard.is_set()
            before = len(turns)
            time.sleep(1.0)
            assert len(turns) - before < 50
            assert (tree.scans, tree.waiting) == (0, 1)
        finally:
            over.set()
            loop.join()
