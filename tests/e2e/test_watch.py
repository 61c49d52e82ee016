"""Files arrive in a watched directory and their runs are done, whoever is killed, stopped or started meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import locks
from orchestrator.client import Client
from orchestrator.settings import Settings
from orchestrator.store.watches import Wish

WITHIN_S = 60.0


def until(what: Callable[[], Any], say: str) -> Any:
    over = time.monotonic() + WITHIN_S
    while True:
        if found := what():
            return found
        assert time.monotonic() < over, say
        time.sleep(0.05)


class Bench:
    """A home with a workflow that notes each file, and a directory beside it."""

    def __init__(self, place: Path, home: Path, database: str = "") -> None:
        self.home, self.tree, self.marks = home, place / "tree", place / "marks"
        self.tree.mkdir()
        (home / "workflows").mkdir(parents=True)
        self.write("note", "echo $filePath $word >>$marks")
        self.client = Client(Settings(home=home, database=database))

    def write(self, name: str, command: str) -> None:
        arguments = {"word": {"default": "-"}, "marks": {"default": str(self.marks)}}
        made = {"name": name, "owner": "o", "arguments": arguments, "stages": {"1": {"command": command}}}
        (self.home / "workflows" / f"{name}.py").write_text(repr(made))

    def watch(self, rules: str = 'workflow = "note"\nmatch = "*.h5"\n', **more: Any) -> None:
        self.client.watches.put(Wish(rules, directory=str(self.tree), experiment="e", **more))

    def put(self, name: str, content: str = "") -> None:
        (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
        (self.tree / name).write_text(content or name)

    def states(self) -> dict[str, str]:
        return {a.name: a.state.value for a in self.client.watches.arrivals()}

    def done(self, *names: str) -> None:
        """All these files have run, each once, and each of their runs is done."""
        until(lambda: self.client.counts().get("done", 0) >= len(names), f"{self.states()} {self.client.counts()}")
        assert self.client.counts() == {"done": len(names)}
        assert sorted(line.split()[0] for line in self.marks.read_text().splitlines()) == sorted(
            str(self.tree / name) for name in names
        )

    def pid(self) -> int:
        """Of the watcher."""
        lock = locks.watcher_lock(self.home, "local")
        return int(until(lambda: lock.exists() and locks.holder(lock), "there is no watcher"))

    def error(self) -> str:
        (watched,) = self.client.watches.ls()
        return watched.report.error if watched.report else ""


@pytest.fixture
def bench(tmp_path: Path, home: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, home)
    yield made
    made.client.stop_service()
    made.client.close()


def test_files_that_arrive_are_run(bench: Bench) -> None:
    bench.put("before.h5")
    bench.watch()
    bench.put("a.h5")
    bench.put("deep/er/b.h5")
    bench.put("x.txt")
    bench.done("before.h5", "a.h5", "deep/er/b.h5")
    bench.put("copied.h5", "a.h5")
    until(lambda: bench.states().get("copied.h5") == "duplicate", "it is no duplicate")
    assert bench.states()["x.txt"] == "ignored"
    (run,) = (bench.client.run(a.run_id) for a in bench.client.watches.arrivals() if a.name == "a.h5")
    assert (run.plan.variables["experimentName"], run.plan.placing.priority) == ("e", "live")
    assert run.plan.directory == "/"


def test_one_that_is_killed_loses_nothing_and_repeats_nothing(bench: Bench) -> None:
    bench.watch()
    names = [f"{n}.h5" for n in range(30)]
    killed = set()
    for number, name in enumerate(names):
        bench.put(name)
        if number % 10 == 5:
            pid = bench.pid()
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
            until(lambda gone=pid: bench.pid() != gone, "no other watcher has begun")
    assert len(killed) == 3
    bench.done(*names)


def test_what_comes_while_nothing_runs_is_found(bench: Bench) -> None:
    bench.watch()
    bench.put("a.h5")
    bench.done("a.h5")
    assert bench.client.stop_service()
    assert not locks.locked(locks.watcher_lock(bench.home, "local")), "the watcher ends with its service"
    bench.put("b.h5")
    bench.client.ensure_service()
    bench.done("a.h5", "b.h5")


def test_stop_and_start(bench: Bench) -> None:
    bench.watch()
    bench.put("a.h5")
    bench.done("a.h5")
    bench.client.watches.stop("e")
    until(
        lambda: not locks.locked(locks.watcher_lock(bench.home, "local")), "the watcher goes on with nothing to watch"
    )
    bench.put("b.h5")
    bench.client.watches.start("e")
    bench.done("a.h5", "b.h5")
