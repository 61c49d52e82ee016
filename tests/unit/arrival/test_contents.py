"""What is in real HDF5 files: whole, half-written by a living and by a killed writer, broken and hostile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from orchestrator.arrival.contents import Contents, Question, Reader, Shape
from orchestrator.arrival.readiness import Facts, Layout, Need, judge

FRAMES = Need(frames="/entry/data", expected="/entry/data@expected")
N = 40

WRITER = """
import sys, h5py, numpy
swmr, path, frames, killed_at = sys.argv[1] == "swmr", sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
file = h5py.File(path, "w", libver="latest" if swmr else None)
data = file.create_dataset("entry/data", (0, 16, 16), "u2", maxshape=(None, 16, 16), chunks=(1, 16, 16))
data.attrs["expected"] = frames
file.flush()
if swmr:
    file.swmr_mode = True
for number in range(killed_at):
    data.resize(number + 1, 0)
    data[number] = number + 1
    data.flush()
    file.flush()
print("there", flush=True)
sys.stdin.readline()
file.close()
"""


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Reader() as made:
        yield made


def look(reader: Reader, path: Path, question: Question | None) -> Contents:
    assert question is not None
    handle = os.open(path, os.O_RDONLY)
    try:
        return reader.ask(handle, question)
    finally:
        os.close(handle)


def whole(reader: Reader, path: Path, need: Need) -> tuple[bool, str]:
    """As its contents alone say, whatever else is known of a writer."""
    seen = look(reader, path, need.question)
    verdict = judge(need, Facts(path.stat().st_size, 100.0, writer_asked=True, writer=False, contents=seen))
    return verdict.whole, verdict.reason


def writer(path: Path, mode: str, frames: int) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", WRITER, mode, str(path), str(N), str(frames)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    return process


def end(process: subprocess.Popen[bytes], *, kill: bool) -> None:
    if kill:
        process.kill()
    process.communicate(b"\n")


@pytest.mark.parametrize("mode", ["plain", "swmr"])
def test_half_written_with_its_writer_alive_and_whole_when_it_is_done(
    reader: Reader, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "x.h5"
    process = writer(path, mode, N)
    try:
        alive = whole(reader, path, FRAMES)
        before = path.read_bytes()
    finally:
        end(process, kill=False)
    assert process.returncode == 0  # that we looked did the writer no harm
    assert alive[0] is (mode == "plain")  # without its mark only the open file tells: `writers`
    assert whole(reader, path, FRAMES) == (True, "")
    assert len(before) > 0


@pytest.mark.parametrize("mode", ["plain", "swmr"])
def test_a_writer_killed_at_a_random_frame(reader: Reader, tmp_path: Path, mode: str) -> None:
    at = random.randrange(1, N)
    path = tmp_path / "x.h5"
    end(writer(path, mode, at), kill=True)
    is_whole, reason = whole(reader, path, FRAMES)
    assert not is_whole
    if mode == "plain":
        assert reason == f"/entry/data has {at} of {N} frames"
    else:
        assert "marked as open for writing" in reason


def test_sized_beforehand_and_filled_to_a_random_frame(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("entry/data", (N, 8, 8), "u2", chunks=(1, 8, 8))
        data.attrs["expected"] = N
        data[: random.randrange(1, N)] = 1
    assert whole(reader, path, FRAMES) == (False, "/entry/data is not written to its end")


def test_cut_off_at_a_random_byte(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["entry/data"] = np.zeros((N, 8, 8), "u2")
        file["entry/data"].attrs["expected"] = N
    assert whole(reader, path, FRAMES) == (True, "")
    content = path.read_bytes()
    path.write_bytes(content[: random.randrange(1, len(content))])
    is_whole, reason = whole(reader, path, FRAMES)
    assert not is_whole
    assert "cannot be read as HDF5" in reason


def dxchange(path: Path, projections: int, angles: int, **more: int) -> None:
    with h5py.File(path, "w") as file:
        for name, count in {"data": projections, "data_white": 2, "data_dark": 2, **more}.items():
            file[f"exchange/{name}"] = np.zeros((count, 4, 4), "u2")
        file["exchange/theta"] = np.linspace(0, 180, angles)


def test_dxchange(reader: Reader, tmp_path: Path) -> None:
    need = Need(layout=Layout.DXCHANGE)
    dxchange(tmp_path / "whole.h5", 9, 9)
    dxchange(tmp_path / "short.h5", 7, 9)
    dxchange(tmp_path / "dark.h5", 9, 9, data_dark=0)
    assert whole(reader, tmp_path / "whole.h5", need) == (True, "")
    assert whole(reader, tmp_path / "short.h5", need) == (False, "/exchange/data has 7 projections for 9 angles")
    assert whole(reader, tmp_path / "dark.h5", need) == (False, "/exchange/data_dark is empty")


def test_nexus(reader: Reader, tmp_path: Path) -> None:
    need = Need(layout=Layout.NEXUS)
    path = tmp_path / "x.nxs"
    with h5py.File(path, "w") as file:
        file.create_group("scan").attrs["NX_class"] = "NXentry"
        file.create_group("other").attrs["NX_class"] = "NXnote"
    assert whole(reader, path, need) == (False, "its NXentry 'scan' has no end_time")
    with h5py.File(path, "a") as file:
        file["scan/end_time"] = "2026-11-21T10:00:00Z"
    assert whole(reader, path, need) == (True, "")


def test_values_shapes_and_links(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a/energy"] = 12.5
        file["a/count"] = np.array([7])
        file["a/energy"].attrs["units"] = "keV"
        file["a"].attrs["odd"] = np.bytes_(b"\xff")
        file["soft"] = h5py.SoftLink("/a/energy")
        file["a/up"] = h5py.SoftLink("energy")
        file["a/loop"] = h5py.SoftLink("/a/loop")
        file["big"] = np.zeros(10_000)
        for number in (2, 1):
            file[f"data/part{number}"] = h5py.ExternalLink(f"x_{number}.h5", "/data")
    names = ("a/energy", "/a/count", "a/energy@units", "a@odd", "soft", "a/up", "a/loop", "big", "no", "a@no", "a")
    seen = look(reader, path, Question(names, ("/big", "/no", "/a"), links="/data"))
    assert seen.values == {
        "a/energy": 12.5,
        "/a/count": 7,
        "a/energy@units": "keV",
        "a@odd": "\udcff",
        "soft": 12.5,
        "a/up": 12.5,
    } | dict.fromkeys(["a/loop", "big", "no", "a@no", "a"])
    assert seen.shapes == {"/big": Shape((10_000,), True), "/no": None, "/a": None}
    assert seen.links == ["x_1.h5", "x_2.h5"]


def test_a_master_with_many_parts(reader: Reader, tmp_path: Path) -> None:
    """Its answer is longer than one message of a socket can be."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("entry/data")
        for number in range(8000):
            group[f"{number}"] = h5py.ExternalLink(f"a_long_name_of_a_sample_{number:06}.h5", "/data")
    seen = look(reader, tmp_path / "x.h5", Question(links="/entry/data"))
    assert seen.links is not None
    assert len(seen.links) == 8000


