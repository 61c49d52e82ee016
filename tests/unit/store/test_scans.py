"""Which files are one scan."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from orchestrator.store import catalog, scans
from orchestrator.store.catalog import CatalogFile
from orchestrator.store.database import Database
from orchestrator.store.scans import PartFile

NASTY = "so\udcffme/\n 1.h5"


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    with Database(store_url) as made:
        made.upgrade()
        yield made


def put(database: Database, *names: str, checksum: str = "xxh3:1", at: float = 1.0) -> list[int]:
    with database.write() as connection:
        return catalog.put(connection, [CatalogFile("e", name, 1, checksum, added_at=at) for name in names])


def join(database: Database, master: int, *parts: int) -> None:
    with database.write() as connection:
        scans.join(connection, master, parts)


def whole(database: Database, *numbers: int) -> list[list[int]]:
    with database.read() as connection:
        found = scans.whole(connection, scans.several(connection, numbers))
    return [[file.id for file in scan] for scan in found.values()]


def test_the_parts_of_an_arrival_are_kept_until_they_are_in_the_catalog(database: Database) -> None:
    parts = [PartFile(NASTY, 1 << 40, "xxh3:1"), PartFile("b", 0, scans.unread((1, 2, 3, 4)))]
    for some in (parts[:1], parts):  # it was incomplete, and is looked at again
        with database.write() as connection:
            scans.keep(connection, "w", b"0" * 16, some)
    assert scans.kept(database, "w", b"0" * 16) == parts
    assert scans.kept(database, "w", b"1" * 16) == []
    with database.write() as connection:
        scans.forget(connection, "w", b"0" * 16)
    assert scans.kept(database, "w", b"0" * 16) == []


def test_all_parts_count_in_their_order() -> None:
    parts = [PartFile("a", 1, "xxh3:1"), PartFile("b", 1, "xxh3:2")]
    assert scans.together(parts) == scans.together([replace(part, name="x") for part in parts])
    assert len({scans.together(some) for some in (parts, parts[::-1], parts[:1], [])}) == 4


def test_a_master_and_its_parts(database: Database) -> None:
    one, two, master, other = put(database, "1", "2", "m", "o")
    for _ in range(2):
        join(database, master, one, two)
    for number in (one, master):
        assert whole(database, number) == [[master, one, two]]
    assert whole(database, other, two) == [[master, one, two], [other]]
    assert [part.id for part in scans.standing_parts(database, master)] == [one, two]


def test_scans_that_share_a_file_are_one(database: Database) -> None:
    one, two, three, first, second = put(database, "1", "2", "3", "m", "n")
    join(database, first, one, two)
    join(database, second, two, three)
    assert whole(database, second) == [[first, one, two, three, second]]
    join(database, second, two, three)  # once more, after a kill
    assert whole(database, three) == [[first, one, two, three, second]]


def test_a_master_of_masters(database: Database) -> None:
    one, inner, outer = put(database, "1", "inner", "outer")
    join(database, inner, one)
    join(database, outer, inner)
    assert whole(database, one) == [[outer, one, inner]]


def test_the_next_content_of_a_master_has_the_parts(database: Database) -> None:
    one, two, old = put(database, "1", "2", "m")
    join(database, old, one, two)
    [new] = put(database, "m", checksum="xxh3:2", at=2.0)
    [changed] = put(database, "2", checksum="xxh3:2", at=2.0)
    join(database, new, one, changed)
    assert whole(database, one, old) == [[old, two], [new, one, changed]]
    assert [part.id for part in scans.standing_parts(database, old)] == []


@pytest.mark.parametrize("order", ["together", "part first", "master first"])
def test_what_takes_the_place_of_a_part_or_of_a_master_is_that(database: Database, order: str) -> None:
    one, two, old = put(database, "1", "2", "m")
    join(database, old, one, two)

    def anew(*names: str) -> list[int]:
        numbers = put(database, *names, checksum="xxh3:2", at=2.0)
        for _ in range(2):
            with database.write() as connection:
                scans.inherit(connection, numbers)
        return numbers

    if order == "together":
        changed, new, other = anew("1", "m", "o")
    elif order == "part first":
        [changed], [new, other] = anew("1"), anew("m", "o")
    else:
        [new, other], [changed] = anew("m", "o"), anew("1")
    assert [part.id for part in scans.standing_parts(database, new)] == sorted([two, changed])
    assert scans.standing_parts(database, old) == []
    assert whole(database, other) == [[other]]
