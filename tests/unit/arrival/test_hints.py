"""Hints make the watcher quick, and whatever is wrong with them it only makes it slower."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from inotify_simple import INotify

from orchestrator.arrival import mounts
from orchestrator.arrival.hints import Hints
from orchestrator.arrival.watch import Watcher
from orchestrator.store import arrivals as store
from orchestrator.store.arrivals import Arrival
from orchestrator.store.database import Database


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    place = tmp_path / "tree"
    place.mkdir()
    return place


@pytest.fixture
def hints(tree: Path) -> Iterator[Hints]:
    made = Hints(str(tree))
    if made.why_not:
        pytest.skip(made.why_not)
    yield made
    made.close()


def heard(hints: Hints, name: str, make: Callable[[int], object], limit_s: float = 20.0) -> bool:
    """Whether something made again and again is heard of."""
    end = time.monotonic() + limit_s
    for number in range(10_000):
        make(number)
        time.sleep(0.05)
        if name in hints.take():
            return True
        if time.monotonic() > end:
            return False
    return False


def test_what_happens_in_followed_folders_is_heard(tree: Path, hints: Hints) -> None:
    assert heard(hints, "x", lambda n: (tree / "x").write_text(str(n)))
    (tree / "new/deep").mkdir(parents=True)
    hints.follow([(5, "new/deep"), (4, "gone")])
    assert heard(hints, "new/deep/y", lambda n: (tree / "new/deep/y").write_text(str(n)))


def gathered(hints: Hints, wanted: set[str], limit_s: float = 20.0) -> set[str]:
    """What is heard until all of these are."""
    names = set(hints.take())
    end = time.monotonic() + limit_s
    while not wanted <= names and time.monotonic() < end:
        time.sleep(0.02)
        names |= set(hints.take())
    return names


def test_what_has_changed_before_it_was_followed_is_heard(tree: Path, hints: Hints) -> None:
    for name in ("changed", "same"):
        (tree / name).mkdir()
    looked = [((tree / name).stat().st_mtime_ns, name) for name in ("changed", "same")]
    while (tree / "changed").stat().st_mtime_ns == looked[0][0]:  # the clock of the file system has ticks
        (tree / "changed/x").touch()
        (tree / "changed/x").unlink()
    assert heard(hints, "y", lambda n: (tree / "y").write_text(str(n)))  # whatever came of the above is taken
    hints.follow(looked)
    names = gathered(hints, {"changed"})
    assert "changed" in names
    assert "same" not in names


def test_another_list_of_folders_leaves_no_gap(tree: Path, hints: Hints) -> None:
    (tree / "d").mkdir()
    hints.follow([(5, "d")])
    assert heard(hints, "d/first", lambda n: (tree / "d/first").touch())
    made = {f"d/{number}" for number in range(400)}
    for number, name in enumerate(made):
        hints.follow([((tree / "d").stat().st_mtime_ns, "d"), (number, "gone")])
        (tree / name).touch()
        time.sleep(0.002)  # so that many of the lists are followed
    assert made <= gathered(hints, made)


def test_of_reading_nothing_is_heard(tree: Path, hints: Hints) -> None:
    (tree / "d").mkdir()
    (tree / "d/x").write_text("x")
    hints.follow([((tree / "d").stat().st_mtime_ns, "d")])
    assert heard(hints, "d/y", lambda n: (tree / "d/y").write_text(str(n)))
    for _ in range(5):
        assert (tree / "d/x").read_text() == "x"
    (tree / "d/z").touch()  # told after what was read, if that were told
    names = gathered(hints, {"d/z"})
    assert "d/z" in names
    assert "d/x" not in names


def test_more_folders_than_the_kernel_follows_leave_the_first_ones(
    tree: Path, hints: Hints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is one of the account on the whole machine, so that the kernel's answer is made up here."""
    add, followed = INotify.add_watch, set[str]()

    def limited(self: INotify, path: str, mask: int) -> int:
        if len(followed | {path}) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        followed.add(path)
        return int(add(self, path, mask))

    for name in ("new", "old"):
        (tree / name).mkdir()
    monkeypatch.setattr(INotify, "add_watch", limited)
    followed.add(str(tree))
    hints.follow([(5, "old"), (6, "new")])
    assert heard(hints, "new/x", lambda n: (tree / "new/x").write_text(str(n)))
    (tree / "old/x").touch()
    assert heard(hints, "x", lambda n: (tree / "x").write_text(str(n)))
    assert followed == {str(tree), str(tree / "new")}


