"""What real files say of themselves: NeXus, DXchange, any HDF5, none, broken and hostile ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from orchestrator.arrival import hdf5_reader
from orchestrator.arrival.contents import Reader
from orchestrator.catalog import metadata
from orchestrator.errors import InputError
from orchestrator.store import catalog_values


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Reader() as made:
        yield made


def nexus(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        for name, kind in (
            ("entry", "NXentry"),
            ("entry/instrument", "NXinstrument"),
            ("entry/instrument/mono", "NXmonochromator"),
            ("entry/instrument/oryx", "NXdetector"),
            ("entry/sample", "NXsample"),
            ("entry/data", "NXdata"),
        ):
            file.create_group(name).attrs["NX_class"] = kind
        file["entry/title"] = "A bone, wet"
        file["entry/start_time"] = "2026-11-21T10:00:00+00:00"
        file["entry/instrument/name"] = "2-BM"
        file["entry/instrument/mono/energy"] = 25500.0
        file["entry/instrument/mono/energy"].attrs["units"] = "eV"
        file["entry/instrument/oryx/count_time"] = np.float32(0.5)
        file["entry/sample/name"] = "bone"
        file["entry/sample/temperature"] = np.nan
        file["entry/data/data"] = np.zeros((30, 4, 5), "u2")
    return path


def test_nexus(reader: Reader, tmp_path: Path) -> None:
    found = metadata.extract(nexus(tmp_path / "a.nxs"), reader=reader)
    expected = {
        "format": "NeXus",
        "title": "A bone, wet",
        "start_time": "2026-11-21T10:00:00+00:00",
        "instrument": "2-BM",
        "energy": 25.5,
        "exposure_time": 0.5,
        "sample": "bone",
        "frames": 30,
        "shape": [30, 4, 5],
        "/entry/instrument/mono/energy": 25500.0,
        "/entry/instrument/mono/energy@units": "eV",
    }
    assert {name: found[name] for name in expected} == expected
    assert "temperature" not in found  # NaN says nothing
    assert "/entry/data/data" not in found


def test_dxchange_of_a_real_scan(reader: Reader, data: Path) -> None:
    found = metadata.extract(data / "tomography" / "tooth.h5", reader=reader)
    assert found["format"] == "DXchange"
    assert found["frames"] == found["shape"][0] > 100


def test_dxchange_essentials(reader: Reader, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["exchange/data"] = np.zeros((3, 4, 5))
        file["measurement/sample/name"] = np.array([b"shale"])
        file["measurement/instrument/monochromator/energy"] = np.array([27.4])
        file["measurement/instrument/monochromator/energy"].attrs["units"] = "keV"
        file["process/acquisition/start_date"] = b"2026-11-21T10:00:00"
    found = metadata.extract(tmp_path / "a.h5", reader=reader)
    assert (found["format"], found["sample"], found["energy"], found["frames"]) == ("DXchange", "shale", 27.4, 3)
    assert catalog_values.number(found["start_time"]) == 1795255200.0


def test_any_hdf5_gives_what_is_small(reader: Reader, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file.attrs["version"] = 3
        file.attrs["good"] = True
        file["a/values"] = [1.5, 2.5]
        file["a/values"].attrs["name\n"] = b"\xff"
        file["a/large"] = np.zeros(1000)
        file["a/reference"] = file["a"].ref
        file["a/record"] = np.zeros(1, [("x", "f4")])
        file["again"] = file["a"]  # the same group twice
    found = metadata.extract(tmp_path / "a.h5", reader=reader)
    assert found == {
        "format": "HDF5",
        "/@version": 3,
        "/@good": True,
        "/a/values": [1.5, 2.5],
        "/a/values@name\n": "\udcff",
        "/a/large#shape": [1000],
    }


def test_other_files_say_nothing(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0" + os.urandom(3000))
    (tmp_path / "empty").touch()
    assert metadata.extract(tmp_path / "a.tif", reader=reader) == {}
    assert metadata.extract(tmp_path / "empty", reader=reader) == {}


@pytest.mark.parametrize("cut", [100, 900, 3000])
def test_a_broken_file_is_said_to_be_unreadable(reader: Reader, tmp_path: Path, cut: int) -> None:
    text = nexus(tmp_path / "a.nxs").read_bytes()
    (tmp_path / "b.nxs").write_bytes(text[:cut])
    assert metadata.extract(tmp_path / "b.nxs", reader=reader)["unreadable"]
    assert metadata.extract(tmp_path / "a.nxs", reader=reader)["title"]  # the reader goes on


def test_hostile_files_are_bounded(reader: Reader, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["loop/loop"] = h5py.SoftLink("/loop")
        file["loop/hard"] = file["loop"]
        file["secret"] = h5py.ExternalLink("/etc/passwd", "/")
        file.create_dataset("huge", (10**12,), "f8", chunks=(1000,))
        file.create_dataset("text", data="x" * 5_000_000)
        for number in range(3000):
            file.attrs.create(f"a{number}", "y" * 100) if number < 500 else file.create_group(f"g{number}")
    found = metadata.extract(tmp_path / "a.h5", reader=reader)
    assert found["/huge#shape"] == [10**12]
    assert len(found) <= hdf5_reader.ATTRIBUTES_MOST + 10
    assert len(found["/text"]) == hdf5_reader.TEXT_MOST
    assert not any("passwd" in name or "secret" in name for name in found)
    assert catalog_values.plain(found) | {} == {name.strip("/"): value for name, value in found.items()}


def test_as_much_as_one_message_holds(reader: Reader, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(4000):
            file[f"é{number:05}/{'n' * 100}"] = "z" * 500
    found = metadata.extract(tmp_path / "a.h5", reader=reader)
    assert 50 < len(found) < 4000
    assert "unreadable" not in found


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, said in (("none", "not there"), ("fifo", "not a regular"), (".", "not a regular"), ("a\0", "cannot be")):
        with pytest.raises(InputError, match=said):
            metadata.extract(f"{tmp_path}/{path}")


def test_a_file_whose_name_is_not_utf_8(reader: Reader, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff\n.nxs")
    nexus(tmp_path / "a.nxs").rename(odd)
    assert metadata.extract(odd, reader=reader)["sample"] == "bone"


def test_a_reader_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.arrival.contents.START_S", 0.0)
    with Reader(limit_s=0.5, argv=["sleep", "60"]) as sleeping:
        found: dict[str, Any] = metadata.extract(nexus(tmp_path / "a.nxs"), reader=sleeping)
    assert found == {"format": "HDF5", "unreadable": "it cannot be read within 0.5 s"}
