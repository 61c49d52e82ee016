"""The way of few counts: every pair of events of a pixel adds the product of their counts to its place.

Events of a strip of rows are taken frame by frame, and of each the later events of its pixel. So one row of sums is
filled at a time, which lies in the first cache, and a strip of rows reads the events of a group from the second.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.xpcs.twotime.prefetch import prefetch
from kernels.xpcs.twotime.series import Series
from kernels.xpcs.twotime.sums import Floats, Integers, Numbers, Span, fold, settle, weigh, weights_of

_STRIP = 16  # rows, whose totals fit into the second cache
_AHEAD = 16  # events; of so many later ones the pairs are fetched already
_LINE = 16  # words


class Pairs:
    """Correlations of one dynamic bin by pairs of events."""

    def __init__(self, series: Series, which: int) -> None:
        self.series = series
        begin, end = series.groups[which], series.groups[which + 1]
        self._pixels = series.pixels[begin : end + 1]
        self._weights = weights_of(series, which)
        # Sums of narrow words fit into 32 bits: see GROUP.
        self._kind = np.empty(0, np.int32 if series.words.dtype == np.uint32 else np.int64)

    def take(self, rows: Span) -> None:
        """Prepare the rows that the next tiles are of."""
        self._rows, self._of_rows = rows, self._ranges(rows)
        pixels = self._pixels - self._pixels[0]
        self._at, self._which, self._pixel = _by_frame(
            self.series.words, self.series.bits, pixels, *self._of_rows, rows.first, len(rows)
        )

    def tile(self, columns: Span) -> NDArray[np.float32]:
        """Correlations of the rows with `columns`, which begin with the rows or after them."""
        begins, ends = self._of_rows if columns == self._rows else self._ranges(columns)
        tile = np.empty((len(self._rows), len(columns)), np.float32)
        _tile(
            self.series.words, self.series.bits,
            self._at, self._which, *_partners(self._which, self._pixel, begins, ends),
            self._rows.first, columns.first, *self._weights, self._kind, tile,
        )  # fmt: skip
        return tile

    def _ranges(self, span: Span) -> tuple[Integers, Integers]:
        starts = self.series.starts[self._pixels[0] : self._pixels[-1] + 1]
        return _ranges(starts, self.series.words, self.series.bits, span.first, span.last)


@compiled(parallel=True)
def _ranges(starts: Integers, words: Numbers, bits: int, first: int, last: int) -> tuple[Integers, Integers]:
    """Where the words of each pixel begin and end that are of frames `first` to `last` - 1."""
    pixels = starts.size - 1
    begins, ends = np.empty(pixels, np.int64), np.empty(pixels, np.int64)
    for p in numba.prange(pixels):
        begins[p] = _frame_from(words, bits, starts[p], starts[p + 1], first)
        ends[p] = _frame_from(words, bits, begins[p], starts[p + 1], last)
    return begins, ends


@compiled()
def _frame_from(words: Numbers, bits: int, low: int, high: int, frame: int) -> int:
    """The first of a pixel's words from `low` on that is of `frame` or a later one."""
    while low < high:
        middle = (low + high) // 2
        if np.int64(words[middle]) >> bits < frame:
            low = middle + 1
        else:
            high = middle
    return low


@compiled(parallel=True)
def _by_frame(
    words: Numbers, bits: int, pixels: Integers, begins: Integers, ends: Integers, first: int, rows: int
) -> tuple[Integers, Integers, NDArray[np.uint32]]:
    """Words of the rows by group and frame: where those of each begin, which they are, and of which pixel."""
    groups = pixels.size - 1
    at = np.zeros((groups, rows + 1), np.int64)
    for g in numba.prange(groups):
        for p in range(pixels[g], pixels[g + 1]):
            for i in range(begins[p], ends[p]):
                at[g, (np.int64(words[i]) >> bits) - first + 1] += 1
    total = np.int64(0)
    for g in range(groups):
        for r in range(rows + 1):
            total += at[g, r]
            at[g, r] = total
    which, pixel = np.empty(total, np.int64), np.empty(total, np.uint32)
    for g in numba.prange(groups):
        place = at[g].copy()
        for p in range(pixels[g], pixels[g + 1]):
            for i in range(begins[p], ends[p]):
                row = (np.int64(words[i]) >> bits) - first
                which[place[row]], pixel[place[row]] = i, p
                place[row] += 1
    return at, which, pixel


@compiled(parallel=True)
def _partners(
    which: Integers, pixel: NDArray[np.uint32], begins: Integers, ends: Integers
) -> tuple[Integers, Integers]:
    """From where to where the words of the columns are that make pairs with each word of the rows, itself included."""
    first, last = np.empty_like(which), np.empty_like(which)
    for e in numba.prange(which.size):
        first[e], last[e] = max(which[e], begins[pixel[e]]), ends[pixel[e]]
    return first, last


@compiled(parallel=True)
def _tile(
    words: Numbers,
    bits: int,
    at: Integers,
    which: Integers,
    begins: Integers,
    ends: Integers,
    first_row: int,
    first_column: int,
    weights: Floats,
    row_scale: Floats,
    scale: Floats,
    kind: Numbers,
    tile: NDArray[np.float32],
) -> None:
    rows, columns = tile.shape
    strips = -(-rows // _STRIP)
    mask = (1 << bits) - 1
    for k in numba.prange(strips):
        begin = fold(k, strips) * _STRIP
        end = min(begin + _STRIP, rows)
        totals = np.zeros((end - begin, columns))
        sums = np.zeros(columns, kind.dtype)
        for g in range(weights.shape[0]):
            of_columns = weights[g, first_column : first_column + columns]
            for r in range(begin, end):
                left = max(0, first_row + r - first_column)
                if at[g, r] == at[g, r + 1]:
                    continue
                for e in range(at[g, r], at[g, r + 1]):
                    soon = begins[min(e + _AHEAD, begins.size - 1)]
                    prefetch(words, soon)
                    prefetch(words, soon + _LINE)
                    count = np.int64(words[which[e]]) & mask
                    for j in range(begins[e], ends[e]):
                        word = np.int64(words[j])
                        # Unsigned: a place is never counted from the end.
                        sums[np.uint64((word >> bits) - first_column)] += count * (word & mask)
                weigh(sums[left:], weights[g, first_row + r], of_columns[left:], totals[r - begin, left:])
        for r in range(begin, end):
            of_columns = scale[first_column : first_column + columns]
            settle(totals[r - begin], first_row + r - first_column, row_scale[first_row + r], of_columns, tile[r])
