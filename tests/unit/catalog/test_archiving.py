"""Copies made and brought back: each from a copy that is right, read afresh before it is recorded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from sqlalchemy import insert

from orchestrator.errors import ArgumentError, NotFound
from orchestrator.store import schema
from orchestrator.store.catalog import CatalogFile
from orchestrator.store.texts import key
from tests.unit.catalog.keep import Beamline, E


def lost(alone: Beamline) -> CatalogFile:
    """A file whose copy at the beamline is gone, as nobody expected."""
    file = alone.file("a.h5", "disk", "tape")
    Path(file.name).unlink()
    return file


def test_the_first_source_is_corrupted_and_the_next_is_taken(alone: Beamline) -> None:
    file = lost(alone)
    name = file.name
    (alone.home / "disk" / "a.h5").write_bytes(b"fRames")
    [done] = alone.keeping().restore(name)
    assert (done.verdict, done.reason) == ("restored", "copied from 'tape'; 'disk' is corrupted")
    assert Path(name).read_bytes() == b"frames"
    [row] = alone.keeping().log(file=name)
    assert (row.verdict, [look["place"] for look in row.evidence["looks"]]) == ("restored", ["disk", "beamline"])
    assert alone.states(file) == {"beamline": "verified", "disk": "corrupted", "tape": "verified"}


def test_no_source_is_right(alone: Beamline) -> None:
    file = lost(alone)
    name = file.name
    for place in ("disk", "tape"):
        (alone.home / place / "a.h5").write_bytes(b"fRames")
    [done] = alone.keeping().restore(name)
    assert (done.verdict, done.good) == ("refused", False)
    assert "'disk' is corrupted" in done.reason
    assert "'tape' is corrupted" in done.reason
    assert alone.raw() == []


def test_something_else_in_its_place_is_left_alone(alone: Beamline) -> None:
    file = lost(alone)
    name = file.name
    Path(name).write_bytes(b"mine")
    [done] = alone.keeping().restore(name)
    assert (done.verdict, "something else is there" in done.reason) == ("refused", True)
    assert Path(name).read_bytes() == b"mine"


def test_restored_into_a_folder(alone: Beamline, tmp_path: Path) -> None:
    alone.file("a.h5", "tape")
    (alone.home / "raw" / "in").mkdir()
    (alone.home / "tape" / "in").mkdir()
    alone.file("in/b.h5", "tape")
    done = list(alone.keeping().restore("", experiment=E, to=str(tmp_path / "back")))
    assert [d.verdict for d in done] == ["restored"] * 2
    assert (tmp_path / "back" / "a.h5").read_bytes() == b"frames"
    assert (tmp_path / "back" / "in" / "b.h5").read_bytes() == b"frames"


def test_a_collection_is_restored(alone: Beamline) -> None:
    file = alone.file("a.h5", "tape")
    alone.file("b.h5", "tape")
    with alone.database.write() as connection:
        row = {"experiment": key(E), "name": "best", "file_id": file.id}
        connection.execute(insert(schema.collection_files).values(**row))
    alone.apply()
    [done] = alone.keeping().restore("best", experiment=E)
    assert (done.verdict, alone.raw()) == ("restored", ["a.h5"])


def test_archived_to_a_folder(alone: Beamline) -> None:
    file = alone.file("a.h5")
    moved: list[tuple[str, int, int]] = []
    [done] = alone.keeping(moved=lambda *told: moved.append(told)).archive(file.name, to="tape")
    assert done.verdict == "archived"
    assert done.address == f"{alone.home}/tape/{E}{file.name}"
    assert Path(done.address).read_bytes() == b"frames"
    assert moved[-1] == (file.name, 6, 6)
    assert alone.states(file) == {"beamline": "verified", "tape": "verified"}


def test_a_corrupted_file_is_not_archived(alone: Beamline) -> None:
    file = alone.file("a.h5")
    Path(file.name).write_bytes(b"fRames")
    [done] = alone.keeping().archive(file.name, to="tape")
    assert (done.verdict, "'beamline' is corrupted" in done.reason) == ("refused", True)
    assert os.listdir(alone.home / "tape") == []


def test_what_stands_in_the_archive_already_is_not_overwritten(alone: Beamline) -> None:
    file = alone.file("a.h5")
    there = Path(f"{alone.home}/tape/{E}{file.name}")
    there.parent.mkdir(parents=True)
    there.write_bytes(b"somebody's")
    [done] = alone.keeping().archive(file.name, to="tape")
    assert (done.verdict, done.address) == ("archived", f"{there}~{file.id}")
    assert there.read_bytes() == b"somebody's"


def test_names_that_climb_stay_in_the_archive(alone: Beamline) -> None:
    from msgspec.structs import replace

    file = alone.file("a.h5")
    climbs = alone.known(replace(file, id=0, name="/data/../../etc/a.h5", experiment="../../x"))
    alone.copy(climbs, "beamline", file.name)
    [done] = alone.keeping().archive(str(climbs.id), to="tape")
    assert done.verdict == "archived"
    assert os.path.realpath(done.address).startswith(f"{os.path.realpath(alone.home)}/tape/")


def test_what_cannot_be_asked_for(alone: Beamline) -> None:
    alone.file("a.h5")
    with pytest.raises(NotFound, match=r"no file or collection 'b.h5'"):
        list(alone.keeping().restore("b.h5"))
    with pytest.raises(ArgumentError, match=r"no place 'tap' to copy to. Did you mean 'tape'"):
        list(alone.keeping().archive("1", to="tap"))
    with pytest.raises(ArgumentError, match="Name a file"):
        list(alone.keeping().restore(""))


def test_cancelled_in_the_middle_it_leaves_nothing_behind(alone: Beamline) -> None:
    alone.file("a.h5", "tape")
    alone.file("b.h5", "tape")
    begun: list[bool] = []
    done = list(alone.keeping(cancelled=lambda: bool(begun) or begun.append(True)).apply(rehearse=False))
    assert done == []
    assert alone.raw() == ["a.h5", "b.h5"]
    assert [d.verdict for d in alone.apply()] == ["pruned", "pruned"]


def test_an_archive_that_is_not_mounted_is_refused(alone: Beamline) -> None:
    file = alone.file("a.h5")
    shutil.rmtree(alone.home / "tape")
    [done] = alone.keeping().archive(file.name, to="tape")
    assert (done.verdict, "is it mounted?" in done.reason) == ("refused", True)
    assert not (alone.home / "tape").exists()
