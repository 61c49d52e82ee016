"""What is wrong with frames is told in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from kernels.errors import Exit, KernelError
from kernels.hedm.frames import (
    Frames,
    MemorySource,
    Sweep,
    dark_of_first,
    dark_of_source,
    flat_dark,
    open_frames,
    open_panels,
    turned,
)
from kernels.hedm.peaks import find_spots, limits

fabio = pytest.importorskip("fabio", reason="TIFF and CBF are written by FabIO, which is not installed")

STACK = np.random.default_rng(1).integers(1, 50, (9, 16, 24)).astype(np.uint16)
STARTS = np.arange(9) * 0.25


def in_memory(omega: np.ndarray | None) -> Frames:
    return Frames(MemorySource(STACK, omega_deg=omega))


def changed(at: int, value: float) -> np.ndarray:
    starts = STARTS.copy()
    starts[at] = value
    return starts


@pytest.mark.parametrize(
    ("omega", "said"),
    [
        (None, "does not say at which omegas"),
        (changed(3, np.nan), "1 omegas are not finite, the first of frame 3"),
        (changed(4, 0.75), "1 frames repeat the omega of the frame before, first frame 4 at 0.75"),
        (changed(4, 0.1), "omega goes back from 0.75 to 0.1 degrees at frame 4"),
        (STARTS[:8], "omegas of shape \\(8,\\) for 9 frames"),
        (np.zeros(9), "frame 0 goes from omega 0 to 0"),
        (np.column_stack([STARTS, STARTS + np.where(STARTS == 1, -0.25, 0.25)]), "frame 4 goes from omega 1 to 0.75"),
    ],
)
def test_omegas(omega: np.ndarray | None, said: str) -> None:
    with pytest.raises(KernelError, match=said) as caught:
        in_memory(omega)
    assert caught.value.exit_code == Exit.BAD_INPUT


def test_omegas_that_jump_are_told_and_part_the_series() -> None:
    omegas = in_memory(STARTS + np.where(STARTS > 1, 3, 0)).omegas
    assert omegas.breaks == (5,)
    assert "from 1.25 to 4.25 degrees at frame 5" in omegas.doubts[0]


def test_more_than_a_turn_is_told() -> None:
    frames = Frames(MemorySource(np.ones((37, 4, 4), np.uint16)), omegas=Sweep(0, 10))
    assert not frames.omegas.full_turn
    assert "more than a turn" in frames.omegas.doubts[0]


@pytest.mark.parametrize("sweep", [Sweep(0, 0), Sweep(float("nan"), 1), Sweep(0, 90)])
def test_sweeps(sweep: Sweep) -> None:
    with pytest.raises(KernelError, match="need a start and a step"):
        Frames(MemorySource(STACK), omegas=sweep)


def packed(path: Path) -> str:
    with h5py.File(path, "w") as file:
        how = {**hdf5plugin.Bitshuffle(cname="lz4"), "chunks": (1, 16, 24)}
        file.create_dataset("entry/data/data", data=STACK, **how)
        file["entry/data/omega"] = STARTS
    return str(path)


def a_damaged_chunk(path: Path) -> str:
    packed(path)
    with h5py.File(path) as file:
        where = file["entry/data/data"].id.get_chunk_info(4).byte_offset
    with open(path, "r+b") as raw:
        raw.seek(where + 12)
        raw.write(b"\xff" * 8)
    return str(path)


def chunks_not_written(path: Path) -> str:
    with h5py.File(path, "w") as file:
        data = file.create_dataset("entry/data/data", (9, 16, 24), np.uint16, chunks=(1, 16, 24))
        data[:6] = STACK[:6]
        file["entry/data/omega"] = STARTS
    return str(path)


def cut_short(path: Path) -> str:
    packed(path)
    path.write_bytes(path.read_bytes()[:-700])
    return str(path)


def without_frames(path: Path) -> str:
    with h5py.File(path, "w") as file:
        file["something"] = STACK
    return str(path)


def two_dimensional(path: Path) -> str:
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = STACK[0]
    return str(path)


def ge_with(size: int) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        path.with_suffix(".ge2").write_bytes(b"\0" * size)
        return str(path.with_suffix(".ge2"))

    return make


def cache_with(**change: object) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        members: dict[str, object] = {"shape": (16, 24), "omega": STARTS[:2], "nframes": 2}
        for n in range(2):
            members |= {f"{n}_row": [1, 2], f"{n}_col": [3, 20], f"{n}_data": np.array([7, 9], np.uint16)}
        members = {name: value for name, value in (members | change).items() if value is not None}
        np.savez(path.with_suffix(".npz"), **members)
        return str(path.with_suffix(".npz"))

    return make


def half_a_cache(path: Path) -> str:
    name = Path(cache_with()(path))
    name.write_bytes(name.read_bytes()[:900])
    return str(name)


def another_format(path: Path) -> str:
    path.with_suffix(".raw").write_bytes(b"123")
    return str(path.with_suffix(".raw"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (a_damaged_chunk, "frame 4 of /entry/data/data is damaged"),
        (chunks_not_written, "3 of 9 frames were not written, from frame 6 on"),
        (cut_short, "truncated"),
        (without_frames, "no frames at .* `data`"),
        (two_dimensional, "2 dimensions"),
        (ge_with(8192 + 16 * 24 * 2 * 3 + 10), "10 bytes follow 3 frames .* truncated"),
        (ge_with(5000), "less than a header and a frame"),
        (cache_with(**{"1_col": None}), "member 1_col is missing"),
        (cache_with(**{"1_col": [3, 99]}), "frame 1 has a pixel in row 2, column 99"),
        (cache_with(**{"1_col": [3, 9], "1_row": [20, 1]}), "Rows and columns look exchanged"),
        (cache_with(**{"1_col": [3, 3], "1_row": [2, 2]}), "holds a pixel twice"),
        (cache_with(**{"1_row": [3]}), "1 rows, 2 columns and 2 counts"),
        (cache_with(shape=None), "no member `shape`"),
        (half_a_cache, "no whole frame cache"),
        (another_format, "format .* is not known"),
        (lambda path: str(path), "cannot be read"),
        (lambda path: str(path.with_name("no_*.tif")), "No file is named like"),
    ],
)
def test_files(make: Callable[[Path], str], said: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")

    def read() -> None:
        frames = open_frames(path, shape=(16, 24), omegas=Sweep(0, 1))
        find_spots(frames, limits(frames, flat_dark(0, frames), threshold=5))

    with pytest.raises(KernelError, match=said) as caught:
        read()
    assert caught.value.exit_code in (Exit.BAD_INPUT, Exit.NO_INPUT)


def tiffs(folder: Path, numbers: tuple[int, ...]) -> list[str]:
    names = [str(folder / f"b_{n:04d}.tif") for n in numbers]
    for n, name in zip(numbers, names, strict=True):
        fabio.tifimage.TifImage(data=STACK[n]).write(name)
    return names


def test_missing_files_of_a_series(tmp_path: Path) -> None:
    tiffs(tmp_path, (0, 1, 2, 5, 6))
    with pytest.raises(KernelError, match="2 of its frames are missing, numbers 3, 4"):
        open_frames(str(tmp_path / "b_*.tif"), omegas=Sweep(0, 1))


def test_series_out_of_order(tmp_path: Path) -> None:
    names = tiffs(tmp_path, (0, 1, 2))
    with pytest.raises(KernelError, match="not in order"):
        open_frames([names[1], names[0], names[2]], omegas=Sweep(0, 1))


def test_a_truncated_picture(tmp_path: Path) -> None:
    names = tiffs(tmp_path, (0, 1, 2))
    Path(names[1]).write_bytes(Path(names[1]).read_bytes()[:300])
    frames = open_frames(names, omegas=Sweep(0, 1))
    with pytest.raises(KernelError, match="b_0001"):
        frames.pictures(0, 3)


def test_a_picture_of_another_shape(tmp_path: Path) -> None:
    names = tiffs(tmp_path, (0, 1, 2))
    fabio.tifimage.TifImage(data=STACK[0, :8]).write(names[2])
    frames = open_frames(names, omegas=Sweep(0, 1))
    with pytest.raises(KernelError, match=r"b_0002.* is \(8, 24\)"):
        frames.pictures(0, 3)


def test_all_empty() -> None:
    frames = Frames(MemorySource(np.zeros((4, 16, 24), np.uint16)), omegas=Sweep(0, 1))
    with pytest.raises(KernelError, match="all 4 hold nothing but zeros"):
        find_spots(frames, limits(frames, flat_dark(0, frames), threshold=5))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shape": (24, 16)}, "Rows and columns are exchanged: turn them by 3"),
        ({"shape": (16, 25)}, "16 x 24 pixels, not 16 x 25. Is it another panel"),
        ({"mask": np.ones((24, 16), bool)}, "The mask is of 24 x 16"),
        ({"mask": np.zeros((16, 24), bool)}, "leaves no pixel"),
        ({"first": 9}, "are 9: 9 to 9 are none"),
        ({"beyond": 10}, "are 9: 0 to 10 are none"),
    ],
)
def test_choices(options: dict[str, object], said: str) -> None:
    with pytest.raises(KernelError, match=said):
        Frames(MemorySource(STACK), omegas=Sweep(0, 1), **options)


def test_darks() -> None:
    frames = Frames(MemorySource(STACK), omegas=Sweep(0, 1))
    with pytest.raises(KernelError, match="The dark 'in memory' is of 8 x 24 pixels, the frames"):
        dark_of_source(MemorySource(STACK[:, :8]), frames)
    with pytest.raises(KernelError, match="a dark of 16 cannot be had"):
        dark_of_first(frames, 16)
    with pytest.raises(KernelError, match="finite"):
        flat_dark(float("nan"), frames)


def test_turns() -> None:
    with pytest.raises(KernelError, match="A turn is 0"):
        turned([4])


def test_panels(tmp_path: Path) -> None:
    paths = {name: packed(tmp_path / f"{name}.h5") for name in ("ff1", "ff2")}
    shapes = {"ff1": (16, 24), "ff2": (16, 24)}
    with pytest.raises(KernelError, match="given for panel ff1, are named as those of panel ff2"):
        open_panels({"ff1": paths["ff2"], "ff2": paths["ff1"]}, shapes=shapes)
    with pytest.raises(KernelError, match="the geometry has"):
        open_panels({"ff1": paths["ff1"]}, shapes=shapes)
    with h5py.File(paths["ff2"], "r+") as file:
        file["entry/data/omega"][:] = STARTS + 1
    with pytest.raises(KernelError, match="not read out together"):
        open_panels(paths, shapes=shapes)
