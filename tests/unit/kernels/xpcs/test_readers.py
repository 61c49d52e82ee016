"""Frames of every format come back as they were written, chosen and summed as NumPy does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from recorded import SHAPES, TIME_S, events_of, read, some_frames, written

from kernels.errors import KernelError
from kernels.xpcs.readers import Selection, frames, hdf5, open_frames, source, streams
from kernels.xpcs.writers import FORMATS, laid_out


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
    whole = source.joined([source.joined([first, second]), third])
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
