"""Provenance from elsewhere, over HTTP: the same answers as at home, and nobody redoes another's runs."""

from __future__ import annotations

import os
import time
from pathlib import Path

from orchestrator.client import Client
from orchestrator.errors import NotFound
from orchestrator.model import RunStatus
from orchestrator.settings import Settings
from orchestrator.store import catalog, experiments
from orchestrator.store.catalog import CatalogFile
from orchestrator.store.database import Database
from orchestrator.store.experiments import Experiment, Part
from tests.conftest import submit, wait, workflow
from tests.http.conftest import Running
from tests.unit.catalog.crates import wrong

COPY = workflow(s01={"command": 'cp "$filePath" $out', "inputs": ["$filePath"], "outputs": ["$out"]})


def told(client: Client, what: str) -> set[str]:
    """The names of the files of its history, once the catalog has them."""
    over = time.monotonic() + 30.0
    while True:
        try:
            return {file.name for file in client.lineage.story(what, up=20, down=20).graph.files}
        except NotFound:
            assert time.monotonic() < over, "never came into the catalog"
            time.sleep(0.05)


def test_the_history_and_the_crate(running: Running, tmp_path: Path) -> None:
    raw = os.fsdecode(os.fsencode(tmp_path / "sc") + b"\xff.h5")
    Path(raw).write_text("raw")
    with running.client() as client:
        run_id = submit(client, COPY, {"filePath": raw, "out": str(tmp_path / "out"), "experimentName": "over http"})
        run = wait(client, run_id)
        assert run.status is RunStatus.DONE, run.error
        assert told(client, str(tmp_path / "out")) == {raw, str(tmp_path / "out")}
        assert told(client, raw) == {raw, str(tmp_path / "out")}
    found = running.ask("GET", "/lineage", params={"what": run_id, "down": 0}).json()
    assert [file["kind"] for file in found["files"]] == ["raw"]
    document = running.ask("GET", "/crate", params={"what": run_id}).json()
    assert wrong(document) == []
    missing = running.ask("GET", "/lineage", params={"what": "nothing-like-it"})
    assert (missing.status_code, "no file and no run" in missing.text) == (404, True)


def test_files_of_others_are_not_shown(running: Running, tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.write_text("raw")
    name = f"of-{tmp_path.name[-20:]}"
    with running.client("author") as author, running.client() as operator:
        run_id = submit(author, COPY, {"filePath": str(raw), "out": str(out), "experimentName": name})
        wait(author, run_id)
        told(operator, str(out))
    for what, status in ((str(out), 403), (run_id, 200)):
        answer = running.ask("GET", "/lineage", "viewer", params={"what": what})
        assert answer.status_code == status
        assert str(raw) not in str(answer.json().get("files", ""))
    with Database(Settings(home=running.home).database_url) as database:
        experiments.create(database, Experiment(name, people={"a viewer": Part.VIEWER, "Ada": Part.OWNER}))
    seen = running.ask("GET", "/lineage", "viewer", params={"what": str(out)}).json()
    assert [file["name"] for file in seen["files"]] == [str(raw), str(out)]
    document = running.ask("GET", "/crate", "viewer", params={"what": run_id}).json()
    assert wrong(document) == []
    assert {"a viewer", "Ada"} <= {entity["name"] for entity in document["@graph"] if entity["@type"] == "Person"}


def test_what_is_stale_is_redone_by_who_may(running: Running, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_text("raw")
    with running.client() as client:
        wait(client, submit(client, COPY, {"filePath": str(raw), "out": str(tmp_path / "out")}))
        told(client, str(tmp_path / "out"))
        raw.write_text("changed")
        with Database(Settings(home=running.home).database_url) as database, database.write() as connection:
            catalog.put(connection, [CatalogFile("", str(raw), 7, "xxh3:other", added_at=time.time())])
        [product] = [x for x in client.lineage.stale() if x.file.name == str(tmp_path / "out")]
        refused = running.ask("POST", "/stale/rerun", "user", json={"files": [product.file.id]})
        assert (refused.status_code, "is another's" in refused.text) == (403, True)
        [begun] = client.lineage.rerun(files=[product.file.id])
        assert wait(client, begun.again).status is RunStatus.DONE
        assert (tmp_path / "out").read_text() == "changed"
