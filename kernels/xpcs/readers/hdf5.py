"""Frames in HDF5: /entry/data/data [frame, row, column], as area detectors and DECTRIS write them (NeXus NXdata).

A frame that is one chunk, packed by bitshuffle with LZ4, is read straight from where it lies in the file and becomes
events in compiled code, all cores at once. Everything else, in any filter that hdf5plugin knows, goes by HDF5's own
way, block after block, while the block before is worked on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels.io import hdf5
from kernels.outputs import io_error
from kernels.xpcs.events import Events
from kernels.xpcs.readers import bitshuffle
from kernels.xpcs.readers.source import BLOCK_BYTES, BLOCK_EVENTS, Keep, bad

DATA = "/entry/data/data"
_BITSHUFFLE, _LZ4 = 32008, 2
_MOST_PIXELS = 1 << 28
_MOST_FRAMES = 1 << 26


class _Chunks(NamedTuple):
    """Where in the file each frame lies."""

    at: NDArray[np.int64]
    size: NDArray[np.int64]


class Hdf5Source:
    """The frames of an HDF5 file (see `Source`).

    Whole numbers of any kind are taken. All ones of an unsigned word, and negative numbers, are markers of pixels that
    do not count; they are left out, as are counts of more than 32 bits.

    Raises
    ------
    KernelError
        Exit 65 and 66 as `kernels.io.hdf5`; 65 for frames that are missing or damaged, when they are wanted.
    """

    anywhere = True

    def __init__(self, path: str, data: str = DATA) -> None:
        self.path, self._data = path, data
        self.left_out: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self._at_once = 1  # so many frames fitted into a block last
        with hdf5.open_file(path) as file:
            dataset = hdf5.numbers(file, data, rank=3, kinds="iu")
            self.count, self.rows, self.columns = (int(n) for n in dataset.shape)
            if self.rows * self.columns > _MOST_PIXELS or self.count > _MOST_FRAMES:
                raise bad(path, f"{data} claims {self.count} frames of {self.rows} x {self.columns} pixels.")
            if dataset.chunks is not None and self.count > 10**6 + 1000 * dataset.id.get_num_chunks():
                written = int(dataset.id.get_num_chunks())
                raise bad(path, f"{data} claims {self.count} frames, of which {written} chunks were written.")
            self._kind = dataset.dtype
            bits = 8 * self._kind.itemsize
            marker = (1 << bits) - 1 if self._kind.kind == "u" else 1 << bits - 1
            self._limit = min(marker, 1 << 32)
            self.largest = self._limit - 1
            self.word: np.dtype[Any] = np.dtype(f"u{min(self._kind.itemsize, 4)}")
            self._there = _written(dataset)
            # How many frames a chunk holds; those of so many that they would not fit are unpacked several times.
            self.deep = int(dataset.chunks[0]) if dataset.chunks is not None else 1
            if self.deep * self.rows * self.columns * self._kind.itemsize > 4 * BLOCK_BYTES:
                self.deep = 1
            self._chunks = self._straight(file, dataset)

    @property
    def straight(self) -> bool:
        """Whether frames are read past HDF5."""
        return self._chunks is not None

    def blocks(self, wanted: range, keep: Keep) -> Iterator[Events]:
        self.left_out = {"markers": 0}
        self._check_written(wanted)
        pixels = keep.size
        at_once = max(1, min(len(wanted), max(self._at_once, BLOCK_EVENTS // pixels)))
        done = 0
        with open(self.path, "rb") as raw, hdf5.open_file(self.path) as file, ThreadPoolExecutor(1, "read") as reader:
            # One block is read ahead by another thread; only this one runs compiled code on all cores.
            def read(first: int, frames: int) -> Any:
                chosen = wanted[first : first + self._whole_chunks(wanted, first, frames)]
                return self._packed(raw.fileno(), chosen) if self._chunks else self._laid_out(file, chosen)

            coming = reader.submit(read, 0, at_once)
            while done < len(wanted):
                frames = coming.result()
                here = len(frames[1]) - 1 if self._chunks else len(frames)
                # As many next as will fit, were each as full as the fullest of these.
                following = done + here
                if following < len(wanted):
                    coming = reader.submit(read, following, at_once)
                densest = 1
                for events in self._events(frames, keep, done, wanted):
                    densest = max(densest, int(np.diff(events.starts).max()))
                    yield events
                done = following
                room = max(1, BLOCK_EVENTS // (densest + densest // 4 + 64))
                at_once = self._at_once = max(1, min(room, 2 * at_once, self._most_at_once()))

    def _whole_chunks(self, wanted: range, first: int, frames: int) -> int:
        """About so many frames, ending where a chunk does, so that none is unpacked twice."""
        if self.deep == 1:
            return frames
        here = wanted[first]
        end = (here + frames * wanted.step) // self.deep * self.deep
        if end <= here:
            end = (here // self.deep + 1) * self.deep
        return -(-(end - here) // wanted.step)

    def _most_at_once(self) -> int:
        if self._chunks:
            return int(max(1, BLOCK_BYTES // max(1, self._chunks.size.max())))
        return max(1, BLOCK_BYTES // int(self.rows * self.columns * self._kind.itemsize))

    def _events(self, frames: Any, keep: Keep, first: int, wanted: range) -> Iterator[Events]:
        """Events of a block of frames, in several parts where they are more than expected."""
        count = len(frames[1]) - 1 if self._chunks else len(frames)
        room = keep.size if count == 1 else min(keep.size, max(BLOCK_EVENTS // count, 64))
        pixels = np.empty((count, room), np.uint32)
        counts = np.empty((count, room), np.uint32)  # one kind, so that it is compiled once
        events, marked = np.zeros(count, np.int64), np.zeros(count, np.int64)
        if self._chunks:
            packed, starts = frames
            width = self._kind.itemsize
            bitshuffle.sparse_from_packed(packed, starts, keep, width, self._limit, pixels, counts, events, marked)
            if (events == bitshuffle.DAMAGED).any():
                damaged = wanted[first + int(np.flatnonzero(events == bitshuffle.DAMAGED)[0])]
                raise bad(self.path, f"frame {damaged} of {self._data} is damaged: it cannot be unpacked.")
        else:
            bitshuffle.sparse_from_dense(frames, keep, self._limit, pixels, counts, events, marked)
        if (events == bitshuffle.TOO_MANY).any():
            half = count // 2
            if self._chunks:
                yield from self._events((packed, starts[: half + 1]), keep, first, wanted)
                yield from self._events((packed, starts[half:]), keep, first + half, wanted)
            else:
                yield from self._events(frames[:half], keep, first, wanted)
                yield from self._events(frames[half:], keep, first + half, wanted)
            return
        self.left_out["markers"] += int(marked.sum())
        bounds = np.concatenate([[0], np.cumsum(events)])
        some_pixels, some_counts = np.empty(bounds[-1], np.uint32), np.empty(bounds[-1], self.word)
        bitshuffle.gather(pixels, counts, bounds, some_pixels, some_counts)
        yield Events(first, bounds, some_pixels, some_counts)

    def _laid_out(self, file: h5py.File, chosen: range) -> NDArray[Any]:
        """Frames as they are, shape (frames, pixels), as unsigned words in which markers are the largest values."""
        some = f"frames {chosen[0]} to {chosen[-1]}" if len(chosen) > 1 else f"frame {chosen[0]}"
        frames = hdf5.read(file[self._data], np.s_[chosen.start : chosen.stop : chosen.step], f"{some} of ")
        frames = np.ascontiguousarray(frames, self._kind.newbyteorder("=")).reshape(len(chosen), -1)
        return frames.view(f"u{self._kind.itemsize}")

    def _packed(self, descriptor: int, chosen: range) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Frames as they lie in the file, one after the other, and where each begins."""
        assert self._chunks is not None
        at, size = self._chunks.at[chosen.start : chosen.stop : chosen.step], self._chunks.size
        size = size[chosen.start : chosen.stop : chosen.step]
        starts = np.concatenate([[0], np.cumsum(size)])
        packed = np.empty(starts[-1], np.uint8)
        breaks = np.flatnonzero(at[1:] != at[:-1] + size[:-1]) + 1  # what lies together is read together
        for first, beyond in zip([0, *breaks], [*breaks, len(at)], strict=True):
            into = packed[starts[first] : starts[beyond]].data
            done = 0
            while done < len(into):
                try:
                    got = os.preadv(descriptor, [into[done:]], int(at[first]) + done)
                except OSError as error:
                    raise io_error(error, f"Cannot read the frames {self.path!r}") from error
                if not got:
                    raise bad(self.path, "the file has become shorter while it was read.")
                done += got
        return packed, starts

    def _check_written(self, wanted: range) -> None:
        if self._there is None or not len(wanted):
            return
        missing = np.flatnonzero(~self._there[wanted.start : wanted.stop : wanted.step])
        if len(missing):
            lost = wanted[int(missing[0])]
            hint = f" Its writer did not finish; the first {lost} frames can be used alone." if lost else ""
            raise bad(self.path, f"{len(missing)} frames of {self._data} were not written, from frame {lost} on.{hint}")

    def _straight(self, file: h5py.File, dataset: h5py.Dataset) -> _Chunks | None:
        """Where the frames lie, when each is a chunk of its own as `bitshuffle` reads it, or None."""
        how = dataset.id.get_create_plist()
        if dataset.chunks != (1, self.rows, self.columns) or how.get_nfilters() != 1 or file.userblock_size:
            return None
        code, _, values, _ = how.get_filter(0)
        width = self._kind.itemsize
        if code != _BITSHUFFLE or len(values) < 5 or values[4] != _LZ4 or width > 4 or self._kind.byteorder == ">":
            return None
        at, size = np.zeros(self.count, np.int64), np.zeros(self.count, np.int64)
        plain = True

        def note(chunk: Any) -> None:
            nonlocal plain
            frame = chunk.chunk_offset[0]
            at[frame], size[frame] = chunk.byte_offset, chunk.size
            plain &= chunk.filter_mask == 0

        dataset.id.chunk_iter(note)
        if not plain or (at < 0).any() or (at + size > os.stat(self.path).st_size).any():
            return None
        return _Chunks(at, size)


def _written(dataset: h5py.Dataset) -> NDArray[np.bool_] | None:
    """Of each frame whether all of its chunks were written; None when all were."""
    if dataset.chunks is None or dataset.is_virtual:
        return None
    wanted = [-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
    if int(dataset.id.get_num_chunks()) == hdf5.chunks_of(dataset):
        return None
    deep = dataset.chunks[0]
    found = np.zeros(wanted[0], np.int64)

    def note(chunk: Any) -> None:
        found[chunk.chunk_offset[0] // deep] += 1

    dataset.id.chunk_iter(note)
    return np.repeat(found == wanted[1] * wanted[2], deep)[: dataset.shape[0]]
