"""What is stale is listed with its reason and made anew, each once, in the order of its making."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.client import Client
from orchestrator.engine.again import Again
from orchestrator.model import Run, RunStatus
from orchestrator.store import lineage, schema
from orchestrator.store.catalog import CatalogFile, FileKind
from orchestrator.store.database import Database
from tests.conftest import submit, wait, workflow
from tests.e2e.test_provenance import used, xxh3
from tests.unit.catalog.crates import wrong

JOIN = workflow(s01={"command": "cat $filePath $mask > $out", "inputs": ["$mask"], "outputs": ["$out"]})


def joined(client: Client, place: Path, name: str, out: str, **more: str) -> str:
    arguments = {"filePath": str(place / name), "mask": str(place / "mask"), "out": str(place / out)}
    run = wait(client, submit(client, JOIN, arguments | {"experimentName": place.name} | more))
    assert run.status is RunStatus.DONE, run.error
    used(client, run.id)
    return run.id


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def arrived(client: Client, path: Path) -> None:
    """As whoever watches writes down a file with another content."""
    with Database(client.settings.database_url) as database, database.write() as connection:
        file = CatalogFile(path.parent.name, str(path), path.stat().st_size, xxh3(path), FileKind.RAW)
        lineage.catalog.put(connection, [CatalogFile(**{**_fields(file), "added_at": time.time()})])


def _fields(file: CatalogFile) -> dict[str, Any]:
    return {name: getattr(file, name) for name in CatalogFile.__struct_fields__}


def stale(client: Client, place: Path) -> dict[str, bool]:
    found = client.lineage.stale(experiment=place.name)
    return {Path(each.file.name).name: each.ready for each in found}


def finished(client: Client, begun: list[Again]) -> list[Run]:
    runs = [wait(client, each.again) for each in begun if each.again]
    for run in runs:
        assert run.status is RunStatus.DONE, run.error
        used(client, run.id)
    return runs


def test_two_generations_are_made_anew_after_the_raw_file_was_replaced(shared_client: Client, tmp_path: Path) -> None:
    written(tmp_path / "mask", "m")
    raw = written(tmp_path / "raw", "one ")
    first = joined(shared_client, tmp_path, "raw", "out", inputChecksum=xxh3(raw))
    second = joined(shared_client, tmp_path, "out", "further")
    written(tmp_path / "other", "never changed")
    joined(shared_client, tmp_path, "other", "not-of-it")
    assert stale(shared_client, tmp_path) == {}
    written(raw, "another ")
    arrived(shared_client, raw)
    assert stale(shared_client, tmp_path) == {"out": True, "further": False}
    lineage = shared_client.lineage
    planned = lineage.rerun(experiment=tmp_path.name, dry_run=True)
    assert [(each.run_id, bool(each.again), each.there) for each in planned] == [
        (first, True, False),
        (second, False, False),
    ]
    begun = lineage.rerun(experiment=tmp_path.name)
    assert begun == planned
    again = [each for each in lineage.rerun(experiment=tmp_path.name) if each.run_id == first]
    assert all(each.there and each.again == begun[0].again for each in again), "begun once"
    [run] = finished(shared_client, begun)
    assert run.plan.variables["inputChecksum"] == xxh3(raw)
    assert (tmp_path / "out").read_text() == "another m"
    assert stale(shared_client, tmp_path) == {"further": True}
    finished(shared_client, lineage.rerun(experiment=tmp_path.name))
    assert (tmp_path / "further").read_text() == "another mm"
    assert stale(shared_client, tmp_path) == {}
    assert lineage.rerun(experiment=tmp_path.name) == []


def test_a_changed_calibration_and_a_product_that_comes_out_the_same(
    shared_client: Client, finish: Callable[..., Run], tmp_path: Path
) -> None:
    written(tmp_path / "raw", "r")
    mask = written(tmp_path / "mask", "m")
    definition = workflow(
        s01={"command": "wc -c < $mask > $out", "inputs": ["$mask"], "outputs": ["$out"]},
    )
    arguments = {name: str(tmp_path / name) for name in ("mask", "out")}
    arguments |= {"filePath": str(tmp_path / "raw"), "experimentName": tmp_path.name}
    used(shared_client, finish(shared_client, definition, arguments).id)
    written(mask, "M")
    arrived(shared_client, mask)
    assert stale(shared_client, tmp_path) == {"out": True}
    finished(shared_client, shared_client.lineage.rerun(experiment=tmp_path.name))
    assert stale(shared_client, tmp_path) == {}
    with Database(shared_client.settings.database_url) as database, database.read() as connection:
        same = schema.catalog_files.c.name == os.fsencode(arguments["out"])
        assert len(connection.execute(schema.catalog_files.select().where(same)).all()) == 1


def beamway(client: Client, *words: str) -> Any:
    said = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *words, "--json"],
        env={**os.environ, "BEAMWAY_HOME": str(client.settings.home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return json.loads(said.stdout)


def test_on_the_command_line(shared_client: Client, tmp_path: Path) -> None:
    written(tmp_path / "mask", "m")
    raw = written(tmp_path / "raw", "r")
    run_id = joined(shared_client, tmp_path, "raw", "out")
    told = beamway(shared_client, "provenance", str(raw), "--down")
    assert [(use["run"], use["role"]) for use in told["uses"]] == [(run_id, "input"), (run_id, "product")]
    assert [file["name"] for file in told["files"]] == [str(raw), str(tmp_path / "out")]
    made = beamway(shared_client, "crate", run_id[:13], str(tmp_path / "crate"), "--data")
    assert made == {"output": str(tmp_path / "crate"), "files": 3, "copied": 3}
    assert wrong(json.loads((tmp_path / "crate" / "ro-crate-metadata.json").read_text()), tmp_path / "crate") == []
    assert (tmp_path / "crate" / "results" / "out").read_text() == "rm"
    written(raw, "other")
    arrived(shared_client, raw)
    [line] = beamway(shared_client, "stale", "ls", "--experiment", tmp_path.name)
    assert line["why"] == f"{raw} has another content now (file {line['causes'][0]['now']})"
    [begun] = beamway(shared_client, "stale", "rerun", str(line["id"]))
    assert begun["run_id"] == run_id
    assert wait(shared_client, begun["again"]).status is RunStatus.DONE
