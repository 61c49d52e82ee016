"""Experiments, their people and their collections, on both databases."""

from __future__ import annotations

import statistics

import pytest
from msgspec.structs import replace

from orchestrator.errors import ArgumentError, Conflict, NotFound
from orchestrator.store import catalog, experiments, filesets
from orchestrator.store.catalog import CatalogFile, FileKind
from orchestrator.store.database import Database
from orchestrator.store.experiments import Experiment, Part
from orchestrator.store.filesets import Collection, Stats, Sum

SMITH = Experiment("2026-3-smith", "Bones", "GUP-1", {"cycle": "2026-3"}, {"raw": "90 d"}, 5.0, {"ann": Part.OWNER})


def put(database: Database, *files: CatalogFile) -> list[int]:
    with database.write() as connection:
        return catalog.put(connection, files)


def test_an_experiment_comes_back_as_it_was(database: Database) -> None:
    experiments.create(database, SMITH)
    experiments.create(database, Experiment("b", created_at=7.0))
    assert experiments.get(database, SMITH.name) == SMITH
    assert [e.name for e in experiments.ls(database)] == ["b", SMITH.name]
    assert experiments.ls(database, [SMITH.name]) == [SMITH]
    assert experiments.create(database, replace(SMITH, created_at=9.0)) == SMITH  # after an answer that was lost
    with pytest.raises(Conflict, match="already"):
        experiments.create(database, replace(SMITH, title="Shales"))
    with pytest.raises(NotFound, match=r"Did you mean '2026-3-smith'"):
        experiments.get(database, "2026-3-smit")


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 129, "a\n", "\udcff"])
def test_what_cannot_be_a_name_is_refused(database: Database, name: str) -> None:
    with pytest.raises(ArgumentError, match="cannot be the name"):
        experiments.create(database, Experiment(name))


def test_what_is_changed_changes_and_the_rest_stays(database: Database) -> None:
    experiments.create(database, SMITH)
    changed = experiments.change(database, SMITH.name, {"title": "New", "metadata": {"cycle": None, "n": 3}})
    assert changed == replace(SMITH, title="New", metadata={"n": 3}) == experiments.get(database, SMITH.name)
    with pytest.raises(ArgumentError, match="10,000,000 bytes"):
        experiments.change(database, SMITH.name, {"metadata": {"x": "x" * 10_000_000}})
    with pytest.raises(ArgumentError, match="more than"):
        experiments.change(database, SMITH.name, {"title": "x" * 5000})


def test_people_come_and_go_and_one_owner_stays(database: Database) -> None:
    experiments.create(database, SMITH)
    assert experiments.put_person(database, SMITH.name, "bob", Part.VIEWER).people["bob"] is Part.VIEWER
    assert experiments.of(database, "bob") == {SMITH.name: Part.VIEWER}
    with pytest.raises(Conflict, match="only owner"):
        experiments.remove_person(database, SMITH.name, "ann")
    with pytest.raises(Conflict, match="only owner"):
        experiments.put_person(database, SMITH.name, "ann", Part.MEMBER)
    experiments.put_person(database, SMITH.name, "bob", Part.OWNER)
    assert experiments.remove_person(database, SMITH.name, "ann").people == {"bob": Part.OWNER}
    assert experiments.of(database, "ann") == {}
    with pytest.raises(NotFound, match="no part"):
        experiments.remove_person(database, SMITH.name, "ann")


@pytest.mark.parametrize("person", ["", "  ", "a\0", "\udcff", "x" * 201])
def test_who_cannot_be_a_person_is_refused(database: Database, person: str) -> None:
    experiments.create(database, SMITH)
    with pytest.raises(ArgumentError, match="name of a person"):
        experiments.put_person(database, SMITH.name, person, Part.VIEWER)
    with pytest.raises(ArgumentError, match="name of a person"):
        experiments.create(database, Experiment("new", people={person: Part.OWNER}))


def test_an_experiment_with_files_is_not_deleted(database: Database) -> None:
    experiments.create(database, SMITH)
    experiments.create(database, Experiment("empty"))
    filesets.create(database, Collection("empty", "c"))
    put(database, CatalogFile(SMITH.name, "/a", 1, "xxh3:1"))
    with pytest.raises(Conflict, match="has files"):
        experiments.remove(database, SMITH.name)
    experiments.remove(database, "empty")
    with pytest.raises(NotFound):
        experiments.get(database, "empty")
    with pytest.raises(NotFound):
        filesets.ls(database, "empty")


def test_a_collection_counts_what_is_in_it(database: Database) -> None:
    experiments.create(database, SMITH)
    a, b, dark, other = put(
        database,
        CatalogFile(SMITH.name, "/a", 10, "xxh3:1", added_at=5.0),
        CatalogFile(SMITH.name, "/b", 20, "xxh3:2", added_at=9.0),
        CatalogFile(SMITH.name, "/dark", 3, "xxh3:3", FileKind.CALIBRATION, 7.0),
        CatalogFile("elsewhere", "/a", 10, "xxh3:1"),
    )
    made = filesets.create(database, Collection(SMITH.name, "paper", "Figure 3", 8.0))
    assert filesets.create(database, Collection(SMITH.name, "paper", "Figure 3", 9.0)) == made
    assert filesets.ls(database, SMITH.name) == [made]
    assert filesets.stats(database, SMITH.name, "paper") == Stats(0, 0, 0.0, 0.0, {})
    assert filesets.add(database, SMITH.name, "paper", [a, dark, a]) == 2
    assert filesets.add(database, SMITH.name, "paper", [a, b]) == 1
    assert filesets.remove(database, SMITH.name, "paper", [b, 999]) == 1
    expected = Stats(2, 13, 5.0, 7.0, {"calibration": Sum(1, 3), "raw": Sum(1, 10)}, 3, 10, 6.5, 3.5)
    assert filesets.stats(database, SMITH.name, "paper") == expected
    put(database, CatalogFile(SMITH.name, "/a", 11, "xxh3:new", added_at=20.0))
    assert filesets.stats(database, SMITH.name, "paper").files == 1
    whole = filesets.stats(database, SMITH.name)
    assert (whole.files, whole.bytes, whole.first_at, whole.last_at) == (3, 34, 7.0, 20.0)
    assert whole.kinds == {"calibration": Sum(1, 3), "raw": Sum(2, 31)}
    assert (whole.smallest, whole.largest) == (3, 20)
    assert whole.deviation == pytest.approx(statistics.pstdev([20, 11, 3]))
    terabyte = 10**12
    put(database, *(CatalogFile("large", f"/{n}", terabyte + n, f"xxh3:{n}") for n in range(4)))
    experiments.create(database, Experiment("large"))
    assert filesets.stats(database, "large").bytes == 4 * terabyte + 6  # their squares are no integers of a database
    with pytest.raises(NotFound, match=f"no file {other}"):
        filesets.add(database, SMITH.name, "paper", [b, other])
    assert filesets.remove(database, SMITH.name, "paper", None) == 2
    assert filesets.ls(database, SMITH.name) == []
    with pytest.raises(NotFound, match="no collection 'paper'"):
        filesets.add(database, SMITH.name, "paper", [a])
    with pytest.raises(NotFound, match="no experiment 'none'"):
        filesets.create(database, Collection("none", "c"))
