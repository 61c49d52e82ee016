"""Retention of scans of several files: master and parts stay or go together, on both databases."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from orchestrator.catalog.book import Done
from orchestrator.catalog.copies import Copies
from orchestrator.store import catalog, filesets, scans
from orchestrator.store import retention as store
from orchestrator.store.catalog import CatalogFile, ReplicaState
from orchestrator.store.experiments import Experiment, create
from orchestrator.store.filesets import Collection
from tests.unit.catalog.keep import DAY, NOW, Beamline, E
from tests.unit.catalog.test_pruning_killed import killed, points

NAMES = ("s_master.h5", "s_data_1.h5", "s_data_2.h5")


def scan(beamline: Beamline, *places: str, names: tuple[str, ...] = NAMES) -> list[CatalogFile]:
    """A master and its data files; the data was known before it."""
    *parts, master = [beamline.file(n, *places, content=n.encode()) for n in (*names[1:], names[0])]
    with beamline.database.write() as connection:
        scans.join(connection, master.id, [part.id for part in parts])
    return [master, *parts]


def verdicts(done: list[Done]) -> dict[str, str]:
    return {os.path.basename(each.name): each.verdict for each in done}


def reasons(beamline: Beamline) -> set[str]:
    plan = [d for d in beamline.keeping().plan() if d.replica.place == "beamline"]
    assert {d.verdict for d in plan} == {"keep"}
    return {d.reason for d in plan}


def test_a_scan_goes_together(beamline: Beamline) -> None:
    files = scan(beamline, "tape")
    done = beamline.apply()
    assert verdicts(done) == dict.fromkeys(NAMES, "pruned")
    assert beamline.raw() == []
    for file in files:
        assert beamline.states(file) == {"beamline": "pruned", "tape": "verified"}
        [row] = beamline.keeping().log(file=str(file.id))
        assert {look["checksum"] for look in row.evidence["looks"]} == {file.checksum}
    assert beamline.apply() == []


def test_one_corrupted_copy_of_a_part_keeps_the_whole_scan(beamline: Beamline) -> None:
    files = scan(beamline, "tape")
    (beamline.home / "tape" / NAMES[2]).write_bytes(NAMES[2].upper().encode())
    assert verdicts(list(beamline.keeping().apply())) == dict.fromkeys(NAMES, "refused")
    with beamline.database.write() as connection:  # as if nobody had looked
        catalog.put_replica(connection, replace(_at(beamline, files[2], "tape"), state=ReplicaState.VERIFIED))
    done = beamline.apply()
    assert verdicts(done) == dict.fromkeys(NAMES, "refused")
    assert [each.trouble for each in done] == ["", "", "corrupted"]
    assert beamline.raw() == sorted(NAMES)
    for file in files[:2]:
        [row, *_] = beamline.keeping().log(file=str(file.id))
        assert f"file {files[2].id} of its scan (s_data_2.h5): the copy at 'tape'" in row.reason
    assert beamline.apply() == []  # what is known to be corrupted is not even begun with
    assert all("tape is corrupted" in reason for reason in reasons(beamline))


def _at(beamline: Beamline, file: CatalogFile, place: str) -> catalog.Replica:
    return next(r for r in catalog.replicas(beamline.database, [file.id]) if r.place == place)


@pytest.mark.parametrize("which", [0, 2])
def test_a_part_that_is_nowhere_else_keeps_the_whole_scan(alone: Beamline, which: int) -> None:
    files = scan(alone, "tape")
    alone.copy(files[which], "tape", str(alone.home / "tape" / NAMES[which]), ReplicaState.MISSING)
    lacking = "0 of 1 copies elsewhere (tape is missing)"
    whose = f"file {files[which].id} of its scan ({NAMES[which]})"
    assert reasons(alone) == {lacking, f"{whose}: {lacking}"}
    assert alone.apply() == []


def test_a_run_that_reads_the_master_keeps_its_parts(beamline: Beamline) -> None:
    files = scan(beamline, "tape")
    beamline.run(files[0], "running", told=False)
    assert reasons(beamline) == {"run run-1 uses it and is running"}


def test_a_pin_on_a_part_or_on_a_collection_pins_all(beamline: Beamline) -> None:
    files, keeping = scan(beamline, "tape"), beamline.keeping()
    keeping.pin(str(files[1].id))
    assert reasons(beamline) == {"it is pinned", f"file {files[1].id} of its scan (s_data_1.h5): it is pinned"}
    keeping.unpin(str(files[1].id))
    create(beamline.database, Experiment(E))
    filesets.create(beamline.database, Collection(E, "best"))
    assert filesets.add(beamline.database, E, "best", [files[0].id]) == 3  # with its parts
    stats = filesets.stats(beamline.database, E, "best")
    assert (stats.files, stats.bytes) == (3, sum(map(len, NAMES)))
    keeping.pin("best", experiment=E, collection=True)
    assert reasons(beamline) == {"its collection 'best' is pinned"}
    assert filesets.remove(beamline.database, E, "best", [files[0].id]) == 3


def test_a_run_that_begins_meanwhile_brings_all_back(beamline: Beamline, monkeypatch: pytest.MonkeyPatch) -> None:
    files = scan(beamline, "tape")
    set_aside = Copies.set_aside

    def and_a_run(copies: Copies, place: str, at: str, number: int) -> None:
        set_aside(copies, place, at, number)
        if number == files[-1].id:
            assert all(name.endswith(".pruned") for name in beamline.raw())
            beamline.run(files[1], "running", told=False)

    monkeypatch.setattr(Copies, "set_aside", and_a_run)
    done = beamline.apply()
    assert verdicts(done) == dict.fromkeys(NAMES, "refused")
    assert all("run-1 uses it" in each.reason for each in done)
    assert beamline.raw() == sorted(NAMES)
    assert store.removals(beamline.database, beamline.keeping()._book.holder) == []


def test_one_that_cannot_be_set_aside_brings_back_the_others(alone: Beamline) -> None:
    files = scan(alone, "tape")
    left = Path(f"{files[2].name}.{files[2].id}.pruned")
    left.write_bytes(b"somebody's")
    done = verdicts(alone.apply())
    assert done == {NAMES[0]: "refused", NAMES[1]: "refused", NAMES[2]: "unfinished"}
    assert alone.raw() == sorted([*NAMES, left.name])
    left.unlink()
    assert [each.verdict for each in alone.apply()] == ["kept", "pruned", "pruned", "pruned"]
    assert alone.raw() == []


@pytest.mark.parametrize("point", points())
def test_killed_anywhere_the_next_one_goes_on(alone: Beamline, point: str) -> None:
    files = scan(alone, "tape")
    killed(alone, point)
    assert all(each.good for each in alone.apply())
    assert alone.raw() == []
    for file in files:
        assert alone.states(file) == {"beamline": "pruned", "tape": "verified"}
    assert [row.verdict for row in alone.keeping().log()].count("pruned") == 3


def test_killed_between_two_parts_whatever_the_database(beamline: Beamline) -> None:
    scan(beamline, "tape")
    killed(beamline, "copy.aside:after")
    assert len([name for name in beamline.raw() if name.endswith(".pruned")]) == 1
    assert verdicts(beamline.apply()[-3:]) == dict.fromkeys(NAMES, "pruned")
    assert beamline.raw() == []


def test_archived_and_restored_together(alone: Beamline) -> None:
    files = scan(alone)
    alone.rules = alone.rules + 'archive = "tape"\n'
    assert [d.verdict for d in alone.keeping().apply()] == ["would archive"] * 3
    done = alone.apply()
    assert [d.verdict for d in done] == ["archived"] * 3 + ["pruned"] * 3
    assert alone.raw() == []
    back = list(alone.keeping().restore(str(files[1].id)))  # a part is named
    assert [os.path.basename(d.name) for d in back] == [*NAMES[1:], NAMES[0]]  # and the master comes last
    assert {d.verdict for d in back} == {"restored"}
    assert {n: (alone.home / "raw" / n).read_bytes() for n in NAMES} == {n: n.encode() for n in NAMES}


def test_what_no_rule_is_about_keeps_the_rest_at_its_place(alone: Beamline) -> None:
    files = scan(alone, "tape")
    alone.rules = alone.rules.replace('places = "beamline"', 'kinds = "raw"')
    with alone.database.write() as connection:
        odd = catalog.CatalogFile(E, files[0].name + "x", 1, "xxh3:1", catalog.FileKind.OTHER, NOW - 99 * DAY)
        [number] = catalog.put(connection, [odd])
        scans.join(connection, files[0].id, [number])
    alone.copy(replace(odd, id=number), "tape", str(alone.home / "tape" / "odd"))
    by_place = {(d.replica.place, d.verdict.value, d.reason) for d in alone.keeping().plan()}
    assert {(place, verdict) for place, verdict, _ in by_place} == {("beamline", "prune"), ("tape", "keep")}
    assert any("s_master.h5x): no rule is about it" in reason for _, _, reason in by_place)


def test_a_part_that_was_replaced_does_not_hold_back_what_is_there_now(alone: Beamline) -> None:
    files = scan(alone, "tape")
    new = alone.file(NAMES[2], "disk", content=b"anew")
    with alone.database.write() as connection:
        catalog.displace(connection, new.id, "beamline", new.name)
        scans.join(connection, files[0].id, [files[1].id, new.id])
    done = alone.apply()
    assert {each.file: each.verdict for each in done} == {f.id: "pruned" for f in (*files[:2], new)}
    assert alone.raw() == []
    assert alone.states(files[2]) == {"beamline": "missing", "tape": "verified"}


def test_a_scan_that_two_experiments_count_on_goes_when_both_may_miss_it(alone: Beamline) -> None:
    files = scan(alone, "tape")
    theirs = [alone.known(replace(file, id=0, part_of=0, experiment="other")) for file in files]
    with alone.database.write() as connection:
        scans.join(connection, theirs[0].id, [file.id for file in theirs[1:]])
    for file in theirs:
        alone.copy(file, "beamline", file.name)
        if file is not theirs[1]:
            alone.copy(file, "tape", str(alone.home / "tape" / os.path.basename(file.name)))
    done = alone.apply()
    assert verdicts(done) == dict.fromkeys(NAMES, "kept")
    assert alone.raw() == sorted(NAMES)
    alone.copy(theirs[1], "tape", str(alone.home / "tape" / NAMES[1]))
    assert [each.verdict for each in alone.apply()] == ["pruned"] * 3  # theirs with ours
    for file in (*files, *theirs):
        assert alone.states(file) == {"beamline": "pruned", "tape": "verified"}