def test_a_folder_that_was_made_again_is_followed_again(
    tree: Path, hints: Hints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.arrival.hints.REFRESH_S", 0.5)
    (tree / "d").mkdir()
    hints.follow([(5, "d")])
    assert heard(hints, "d/x", lambda n: (tree / "d/x").write_text(str(n)))
    (tree / "d").rename(tree / "old")
    (tree / "d").mkdir()
    assert heard(hints, "d/y", lambda n: (tree / "d/y").write_text(str(n)), limit_s=50.0)


def test_a_name_that_is_not_utf8_does_not_end_them(tree: Path, hints: Hints) -> None:
    assert heard(hints, "x", lambda n: (tree / "x").write_text(str(n)))
    bad = os.fsencode(tree) + b"/\xff"
    for _ in range(5):
        with open(bad, "wb"):
            pass
        time.sleep(0.05)
    os.mkdir(os.fsencode(tree) + b"/\xfe")
    hints.follow([(5, os.fsdecode(b"\xfe"))])
    assert heard(hints, "y", lambda n: (tree / "y").write_text(str(n)))
    assert heard(hints, "\udcfe/z", lambda n: (tree / "\udcfe/z").write_text(str(n)))


def test_a_link_does_not_lead_them_out(tree: Path, hints: Hints, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tree / "link").symlink_to(tmp_path / "outside")
    hints.follow([(5, "link"), (4, "")])

    def both(number: int) -> None:
        (tmp_path / "outside/secret").write_text(str(number))
        (tree / "x").write_text(str(number))

    names = set()
    end = time.monotonic() + 20.0
    while "x" not in names and time.monotonic() < end:
        both(0)
        time.sleep(0.05)
        names |= set(hints.take())
    assert "x" in names
    assert not any("secret" in name for name in names)


def test_on_a_network_file_system_there_are_none_and_it_says_so(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "kind", lambda path: "nfs4")
    hints = Hints(str(tree))
    assert hints.why_not == "nfs4 is written by other machines unseen"
    assert hints.take() == []
    hints.close()


def test_a_closed_file_runs_at_once_and_fresh_nested_folders_lose_nothing(tree: Path, tmp_path: Path) -> None:
    """The real loop with real time, while files appear in folders that were made just before."""
    begun: dict[str, float] = {}
    made: dict[str, float] = {}

    class Runs:
        def begin(self, arrival: Arrival) -> str:
            begun[arrival.name] = time.monotonic()
            return "run"

        def begun(self, run_key: str) -> str:
            return ""

    rules = f'directory = "{tree}"\nexperiment = "e"\nworkflow = "w"\n'
    with Database(f"sqlite:///{tmp_path}/x.db") as database:
        database.upgrade()
        with Watcher(database, Runs()) as watcher:
            watcher.add("w", rules)
            over = threading.Event()
            thread = threading.Thread(target=watcher.run, args=(over,))
            thread.start()
            try:
                for number in range(300):
                    folder = tree / f"{number % 20}" / f"{number // 3}"
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"{number}.h5").write_text(str(number))
                    made[str((folder / f"{number}.h5").relative_to(tree))] = time.monotonic()
                    time.sleep(0.005)
                end = time.monotonic() + 30.0
                while len(begun) < 300 and time.monotonic() < end:
                    time.sleep(0.05)
            finally:
                over.set()
                thread.join()
        assert begun.keys() == made.keys()
        assert store.counts(database) == {store.ArrivalState.RUN: 300}
        took = sorted(begun[name] - made[name] for name in made)
        print(f"median {took[150]:.2f} s, p99 {took[297]:.2f} s")
        assert took[150] < 5.0