def test_nothing_is_read_from_other_files(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(b"secret!!")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["s"] = "secret"
        file["v"] = np.arange(4)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["link"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/s")
        file["soft"] = h5py.SoftLink("/link")
        file.create_dataset("raw", (8,), "u1", external=[(str(tmp_path / "secret.bin"), 0, 8)])
        layout = h5py.VirtualLayout((4,), "i8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "v", (4,))
        file.create_virtual_dataset("virtual", layout)
    seen = look(reader, tmp_path / "x.h5", Question(("link", "soft", "raw", "virtual", "link/x@y")))
    assert set(seen.values.values()) == {None}


def test_a_small_file_that_claims_terabytes_is_answered_at_once(reader: Reader, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("entry/data", (10**9, 100, 100), "f8", chunks=(1, 100, 100)).attrs["expected"] = 10**9
    begun = time.monotonic()
    assert whole(reader, tmp_path / "x.h5", FRAMES) == (False, "/entry/data is not written to its end")
    assert time.monotonic() - begun < 15.0


@pytest.mark.parametrize("content", [b"x", b"not HDF5", b"\x89HDF\r\n\x1a\n" + b"\xff" * 2000])
def test_what_is_no_hdf5(reader: Reader, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.h5").write_bytes(content)
    assert "cannot be read as HDF5" in whole(reader, tmp_path / "x.h5", FRAMES)[1]
    dxchange(tmp_path / "good.h5", 3, 3)
    assert whole(reader, tmp_path / "good.h5", Need(layout=Layout.DXCHANGE))[0]


@pytest.mark.parametrize(
    ("harm", "said"), [("import os; os.abort()", "ends the process"), ("import time; time.sleep(60)", "within 0.2 s")]
)
def test_a_reader_that_dies_or_hangs_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str, said: str
) -> None:
    monkeypatch.setattr("orchestrator.arrival.contents.START_S", 0.0)
    dxchange(tmp_path / "good.h5", 3, 3)
    (tmp_path / "once").touch()
    once = f"import os,sys\nif os.path.exists({str(tmp_path / 'once')!r}):\n  os.remove({str(tmp_path / 'once')!r}); "
    program = f"{once}{harm}\nfrom orchestrator.arrival.hdf5_reader import main; main()"
    need: Any = Need(layout=Layout.DXCHANGE)
    with Reader(limit_s=0.2, argv=[sys.executable, "-c", program]) as harmed:
        assert said in look(harmed, tmp_path / "good.h5", need.question).broken
        monkeypatch.setattr("orchestrator.arrival.contents.START_S", 30.0)
        assert whole(harmed, tmp_path / "good.h5", need) == (True, "")
