"""The catalog over HTTP: real service, real client, and who may see and change what."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalog import read
from orchestrator.catalog.entries import Entry
from orchestrator.catalog.query import Asked
from orchestrator.catalog.verify import copies
from orchestrator.client.files import found
from orchestrator.errors import Conflict, Denied, NotFound, UserError
from orchestrator.settings import Settings
from orchestrator.store import scans
from orchestrator.store.database import Database
from orchestrator.store.experiments import Experiment, Part
from orchestrator.store.filesets import Collection, Sum
from tests.http.conftest import Running


@pytest.fixture(scope="module")
def smith(running: Running) -> str:
    """An experiment in which "a user" is a member, "a viewer" a viewer and "an author" nothing."""
    people = {"boss": Part.OWNER, "a user": Part.MEMBER, "a viewer": Part.VIEWER}
    with running.client("operator") as client:
        client.files.create(Experiment("smith", "Bones", metadata={"ratio": float("nan")}, people=people))
        client.files.create(Experiment("jones", people={"boss": Part.OWNER}))
        client.files.add([entry("/jones/secret.h5", experiment="jones")])
    return "smith"


def entry(path: str, **more: Any) -> Entry:
    return Entry(**{"experiment": "smith", "name": path, "size": 5, "checksum": f"xxh3:{abs(hash(path)):016x}", **more})


def test_the_client_is_the_same_over_http(running: Running, smith: str, tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\n_00042.txt")
    (tmp_path / odd).write_bytes(b"bones")
    with running.client("user") as client:
        files = client.files
        assert files.experiment(smith).metadata == {"ratio": "nan"}
        given = {"energy": 25.5, "ratio": float("nan"), "odd": "v\udcff"}
        made = read.entry(str(tmp_path / odd), smith, "raw", given, "xxh3", "local")
        [number] = files.add([made])
        assert files.add([made]) == [number]
        file, replicas = files.get(number)
        assert file.name == str(tmp_path / odd)
        assert file.metadata == {"energy": 25.5, "ratio": "nan", "odd": "v\udcff"}
        assert abs(file.added_at - time.time()) < 60
        assert [r.address for r in replicas] == [file.name]
        for asked in (
            Asked(smith, name=str(tmp_path / odd)),
            Asked(meta=("energy=20..30", "odd=v\udcff"), text=("00042",)),
            Asked(checksum=file.checksum, kind="raw", copies="verified", place="local"),
        ):
            assert [f.id for f in found(files, asked)] == [number], asked
        assert files.at("local", file.name) == [file]
        assert files.change(number, {"energy": None, "n": 1}).metadata == {"ratio": "nan", "odd": "v\udcff", "n": 1}
        (tmp_path / odd).write_bytes(b"bonez")
        [looked] = copies(file, replicas, "local")
        assert looked.look is not None
        files.looked([looked.look])
        assert [f.id for f in found(files, Asked(copies="corrupted"))] == [number]
        files.create_collection(Collection(smith, "paper", "Figure"))
        assert files.collect(smith, "paper", add=[number], remove=[]) == (1, 0)
        assert files.stats(smith, "paper").kinds == {"raw": Sum(1, 5)}
        assert [c.name for c in files.collections(smith)] == ["paper"]
        files.delete_collection(smith, "paper")


def test_a_master_has_its_parts_and_a_part_its_master(running: Running, smith: str) -> None:
    with running.client("user") as client, running.client("author") as stranger:
        files = client.files
        master, one, two = files.add([entry(f"/scan/{name}.h5") for name in ("s_master", "s_1", "s_2")])
        home = Settings(home=running.home, database=running._database)
        with Database(home.database_url) as database, database.write() as connection:
            scans.join(connection, master, [one, two])
        assert [(part.id, part.part_of) for part in files.parts(master)] == [(one, master), (two, master)]
        assert (files.get(one)[0].part_of, files.get(master)[0].part_of, files.parts(one)) == (master, 0, [])
        with pytest.raises(Denied, match="has no part in"):
            stranger.files.parts(master)


def test_pages_hold_each_file_once(running: Running, smith: str) -> None:
    with running.client("user") as client:
        ids = client.files.add([entry(f"/page/p_{n}.h5", metadata={"n": n}) for n in range(250)])
        asked = Asked(smith, name="/page/")
        first = client.files.page(asked, 100)
        assert [f.id for f in first.files] == ids[:-101:-1]
        assert [f.id for f in found(client.files, asked)] == ids[::-1]
        assert [f.id for f in found(client.files, asked, 7)] == ids[:-8:-1]


def test_whoever_has_no_part_sees_nothing(running: Running, smith: str) -> None:
    with running.client("author") as client:  # of role author, with no part in any experiment
        assert client.files.experiments() == []
        assert list(found(client.files, Asked())) == []
        for ask in (
            lambda: client.files.experiment(smith),
            lambda: client.files.experiment("there is none"),
            lambda: client.files.page(Asked(smith), 5),
            lambda: client.files.get(1),
            lambda: client.files.change(1, {"a": 1}),
            lambda: client.files.add([entry("/x")]),
            lambda: client.files.stats(smith),
            lambda: client.files.collections(smith),
        ):
            with pytest.raises(Denied, match="has no part in"):
                ask()
        assert client.files.at("local", "/jones/secret.h5") == []


def test_a_part_bounds_what_one_may(running: Running, smith: str) -> None:
    with running.client("viewer") as viewer:
        assert [e.name for e in viewer.files.experiments()] == [smith]
        assert all(f.experiment == smith for f in found(viewer.files, Asked()))
        with pytest.raises(Denied, match="may not change experiments and files"):
            viewer.files.add([entry("/x")])
    with running.client("user") as member:
        with pytest.raises(Denied, match="a member of experiment 'smith'; this takes the role 'owner'"):
            member.files.set(smith, {"title": "mine"})
        with pytest.raises(Denied, match="takes the role 'owner'"):
            member.files.put_person(smith, "a user", Part.OWNER)
        with pytest.raises(Denied, match="see and change any experiment"):
            member.files.create(Experiment("new"))
        with pytest.raises(Denied, match="see and change any experiment"):
            member.files.delete(smith)
        with pytest.raises(Denied, match="has no part in"):
            member.files.add([entry("/x"), entry("/y", experiment="jones")])
    with running.client("operator") as operator:
        assert {e.name for e in operator.files.experiments()} >= {smith, "jones"}
        operator.files.put_person(smith, "a user", Part.OWNER)
    with running.client("user") as owner:
        assert owner.files.set(smith, {"title": "Ours", "metadata": {"n": 1}}).title == "Ours"
    with running.client("operator") as operator:
        operator.files.put_person(smith, "a user", Part.MEMBER)


def test_an_agent_and_a_stranger_are_denied(running: Running, smith: str) -> None:
    for path in ("/experiments", "/files", "/files/1", "/experiments/smith/stats"):
        assert running.ask("GET", path, "agent").status_code == 403
    assert running.ask("GET", "/files", headers={"authorization": "Bearer x"}).status_code == 403


def test_mistakes_are_problems(running: Running, smith: str) -> None:
    with running.client("operator") as client:
        with pytest.raises(UserError, match="cannot be read at character 8"):
            client.files.page(Asked(meta=("energy>>20",)), 5)
        with pytest.raises(NotFound, match="no experiment 'smyth'"):
            client.files.page(Asked("smyth"), 5)
        with pytest.raises(NotFound, match="no file 999999"):
            client.files.get(999999)
        with pytest.raises(Conflict, match="has files"):
            client.files.delete("jones")
        with pytest.raises(UserError, match="10,000,000 bytes"):
            client.files.add([entry("/x", metadata={"x": "y" * 10_000_000})])
        for wrong in ({"checksum": "abc"}, {"size": -1}, {"kind": "x"}, {"name": ""}, {"name": "a\0"}, {"place": ""}):
            with pytest.raises(UserError):
                client.files.add([entry("/x", **wrong)])
    for method, path, body, status in (
        ("GET", "/files?limit=0", None, 400),
        ("GET", f"/files?before={2**70}", None, 400),
        ("GET", f"/files/{2**70}", None, 400),
        ("GET", "/files?name=%FF&text=%00&meta=%00=%FF&meta=%FF=1", None, 200),
        ("GET", "/files?checksum=%00", None, 200),
        ("GET", "/files?copies=missing&place=%00", None, 200),
        ("GET", "/files/at?place=%00&address=%00", None, 200),
        ("GET", "/experiments/%00%FF", None, 404),
        ("PUT", "/experiments/smith/people/%00", {"role": "viewer"}, 400),
        ("DELETE", "/experiments/smith/people/%00", None, 404),
        ("POST", "/files", [{"name": 5}], 400),
        ("POST", "/files", [{**BODY, "metadata": []}], 400),
        ("POST", "/files", [{**BODY, "more": 1}], 400),
        ("POST", "/files", [BODY] * 1001, 400),
        ("POST", "/files/1/looks", {"place": "local", "address": "/x", "state": "fine"}, 400),
        ("POST", "/files/1/looks", {"place": "local", "address": "/x", "state": "missing"}, 404),
        ("PUT", "/experiments/smith/people/x", {"role": "king"}, 400),
        ("PATCH", "/experiments/smith", {"name": "other"}, 400),
    ):
        answer = running.ask(method, path, **({} if body is None else {"json": body}))
        assert answer.status_code == status, (path, answer.text)
        assert status == 200 or answer.headers["content-type"] == "application/problem+json"


BODY = {"experiment": "smith", "name": "/b", "size": 1, "checksum": "xxh3:0123456789", "place": "local"}


def test_json_that_says_nan_is_kept_as_text(running: Running, smith: str) -> None:
    text = json.dumps([{**BODY, "name": "/nan", "metadata": {"x": float("nan")}}])
    assert "NaN" in text
    answer = running.ask("POST", "/files", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 201, answer.text
    assert running.ask("GET", f"/files/{answer.json()[0]}").json()["metadata"] == {"x": "nan"}


def test_each_route_of_the_catalog_denies_whoever_has_no_part(running: Running, smith: str) -> None:
    """Also one that is added tomorrow. Three answer with what one may see, which is nothing."""
    described = running.ask("GET", "/openapi.json").json()
    filled = {"name": smith, "number": "1", "person": "x", "collection": "c"}
    bodies = {
        "post /files": [BODY],
        "post /files/{number}/looks": {"place": "local", "address": "/b", "state": "missing"},
    }
    bodies |= {"post /experiments": {"name": "mine"}, "patch /files/{number}": {"metadata": {}}}
    bodies |= {"put /experiments/{name}/people/{person}": {"role": "owner"}}
    bodies |= {"post /experiments/{name}/collections": {"name": "c"}}
    listings = {"get /experiments", "get /files", "get /files/at"}
    seen = 0
    for path, methods in described["paths"].items():
        short = path.removeprefix("/api/v1")
        for method, told in methods.items():
            if "catalog" not in told.get("tags", ()):
                continue
            name = f"{method} {short}"
            params = {"place": "local", "address": "/jones/secret.h5"} if short == "/files/at" else {}
            asked = short.format(**filled)
            answer = running.ask(method.upper(), asked, "author", params=params, json=bodies.get(name, {}))
            if name in listings:
                assert answer.json() in ([], {"files": [], "before": 0}), name
            else:
                assert answer.status_code == 403, (name, answer.text)
            seen += 1
    assert seen >= 18
