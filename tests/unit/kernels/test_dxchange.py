"""Scans that are not what they should be: each is refused in one sentence with its exit code, and nothing is left."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scans import left_behind, replace, run

from kernels.errors import KernelError
from kernels.io.dxchange import Scan

Change = Callable[[Callable[[h5py.Group], None]], Path]


def refused(path: Path, tmp_path: Path, **arguments: Any) -> KernelError:
    """The error of a reconstruction of `path`, after a look at what it left behind."""
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    with pytest.raises(KernelError) as caught:
        run("tomography.reconstruct", input=path, output=folder / "volume.zarr", picture=folder / "a.png", **arguments)
    assert left_behind(folder) == []
    assert "\n" not in str(caught.value)
    return caught.value


def with_zeros(name: str, group: h5py.Group) -> None:
    group[name][...] = 0


BROKEN: list[tuple[str, Callable[[h5py.Group], Any], str]] = [
    ("no data", lambda g: g.move("data", "dta"), r"/exchange/data is missing.*Did you mean 'dta'"),
    (
        "no flats",
        lambda g: g.pop("data_white"),
        "/exchange/data_white is missing; in /exchange there is data, data_dark",
    ),
    ("no theta", lambda g: g.pop("theta"), "/exchange/theta is missing.*give `angles`, such as 0:180"),
    ("rank", lambda g: replace(g, "data", data=np.zeros((5, 5))), r"/exchange/data has 2 dimensions \(5, 5\), not 3"),
    ("group", lambda g: (g.pop("data"), g.create_group("data")), "/exchange/data is a group"),
    ("text", lambda g: replace(g, "theta", data=["a"] * 120), "/exchange/theta holds object, not numbers"),
    ("frames", lambda g: replace(g, "data_dark", data=np.zeros((3, 5, 96))), r"frames of \(5, 96\)"),
    ("zero flats", lambda g: replace(g, "data_white", data=np.zeros((0, 6, 96))), "data_white holds no flat fields"),
    ("zero darks", lambda g: replace(g, "data_dark", data=np.zeros((0, 6, 96))), "data_dark holds no dark fields"),
    ("dark flats", lambda g: with_zeros("data_white", g), "brighter than the dark fields in only 0 %"),
    ("angles", lambda g: replace(g, "theta", data=np.arange(119.0)), "holds 119 angles for 120 projections"),
    ("nan", lambda g: g["theta"].write_direct(np.full(120, np.nan)), "holds 120 angles that are not finite"),
    ("radians", lambda g: g["theta"].write_direct(np.linspace(0, np.pi, 120)), "spans only 3.142 degrees"),
    ("empty", lambda g: replace(g, "data", data=np.zeros((120, 0, 96))), "/exchange/data is empty"),
    (
        "lost",
        lambda g: replace(g, "data", data=np.full((120, 6, 96), np.nan)),
        "23040 of 23040 counts in rows 0 to 1 are not finite",
    ),
    ("never written", lambda g: replace(g, "data", shape=(10**5, 10**4, 10**4), dtype="u2"), "but none were written"),
    (
        "half written",
        lambda g: (
            replace(g, "data", shape=(120, 6, 96), dtype="u2", chunks=(1, 6, 96)),
            g["data"].write_direct(np.ones((50, 6, 96), "u2"), dest_sel=np.s_[:50]),
        ),
        "only 50 of 120 chunks",
    ),
    (
        "external link",
        lambda g: (g.pop("data"), g.__setitem__("data", h5py.ExternalLink("/etc/passwd", "/x"))),
        "/exchange/data is a link to another file",
    ),
]


@pytest.mark.parametrize(("how", "sentence"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_scan_that_is_none(broken: Change, tmp_path: Path, how: Callable[[h5py.Group], None], sentence: str) -> None:
    error = refused(broken(how), tmp_path)
    assert error.exit_code == 65
    assert error.failure == "bad input"
    assert re.search(sentence, str(error)), str(error)


def test_a_virtual_data_set_over_another_file(broken: Change, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.ones((120, 6, 96), "u2")
    layout = h5py.VirtualLayout((120, 6, 96), "u2")
    layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (120, 6, 96))
    path = broken(lambda g: (g.pop("data"), g.create_virtual_dataset("data", layout)))  # type: ignore[arg-type,func-returns-value]
    assert "virtual data set over other files" in str(refused(path, tmp_path))


def test_raw_data_in_another_file(broken: Change, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(120 * 6 * 96 * 2))
    raw = [(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)]
    path = broken(lambda g: replace(g, "data", shape=(120, 6, 96), dtype="u2", external=raw))
    assert "keeps its data in another file" in str(refused(path, tmp_path))


def test_a_group_that_leads_into_another_file(broken: Change, scan: Path, tmp_path: Path) -> None:
    path = tmp_path / "link.h5"
    with h5py.File(path, "w") as file:
        file["exchange"] = h5py.ExternalLink(str(scan), "/exchange")
    assert "/exchange is a link to another file" in str(refused(path, tmp_path))
    with h5py.File(path, "w") as file:
        file["elsewhere"] = h5py.ExternalLink(str(scan), "/exchange")
        file["exchange"] = h5py.SoftLink("/elsewhere")
    assert "leads into another file" in str(refused(path, tmp_path))


@pytest.mark.parametrize("keep", [2000, 0.5, 0.999])
def test_a_truncated_file(scan: Path, tmp_path: Path, keep: float) -> None:
    whole = scan.read_bytes()
    path = tmp_path / "cut.h5"
    path.write_bytes(whole[: int(keep if keep > 1 else keep * len(whole))])
    error = refused(path, tmp_path)
    assert error.exit_code == 65
    assert "is truncated" in str(error)


@pytest.mark.parametrize(
    ("make", "code", "sentence"),
    [
        (lambda p: None, 66, "No such file"),
        (lambda p: p.touch(), 66, "is empty (0 bytes)"),
        (lambda p: p.mkdir(), 66, "is a directory"),
        (lambda p: os.mkfifo(p), 66, "is not a regular file"),
        (lambda p: p.write_text("Filename,Size\n" * 99), 65, "is not an HDF5 file"),
        (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(3000)), 65, "damaged HDF5"),
        (lambda p: h5py.File(p, "w").close(), 65, "/exchange/data is missing; in / there is nothing"),
    ],
    ids=["missing", "empty", "directory", "pipe", "text", "garbage", "nothing in it"],
)
def test_a_file_that_is_none(tmp_path: Path, make: Callable[[Path], Any], code: int, sentence: str) -> None:
    path = tmp_path / "scan.h5"
    make(path)
    error = refused(path, tmp_path)
    assert (error.exit_code, error.failure) == (code, "bad input")
    assert sentence in str(error)


def test_a_file_that_a_writer_has_open(scan: Path, tmp_path: Path) -> None:
    path = tmp_path / "open.h5"
    shutil.copy(scan, path)
    code = "import sys, h5py; file = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        with pytest.raises(KernelError, match="open in a writer") as caught:
            Scan(str(path))
        writer.communicate()
    assert (caught.value.exit_code, caught.value.failure) == (75, "transient")
    Scan(str(path)).__exit__(None, None, None)


def test_angles_may_be_given(broken: Change) -> None:
    with Scan(str(broken(lambda g: g.pop("theta"))), angles="0:180") as scan:
        np.testing.assert_allclose(scan.theta_deg, np.arange(120) * 1.5)
    for wrong in ("0", "0:x", "5:5", "0:inf"):
        with pytest.raises(KernelError, match="must be START:STOP"):
            Scan(str(broken(lambda g: None)), angles=wrong)


@pytest.mark.parametrize("units", ["rad", np.bytes_(b"radians")])
def test_angles_in_radians_that_say_so(broken: Change, units: Any) -> None:
    def turn(group: h5py.Group) -> None:
        group["theta"][...] = np.deg2rad(group["theta"][...])
        group["theta"].attrs["units"] = units

    with Scan(str(broken(turn))) as scan:
        assert scan.theta_deg[-1] == pytest.approx(178.5)


@pytest.mark.parametrize("dtype", [">u2", "<i4", "f2", "f8", "u1"])
def test_other_number_types_and_compression(broken: Change, tmp_path: Path, dtype: str) -> None:
    def change(group: h5py.Group) -> None:
        for name in ("data", "data_white", "data_dark"):
            values = (group[name][...] / (100 if dtype == "u1" else 1)).clip(0, 255 if dtype == "u1" else 65000)
            replace(group, name, data=values.astype(dtype), chunks=(1, 6, 96), compression="lzf")

    made = run("tomography.reconstruct", input=broken(change), output=tmp_path / "v.zarr")
    assert float(made.metrics["maximum"]) > 0.01


def test_memory_is_bounded_by_the_slab(tmp_path: Path) -> None:
    """Reading and preparing 2 of 64 rows needs far less than the data set."""
    from kernels.tomography.prepare import prepare_rows

    path = tmp_path / "tall.h5"
    with h5py.File(path, "w") as file:
        for name, frames, value in (("data", 200, 900), ("data_white", 4, 1000), ("data_dark", 4, 100)):
            file.create_dataset(f"exchange/{name}", data=np.full((frames, 64, 256), value, np.uint16))
        file["exchange/theta"] = np.linspace(0, 180, 200, endpoint=False)
    with Scan(str(path)) as scan:
        prepare_rows(scan, 0, 2)  # compiles
        tracemalloc.start()
        prepare_rows(scan, 2, 4)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    whole = 200 * 64 * 256 * 2
    assert peak < 0.35 * whole
