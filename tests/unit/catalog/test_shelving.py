"""What has arrived is in the catalog before anything runs on it, once, with its copy where it lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
from msgspec.structs import replace

from orchestrator.catalog.shelving import PARTS, Shelf
from orchestrator.errors import InputError, Stale
from orchestrator.store import arrivals, catalog, leases, scans, watches
from orchestrator.store.arrivals import Arrival, ArrivalState
from orchestrator.store.catalog import CatalogFile, FileKind, ReplicaState
from orchestrator.store.database import Database
from orchestrator.store.scans import PartFile
from orchestrator.store.watches import Watch

NASTY = "so\udcffme/\n name.h5"
RULES = '[[rule]]\nname = "r"\nworkflow = "t"\n[[rule]]\nname = "darks"\nworkflow = "t"\nkind = "calibration"\n'


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    with Database(store_url) as made:
        made.upgrade()
        watches.put(made, Watch("w", "e", "/data/2bm", RULES, site="beamline"))
        yield made


def arrival(name: str = NASTY, **more: Any) -> Arrival:
    mark = (1, 2, 7, 4)
    values: dict[str, Any] = {"checksum": "xxh3:01", "rule": "r", "decided_at": 5.0} | more
    return Arrival("w", "e", arrivals.digest_of(name, mark), name, mark, ArrivalState.DUE, **values)


def test_a_file_and_its_copy_are_there_once(database: Database) -> None:
    for _ in range(2):  # whoever goes on does not know what the one before has put there
        shelf = Shelf(database, extract=lambda path: {"energy": 25.5})
        shelf.put([arrival(), arrival("dark.h5", checksum="xxh3:02", rule="darks")])
    [file] = catalog.at(database, "beamline", f"/data/2bm/{NASTY}")
    assert (file.experiment, file.size, file.checksum, file.kind) == ("e", 7, "xxh3:01", FileKind.RAW)
    assert file.metadata == {"energy": 25.5}
    [copy] = catalog.replicas(database, [file.id])
    assert (copy.place, copy.state, copy.verified_at) == ("beamline", ReplicaState.VERIFIED, 5.0)
    [dark] = catalog.at(database, "beamline", "/data/2bm/dark.h5")
    assert dark.kind is FileKind.CALIBRATION
    assert catalog.number_of_files(database) == 2


def test_one_name_at_two_sites_that_share_nothing_is_two_files(database: Database) -> None:
    watches.put(database, Watch("far", "e", "/data/2bm", RULES, site="far"))
    shelf = Shelf(database, extract=lambda path: {}, apart=lambda site, path: site)
    shelf.put([arrival(), replace(arrival(checksum="xxh3:02"), watch="far", id=1)])
    files = [catalog.at(database, place, f"/data/2bm/{NASTY}") for place in ("beamline", "far")]
    assert [[(f.checksum, f.site, f.superseded_at) for f in some] for some in files] == [
        [("xxh3:01", "beamline", 0.0)],
        [("xxh3:02", "far", 0.0)],
    ]


def test_without_a_checksum_nobody_has_verified_it(database: Database) -> None:
    Shelf(database).put([arrival(checksum="")])
    [file] = catalog.at(database, "beamline", f"/data/2bm/{NASTY}")
    [copy] = catalog.replicas(database, [file.id])
    assert (file.checksum, copy.state) == ("fingerprint:1-2-7-4", ReplicaState.UNVERIFIED)


def test_one_that_says_nothing_of_itself_is_there_all_the_same(database: Database) -> None:
    def broken(path: str) -> dict[str, Any]:
        raise InputError("It is no HDF5.")

    Shelf(database, extract=broken).put([arrival()])
    [file] = catalog.at(database, "beamline", f"/data/2bm/{NASTY}")
    assert file.metadata == {"unreadable": "It is no HDF5."}


def test_who_has_lost_the_lease_writes_nothing(database: Database) -> None:
    lease = leases.acquire(database, "watcher:beamline", "a", lease_s=100.0)
    assert lease is not None
    leases.release(database, lease)
    leases.acquire(database, "watcher:beamline", "b", lease_s=100.0)
    with pytest.raises(Stale):
        Shelf(database, fence=lease).put([arrival()])
    assert catalog.number_of_files(database) == 0


def test_what_waits_for_its_run_is_read_once(database: Database) -> None:
    read: list[str] = []

    def extract(path: str) -> dict[str, Any]:
        read.append(path)
        return {}

    shelf = Shelf(database, extract=extract)
    for numbers in ([1, 2], [1, 2, 3], [2, 3]):
        shelf.put([arrival(f"{n}.h5", checksum=f"xxh3:{n}", id=n) for n in numbers])
    assert read == [f"/data/2bm/{n}.h5" for n in (1, 2, 3)]
    assert catalog.number_of_files(database) == 3


def test_what_an_hdf5_file_says_of_itself_is_in_the_catalog(database: Database, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["/exchange/data"] = [1.0]
        file["/measurement/sample/name"] = "stone"
    watches.put(database, Watch("w", "e", str(tmp_path), RULES, site="beamline"))
    with Shelf(database) as shelf:
        shelf.put([arrival("scan.h5"), arrival("gone.h5", checksum="xxh3:02")])
    [file] = catalog.at(database, "beamline", str(tmp_path / "scan.h5"))
    assert (file.metadata["format"], file.metadata["sample"]) == ("DXchange", "stone")
    [gone] = catalog.at(database, "beamline", str(tmp_path / "gone.h5"))
    assert "is not there" in gone.metadata["unreadable"]


def parted(*sums: str) -> Arrival:
    parts = tuple(PartFile(f"s_{n}.h5", n, checksum) for n, checksum in enumerate(sums, 1))
    return arrival("s_master.h5", parts=scans.together(parts), part_files=parts)


def arrive(database: Database, arrived: Arrival, shelf: Shelf) -> CatalogFile:
    with database.write() as connection:
        scans.keep(connection, arrived.watch, arrived.place, arrived.part_files)
    shelf.put([arrived])
    return catalog.at(database, "beamline", "/data/2bm/s_master.h5")[0]


def test_each_part_of_a_scan_is_a_file_of_its_own(database: Database) -> None:
    arrived = parted(*(f"xxh3:{n}" for n in range(2 * PARTS + 1)))
    master = arrive(database, arrived, Shelf(database, extract=lambda path: {"energy": 25.5}))
    parts = scans.standing_parts(database, master.id)
    assert [(p.size, p.checksum, p.kind) for p in parts[:2]] == [(1, "xxh3:0", "raw"), (2, "xxh3:1", "raw")]
    assert (len(parts), parts[0].metadata, master.metadata) == (2 * PARTS + 1, {}, {"energy": 25.5})
    copies = catalog.replicas(database, [part.id for part in parts])
    assert {(c.place, c.state, c.verified_at) for c in copies} == {("beamline", ReplicaState.VERIFIED, 5.0)}
    assert {c.address for c in copies} == {f"/data/2bm/s_{n}.h5" for n in range(1, len(parts) + 1)}
    assert scans.kept(database, arrived.watch, arrived.place) == []


def test_killed_between_the_parts_the_next_one_puts_the_rest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, join, calls = parted(*(f"xxh3:{n}" for n in range(2 * PARTS + 1))), scans.join, []

    def dies(*given: Any) -> None:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        join(*given)

    monkeypatch.setattr(scans, "join", dies)
    with pytest.raises(KeyboardInterrupt):
        arrive(database, arrived, Shelf(database))
    assert catalog.number_of_files(database) == PARTS + 1
    Shelf(database).put([arrived])
    [master] = catalog.at(database, "beamline", "/data/2bm/s_master.h5")
    assert len(scans.standing_parts(database, master.id)) == 2 * PARTS + 1


def test_a_part_with_another_content_takes_the_place_of_the_one_before(database: Database) -> None:
    arrive(database, parted("xxh3:1", "xxh3:2"), Shelf(database))
    master = arrive(database, parted("xxh3:1", "xxh3:3"), Shelf(database))
    assert [part.checksum for part in scans.standing_parts(database, master.id)] == ["xxh3:1", "xxh3:3"]
    new, old = catalog.at(database, "beamline", "/data/2bm/s_2.h5")
    assert (old.superseded_at, new.superseded_at) == (5.0, 0.0)
    assert {r.state for r in catalog.replicas(database, [old.id])} == {ReplicaState.MISSING}
