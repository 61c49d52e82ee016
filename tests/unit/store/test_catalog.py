"""Files and their copies in the catalog, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace
from sqlalchemy import func, select

from orchestrator.errors import NotFound
from orchestrator.store import catalog, catalog_search, schema
from orchestrator.store.catalog import CatalogFile, FileKind, Replica, ReplicaState
from orchestrator.store.catalog_search import Wanted
from orchestrator.store.database import Database

SCAN = CatalogFile("2026-3-smith", "/data/sc\udcff\n.h5", 7, "xxh3:01", added_at=5.0, metadata={"energy": 25.5})


def put(database: Database, *files: CatalogFile) -> list[int]:
    with database.write() as connection:
        return catalog.put(connection, files)


def test_a_file_comes_back_as_it_was(database: Database) -> None:
    [number] = put(database, SCAN)
    assert catalog.get(database, number) == replace(SCAN, id=number)
    with pytest.raises(NotFound, match="no file 77"):
        catalog.get(database, 77)


def test_a_file_told_twice_is_one(database: Database) -> None:
    first, second, other = put(database, SCAN, replace(SCAN, kind=FileKind.OTHER), replace(SCAN, experiment="b"))
    assert first == second != other
    assert catalog.get(database, first).kind is FileKind.RAW
    assert catalog.number_of_files(database) == 2


def test_another_content_supersedes_the_one_before(database: Database) -> None:
    first, second = put(database, SCAN, replace(SCAN, checksum="xxh3:02", added_at=9.0))
    assert catalog.get(database, first).superseded_at == 9.0
    assert catalog.get(database, second).superseded_at == 0.0


def test_a_content_that_is_there_again_supersedes_in_its_turn(database: Database) -> None:
    other = replace(SCAN, checksum="xxh3:02", added_at=9.0)
    first, second = put(database, SCAN, other)
    put(database, SCAN)  # told late, of the time before
    assert catalog.get(database, first).superseded_at == 9.0
    assert put(database, replace(SCAN, added_at=12.0)) == [first]
    assert catalog.get(database, first).superseded_at == 0.0
    assert catalog.get(database, second).superseded_at == 12.0
    put(database, replace(other, added_at=15.0))
    assert [catalog.get(database, n).superseded_at for n in (first, second)] == [15.0, 0.0]


def test_copies_are_found_by_file_and_by_address(database: Database) -> None:
    [number] = put(database, SCAN)
    here = Replica(number, "beamline", SCAN.name, ReplicaState.VERIFIED, True, 6.0, {"size": 7})
    there = Replica(number, "tape", "gsiftp://host/a")
    with database.write() as connection:
        for replica in (here, there, replace(there, state=ReplicaState.MISSING)):
            catalog.put_replica(connection, replica)
    assert catalog.replicas(database, [number]) == [here, replace(there, state=ReplicaState.MISSING)]
    assert [f.id for f in catalog.at(database, "beamline", SCAN.name)] == [number]
    assert catalog.at(database, "tape", SCAN.name) == []


def test_many_writers_at_once_put_each_file_once_and_one_content_is_the_newest(database: Database) -> None:
    """Each its own contents of the same names, and all of them the same contents of others."""

    def write(writer: int) -> None:
        ours = [replace(SCAN, name=f"/d/{n}", checksum=f"xxh3:{writer}{n}") for n in range(20)]
        same = [replace(SCAN, name=f"/same/{n}", metadata={"n": n, "s": "Wet bone"}) for n in range(20)]
        mixed = [file for pair in zip(ours, same, strict=True) for file in pair]
        for start in range(0, 40, 10):
            put(database, *(mixed[start : start + 10] if writer % 2 else mixed[start : start + 10][::-1]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert catalog.number_of_files(database) == 4 * 20 + 20
    current = catalog_search.listing(database, Wanted(), limit=500).files
    assert len({file.name for file in current}) == len(current) == 40
    with database.read() as connection:
        values = schema.catalog_values.c
        counts = connection.execute(select(func.count()).where(values.key == "n").group_by(values.file_id)).scalars()
        assert list(counts) == [1] * 20
