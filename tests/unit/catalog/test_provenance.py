"""Histories as text, of collections, and as far as somebody may see them."""

from __future__ import annotations

from pathlib import Path

import pytest
from immutables import Map

from orchestrator.catalog import crate, provenance
from orchestrator.errors import NotFound
from orchestrator.model import Plan, Run, RunStatus
from orchestrator.store import experiments, filesets, lineage, scans
from orchestrator.store import runs as store
from orchestrator.store.catalog import FileKind
from orchestrator.store.database import Database
from orchestrator.store.experiments import Experiment, Part
from orchestrator.store.filesets import Collection
from orchestrator.store.lineage import Account, Facts, Step
from orchestrator.store.runs import Changed, EventRow
from tests.unit.catalog.crates import wrong

HOW = Facts("01", "aps", "", "k.one", {"k.one": "1.2"})


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """Two runs: `first` has made /out of /raw with the mask of another experiment, `second` /end of /out."""
    made = Database(f"sqlite:///{tmp_path}/x.db")
    made.upgrade()
    ran(made, "other", step("/mask", kind=FileKind.CALIBRATION), experiment="theirs")
    ran(made, "first", step("/raw"), step("/mask"), step("/out", made=True))
    ran(made, "second", step("/out"), step("/end", made=True))
    return made


def step(name: str, **more: object) -> Step:
    told = {"checksum": f"xxh3:{name}", "bytes": 3, "at": 5.0, "kind": FileKind.RAW} | more
    return Step("aps", name, HOW, **told)  # type: ignore[arg-type]


def ran(database: Database, run_id: str, *steps: Step, experiment: str = "mine") -> None:
    plan = Plan("w", "me", (), variables={"experimentName": experiment}, definition={"version": "2.0"})
    run = Run(run_id, plan, 1.0, RunStatus.DONE, 1.0, 2.0, username="ada", variables=Map())
    store.Writer(database).save([Changed(run, True, (), ())], [EventRow(run_id, 2.0, lineage.FILES)])
    cursor, events = lineage.due(database, limit=9)
    assert lineage.write(database, cursor, [Account(run_id, experiment, steps)], events[-1][0], now=1.0)


def test_a_tree_in_text(database: Database) -> None:
    found = provenance.story(database, "/out").graph
    numbers = {file.name: file.id for file in found.files}
    assert list(provenance.tree(found, up=True, down=True)) == [
        f"file {numbers['/out']} /out [xxh3:/out]",
        "  made by run first w 2.0 in stage 01 by k.one 1.2 at aps",
        f"    from calibration file {numbers['/mask']} /mask [xxh3:/mask]",
        f"    from input file {numbers['/raw']} /raw [xxh3:/raw]",
        "  read as input by run second w 2.0",
        f"    made file {numbers['/end']} /end [xxh3:/end] in stage 01 by k.one 1.2 at aps",
    ]


def test_a_part_says_whose_it_is_and_has_the_history_of_its_master(database: Database) -> None:
    ran(database, "third", step("/data"))
    master, part = (lineage.number_of(database, name) for name in ("/raw", "/data"))
    with database.write() as connection:
        scans.join(connection, master, [part])
    found = provenance.story(database, "/data")
    whose = f"file {part} /data [xxh3:/data] (part of file {master})"
    assert [line for line in provenance.tree(found.graph, up=False, down=True) if not line.startswith("    ")] == [
        whose,
        "  read as input by run third w 2.0",
        f"file {master} /raw [xxh3:/raw]",
        f"  part {whose}",
        "  read as input by run first w 2.0",
    ]
    told = provenance.record(provenance.story(database, "/raw"))
    assert [(each["id"], each["part_of"]) for each in told["parts"]] == [(part, master)]
    assert provenance.record(provenance.seen_by(found, {"theirs"}))["parts"] == []


def test_a_collection_goes_with_all_that_it_was_made_of(database: Database) -> None:
    experiments.create(database, Experiment("mine", people={"Ada": Part.OWNER}))
    filesets.create(database, Collection("mine", "figure"))
    filesets.add(database, "mine", "figure", [lineage.number_of(database, "/end")])
    found = provenance.for_crate(
        lambda down: provenance.story(database, "collection:figure", down=down, experiment="mine")
    )
    assert {file.name for file in found.graph.files} == {"/raw", "/mask", "/out", "/end"}
    document = crate.document(found, at=10.0)
    assert wrong(document) == []
    assert [entity["name"] for entity in document["@graph"] if entity["@id"] == "./"] == ["Collection figure"]
    with pytest.raises(NotFound, match="no collection"):
        provenance.story(database, "collection:figure", experiment="theirs")


def test_files_of_other_experiments_are_left_out(database: Database) -> None:
    whole = provenance.story(database, "second")
    seen = provenance.seen_by(whole, {"mine"})
    assert {file.name for file in whole.graph.files} - {file.name for file in seen.graph.files} == {"/mask"}
    assert {use.run_id for use in seen.graph.uses} == {"first", "second"}
    nothing = provenance.seen_by(whole, set())
    assert (nothing.graph.files, [run.id for run in nothing.graph.runs]) == ((), ["second"])
