"""The detector's images as bits: which pixels saw a diffraction spot, in each frame at each distance.

A frame of 2048 x 2048 pixels is half a megabyte so, and a whole scan at two distances 1.5 GB. Coarser copies, a bit per
block of pixels and few frames, say in one look that nothing is there, and let a search find orientations that are
still off by a degree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError
from kernels.ranks import Ranks

Words = NDArray[np.uint32]
WORD = 32
_PART = 128  # frames that are made coarse at once
BLOCK = 4  # a block of the coarse map has 2**BLOCK pixels a side


@dataclass(frozen=True, eq=False)
class Spots:
    """Bits of all images.

    Attributes
    ----------
    bits : ndarray of uint32, shape (distances, frames, rows, words)
        Bit `column % 32` of word `column // 32`, the least significant bit first.
    columns : int
        How many columns a frame has.
    present : ndarray of bool, shape (distances, frames)
        Frames that were measured. A reflection in a frame that is missing at a distance is looked for at the other
        distances alone.
    shift : int
        A bit stands for a block of `2**shift` by `2**shift` pixels; `rows` and `columns` count pixels all the same.
    """

    bits: Words
    rows: int
    columns: int
    present: NDArray[np.bool_]
    shift: int = 0
    blocks: Words = field(init=False)  # of 16 x 16 pixels, or as large as a bit is

    def __post_init__(self) -> None:
        shape = -(-self.rows // (1 << self.shift)), -(-self.columns // (WORD << self.shift))
        if self.bits.dtype != np.uint32 or self.bits.ndim != 4 or self.bits.shape[2:] != shape:
            raise KernelError(
                f"Bits of shape {self.bits.shape} are not those of frames of {self.rows} x {self.columns} pixels."
            )
        if self.present.shape != self.bits.shape[:2]:
            raise KernelError("`present` has to have one value per distance and frame.")
        _check_content(self)
        grown = self.bits if self.shift >= BLOCK else _coarsened(self.bits, BLOCK - self.shift, 0, 0, False)
        object.__setattr__(self, "blocks", grown)

    @property
    def distances(self) -> int:
        return int(self.bits.shape[0])

    @property
    def frames(self) -> int:
        return int(self.bits.shape[1])

    @property
    def block_shift(self) -> int:
        return max(self.shift, BLOCK)

    def occupied(self) -> NDArray[np.float64]:
        """The fraction of bits that are set at each distance, in the frames that are present."""
        counts = _counts(self.bits.reshape(self.distances * self.frames, -1)).reshape(self.distances, -1)
        size = -(-self.rows // (1 << self.shift)) * -(-self.columns // (1 << self.shift))
        return np.asarray(counts.sum(axis=1) / (np.maximum(self.present.sum(axis=1), 1) * size))

    def coarse(self, shift: int, *, reach: int, frames: int, wrap: bool, ranks: Ranks | None = None) -> Spots:
        """A bit per block of `2**shift` pixels a side: whether any pixel is set in it, in blocks up to `reach` away, in
        frames up to `frames` before or after. `wrap`: the first frame follows the last. Memory and work are shared by
        the `ranks` on a node."""
        made = _coarsened(self.bits, shift - self.shift, reach, frames, wrap, ranks)
        return Spots(made, self.rows, self.columns, self.present, shift)


def from_lists(
    rows: int,
    columns: int,
    lists: Sequence[Sequence[tuple[NDArray[np.integer], NDArray[np.integer]] | None]],
) -> Spots:
    """Bits from lists of pixels.

    Parameters
    ----------
    lists
        Per distance and frame the rows and the columns of its pixels; None for a frame that is missing.

    Raises
    ------
    KernelError
        Exit 65 for pixels outside of the frame, and for distances with different numbers of frames.
    """
    frames = _common([len(one) for one in lists], "frames")
    bits = np.zeros((len(lists), frames, rows, -(-columns // WORD)), np.uint32)
    present = np.zeros(bits.shape[:2], np.bool_)
    for d, one in enumerate(lists):
        for f, pixels in enumerate(one):
            if pixels is None:
                continue
            present[d, f] = True
            row, column = (np.asarray(values, np.int64) for values in pixels)
            outside = (row < 0) | (row >= rows) | (column < 0) | (column >= columns)
            if len(row) != len(column) or outside.any():
                raise KernelError(
                    f"Frame {f} at distance {d + 1} has {int(outside.sum())} pixels outside of {rows} rows and "
                    f"{columns} columns, or lists of different length.",
                    Exit.BAD_INPUT,
                )
            set_pixels(bits[d, f], row, column)
    return Spots(bits, rows, columns, present)


def _common(counts: Sequence[int], what: str) -> int:
    if not counts or not max(counts):
        raise KernelError(f"There are no {what}.", Exit.NO_INPUT)
    if len(set(counts)) > 1:
        said = ", ".join(str(count) for count in counts)
        raise KernelError(
            f"The distances have {said} {what}: each needs as many; say which are missing, with None.", Exit.BAD_INPUT
        )
    return counts[0]


def _check_content(spots: Spots) -> None:
    if not spots.present.any():
        raise KernelError("There are no frames.", Exit.NO_INPUT)
    for d in range(spots.distances):
        if not spots.present[d].any():
            raise KernelError(f"There are no frames at distance {d + 1}.", Exit.NO_INPUT)
        if not spots.bits[d].any():
            raise KernelError(
                f"No pixel of any frame at distance {d + 1} has a spot: lower the threshold, or see whether the frames "
                "are those of a scan with the beam on.",
                Exit.BAD_INPUT,
            )


@compiled()
def set_pixels(image: Words, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
    """Set the bits of pixels in one frame, shape (rows, words)."""
    for n in range(rows.shape[0]):
        image[rows[n], columns[n] >> 5] |= np.uint32(1) << np.uint32(columns[n] & 31)


@compiled(parallel=True)
def _counts(bits: Words) -> NDArray[np.int64]:
    """How many bits are set in each row."""
    counts = np.zeros(bits.shape[0], np.int64)
    for n in numba.prange(bits.shape[0]):
        total = 0
        for w in range(bits.shape[1]):
            word = bits[n, w]
            while word:
                word &= word - np.uint32(1)
                total += 1
        counts[n] = total
    return counts


def _coarsened(bits: Words, shift: int, reach: int, frames: int, wrap: bool, ranks: Ranks | None = None) -> Words:
    """A bit per block of `2**shift` a side, in parts that the `ranks` on a node share."""
    distances, count, rows, words = bits.shape
    high, wide = -(-rows // (1 << shift)), -(-words * WORD // (1 << shift))
    parts = [(d, first) for d in range(distances) for first in range(0, count, _PART)]

    def fill(made: Words, which: int, of: int) -> None:
        for d, first in parts[which::of]:
            _widen(bits[d], made[d], shift, reach, frames, wrap, first, min(count, first + _PART))

    return (ranks or Ranks()).shared((distances, count, high, -(-wide // WORD)), np.uint32, fill)


@compiled(parallel=True)
def _widen(bits: Words, made: Words, shift: int, reach: int, frames: int, wrap: bool, first: int, last: int) -> None:
    """Frames `first` to `last` of one distance: coarse ones, each then with all that are near."""
    count, rows, words = bits.shape
    high, wide = made.shape[1], (words * 32 + (1 << shift) - 1) >> shift
    single = np.zeros((last - first + 2 * frames, high, made.shape[2]), np.uint32)
    for n in numba.prange(single.shape[0]):
        f = first - frames + n
        if not wrap and (f < 0 or f >= count):
            continue
        f %= count
        for r in range(rows):
            for w in range(words):
                word = bits[f, r, w]
                while word:
                    low = word & (~word + np.uint32(1))
                    column = w * 32
                    value = low
                    while value > np.uint32(1):
                        value >>= np.uint32(1)
                        column += 1
                    word ^= low
                    c = column >> shift
                    for a in range(max(0, (r >> shift) - reach), min(high, (r >> shift) + reach + 1)):
                        for b in range(max(0, c - reach), min(wide, c + reach + 1)):
                            single[n, a, b >> 5] |= np.uint32(1) << np.uint32(b & 31)
    for n in numba.prange(last - first):
        for near in range(2 * frames + 1):
            for a in range(high):
                for b in range(made.shape[2]):
                    made[first + n, a, b] |= single[n + near, a, b]
