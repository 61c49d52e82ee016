"""Watches over HTTP: who may make them, what is refused, and files that arrive on another machine's watcher."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from orchestrator.errors import Conflict, Denied, NotFound
from orchestrator.settings import ensure_home
from orchestrator.store.watches import Wish
from tests.http.conftest import Running
from tests.postgres import Postgres

WITHIN_S = 60.0
NASTY = os.fsdecode(b"so\xffme\nscan.h5")


def until(what: Callable[[], Any], say: str) -> Any:
    over = time.monotonic() + WITHIN_S
    while True:
        with contextlib.suppress(LookupError):
            if found := what():
                return found
        assert time.monotonic() < over, say
        time.sleep(0.05)


def note(home: Path, marks: Path) -> None:
    (home / "workflows").mkdir(parents=True, exist_ok=True)
    made = {"name": "note", "owner": "o", "stages": {"1": {"command": f"echo ran >>{marks}"}}}
    (home / "workflows" / "note.py").write_text(repr(made))


def wish(tree: Path, name: str, **more: Any) -> Wish:
    return Wish('workflow = "note"\nmatch = "*.h5"\n', directory=str(tree), experiment="e", name=name, **more)


def test_who_may_watch(running: Running, tmp_path: Path) -> None:
    note(running.home, tmp_path / "marks")
    asked = {"directory": str(tmp_path), "experiment": "e", "workflow": "note", "name": "who"}
    for role in ("viewer", "user", "agent"):
        assert running.ask("POST", "/watches", role, json=asked).status_code == 403
    assert running.ask("POST", "/watches", "operator", json=asked).status_code == 201
    assert running.ask("GET", "/watches", "viewer").json()[0]["owner"] == "a operator"
    with running.client("author") as author:
        for change in (author.watches.stop, author.watches.start):
            with pytest.raises(Denied, match="change anyone's runs"):
                change("who")
        with pytest.raises(Denied):
            author.watches.put(Wish('workflow = "note"\n', str(tmp_path), "e", name="who", change=True))
        author.watches.put(wish(tmp_path, "own"))
        author.watches.stop("own")
    with running.client("operator") as operator:
        operator.watches.stop("who")
        assert {w.watch.name for w in operator.watches.ls() if w.watch.stopped_at} >= {"who", "own"}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"directory": "/no/such"}, "cannot be watched"),
    "a path": ({"workflow": "/etc/passwd"}, "is no name of a workflow"),
    "unknown": ({"workflow": "nte"}, "no workflow 'nte'"),
    "both": ({"rules": 'workflow = "note"\n'}, "either rules"),
    "a line": ({"rules": "\nhiden = true\n", "workflow": ""}, "rules:2: there is no key 'hiden'"),
    "more": ({"hiden": True}, "hiden"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_each_mistake_is_refused(running: Running, tmp_path: Path, what: str) -> None:
    note(running.home, tmp_path / "marks")
    change, sentence = MISTAKES[what]
    asked = {"directory": str(tmp_path), "experiment": "e", "workflow": "note", "name": "wrong"} | change
    said = running.ask("POST", "/watches", "author", json=asked)
    assert 400 <= said.status_code < 500
    assert sentence in said.text
    assert "wrong" not in {w["name"] for w in running.ask("GET", "/watches").json()}


def test_what_is_not_there(running: Running) -> None:
    assert running.ask("DELETE", "/watches/none").status_code == 404
    assert running.ask("POST", "/watches/none/start").status_code == 404
    assert running.ask("POST", "/arrivals/77/release", json={}).status_code == 404
    assert running.ask("GET", "/arrivals", params={"state": "lost"}).status_code == 400
    assert running.ask("GET", "/arrivals", params={"ids": 77}).json() == []


@pytest.fixture
def apart(tmp_path: Path, postgres: Postgres) -> Iterator[Running]:
    """A service and an agent on PostgreSQL that start no watcher."""
    made = Running(tmp_path / "home", database=postgres.new_database())
    note(made.home, tmp_path / "marks")
    try:
        made.start()
        made.agent()
        yield made
    finally:
        made.stop()


def watcher(service: Running, home: Path, database: str) -> subprocess.Popen[bytes]:
    ensure_home(home)
    more = {"BEAMWAY_URL": service.url, "BEAMWAY_TOKEN": service.tokens["user"], "BEAMWAY_HOME": str(home)}
    environment = service._environment(**more, BEAMWAY_DATABASE=database)
    return service._spawn(["watcher", "local"], "watcher.log", environment)


@pytest.mark.timeout(240)
def test_a_watcher_apart_begins_runs_and_another_takes_over(apart: Running, tmp_path: Path) -> None:
    tree, marks, url = tmp_path / "tree", tmp_path / "marks", apart._database
    tree.mkdir()
    with apart.client("author") as client:
        client.watches.put(wish(tree, "w"))
        (tree / NASTY).write_text("a")
        (tree / "x.txt").touch()
        first = watcher(apart, tmp_path / "one", url)
        until(lambda: client.counts().get("done") == 1, "the first file has not run")
        watcher(apart, tmp_path / "two", url)
        first.kill()
        (tree / "b.h5").write_text("b")
        until(lambda: client.counts().get("done") == 2, "nobody has taken over")
        assert marks.read_text() == "ran\nran\n"
        found = {a.name: a for a in client.watches.arrivals(watch="w")}
        assert {n: a.state.value for n, a in found.items()} == {NASTY: "run", "b.h5": "run", "x.txt": "ignored"}
        run = client.run(found[NASTY].run_id)
        assert (run.plan.variables["filePath"], run.username) == (f"{tree}/{NASTY}", "a user")
        [standing] = client.watches.ls()
        assert standing.arrivals == {"run": 2, "ignored": 1}
        assert standing.report is not None
        token = {"authorization": f"Bearer {apart.tokens['viewer']}"}
        figures = httpx2.get(f"{apart.url}/metrics", headers=token, timeout=60.0).text
        assert 'beamway_arrivals{state="run"} 2.0' in figures
        assert 'beamway_watch_wrong{watch="w"} 0.0' in figures
        with pytest.raises(Conflict, match="runs already"):
            client.watches.release(found["b.h5"].id)
        with pytest.raises(NotFound):
            client.watches.release(found["x.txt"].id, workflow="nte")
        client.watches.release(found["x.txt"].id, workflow="note")
        until(lambda: client.counts().get("done") == 3, "what was released has not run")
        assert [a.name for a in client.watches.of([found["x.txt"].id])] == ["x.txt"]
        assert [a.name for a in client.watches.arrivals(newest=True, limit=1)] == ["b.h5"]


def test_a_watcher_of_an_address_needs_its_database(running: Running, tmp_path: Path) -> None:
    process = watcher(running, tmp_path / "one", "")
    assert process.wait(60.0) == 78
    assert "Set BEAMWAY_DATABASE" in (running.home / "logs" / "watcher.log").read_text()
