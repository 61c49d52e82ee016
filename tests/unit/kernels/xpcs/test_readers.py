"""Frames of every format come back as they were written, chosen and summed as NumPy does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.xpcs.events import Events
from kernels.xpcs.readers import Selection, frames, hdf5, open_frames, source, streams
from kernels.xpcs.writers import FORMATS, files_of, laid_out, write_frames

SHAPES = {"rigaku-500k": (512, 1024), "rigaku-3m": (1676, 2100), "timepix4": (512, 448)}
TIME_S = 1e-6


def some_frames(form: str, count: int = 13, seed: int = 1) -> NDArray[np.uint8]:
    """A few counts in each frame, none in one of them; none where a detector has gaps."""
    rows, columns = SHAPES.get(form, (7, 9))
    random = np.random.default_rng(seed)
    shown = np.zeros((count, rows * columns), np.uint8)
    for frame in shown:
        frame[random.choice(frame.size, 12, replace=False)] = random.integers(1, 6, 12)
    shown[4] = 0
    if form == "rigaku-3m":
        laid = shown.reshape(count, rows, columns)
        laid[:, 512:582] = laid[:, 1094:1164] = 0
        laid[:, :, 1024:1076] = 0
    return shown


def events_of(shown: NDArray[Any], blocks: int = 3) -> list[Events]:
    """Frames as events, in several blocks."""
    found = []
    for numbers in np.array_split(np.arange(len(shown)), blocks):
        frame, pixel = np.nonzero(shown[numbers])
        starts = np.searchsorted(frame, np.arange(len(numbers) + 1))
        counts = shown[numbers][frame, pixel]
        found.append(Events(int(numbers[0]), starts, pixel.astype(np.uint32), counts.astype(np.uint32)))
    return found


def written(folder: Path, form: str, shown: NDArray[Any], **how: Any) -> str:
    """Frames in a file of this format; its path."""
    rows, columns = SHAPES.get(form, (7, 9))
    parts = files_of(folder / f"run{FORMATS[form]}", form)
    how = {"rows": rows, "columns": columns, "frames": len(shown), "frame_time_s": TIME_S} | how
    write_frames(parts, form, events_of(shown), **how)
    return str(parts[0])


def read(chosen: Any) -> NDArray[Any]:
    """All frames laid out, after a look at whether the events are as they should be."""
    pixels = chosen.rows * chosen.columns
    shown = np.zeros((chosen.count, pixels), chosen.word)
    done = 0
    for events in chosen.blocks():
        assert events.first == done
        assert len(events.pixels) == len(events.counts) == events.starts[-1]
        assert events.starts[0] == 0
        assert events.starts.dtype == np.int64
        assert events.pixels.dtype == np.uint32
        for n in range(events.frames):
            assert (np.diff(events.pixels[events.starts[n] : events.starts[n + 1]].astype(int)) > 0).all()
        assert len(events.counts) == 0 or 1 <= events.counts.min() <= events.counts.max() <= chosen.largest
        shown[done : done + events.frames] = laid_out(events, pixels, chosen.word)
        done += events.frames
    assert done == chosen.count
    return shown


@pytest.mark.parametrize("form", FORMATS)
def test_round_trip(form: str, tmp_path: Path) -> None:
    shown = some_frames(form)
    chosen = open_frames(written(tmp_path, form, shown), frame_time_s=TIME_S)
    assert (chosen.rows, chosen.columns) == SHAPES.get(form, (7, 9))
    assert chosen.frame_time_s == TIME_S
    for _ in range(2):
        np.testing.assert_array_equal(read(chosen), shown)
    assert chosen.left_out == {}


PACKED = {
    "bitshuffle": hdf5plugin.Bitshuffle(cname="lz4"),
    "small blocks": hdf5plugin.Bitshuffle(nelems=16, cname="lz4"),
    "zstd": hdf5plugin.Bitshuffle(cname="zstd"),
    "blosc": hdf5plugin.Blosc(),
    "lz4": hdf5plugin.LZ4(),
    "gzip": {"compression": "gzip", "shuffle": True},
    "raw chunks": {},
}


@pytest.mark.parametrize("word", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("packed", PACKED)
def test_hdf5_filters(packed: str, word: type, tmp_path: Path) -> None:
    """All filters give the same; only frames packed by bitshuffle and LZ4 go past HDF5."""
    shown = some_frames("hdf5")
    shown[3] = np.arange(63) % 200
    path = written(tmp_path, "hdf5", shown, word=word, how={"chunks": (1, 7, 9), **PACKED[packed]})
    np.testing.assert_array_equal(read(open_frames(path, frame_time_s=1.0)), shown)
    assert hdf5.Hdf5Source(path).straight == (packed in ("bitshuffle", "small blocks"))


@pytest.mark.parametrize("how", [{}, {"chunks": (4, 7, 5), **PACKED["bitshuffle"]}, {"chunks": (5, 3, 9)}])
def test_hdf5_layouts(how: dict[str, Any], tmp_path: Path) -> None:
    shown = some_frames("hdf5")
    path = written(tmp_path, "hdf5", shown, how=how)
    chosen = open_frames(path, frame_time_s=1.0, selection=Selection(2, 12, 3))
    np.testing.assert_array_equal(read(chosen), shown[2:11:3])


@pytest.mark.parametrize("selection", [Selection(), Selection(3), Selection(1, 40, 3), Selection(0, 36, 9)])
def test_no_chunk_is_read_twice(selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of many frames are what takes time to unpack, so that a block ends where one does."""
    monkeypatch.setattr(hdf5, "BLOCK_EVENTS", 630)
    shown = some_frames("hdf5", 40)
    path = written(tmp_path, "hdf5", shown, how={"chunks": (4, 7, 9), "compression": "gzip"})
    asked: list[int] = []
    laid_out = hdf5.Hdf5Source._laid_out

    def noted(self: hdf5.Hdf5Source, file: h5py.File, chosen: range) -> Any:
        asked.extend({frame // 4 for frame in chosen})
        return laid_out(self, file, chosen)

    monkeypatch.setattr(hdf5.Hdf5Source, "_laid_out", noted)
    chosen = open_frames(path, frame_time_s=1.0, selection=selection)
    np.testing.assert_array_equal(read(chosen), shown[selection.first : selection.beyond : selection.stride])
    assert len(asked) == len(set(asked)) > 3


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "<u8", ">u2", "i2", "i4"])
def test_markers_are_left_out(kind: str, tmp_path: Path) -> None:
    """All ones, and negative numbers, do not count; they are told."""
    path = tmp_path / "run.h5"
    word = np.dtype(kind)
    shown = some_frames("hdf5").astype(word).reshape(-1, 7, 9)
    bad = shown.copy()
    bad[:, 2, 3] = np.iinfo(word).max if word.kind == "u" else -1
    shown[:, 2, 3] = 0
    with h5py.File(path, "w") as file:
        file.create_dataset(hdf5.DATA, data=bad, chunks=(1, 7, 9), **PACKED["bitshuffle"])
    chosen = open_frames(str(path), frame_time_s=1.0)
    np.testing.assert_array_equal(read(chosen), shown.reshape(13, -1))
    assert chosen.left_out == {"markers": 13}
    mask = np.ones((7, 9), bool)
    mask[2, 3] = False
    chosen = open_frames(str(path), frame_time_s=1.0, mask=mask)
    np.testing.assert_array_equal(read(chosen), shown.reshape(13, -1))
    assert chosen.left_out == {"masked pixels": 1}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "selection", [Selection(3), Selection(1, 12, 2), Selection(1, 12, 1, 3), Selection(0, 13, 3, 2)]
)
def test_selection(form: str, selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range, a stride and sums of neighbours, over the borders of blocks, against NumPy."""
    monkeypatch.setattr(streams, "_AT_ONCE", 16)
    shown = some_frames(form)
    chosen = open_frames(written(tmp_path, form, shown), frame_time_s=TIME_S, selection=selection)
    first, beyond, stride, average = selection
    wanted = shown[first:beyond:stride]
    whole = (len(shown[first:beyond]) // (stride * average)) * average
    expected = wanted[:whole].reshape(-1, average, shown.shape[1]).sum(1)
    np.testing.assert_array_equal(read(chosen), expected)
    assert chosen.frame_time_s == pytest.approx(TIME_S * stride * average)
    over = len(shown[first:beyond]) - whole * stride
    assert chosen.left_out == ({"frames at the end": over} if over else {})


def test_blocks_are_split_when_they_are_fuller_than_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "BLOCK_EVENTS", 640)
    shown = np.zeros((40, 63), np.int64)
    shown[::7, 5] = 3
    shown[25:33] = 200
    for how in (None, {"chunks": (1, 7, 9)}):
        path = written(tmp_path, "hdf5", shown, how=how)
        np.testing.assert_array_equal(read(open_frames(path, frame_time_s=1.0)), shown)


def test_sums_beyond_the_word_are_refused(tmp_path: Path) -> None:
    shown = np.full((4, 63), 2**32 - 2)
    path = written(tmp_path, "hdf5", shown, word=np.uint32)
    with pytest.raises(KernelError, match="beyond 32 bits"):
        list(open_frames(path, frame_time_s=1.0, selection=Selection(average=2)).blocks())


def test_bad_pixels_are_taken_out(tmp_path: Path) -> None:
    shown = some_frames("imm")
    chosen = open_frames(written(tmp_path, "imm", shown), frame_time_s=1.0)
    without = chosen.without(np.array([3, 4]))
    shown[:, 3:5] = 0
    np.testing.assert_array_equal(read(without), shown)
    assert without.left_out == {"bad pixels": 2}
    assert chosen.left_out == {}


def test_joining_and_parting_events() -> None:
    shown = some_frames("imm")
    first, second, third = events_of(shown)
    whole = source.joined(source.joined(first, second), third)
    np.testing.assert_array_equal(laid_out(whole, 63, np.int64), shown)
    some = source.part(whole, 3, 9)
    assert some.first == 3
    np.testing.assert_array_equal(laid_out(some, 63, np.int64), shown[3:9])


def test_selections_that_do_not_fit(tmp_path: Path) -> None:
    path = written(tmp_path, "imm", some_frames("imm"))
    for selection in (Selection(-1), Selection(0, 14), Selection(13), Selection(5, 9, 5), Selection(stride=0)):
        with pytest.raises(KernelError) as caught:
            open_frames(path, frame_time_s=1.0, selection=selection)
        assert caught.value.exit_code == 2
    assert frames.Selection().average == 1
