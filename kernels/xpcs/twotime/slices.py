"""One-time correlations out of a two-time one: means along its diagonals, over all frames or over slices of age."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import KernelError
from kernels.xpcs.twotime.sums import Floats, Integers

Age = Literal["both", "start", "middle"]
_KINDS: dict[str, int] = {"both": 0, "start": 1, "middle": 2}
_STRIP = 64  # rows whose sums are made apart; the same for any number of threads


class Slice(NamedTuple):
    """Pairs of frames by their age: those whose age is one of the frames `first` to `last` - 1.

    `age` says which age a pair has: that of `both` frames, each within the slice (what boost-corr calls a segment);
    that of its earlier frame, from which its delay runs (`start`); or the `middle` of both. For a sample that changes
    these differ: Bikondoa, J. Appl. Cryst. 50 (2017) 357.
    """

    first: int
    last: int
    age: Age = "both"


def segments(frames: int, count: int = 5) -> list[Slice]:
    """`count` slices of equal length from the beginning, as boost-corr has them; a rest at the end is in none."""
    if not 1 <= count <= frames:
        raise KernelError(f"{frames} frames cannot be cut into {count} segments.")
    length = frames // count
    return [Slice(n * length, (n + 1) * length) for n in range(count)]


class Diagonals:
    """Sums along the diagonals of one two-time correlation, in each of several slices, out of its tiles.

    Those of a row of tiles are summed up by themselves: `add` its tiles from the diagonal to the right. Where all rows
    come together, `take` them from above. So it matters for no bit who has worked out which row.
    """

    def __init__(self, frames: int, slices: Sequence[Slice]) -> None:
        for part in slices:
            if part.age not in _KINDS:
                raise KernelError(f"A slice by the age of {part.age!r} is not known: both, start or middle.")
            if not 0 <= part.first < part.last <= frames:
                raise KernelError(
                    f"There are no frames {part.first} to {part.last - 1} among 0 to {frames - 1} for a slice of age."
                )
        self._frames = frames
        self._slices = np.array([(s.first, s.last, _KINDS[s.age]) for s in slices], np.int64).reshape(-1, 3)
        self._row, self._sums = np.zeros((2, len(slices), frames))

    def add(self, row: int, column: int, tile: NDArray[np.float32]) -> None:
        """Add a tile to the sums of its row."""
        _add(tile, row, column, self._slices, self._row)

    def row(self) -> Floats:
        """The sums of the row whose tiles were added last, shape (slices, frames); the next tile begins another."""
        made, self._row = self._row, np.zeros_like(self._row)
        return made

    def take(self, row: Floats) -> None:
        """Add the sums of the next row."""
        self._sums += row

    @property
    def means(self) -> Floats:
        """By delay, shape (frames, slices); NaN where a slice has no pair."""
        counts = np.zeros((len(self._slices), self._frames), np.int64)
        _pairs(self._slices, self._frames, counts)
        means: Floats = np.divide(self._sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
        return means.T


@compiled()
def _columns(part: Integers, row: int, frames: int) -> tuple[int, int]:
    """Which columns of a row are in the slice: the first, and the first after them."""
    first, last, kind = part[0], part[1], part[2]
    if kind == 2:
        return max(row, 2 * first - row), min(frames, 2 * last - row)
    if first <= row < last:
        return row, last if kind == 0 else frames
    return 0, 0


@compiled(parallel=True)
def _add(tile: NDArray[np.float32], row: int, column: int, slices: Integers, sums: Floats) -> None:
    height, width = tile.shape
    strips, frames = -(-height // _STRIP), sums.shape[1]
    apart = column - row
    for s in range(len(slices)):
        parts = np.zeros((strips, _STRIP + width))  # by delay, from that of the strip's last row and first column
        for k in numba.prange(strips):
            last = min((k + 1) * _STRIP, height) - 1
            for r in range(k * _STRIP, last + 1):
                begin, end = _columns(slices[s], row + r, frames)
                begin, end = max(begin - column, 0), min(end - column, width)
                for c in range(begin, end):
                    parts[k, last - r + c] += tile[r, c]
        for k in range(strips):
            least = apart - (min((k + 1) * _STRIP, height) - 1)
            for n in range(max(0, -least), min(_STRIP + width, frames - least)):
                sums[s, least + n] += parts[k, n]


@compiled()
def _pairs(slices: Integers, frames: int, counts: Integers) -> None:
    """How many pairs of each delay are in each slice."""
    for s in range(len(slices)):
        for row in range(frames):
            begin, end = _columns(slices[s], row, frames)
            if begin < end:  # one of each delay from the first to the last: marks where that begins and ends
                counts[s, begin - row] += 1
                if end - row < frames:
                    counts[s, end - row] -= 1
        counts[s] = np.cumsum(counts[s])
