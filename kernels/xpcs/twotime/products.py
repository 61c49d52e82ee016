"""The way of many counts: matrix products of whole numbers, by VNNI or, exact as well, by the floating-point BLAS."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.xpcs.twotime import vnni
from kernels.xpcs.twotime.series import Series
from kernels.xpcs.twotime.sums import Floats, Integers, Numbers, Span, fold, settle, weigh, weights_of

_CELL = vnni.FRAMES * vnni.PIXELS
_STRIP = 64  # rows; so often are columns used that come from the third cache or from memory


class VnniProducts:
    """Correlations of one dynamic bin by products of 8-bit counts, where `vnni.available()` and none is above 127."""

    def __init__(self, series: Series, which: int) -> None:
        self.series = series
        begin, end = series.groups[which], series.groups[which + 1]
        self._pixels = series.pixels[begin : end + 1]
        self._weights = weights_of(series, which)
        self._cells = -(-np.diff(self._pixels) // vnni.PIXELS)
        # Blocks of rows and columns reach beyond the last frame, where nothing was counted.
        self._padded = np.pad(self._weights.groups, ((0, 0), (0, vnni.COLUMNS)), constant_values=1.0)

    def take(self, rows: Span) -> None:
        """Prepare the rows that the next tiles are of."""
        self._rows, self._dense_rows = rows, self._dense(rows)

    def tile(self, columns: Span) -> NDArray[np.float32]:
        """Correlations of the rows with `columns`, which begin with the rows or after them."""
        dense = self._dense_rows if columns == self._rows else self._dense(columns)
        tile = np.empty((len(self._rows), len(columns)), np.float32)
        _vnni_tile(
            *self._dense_rows, *dense, self._cells, self._rows.first, columns.first,
            self._padded, self._weights.rows, self._weights.columns, tile,
        )  # fmt: skip
        return tile

    def _dense(self, span: Span) -> tuple[NDArray[np.uint8], Integers]:
        panels = -(-len(span) // vnni.COLUMNS) * (vnni.COLUMNS // vnni.FRAMES)
        begins = np.concatenate([[0], np.cumsum(self._cells * panels * _CELL)]).astype(np.int64)
        dense = np.zeros(begins[-1], np.uint8)
        series = self.series
        _fill_panels(
            series.words, series.bits, series.starts, self._pixels, self._cells, begins, span.first, span.last, dense
        )
        return dense, begins


class BlasProducts:
    """Correlations of one dynamic bin by float32 products where their sums stay whole numbers, else by float64."""

    def __init__(self, series: Series, which: int) -> None:
        self.series, self._weights = series, weights_of(series, which)
        self._begin, self._end = int(series.groups[which]), int(series.groups[which + 1])
        squares = _most_squares(
            series.words, series.bits, series.starts, series.pixels[self._begin : self._end + 1], series.frames
        )
        # No sum of products is larger than the largest of squares (Cauchy and Schwarz).
        self._kinds: list[Any] = [np.float32 if most < 2.0**24 else np.float64 for most in squares]

    def take(self, rows: Span) -> None:
        """Prepare the rows that the next tiles are of."""
        self._rows = rows

    def tile(self, columns: Span) -> NDArray[np.float32]:
        """Correlations of the rows with `columns`, which begin with the rows or after them."""
        rows = self._rows
        totals = np.zeros((len(rows), len(columns)))
        for g in range(self._begin, self._end):
            kind = self._kinds[g - self._begin]
            left = self._dense(g, rows, kind)
            right = left if rows == columns else self._dense(g, columns, kind)
            weights = self._weights.groups[g - self._begin]
            _weigh_all(left @ right.T, weights[rows.first : rows.last], weights[columns.first : columns.last], totals)
        tile = np.empty(totals.shape, np.float32)
        _settle_all(totals, rows.first, columns.first, self._weights.rows, self._weights.columns, tile)
        return tile

    def _dense(self, group: int, span: Span, kind: Any) -> Numbers:
        begin, end = self.series.pixels[[group, group + 1]]
        dense = np.zeros((len(span), end - begin), kind)
        starts = self.series.starts[begin : end + 1]
        _fill(self.series.words, self.series.bits, starts, span.first, span.last, dense)
        return dense


@compiled(parallel=True)
def _fill_panels(
    words: Numbers,
    bits: int,
    starts: Integers,
    pixels: Integers,
    cells: Integers,
    begins: Integers,
    first: int,
    last: int,
    dense: NDArray[np.uint8],
) -> None:
    bounds = np.zeros(cells.size + 1, np.int64)
    bounds[1:] = np.cumsum(cells)
    mask = (1 << bits) - 1
    for n in numba.prange(bounds[-1]):
        g = np.searchsorted(bounds, n, side="right") - 1
        cell = n - bounds[g]
        for lane in range(min(vnni.PIXELS, pixels[g + 1] - pixels[g] - cell * vnni.PIXELS)):
            p = pixels[g] + cell * vnni.PIXELS + lane
            at = begins[g] + cell * _CELL + lane
            for i in range(starts[p], starts[p + 1]):
                word = np.int64(words[i])
                frame = (word >> bits) - first
                if 0 <= frame < last - first:
                    panel, row = frame // vnni.FRAMES, frame % vnni.FRAMES
                    dense[at + panel * cells[g] * _CELL + row * vnni.PIXELS] = word & mask


@compiled(parallel=True)
def _vnni_tile(
    rows: NDArray[np.uint8],
    row_begins: Integers,
    columns: NDArray[np.uint8],
    column_begins: Integers,
    cells: Integers,
    first_row: int,
    first_column: int,
    weights: Floats,
    row_scale: Floats,
    scale: Floats,
    tile: NDArray[np.float32],
) -> None:
    height, width = tile.shape
    strips = -(-height // _STRIP)
    for k in numba.prange(strips):
        begin = fold(k, strips) * _STRIP
        end = min(begin + _STRIP, height)
        across = -(-width // vnni.COLUMNS) * vnni.COLUMNS
        totals = np.zeros((_STRIP, across))
        # The first columns that are not all below the diagonal.
        left = max(0, (first_row + begin - first_column) // vnni.COLUMNS * vnni.COLUMNS)
        for g in range(weights.shape[0]):
            panel = cells[g] * _CELL
            for c in range(left, width, vnni.COLUMNS):
                for r in range(begin, min(end, first_column + c + vnni.COLUMNS - first_row), vnni.ROWS):
                    of_rows = r // vnni.FRAMES * panel + r % vnni.FRAMES * vnni.PIXELS
                    vnni.multiply(
                        rows, row_begins[g] + of_rows, columns, column_begins[g] + c // vnni.FRAMES * panel, panel,
                        cells[g], weights, g * weights.shape[1] + first_row + r,
                        g * weights.shape[1] + first_column + c, totals, (r - begin) * across + c, across,
                    )  # fmt: skip
        for r in range(begin, end):
            of_columns = scale[first_column : first_column + width]
            of_row = totals[r - begin, :width]
            settle(of_row, first_row + r - first_column, row_scale[first_row + r], of_columns, tile[r])


@compiled(parallel=True)
def _fill(words: Numbers, bits: int, starts: Integers, first: int, last: int, dense: Numbers) -> None:
    mask = (1 << bits) - 1
    for p in numba.prange(starts.size - 1):
        for i in range(starts[p], starts[p + 1]):
            word = np.int64(words[i])
            frame = word >> bits
            if first <= frame < last:
                dense[frame - first, p] = word & mask


@compiled(parallel=True)
def _most_squares(words: Numbers, bits: int, starts: Integers, pixels: Integers, frames: int) -> Floats:
    """The largest of the frames' sums of squared counts, of each group."""
    most = np.zeros(pixels.size - 1)
    mask = (1 << bits) - 1
    for g in numba.prange(pixels.size - 1):
        squares = np.zeros(frames)
        for i in range(starts[pixels[g]], starts[pixels[g + 1]]):
            word = np.int64(words[i])
            squares[word >> bits] += float(word & mask) ** 2
        most[g] = squares.max()
    return most


@compiled(parallel=True)
def _weigh_all(sums: Numbers, row_weights: Floats, weights: Floats, totals: Floats) -> None:
    for r in numba.prange(len(totals)):
        weigh(sums[r], row_weights[r], weights, totals[r])


@compiled(parallel=True)
def _settle_all(
    totals: Floats, first_row: int, first_column: int, row_scale: Floats, scale: Floats, tile: NDArray[np.float32]
) -> None:
    of_columns = scale[first_column : first_column + totals.shape[1]]
    for r in numba.prange(len(totals)):
        settle(totals[r], first_row + r - first_column, row_scale[first_row + r], of_columns, tile[r])
