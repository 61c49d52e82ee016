"""Files are found by what they are, whole pages at a time, as a plain filter over all of them would."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import event

from orchestrator.errors import ArgumentError
from orchestrator.store import catalog, catalog_search, catalog_values
from orchestrator.store.catalog import CatalogFile, FileKind, Replica, ReplicaState
from orchestrator.store.catalog_search import Match, Wanted
from orchestrator.store.database import Database

SAMPLES = ("bone", "shale", "Wet leaf", "2026")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_values, "PART", 16)
    monkeypatch.setattr(catalog_search, "MANY", 16)


def made(number: int) -> CatalogFile:
    chance = random.Random(number)
    metadata = {
        "energy": chance.choice((20, 25.5, 30.0)) + (number == 77) * 1000,
        "sample": {"name": chance.choice(SAMPLES), "wet": chance.random() < 0.3},
        "always": "same",
        "tags": chance.sample(["a", "b", "c"], 2),
        "started": f"2026-11-{1 + number // 10:02}",
    }
    name = f"/data/e{number % 3}/scan_{number:04}{'_dark' * (number % 20 == 0)}.h5"
    kind = FileKind.CALIBRATION if number % 20 == 0 else FileKind.RAW
    return CatalogFile(f"e{number % 3}", name, number, f"xxh3:{number:04}", kind, float(number), metadata=metadata)


@pytest.fixture
def filled(database: Database) -> Database:
    with database.write() as connection:
        for number, file in zip(catalog.put(connection, [made(n) for n in range(200)]), range(200), strict=True):
            state = ReplicaState.CORRUPTED if file % 50 == 7 else ReplicaState.VERIFIED
            catalog.put_replica(connection, Replica(number, "here", "x", state))
    return database


def pages(database: Database, limit: int, **wanted: Any) -> list[int]:
    found: list[int] = []
    before = 0
    while True:
        page = catalog_search.listing(database, Wanted(before=before, **wanted), limit=limit)
        found += [round(file.added_at) for file in page.files]
        before = page.before
        if not before:
            return found


def test_each_condition_finds_what_a_plain_filter_does(filled: Database) -> None:
    def expected(such: Any) -> list[int]:
        return [n for n in reversed(range(200)) if such(made(n), made(n).metadata)]

    high = Match("energy", low=25.5)
    cases: list[tuple[dict[str, Any], Any]] = [
        ({}, lambda f, m: True),
        ({"experiments": ("e1",)}, lambda f, m: f.experiment == "e1"),
        ({"experiments": ("e1", "e2", "nobody")}, lambda f, m: f.experiment != "e0"),
        ({"experiments": ()}, lambda f, m: False),
        ({"kind": "calibration"}, lambda f, m: f.kind == "calibration"),
        ({"matches": (high,)}, lambda f, m: m["energy"] >= 25.5),
        ({"matches": (replace(high, open_low=True),)}, lambda f, m: m["energy"] > 25.5),
        ({"matches": (Match("energy", low=500.0),)}, lambda f, m: m["energy"] > 500),
        ({"matches": (Match("energy", high=20.0), Match("always", "same"))}, lambda f, m: m["energy"] <= 20),
        ({"matches": (Match("energy", low=900.0), Match("always", "same"))}, lambda f, m: m["energy"] > 900),
        ({"matches": (Match("sample/wet", "true"), high)}, lambda f, m: m["sample"]["wet"] and m["energy"] >= 25.5),
        ({"matches": (Match("sample/name", low=2026.0, high=2026.0),)}, lambda f, m: m["sample"]["name"] == "2026"),
        ({"matches": (Match("tags", "a"), Match("tags", "b"))}, lambda f, m: {"a", "b"} <= set(m["tags"])),
        ({"matches": (Match("none", "x"),)}, lambda f, m: False),
        ({"name": "scan_00"}, lambda f, m: f.added_at < 100),
        ({"name": "/data/e2/"}, lambda f, m: f.experiment == "e2"),
        ({"name": "bone"}, lambda f, m: False),
        ({"texts": ("DARK",)}, lambda f, m: "dark" in f.name),
        ({"texts": ("leaf", "scan")}, lambda f, m: m["sample"]["name"] == "Wet leaf"),
        ({"texts": ("bo",), "name": "dark"}, lambda f, m: m["sample"]["name"] == "bone" and "dark" in f.name),
        ({"since": 50.0, "until": 60.0}, lambda f, m: 50 <= f.added_at < 60),
        ({"checksum": "0042"}, lambda f, m: f.added_at == 42),
        ({"checksum": "xxh3:0042", "kind": "raw"}, lambda f, m: f.added_at == 42),
        ({"copies": "corrupted"}, lambda f, m: f.added_at % 50 == 7),
        ({"copies": "corrupted", "place": "there"}, lambda f, m: False),
        ({"copies": "verified", "place": "here", "kind": "calibration"}, lambda f, m: f.kind == "calibration"),
    ]
    for wanted, such in cases:
        for limit in (1, 7, 300):
            assert pages(filled, limit, **wanted) == expected(such), (wanted, limit)


def test_a_search_that_takes_too_long_goes_on_from_its_cursor(filled: Database) -> None:
    rare = Wanted(matches=(Match("energy", low=900.0),))
    page = catalog_search.listing(filled, rare, limit=5, longest_s=0.0)
    assert page.files == []
    assert page.before > 1
    found = []
    before = 0
    while True:
        page = catalog_search.listing(filled, replace(rare, before=before), limit=5, longest_s=0.0)
        found += page.files
        before = page.before
        if not before:
            break
    assert [file.added_at for file in found] == [77.0]


def test_what_is_superseded_is_only_found_when_asked_for(database: Database) -> None:
    with database.write() as connection:
        catalog.put(connection, [made(1), replace(made(1), checksum="xxh3:other", added_at=9.0), made(2)])
    assert pages(database, 5) == [2, 9]
    assert pages(database, 1, name="scan") == [2, 9]
    assert pages(database, 1, superseded=True) == [2, 9, 1]


def test_changed_metadata_is_found_and_what_was_is_not(filled: Database) -> None:
    [file] = catalog_search.listing(filled, Wanted(checksum="0042")).files
    with filled.write() as connection:
        after = catalog.change(connection, file.id, {"energy": "61", "always": None, "new": "Ruby glass"})
    assert after.metadata["energy"] == "61"
    assert "always" not in after.metadata
    assert catalog.get(filled, file.id) == after
    assert pages(filled, 5, matches=(Match("energy", low=61.0, high=61.0),)) == [42]
    assert pages(filled, 5, texts=("glass",)) == [42]
    assert len(pages(filled, 50, matches=(Match("always", "same"),))) == 199


def test_a_place_alone_and_a_collection_of_no_experiment_are_refused(database: Database) -> None:
    with pytest.raises(ArgumentError, match="needs the state"):
        catalog_search.listing(database, Wanted(place="here"))
    with pytest.raises(ArgumentError, match="is one of an experiment"):
        catalog_search.listing(database, Wanted(collection="c"))


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(matches=(Match("energy", low=1.0), Match("always", "same"))),
        Wanted(matches=(Match("energy", low=900.0),), kind="raw"),
        Wanted(texts=("bone", "scan"), experiments=("e1",)),
        Wanted(copies="corrupted", since=5.0),
        Wanted(name="/data", checksum="0042"),
    ],
    ids=repr,
)
def test_no_search_reads_a_whole_table(filled: Database, wanted: Wanted) -> None:
    asked: list[tuple[str, Any]] = []
    with filled.read() as connection:
        engine = connection.engine
    note = lambda *given: asked.append((given[2], given[3]))  # noqa: E731
    event.listen(engine, "before_cursor_execute", note)
    catalog_search.listing(filled, wanted)
    event.remove(engine, "before_cursor_execute", note)
    queries = [(text, given) for text, given in asked if text.startswith("SELECT")]
    assert len(queries) > 2
    with filled.read() as connection:
        if filled.postgresql:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        for text, given in queries:
            explain = "EXPLAIN" if filled.postgresql else "EXPLAIN QUERY PLAN"
            plan = "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {text}", given))
            assert "Seq Scan" not in plan
            assert "SCAN catalog" not in plan


def test_numbers_dates_and_texts() -> None:
    number = catalog_values.number
    assert [number(t) for t in ("7", " -1.5e3 ", ".5", "1e999", "nan", "inf", "0x1", "7 keV", "")] == [
        *(7.0, -1500.0, 0.5),
        *[None] * 6,
    ]
    assert number("1970-01-02") == number("1970-01-02T00:00:00Z") == number("1970-01-02 01:00+01:00") == 86400.0
    assert number("2026-13-45") is None


def test_what_json_cannot_hold_is_kept_as_text_and_what_is_too_large_refused() -> None:
    deep: Any = {}
    for _ in range(50):
        deep = {"x": deep}
    made = catalog_values.plain({"a": math.nan, "b": -math.inf, "c": 2**80, "d": {"e": b"\xff"}, "f": None, "g": deep})
    assert made["a"] == "nan"
    assert made["b"] == "-inf"
    assert made["c"] == str(2**80)
    assert catalog_values.flat({"a": math.nan}) == [("a", None, "nan")]
    with pytest.raises(ArgumentError, match=r"'thumbnail' has 10,000,000 bytes"):
        catalog_values.plain({"thumbnail": "x" * 10_000_000})
    with pytest.raises(ArgumentError, match="metadata of /d/x has"):
        catalog_values.plain({f"k{n}": "x" * 60_000 for n in range(30)}, "/d/x")
    with pytest.raises(ArgumentError, match="empty"):
        catalog_values.plain({"/": 1})
    assert len(catalog_values.flat({f"k{n}": n for n in range(5000)})) == catalog_values.KEYS_MOST


def test_texts_that_no_database_takes_find_nothing(filled: Database) -> None:
    odd = "\0\udcff"
    for wanted in (
        Wanted(checksum=odd),
        Wanted(copies="missing", place=odd),
        Wanted((odd,)),
        Wanted(("e1",), collection=odd),
        Wanted(name=odd, texts=(odd,), matches=(Match(catalog_values.spelled(odd), odd),)),
    ):
        assert catalog_search.listing(filled, wanted).files == []
    assert catalog.at(filled, odd, odd) == []


def test_names_and_values_of_any_bytes_are_found(database: Database) -> None:
    odd = CatalogFile(
        "\udcff\0", "/d/\udcff\0é'\n%_.h5", 1, "xxh3:1", metadata={"k\0\udcff": "v\0\udcff", "é" * 300: "ü" * 900}
    )
    with database.write() as connection:
        [number] = catalog.put(connection, [odd])
    assert catalog.get(database, number) == replace(odd, id=number)
    for wanted in (
        Wanted(name="\udcff\0"),
        Wanted(name=odd.name),
        Wanted(experiments=("\udcff\0",)),
        Wanted(matches=(Match(catalog_values.spelled("k\0\udcff"), "v\0\udcff"),)),
        Wanted(matches=(Match(catalog_values.spelled("é" * 300), "ü" * 900),)),
        Wanted(texts=("v\0\udcff",)),
    ):
        assert [f.id for f in catalog_search.listing(database, wanted).files] == [number], wanted
