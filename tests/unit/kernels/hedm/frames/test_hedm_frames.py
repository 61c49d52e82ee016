"""Every format gives the frames that were written, and the pixels above their limits as NumPy finds them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.hedm.frames import (
    Dark,
    Frames,
    Hdf5Source,
    Limits,
    MemorySource,
    Sweep,
    dark_of_first,
    dark_of_source,
    flat_dark,
    open_frames,
    open_panels,
    open_source,
    read_mask,
    turned,
)
from kernels.hedm.peaks import limits
from kernels.ranks import Ranks

fabio = pytest.importorskip("fabio", reason="TIFF and CBF are written by FabIO, which is not installed")

SHAPE = (11, 37, 53)
EDGES = np.column_stack([np.arange(11) * 0.5 - 2, np.arange(11) * 0.5 - 1.5])
FILTERS = {
    "none": {},
    "gzip": {"compression": "gzip", "shuffle": True, "chunks": (1, 37, 53)},
    "chunks of four": {"compression": "lzf", "chunks": (4, 37, 53)},
    "pieces": {"compression": "gzip", "chunks": (2, 10, 20)},
    "bitshuffle": {**hdf5plugin.Bitshuffle(cname="lz4"), "chunks": (1, 37, 53)},
    "bitshuffle in small blocks": {**hdf5plugin.Bitshuffle(nelems=64, cname="lz4"), "chunks": (1, 37, 53)},
    "bitshuffle zstd": {**hdf5plugin.Bitshuffle(cname="zstd"), "chunks": (1, 37, 53)},
    "blosc": {**hdf5plugin.Blosc(), "chunks": (1, 37, 53)},
}


def some_frames(kind: str = "u2", shape: tuple[int, ...] = SHAPE) -> NDArray[Any]:
    """A dark level, noise and bright pixels."""
    rng = np.random.default_rng(1)
    largest = 200 if kind == "u1" else 30000
    frames = rng.integers(20, 60, shape)
    bright = rng.uniform(size=shape) < 0.02
    frames[bright] = rng.integers(60, largest, int(bright.sum()))
    return frames.astype(kind)


def seen(frames: Frames, chosen: Limits, at_once: int | None = None) -> list[tuple[int, int, int, float]]:
    """Frame, row, column, value."""
    found = []
    for block in frames.blocks(chosen, Counter(), at_once=at_once):
        frame = np.repeat(np.arange(block.first, block.first + block.frames), np.diff(block.starts))
        rows, columns = np.divmod(block.pixels, frames.columns)
        found += zip(frame.tolist(), rows.tolist(), columns.tolist(), block.values.tolist(), strict=True)
    return found


def by_numpy(stack: NDArray[Any], dark: float, threshold: float) -> list[tuple[int, int, int, float]]:
    at = np.argwhere(stack.astype(float) - dark > threshold)
    return [(int(f), int(r), int(c), float(stack[f, r, c]) - dark) for f, r, c in at]


def check(frames: Frames, stack: NDArray[Any]) -> None:
    np.testing.assert_array_equal(frames.pictures(0, frames.count), stack)
    for dark, threshold in ((30.0, 40.0), (30.5, 28.25), (0.0, 58.5)):
        chosen = limits(frames, flat_dark(dark, frames), threshold=threshold)
        assert seen(frames, chosen) == by_numpy(stack, dark, threshold)
        assert seen(frames, chosen, 3) == by_numpy(stack, dark, threshold)


def hdf5(path: Path, stack: NDArray[Any], *, omega: bool = True, **how: Any) -> str:
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", data=stack, **how)
        if omega:
            file["entry/sample/goniometer/omega"] = EDGES[: len(stack), 0]
            file["entry/sample/goniometer/omega_end"] = EDGES[: len(stack), 1]
    return str(path)


@pytest.mark.parametrize("how", FILTERS)
@pytest.mark.parametrize("kind", ["u2", "u4", "u1"])
def test_hdf5(how: str, kind: str, tmp_path: Path) -> None:
    stack = some_frames(kind)
    frames = open_frames(hdf5(tmp_path / "a.h5", stack, **FILTERS[how]))
    assert isinstance(frames.source, Hdf5Source)
    assert frames.source.straight == (how.startswith("bitshuffle") and "zstd" not in how and kind != "u1")
    np.testing.assert_allclose(frames.omegas.edges_deg, EDGES)
    check(frames, stack)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 3, 5), (2, 64, 64), (3, 100, 41), (2, 300, 230)])
def test_bitshuffle_of_any_size(shape: tuple[int, int, int], tmp_path: Path) -> None:
    stack = some_frames(shape=shape)
    how = {**hdf5plugin.Bitshuffle(cname="lz4"), "chunks": (1, *shape[1:])}
    frames = open_frames(hdf5(tmp_path / "a.h5", stack, **how))
    assert isinstance(frames.source, Hdf5Source)
    check(frames, stack)


def test_other_names_and_omegas_in_hdf5(tmp_path: Path) -> None:
    stack = some_frames()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["exchange/data"] = stack
        file["angles"] = np.deg2rad(np.append(EDGES[:, 0], EDGES[-1, 1]))
        file["angles"].attrs["units"] = "radian"
        file["entry/instrument/detector/pixel_mask"] = np.eye(*SHAPE[1:], dtype=np.uint32)
    frames = open_frames(str(tmp_path / "a.h5"), omega="/angles")
    np.testing.assert_allclose(frames.omegas.edges_deg, EDGES, atol=1e-12)
    assert (~frames.used == np.eye(*SHAPE[1:], dtype=bool)).all()


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "f4", "f8", "i8", ">u2"])
def test_memory(kind: str) -> None:
    stack = some_frames(kind)
    check(Frames(MemorySource(stack), omegas=Sweep(0, 1)), stack)


def test_many_hits_are_all_found() -> None:
    """More in a band than there is room for at first, and in single frames."""
    rng = np.random.default_rng(2)
    stack = np.zeros((5, 300, 400), np.uint16)
    stack[1, :40] = rng.integers(1, 100, (40, 400))
    stack[3, 200:260] = rng.integers(1, 100, (60, 400))
    frames = Frames(MemorySource(stack), omegas=Sweep(0, 1))
    chosen = limits(frames, flat_dark(0, frames), threshold=5)
    assert seen(frames, chosen) == by_numpy(stack, 0, 5)


def test_ge(tmp_path: Path) -> None:
    stack = some_frames()
    path = tmp_path / "a_00001.ge3"
    path.write_bytes(b"\0" * 8192 + stack.astype("<u2").tobytes())
    check(open_frames(str(path), shape=(37, 53), omegas=Sweep(-2, 0.5)), stack)
    turn = turned([3])
    frames = open_frames(str(path), shape=(53, 37), turn=turn, omegas=Sweep(-2, 0.5))
    assert (frames.rows, frames.columns, frames.shape) == (37, 53, (53, 37))


@pytest.mark.parametrize("form", ["tif", "cbf"])
def test_series(form: str, tmp_path: Path) -> None:
    stack = some_frames("i4" if form == "cbf" else "u2")
    for n, frame in enumerate(stack):
        image = fabio.factory("cbfimage" if form == "cbf" else "tifimage")
        image.data = frame
        if form == "cbf":
            lines = f"# Start_angle {EDGES[n, 0]} deg.\r\n# Angle_increment 0.5000 deg."
            image.header["_array_data.header_contents"] = lines
        image.write(str(tmp_path / f"a_{n + 5}.{form}"))
    told = None if form == "cbf" else Sweep(-2, 0.5)
    frames = open_frames(str(tmp_path / f"a_*.{form}"), omegas=told)
    np.testing.assert_allclose(frames.omegas.edges_deg, EDGES)
    check(frames, stack)


@pytest.mark.parametrize("layout", ["edges", "starts"])
def test_caches(layout: str, tmp_path: Path) -> None:
    stack = np.where(some_frames() > 60, some_frames(), 0)
    rng = np.random.default_rng(3)
    members: dict[str, Any] = {"shape": SHAPE[1:], "nframes": 11, "dtype": "uint16"}
    for n, frame in enumerate(stack):
        rows, columns = np.nonzero(frame)
        order = rng.permutation(len(rows)) if n % 2 else slice(None)
        members |= {f"{n}_row": rows[order].astype("u2"), f"{n}_col": columns[order].astype("u2")}
        members[f"{n}_data"] = frame[rows, columns][order]
    members["omega"] = EDGES if layout == "edges" else EDGES[:, 0]
    np.savez_compressed(tmp_path / "a.npz", **members)
    frames = open_frames(str(tmp_path / "a.npz"))
    np.testing.assert_allclose(frames.omegas.edges_deg, EDGES)
    np.testing.assert_array_equal(frames.pictures(0, 11), stack)
    chosen = limits(frames, flat_dark(0, frames), threshold=70)
    assert seen(frames, chosen) == by_numpy(stack, 0, 70)


def test_ranges_and_masks() -> None:
    stack = some_frames()
    mask = np.random.default_rng(4).uniform(size=SHAPE[1:]) < 0.7
    frames = Frames(MemorySource(stack), omegas=Sweep(-2, 0.5), first=3, beyond=9, mask=mask)
    np.testing.assert_allclose(frames.omegas.edges_deg, EDGES[3:9])
    chosen = limits(frames, flat_dark(0, frames), threshold=70)
    assert seen(frames, chosen) == by_numpy(np.where(mask, stack, 0)[3:9], 0, 70)


def test_darks(tmp_path: Path) -> None:
    stack = some_frames()
    frames = Frames(MemorySource(stack), omegas=Sweep(0, 1))
    first = dark_of_first(frames, 7)
    np.testing.assert_array_equal(first.level, np.median(stack[:7], axis=0).astype(np.float32))
    dark = dark_of_source(open_source(hdf5(tmp_path / "dark.h5", stack[:4], omega=False)), frames)
    np.testing.assert_array_equal(dark.level, np.median(stack[:4], axis=0).astype(np.float32))
    chosen = limits(frames, dark, threshold=50)
    assert seen(frames, chosen) == [
        (int(f), int(r), int(c), float(stack[f, r, c] - dark.level[r, c]))
        for f, r, c in np.argwhere(stack - dark.level > 50)
    ]


def test_markers_and_numbers_that_are_none() -> None:
    whole = some_frames("u4")
    whole[:, 4] = 0xFFFFFFFF
    negative = some_frames("i4")
    negative[:, 4] = -2
    floats = some_frames("f4")
    floats[:, 4] = np.nan
    for stack in (whole, negative, floats):
        frames = Frames(MemorySource(stack), omegas=Sweep(0, 1))
        chosen = limits(frames, flat_dark(0, frames), threshold=70)
        tally: Counter[str] = Counter()
        blocks = list(frames.blocks(chosen, tally))
        assert not any((block.pixels // frames.columns == 4).any() for block in blocks)
        assert tally["pixels that are not numbers"] == (11 * 53 if stack is floats else 0)
    assert np.isnan(dark_of_first(Frames(MemorySource(floats), omegas=Sweep(0, 1)), 5).level[4]).all()


def test_dark_that_is_no_number_leaves_its_pixels_out() -> None:
    stack = some_frames()
    frames = Frames(MemorySource(stack), omegas=Sweep(0, 1))
    level = np.zeros(SHAPE[1:], np.float32)
    level[:, 10] = np.nan
    found = seen(frames, limits(frames, Dark(level, None), threshold=70))
    assert found == [pixel for pixel in by_numpy(stack, 0, 70) if pixel[2] != 10]


def test_empty_frames_are_counted() -> None:
    stack = some_frames()
    stack[[2, 7]] = 0
    frames = Frames(MemorySource(stack), omegas=Sweep(0, 1))
    tally: Counter[str] = Counter()
    list(frames.blocks(limits(frames, flat_dark(0, frames), threshold=70), tally))
    assert tally["empty frames"] == 2


def test_empty_packed_frames_are_counted(tmp_path: Path) -> None:
    stack = some_frames()
    stack[[2, 7]] = 0
    frames = open_frames(hdf5(tmp_path / "a.h5", stack, **FILTERS["bitshuffle"]))
    tally: Counter[str] = Counter()
    list(frames.blocks(limits(frames, flat_dark(0, frames), threshold=70), tally))
    assert tally["empty frames"] == 2


def test_panels(tmp_path: Path) -> None:
    paths = {name: hdf5(tmp_path / f"scan_{name}.h5", some_frames()) for name in ("ff1", "ff2")}
    shapes = dict.fromkeys(paths, SHAPE[1:])
    opened = open_panels(paths, shapes=shapes)
    assert [frames.count for frames in opened.values()] == [11, 11]


@pytest.mark.parametrize("codes", [(), (1,), (2,), (3,), (1, 3), (3, 2), (3, 2, 1, 3)])
def test_turns(codes: tuple[int, ...]) -> None:
    turn = turned(codes)
    stored = np.arange(12).reshape(3, 4)
    picture = turn.picture(stored)
    np.testing.assert_array_equal(turn.stored(picture), stored)
    matrix, shift = turn.map(3, 4)
    for row in range(3):
        for column in range(4):
            there = tuple((matrix @ [row, column] + shift).astype(int))
            assert picture[there] == stored[row, column]


def test_readings_of_an_encoder_scatter_and_frames_are_neighbours_still() -> None:
    starts = -180 + 10.0 * np.arange(36) + np.random.default_rng(5).uniform(-2, 2, 36)
    source = MemorySource(np.ones((36, 4, 4), np.uint16), omega_deg=np.column_stack([starts, starts + 10]))
    omegas = Frames(source).omegas
    assert not omegas.breaks
    assert omegas.full_turn
    assert not omegas.doubts


def test_a_mask_from_a_file(tmp_path: Path) -> None:
    image = fabio.tifimage.TifImage(data=np.eye(*SHAPE[1:], dtype=np.uint16))
    image.write(str(tmp_path / "bad.tif"))
    frames = Frames(MemorySource(some_frames()), omegas=Sweep(0, 1), mask=read_mask(str(tmp_path / "bad.tif")))
    np.testing.assert_array_equal(frames.used, ~np.eye(*SHAPE[1:], dtype=bool))


def test_ranks_share_frames_in_pieces_as_they_are_stored(tmp_path: Path) -> None:
    """So that none is unpacked twice; and blocks end where pieces do."""
    path = hdf5(tmp_path / "a.h5", some_frames(), chunks=(4, *SHAPE[1:]), compression="lzf")
    for first, beyond in ((0, 11), (1, 11), (3, 10), (5, 6)):
        frames = open_frames(path, first=first, beyond=beyond)
        assert frames.source.deep == 4
        for size in (1, 2, 3, 5):
            parts = [frames.share(Ranks(rank, size)) for rank in range(size)]
            assert [n for part in parts for n in part] == list(range(frames.count))
            assert all((first + part.stop) % 4 == 0 or part.stop in (0, frames.count) for part in parts)
        chosen = limits(frames, flat_dark(0, frames), threshold=70)
        blocks = list(frames.blocks(chosen, Counter(), at_once=4))
        assert all((first + block.first) % 4 == 0 for block in blocks[1:])
        assert sum(block.frames for block in blocks) == frames.count
