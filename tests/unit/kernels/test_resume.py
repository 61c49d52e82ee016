"""A reconstruction that is killed goes on with the slabs that it has written, and with no other's."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scans import left_behind, run

from kernels import resume
from kernels.errors import KernelError, Terminated
from kernels.io.omezarr import VolumeWriter, open_level
from kernels.tomography.stations import Stations

MEMORY_GB = 0.01  # of which 16 of the 48 slices make a slab


@pytest.fixture(scope="module")
def tall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tall") / "scan.h5"
    run("tomography.simulate", output=path, columns=128, rows=48, angles=120, flats=4, axisOffset=3.3)
    return path


def reconstruct(scan: Path, output: Path, **more: Any) -> dict[str, Any]:
    how = {"rotationAxis": 66.8, "memoryGB": MEMORY_GB} | more
    return dict(run("tomography.reconstruct", input=scan, output=output, **how).metrics)


def stop_after(monkeypatch: pytest.MonkeyPatch, slabs: int, how: BaseException) -> None:
    """Let the writer fail when it is to write one slab more than `slabs`."""
    write, written = VolumeWriter.write, []

    def stopped(self: VolumeWriter, start: int, slab: Any) -> None:
        if len(written) == slabs:
            raise how
        written.append(start)
        write(self, start, slab)

    monkeypatch.setattr(VolumeWriter, "write", stopped)


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_it_goes_on_where_it_was_ended(
    tall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    whole = reconstruct(tall, tmp_path / "whole.zarr", compression=compression)
    assert whole["resumed_slices"] == 0
    with monkeypatch.context() as patched:
        stop_after(patched, 2, Terminated())
        with pytest.raises(Terminated):
            reconstruct(tall, tmp_path / "v.zarr", compression=compression)
    assert (tmp_path / "v.zarr.part").is_dir()
    resumed = reconstruct(tall, tmp_path / "v.zarr", compression=compression)
    assert resumed["resumed_slices"] == 32
    assert resumed | {"resumed_slices": 0} == whole
    assert left_behind(tmp_path, but={f"{n}.zarr{m}" for n in ("v", "whole") for m in ("", ".manifest.json")}) == []
    for level in ("0", "1"):
        one, other = (np.asarray(open_level(str(tmp_path / n), level)[...]) for n in ("v.zarr", "whole.zarr"))
        np.testing.assert_array_equal(one, other)
    files = [{p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")} for n in ("v.zarr", "whole.zarr")]
    assert files[0] == files[1]


def test_other_arguments_or_another_scan_begin_anew(
    tall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for more in ({"filter": "hann"}, {"rotationAxis": 66.9}, {"airColumns": 2}):
        with monkeypatch.context() as patched:
            stop_after(patched, 1, Terminated())
            with pytest.raises(Terminated):
                reconstruct(tall, tmp_path / "v.zarr")
        assert reconstruct(tall, tmp_path / "v.zarr", **more)["resumed_slices"] == 0


@pytest.mark.parametrize(
    ("slabs", "error"),
    [(0, Terminated()), (1, KernelError("The disk is full.", 74)), (1, KernelError("3 voxels are not finite.", 3))],
)
def test_what_is_not_worth_to_go_on_with_is_removed(
    tall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slabs: int, error: BaseException
) -> None:
    stop_after(monkeypatch, slabs, error)
    with pytest.raises(type(error)):
        reconstruct(tall, tmp_path / "v.zarr")
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(("number", "slow_s"), [(signal.SIGKILL, 60), (signal.SIGTERM, 2)])
def test_a_killed_process_is_gone_on_with(tall: Path, tmp_path: Path, number: signal.Signals, slow_s: int) -> None:
    """One that is only asked to end may end the slab that it is writing first."""
    words = ["--input", str(tall), "--output", str(tmp_path / "v.zarr"), "--rotationAxis", "66.8"]
    slow = (
        "import time\n"
        "from kernels.io.omezarr import VolumeWriter\n"
        "write = VolumeWriter.write\n"
        f"slow = lambda start: time.sleep({slow_s} * (start > 16))\n"
        "VolumeWriter.write = lambda self, start, slab: (slow(start), write(self, start, slab))\n"
        "from kernels.__main__ import main\n"
        f"main(['tomography.reconstruct', *{words}, '--memoryGB', '{MEMORY_GB}'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.DEVNULL)
    notes = tmp_path / "v.zarr.part" / resume.FOLDER
    deadline = time.monotonic() + 90
    while not (notes / "16").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    process.wait(90)
    assert not (tmp_path / "v.zarr").exists()
    assert reconstruct(tall, tmp_path / "v.zarr")["resumed_slices"] in ((32,) if slow_s == 60 else (32, 48))


def test_slabs_lie_between_those_that_are_done(tmp_path: Path) -> None:
    def parts(mine: range, layers: int, *done: range) -> list[range]:
        journal = resume.Journal(tmp_path, "a")
        for each in done:
            journal.note(each.start, layers=len(each))
        nothing: Any = None
        stations = Stations(*[nothing] * 4, journal, mine, shape=(60, 8, 8), begun=0.0)
        journal.forget()
        return list(stations.parts(layers))

    done = range(16, 32), range(48, 56)
    assert parts(range(60), 32, *done) == [range(16), range(16, 32), range(32, 48), range(48, 56), range(56, 60)]
    assert parts(range(40), 16) == [range(16), range(16, 32), range(32, 40)]
    assert parts(range(16, 32), 16, range(16, 32)) == [range(16, 32)]
    # of other ranks, or only partly one's own
    assert parts(range(16, 24), 16, *done) == [range(16, 24)]


def test_notes_are_whole_or_not_there(tmp_path: Path) -> None:
    journal = resume.Journal(tmp_path, "a")
    journal.note(16, layers=16)
    (tmp_path / resume.FOLDER / "new-32").write_text("{")  # killed while it was noted
    assert resume.Journal(tmp_path, "a").done() == {16: {"layers": 16}}
    assert resume.is_of(tmp_path, "a")
    assert not resume.is_of(tmp_path, "b")
    journal.forget()
    assert left_behind(tmp_path) == []
