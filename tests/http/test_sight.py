"""Who sees the runs and arrivals of an experiment that has people: they, whoever asked for them, and operators."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from orchestrator.errors import NotFound
from orchestrator.model import RunStatus
from orchestrator.settings import Settings
from orchestrator.store import arrivals, watches
from orchestrator.store.arrivals import Arrival, ArrivalState
from orchestrator.store.database import Database
from orchestrator.store.experiments import Experiment, Part
from orchestrator.store.watches import Watch
from tests.conftest import submit, wait, workflow
from tests.http.conftest import Running

FAILS = workflow(s01={"command": "echo secret; false"}) | {"arguments": {"experimentName": {"default": ""}}}
KINDS = ("theirs", "own", "open")


@pytest.fixture(scope="module")
def made(running: Running) -> dict[str, str]:
    """Runs that failed: in an experiment of "a user", in it by "an author" who has no part in it, and in no record."""
    with running.client("operator") as operator:
        operator.files.create(Experiment("sealed", people={"boss": Part.OWNER, "a user": Part.VIEWER}))
        ids = {"theirs": submit(operator, FAILS, {"experimentName": "sealed"})}
        ids["open"] = submit(operator, FAILS, {"experimentName": "nobody's"})
    with running.client("author") as author:
        ids["own"] = submit(author, FAILS, {"experimentName": "sealed"})
    with running.client("operator") as operator:
        assert {wait(operator, run_id).status for run_id in ids.values()} == {RunStatus.FAILED}
    return ids


SEEN = {"operator": KINDS, "admin": KINDS, "user": KINDS, "author": ("own", "open"), "viewer": ("open",)}


@pytest.mark.parametrize("role", SEEN)
def test_lists_hold_what_one_may_see(running: Running, made: dict[str, str], role: str) -> None:
    seen = {made[kind] for kind in SEEN[role]}
    unseen = set(made.values()) - seen
    with running.client(role) as client:
        for wanted in ({}, {"status": "failed"}, {"workflow": "test"}, {"workflow": "test", "status": "failed"}):
            found = {line.id for line in client.runs(limit=1000, **wanted)}
            assert found >= seen, wanted
            assert not found & unseen, wanted
        assert {line.id for line in client.runs(experiment="sealed")} == seen - {made["open"]}
        letters = {letter.run_id for letter in client.dead(limit=1000)}
        assert letters >= seen
        assert not letters & unseen
        assert client.ended(made.values()) == seen
        for run_id in seen:
            assert client.find(run_id[:13]) == run_id
            assert client.run(run_id).id == run_id
        for run_id in unseen:
            with pytest.raises(NotFound, match="no run"):
                client.find(run_id[:13])
            with pytest.raises(NotFound, match="no file and no run"):
                client.lineage.story(run_id, up=1, down=1)


def test_what_one_may_not_see_is_not_there(running: Running, made: dict[str, str]) -> None:
    """Each route about a run answers as for a run that there is not; also one that is added tomorrow."""
    described = running.ask("GET", "/openapi.json").json()["paths"]
    hidden = {"live", "document"}  # these are not described
    paths = [path.removeprefix("/api/v1") for path in described if "{run_id}" in path]
    paths += [f"/runs/{{run_id}}/{name}" for name in hidden]
    none = "0" * 36
    seen = 0
    for path in paths:
        for method in described.get(f"/api/v1{path}", {"get": None}):
            body = {} if method == "get" else {"json": {"arguments": {"a": "b"}} if path.endswith("/fix") else {}}
            said = []
            for run_id in (made["theirs"], none):
                answer = running.ask(method.upper(), path.format(run_id=run_id, number=0), "author", **body)
                assert answer.status_code == 404, (method, path, answer.text)
                said.append(answer.json()["detail"].replace(run_id, "X"))
            assert said[0] == said[1]
            seen += 1
    assert seen >= 14


def test_whoever_is_given_a_part_sees_it_from_then_on(running: Running, made: dict[str, str]) -> None:
    assert running.ask("GET", f"/runs/{made['theirs']}", "viewer").status_code == 404
    with running.client("operator") as operator:
        operator.files.put_person("sealed", "a viewer", Part.VIEWER)
    assert running.ask("GET", f"/runs/{made['theirs']}", "viewer").status_code == 200
    assert running.ask("GET", f"/runs/{made['theirs']}/tasks/0/output", "viewer").content == b"secret\n"
    with running.client("operator") as operator:
        operator.files.remove_person("sealed", "a viewer")
    assert running.ask("GET", f"/runs/{made['theirs']}", "viewer").status_code == 404


def events(running: Running, role: str, after: int, query: str = "") -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(number, event; None: there is none that one may see up to there)"""
    headers = {"authorization": f"Bearer {running.tokens[role]}", "last-event-id": str(after)}
    with httpx2.stream("GET", f"{running.url}/api/v1/events{query}", headers=headers, timeout=60.0) as answer:
        number, event = 0, None
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                number = int(value)
            elif name == "data":
                event = json.loads(value)
            elif not line and number:
                yield number, event
                number, event = 0, None


def test_events_are_those_of_the_runs_one_may_see_and_none_of_them_is_skipped(
    running: Running, made: dict[str, str]
) -> None:
    with running.client("operator") as operator:
        last = submit(operator, FAILS, {"experimentName": "sealed"})
        wait(operator, last)
        every = [event for run_id in made.values() for event in operator.events(run_id)]
        end = operator.events(last)[-1].seq
    for role in ("author", "user"):
        heard = set()
        for number, event in events(running, role, 0):
            if event is not None:
                assert number == event["seq"]
                heard.add((number, event["run_id"]))
            if number >= end:
                break
        seen = {made[kind] for kind in SEEN[role]}
        assert heard >= {(e.seq, e.run_id) for e in every if e.run_id in seen}
        assert not {run_id for _, run_id in heard} & (set(made.values()) - seen)
        assert (last in {run_id for _, run_id in heard}) == (role == "user")
    for number, event in events(running, "author", 0, f"?run={last}"):
        assert event is None
        if number >= end:
            break


def test_watches_and_arrivals_are_seen_likewise(running: Running, made: dict[str, str]) -> None:
    owners = {"theirs": ("boss", "sealed"), "own": ("a author", "sealed"), "open": ("boss", "nobody's")}
    with Database(Settings(home=running.home).database_url) as database:
        for kind, (owner, experiment) in owners.items():
            now = time.time()
            watch = Watch(kind, experiment, f"/no/{kind}", "", stopped_at=now, owner=owner, site="elsewhere")
            watches.add(database, watch)
            place, state = kind.encode().ljust(16), ArrivalState.IGNORED
            arrivals.decide(database, [Arrival(kind, experiment, place, f"{kind}.h5", (1, 2, 3, 4), state, "why")])
    with running.client("operator") as operator:
        numbers = {each.watch: each.id for each in operator.watches.arrivals() if each.watch in owners}
    for role, kinds in SEEN.items():
        with running.client(role) as client:
            assert {w.watch.name for w in client.watches.ls()} & set(owners) == set(kinds)
            assert {a.watch for a in client.watches.arrivals()} & set(owners) == set(kinds)
            assert {a.watch for a in client.watches.of(list(numbers.values()))} == set(kinds)
            assert {a.watch for a in client.watches.arrivals(experiment="sealed")} == set(kinds) - {"open"}
    for method, path in (
        ("DELETE", "/watches/theirs"),
        ("POST", "/watches/theirs/start"),
        ("POST", f"/arrivals/{numbers['theirs']}/release"),
    ):
        answer = running.ask(method, path, "author", json={})
        assert answer.status_code == 404, answer.text
