"""RO-Crates of what is in the catalog, measured against the specification."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from orchestrator.catalog import crate, provenance
from orchestrator.catalog.provenance import Story
from orchestrator.errors import ArgumentError
from orchestrator.store import catalog, scans
from orchestrator.store.catalog import CatalogFile, FileKind, Replica, ReplicaState
from orchestrator.store.database import Database
from orchestrator.store.descent import Graph, RunFacts
from orchestrator.store.lineage import Facts, Role, Use
from tests.unit.catalog.crates import wrong

HOW = Facts("01", "aps", "/d/out", "tomography.fbp", {"tomography.fbp": "1.2", "numpy": "2.1"})
PEOPLE = ({"name": "Ada\udcff", "role": "owner", "orcid": "0000-0002-1825-0097"}, {"name": "Bob", "email": "b@x"})


def story(place: Path) -> Story:
    """A tree that a run has made of a hostile file, and a second run that went on from there."""
    raw, tree = place / "sc\udcff n\n.h5", place / "volume.zarr"
    raw.write_bytes(b"raw")
    (tree / "0").mkdir(parents=True)
    (tree / "0" / "0.0").write_bytes(b"chunk")
    gone = "/not/there/sc\udcff n\n.h5"
    files = (
        CatalogFile("e1", str(raw), 3, "sha256:aa", FileKind.RAW, 5.0, id=1),
        CatalogFile("e1", str(tree), 5, "xxh3:bb", FileKind.PRODUCT, 6.0, maker="r1", id=2),
        CatalogFile("e1", gone, 3, "xxh3:cc", FileKind.CALIBRATION, superseded_at=9.0, id=3),
        CatalogFile("e1", "gsiftp://host/a b", 3, "xxh3:dd", FileKind.PRODUCT, 7.0, id=4),
    )
    definition = {"name": "w", "version": "1", "stages": {"01": {"command": "x"}}}
    runs = tuple(
        RunFacts(f"r{n}", "w", "1", "d" * 64, "me", "e1", "ada", "done", n, n + 1.0, {"a": "b\0"}, "Text.", definition)
        for n in (1, 2)
    )
    used = (("r1", Role.INPUT, 1), ("r1", Role.CALIBRATION, 3), ("r1", Role.PRODUCT, 2))
    uses = tuple(Use(*each, HOW) for each in (*used, ("r2", Role.INPUT, 2), ("r2", Role.PRODUCT, 4)))
    copies = (Replica(1, "tape", "/tape/1", ReplicaState.VERIFIED),)
    return Story(Graph(files, runs, uses, of_runs=("r2",)), copies, PEOPLE, "Run r2 of w")


def entities(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entity["@id"]: entity for entity in document["@graph"]}


def export(found: Story, output: Path, *, data: bool) -> dict[str, Any]:
    inside, sources = crate.placed(found.graph, found.copies_of()) if data else ({}, {})
    document = crate.document(found, at=10.0, inside=inside)
    crate.write(output, document, found.graph, {inside[n]: source for n, source in sources.items()})
    return document


@pytest.mark.parametrize("data", [True, False])
def test_it_follows_the_specification(tmp_path: Path, data: bool) -> None:
    output = tmp_path / "crate"
    export(story(tmp_path), output, data=data)
    document = json.loads((output / "ro-crate-metadata.json").read_text())
    assert wrong(document, output) == []
    assert ((output / "results" / "volume.zarr" / "0" / "0.0").is_file(), os.path.isdir(output / "data")) == (
        data,
        data,
    )


def test_a_run_says_with_what_it_made_what_of_what(tmp_path: Path) -> None:
    found = story(tmp_path)
    there = entities(crate.document(found, at=10.0, inside={1: "data/raw.h5", 2: "results/volume.zarr/"}))
    run = there["#run-r1"]
    assert [there[each["@id"]].get("alternateName") for each in run["object"][:1]] == ["sc\\udcff n\\n.h5"]
    assert run["result"] == [{"@id": "results/volume.zarr/"}]
    assert run["startTime"] == "1970-01-01T00:00:01.000+00:00"
    workflow = there[run["instrument"]["@id"]]
    assert (workflow["name"], workflow["version"]) == ("w", "1")
    software = [there[each["@id"]] for each in workflow["softwareRequirements"]]
    assert {s["name"]: s["softwareVersion"] for s in software} == {"tomography.fbp": "1.2", "numpy": "2.1"}
    assert there["data/raw.h5"]["sha256"] == "aa"
    assert there["#file-1-copies"]["value"] == "tape:/tape/1 (verified)"
    assert there["https://orcid.org/0000-0002-1825-0097"]["jobTitle"] == "owner"


def test_one_workflow_alone_is_the_main_entity(tmp_path: Path) -> None:
    found = story(tmp_path)
    assert "mainEntity" in entities(crate.document(found, at=10.0))["./"]
    document = crate.document(Story(replace(found.graph, of_runs=(), of_files=(4,)), title="a b"), at=10.0)
    assert "mainEntity" not in entities(document)["./"]
    assert wrong(document) == []


def test_the_same_in_a_zip(tmp_path: Path) -> None:
    document = export(story(tmp_path), tmp_path / "crate.zip", data=True)
    with zipfile.ZipFile(tmp_path / "crate.zip") as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("ro-crate-metadata.json")) == json.loads(json.dumps(document))
        assert {"results/volume.zarr/0/0.0", "data/sc_ n_.h5"} < set(archive.namelist())
        archive.extractall(tmp_path / "again")
    assert wrong(document, tmp_path / "again") == []
    assert not (tmp_path / "crate.zip.part").exists()


def test_nothing_is_overwritten_and_nothing_is_left(tmp_path: Path) -> None:
    found = story(tmp_path)
    there = tmp_path / "there"
    there.mkdir()
    with pytest.raises(ArgumentError, match="already"):
        export(found, there, data=False)
    with pytest.raises(ArgumentError, match="is not there"):
        export(found, tmp_path / "no" / "crate", data=False)
    assert list(there.iterdir()) == []


def test_two_files_of_one_name_both_find_their_place(tmp_path: Path) -> None:
    files = []
    for number in (1, 2):
        path = tmp_path / str(number) / "a.h5"
        path.parent.mkdir()
        path.write_bytes(b"x" * number)
        files.append(CatalogFile("e1", str(path), number, "", id=number))
    inside, sources = crate.placed(Graph(tuple(files)), {})
    assert inside == {1: "data/a.h5", 2: "data/2/a.h5"}
    assert sources == {1: files[0].name, 2: files[1].name}


def test_the_parts_of_a_scan_are_in_it_and_say_so(tmp_path: Path) -> None:
    with Database(f"sqlite:///{tmp_path}/parts.db") as database:
        database.upgrade()
        with database.write() as connection:
            names = ("s_master.h5", "s_1.h5", "s_2.h5")
            ids = catalog.put(connection, [CatalogFile("e", f"{tmp_path}/{n}", 1, "xxh3:1") for n in names])
            scans.join(connection, ids[0], ids[1:])
        found = provenance.for_crate(lambda down: provenance.story(database, str(ids[0]), down=down))
    document = crate.document(found, at=10.0)
    assert wrong(document) == []
    told = {each.get("identifier"): each for each in document["@graph"]}
    master, *parts = (told[f"beamway:file/{number}"] for number in ids)
    assert [each["isPartOf"] for each in parts] == [{"@id": master["@id"]}] * 2
