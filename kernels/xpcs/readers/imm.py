"""IMM files of APS: before each frame a header of 1024 bytes that says how many numbers follow.

Of the header (little-endian, at byte): 4 compression, 6 for sparse frames; 108 rows; 112 columns; 116 bytes of a pixel;
152 how many elements follow; 160 number of the frame in its buffer. A sparse frame is that many int32 numbers of
pixels, then as many int16 counts; a dense one is uint16 counts of all pixels.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.io.hdf5 import regular
from kernels.xpcs.events import Events
from kernels.xpcs.readers import bitshuffle
from kernels.xpcs.readers.source import BLOCK_BYTES, Keep, bad, closed_up

HEADER = 1024
SPARSE = 6
_FIELDS = struct.Struct("<4x i 100x i i i 32x I i i")
_MOST_PIXELS = 1 << 26
_BEYOND = -1


class ImmSource:
    """The frames of an IMM file (see `Source`).

    Counts that are negative (sparse) or all ones (dense) are markers and left out.

    Raises
    ------
    KernelError
        Exit 66 when the file is missing or empty, 65 when it is truncated, or a header says what cannot be.
    """

    anywhere, deep = True, 1

    def __init__(self, path: str) -> None:
        self.path = path
        self.left_out: dict[str, int] = {}
        size = regular(path).st_size
        with open(path, "rb") as file:
            first = _header(path, file, 0, 0)
            compression, self.rows, self.columns, width, _, _, _ = first
            self.sparse = compression == SPARSE
            pixels = self.rows * self.columns
            if min(self.rows, self.columns) < 1 or pixels > _MOST_PIXELS:
                raise bad(path, f"its header says {self.rows} x {self.columns} pixels. It is no IMM file, or damaged.")
            if width not in (0, 2):
                raise bad(path, f"its pixels are of {width} bytes; 2 can be read.")
            at: list[int] = []
            lengths: list[int] = []
            numbers: list[int] = []
            where = 0
            while where < size:
                kind, rows, columns, _, length, _, number = _header(path, file, where, len(at))
                if (kind == SPARSE) != self.sparse or (rows, columns) != (self.rows, self.columns):
                    raise bad(path, f"frame {len(at)} is of another kind or shape than frame 0.")
                if length > pixels or (not self.sparse and length != pixels):
                    raise bad(path, f"frame {len(at)} claims {length} elements of {pixels} pixels.")
                at.append(where + HEADER)
                lengths.append(length)
                numbers.append(number)
                where += HEADER + length * (6 if self.sparse else 2)
                if where > size:
                    raise bad(path, f"it is truncated: frame {len(at) - 1} ends at byte {where} of {size}.")
        self.count = len(at)
        self._at, self._lengths = np.array(at, np.int64), np.array(lengths, np.int64)
        self.largest = (1 << 15) - 1 if self.sparse else (1 << 16) - 2
        self.word: np.dtype[Any] = np.dtype(np.uint16)
        steps = np.diff(np.array(numbers, np.int64))
        self.lost: dict[str, int] = {}
        if len(steps) and steps.min() >= 1:
            self.lost["missing frames"] = int((steps - 1).sum())
        if len(steps) and steps.max() == 1:
            self.lost["frames with the number of the one before"] = int((steps == 0).sum())

    def blocks(self, wanted: range, keep: Keep) -> Iterator[Events]:
        self.left_out = {"markers": 0, "duplicate events": 0}
        at = self._at[wanted.start : wanted.stop : wanted.step]
        lengths = self._lengths[wanted.start : wanted.stop : wanted.step]
        sizes = lengths * (6 if self.sparse else 2)
        ends = np.cumsum(sizes)
        done = 0
        with open(self.path, "rb") as file:
            while done < len(wanted):
                before = int(ends[done - 1]) if done else 0
                beyond = max(done + 1, int(np.searchsorted(ends, before + BLOCK_BYTES)))
                bounds = np.concatenate([[0], np.cumsum(sizes[done:beyond])])
                raw = np.empty(bounds[-1], np.uint8)
                for n in range(beyond - done):
                    self._read(file, int(at[done + n]), raw[bounds[n] : bounds[n + 1]])
                yield (self._sparse if self.sparse else self._dense)(raw, lengths[done:beyond], keep, done, wanted)
                done = beyond

    def _read(self, file: BinaryIO, at: int, into: NDArray[np.uint8]) -> None:
        if len(into) and os.preadv(file.fileno(), [into.data], at) != len(into):
            raise bad(self.path, "the file has become shorter while it was read.")

    def _sparse(
        self, raw: NDArray[np.uint8], lengths: NDArray[np.int64], keep: Keep, first: int, wanted: range
    ) -> Events:
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        pixels, counts = np.empty(bounds[-1], np.uint32), np.empty(bounds[-1], self.word)
        found, lost = np.zeros(len(lengths), np.int64), np.zeros((len(lengths), 2), np.int64)
        _unpack(raw, bounds, keep, pixels, counts, found, lost)
        if (found == _BEYOND).any():
            frame = wanted[first + int(np.flatnonzero(found == _BEYOND)[0])]
            raise bad(self.path, f"frame {frame} names a pixel that the detector does not have. It is damaged.")
        self.left_out["markers"] += int(lost[:, 0].sum())
        self.left_out["duplicate events"] += int(lost[:, 1].sum())
        return closed_up(first, pixels, counts, bounds, found)

    def _dense(
        self, raw: NDArray[np.uint8], lengths: NDArray[np.int64], keep: Keep, first: int, wanted: range
    ) -> Events:
        frames = raw.view("<u2").astype(np.uint16, copy=False).reshape(len(lengths), -1)
        pixels, counts = np.empty(frames.shape, np.uint32), np.empty(frames.shape, np.uint32)
        events, marked = np.zeros(len(frames), np.int64), np.zeros(len(frames), np.int64)
        bitshuffle.sparse_from_dense(frames, keep, self.largest + 1, pixels, counts, events, marked)
        self.left_out["markers"] += int(marked.sum())
        bounds = np.arange(len(frames) + 1, dtype=np.int64) * frames.shape[1]
        found = closed_up(first, pixels.ravel(), counts.ravel(), bounds, events)
        return found._replace(counts=found.counts.astype(self.word))


def _header(path: str, file: BinaryIO, where: int, frame: int) -> tuple[int, ...]:
    file.seek(where)
    head = file.read(HEADER)
    if len(head) < HEADER:
        raise bad(path, f"it is truncated: the header of frame {frame} has {len(head)} of {HEADER} bytes.")
    fields: tuple[int, ...] = _FIELDS.unpack_from(head)
    return fields


@compiled(parallel=True)
def _unpack(
    raw: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    keep: Keep,
    pixels: NDArray[np.uint32],
    counts: NDArray[np.unsignedinteger],
    found: NDArray[np.int64],
    lost: NDArray[np.int64],
) -> None:
    """Sparse frames; the elements of frame n are bounds[n] to bounds[n + 1], and `raw` has 6 bytes for each."""
    for n in prange(found.size):
        length = bounds[n + 1] - bounds[n]
        at = bounds[n] * 6
        words = np.empty(length, np.int64)
        ascending = True
        for k in range(length):
            pixel = np.int64(0)
            for b in range(4):
                pixel |= np.int64(raw[at + 4 * k + b]) << (8 * b)
            if pixel >= keep.size:
                found[n] = _BEYOND
                break
            count = np.int64(raw[at + 4 * length + 2 * k]) | np.int64(raw[at + 4 * length + 2 * k + 1]) << 8
            words[k] = pixel << 16 | count
            ascending &= k == 0 or words[k] > words[k - 1]
        if found[n] < 0:
            continue
        if not ascending:
            words.sort()
        out = bounds[n]
        last = np.int64(-1)
        for k in range(length):
            pixel, count = words[k] >> 16, words[k] & 0xFFFF
            if pixel == last:
                lost[n, 1] += 1
                continue
            last = pixel
            if count == 0 or not keep[pixel]:
                continue
            if count >= 1 << 15:
                lost[n, 0] += 1
                continue
            pixels[out] = pixel
            counts[out] = count
            out += 1
        found[n] = out - bounds[n]
