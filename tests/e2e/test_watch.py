"""Files arrive in a watched directory and their runs are done, whoever is killed, stopped or started meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import locks
from orchestrator.client import Client
from orchestrator.settings import Settings
from orchestrator.store import catalog
from orchestrator.store.arrivals import ArrivalState
from orchestrator.store.database import Database
from orchestrator.store.watches import Report, Wish
from tests.postgres import Postgres

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
        settings = Settings(home=home, database=database)
        self.client, self.database = Client(settings), Database(settings.database_url)

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

    def report(self) -> Report:
        (watched,) = self.client.watches.ls()
        return watched.report or Report()

    def close(self) -> None:
        self.client.stop_service()
        self.client.close()
        self.database.close()


@pytest.fixture
def bench(tmp_path: Path, home: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, home)
    yield made
    made.close()


def test_what_a_daq_brings_is_copied_to_where_it_is_kept(bench: Bench, tmp_path: Path) -> None:
    store = tmp_path / "store"
    bench.watch(f'destDirectory = "{store}"\n')
    bench.put("a.h5")
    bench.put("deep/er/a.h5")
    until(lambda: bench.client.counts().get("done", 0) == 2, f"{bench.states()} {bench.client.counts()}")
    assert [(store / name).read_text() for name in ("a.h5", "deep/er/a.h5")] == ["a.h5", "deep/er/a.h5"]
    [file] = catalog.at(bench.database, "local", str(bench.tree / "a.h5"))

    def copies() -> list[tuple[str, str]]:
        return [(copy.address, copy.state.value) for copy in catalog.replicas(bench.database, [file.id])]

    both = sorted([(str(bench.tree / "a.h5"), "verified"), (str(store / "a.h5"), "verified")])
    until(lambda: sorted(copies()) == both, f"{copies()}")


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
    [file] = catalog.at(bench.database, "local", str(bench.tree / "a.h5"))
    assert (file.experiment, file.size, file.kind) == ("e", 4, "raw")
    assert [copy.state for copy in catalog.replicas(bench.database, [file.id])] == ["verified"]


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


def test_killed_where_a_run_is_begun_it_begins_it_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BEAMWAY_CRASH", "run.begin:before,run.begin:after")
    monkeypatch.setenv("BEAMWAY_CRASH_MARK", str(tmp_path / "crashed"))
    names = [f"{n}.h5" for n in range(3)]
    for name in names:
        bench.put(name)
    bench.watch()
    bench.done(*names)
    assert sorted(p.name for p in tmp_path.glob("crashed.*")) == ["crashed.run.begin:after", "crashed.run.begin:before"]


def test_a_service_that_is_killed_finds_its_watcher_again(bench: Bench) -> None:
    bench.watch()
    bench.put("a.h5")
    bench.done("a.h5")
    watcher, service = bench.pid(), bench.client.service()
    assert service is not None
    os.kill(service.pid, signal.SIGKILL)
    bench.put("b.h5")
    until(lambda: bench.states().get("b.h5") == "due", "it has not arrived")
    bench.client.ensure_service()
    bench.done("a.h5", "b.h5")
    assert bench.pid() == watcher


def test_one_that_is_left_alone_ends(bench: Bench) -> None:
    """Nobody would end it, with its service killed and never started again."""
    bench.watch()
    bench.pid()
    service = bench.client.service()
    assert service is not None
    os.kill(service.pid, signal.SIGKILL)
    until(lambda: not locks.locked(locks.watcher_lock(bench.home, "local")), "it goes on for ever")
    bench.put("a.h5")
    bench.client.ensure_service()
    bench.done("a.h5")


def test_a_second_one_stands_by(bench: Bench) -> None:
    bench.watch()
    first = bench.pid()
    words = [sys.executable, "-m", "orchestrator.cli", "watcher"]
    environment = {**os.environ, "BEAMWAY_HOME": str(bench.home)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as second:
        try:
            assert second.stdout is not None
            said = json.loads(second.stdout.readline())
            assert (said["event"], said["reason"]) == ("watcher.stands_by", f"pid {first} watches")
            second.terminate()
            assert second.wait(30.0) == 0
        finally:
            second.kill()


def test_a_directory_that_vanishes_is_said_and_watched_when_it_is_back(bench: Bench) -> None:
    bench.watch()
    bench.put("a.h5")
    bench.done("a.h5")
    shutil.rmtree(bench.tree)
    until(lambda: "not there any more" in str(bench.report().troubles), "nobody has noticed")
    bench.client.stop_service()
    bench.client.ensure_service()
    until(lambda: "cannot be watched" in bench.report().error, "nobody has noticed")
    bench.put("b.h5")
    bench.done("a.h5", "b.h5")
    until(lambda: not bench.report().error, "it is wrong for ever")


def test_another_version_of_a_workflow_is_another_matter(bench: Bench) -> None:
    bench.watch('workflow = "note"\nmatch = "*.h5"\n')
    bench.put("a.h5")
    bench.done("a.h5")
    bench.write("note", "echo $filePath again >>$marks")
    time.sleep(1.5)  # for so long a definition is as it was read
    bench.put("b.h5", "a.h5")  # the same content
    bench.done("a.h5", "b.h5")


def test_what_cannot_run_is_listed_and_runs_when_its_workflow_is_mended(bench: Bench) -> None:
    bench.watch('workflow = "note"\nready = { patience_s = 1 }\n')
    bench.put("a.h5")
    bench.done("a.h5")
    (bench.home / "workflows" / "note.py").write_text("{")
    time.sleep(1.5)
    bench.put("b.h5")
    until(lambda: bench.states().get("b.h5") == "incomplete", "it is not listed")
    [arrival] = bench.client.watches.arrivals(state=ArrivalState.INCOMPLETE)
    assert "note.py" in arrival.reason
    bench.write("note", "echo $filePath $word >>$marks")
    bench.done("a.h5", "b.h5")


def test_one_that_is_released_runs(bench: Bench) -> None:
    bench.watch()
    bench.put("x.txt")
    until(bench.states, "it has not arrived")
    [arrival] = bench.client.watches.arrivals()
    bench.client.watches.release(arrival.id, workflow="note", given={"word": "by-hand"})
    bench.done("x.txt")
    assert bench.marks.read_text().endswith(" by-hand\n")


def test_once_and_followed(bench: Bench) -> None:
    bench.put("a.h5")
    bench.put("b.h5", "a.h5")
    words = ["watch", str(bench.tree), "--experiment", "e", "--workflow", "note", "--once", "--follow"]
    environment = {**os.environ, "BEAMWAY_HOME": str(bench.home)}
    said = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, "")
    states = [line.split()[2] for line in said.stdout.splitlines()[1:]]
    assert sorted(s for s in states if s != "due") == ["done", "duplicate", "run"]
    [watched] = bench.client.watches.ls()
    assert watched.watch.stopped_at


def test_on_postgresql(tmp_path: Path, home: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres.new_database()
    monkeypatch.setenv("BEAMWAY_DATABASE", url)
    with Database(url) as database:
        database.upgrade()
    bench = Bench(tmp_path, home, url)
    try:
        bench.watch()
        bench.put("a.h5")
        bench.done("a.h5")
        os.kill(bench.pid(), signal.SIGKILL)
        bench.put("b.h5")
        bench.done("a.h5", "b.h5")
    finally:
        bench.close()
