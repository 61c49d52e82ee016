"""What all ways of correlating share: where a tile lies, and how exact sums become correlations.

A way gives whole numbers: of a group of pixels, the sums over them of counts in one frame times counts in another. They
are weighted here, group after group in the same order and with the same operations, so that every way, any number of
threads and tiles of any size give the same bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.xpcs.twotime.series import Series

Numbers = NDArray[Any]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Span(NamedTuple):
    """Frames that follow each other: rows or columns of a tile."""

    first: int
    last: int  # the first that is not among them

    def __len__(self) -> int:
        return self.last - self.first


class Weights(NamedTuple):
    """What a bin's sums are multiplied with.

    Attributes
    ----------
    groups : ndarray, shape (groups, frames), float64
        One over the mean count of the group's static bin in each frame; 1 where that has counted nothing.
    rows, columns : ndarray, shape (frames,), float64
        One over the sum of the counts so weighted over the bin (0 is taken as 1); for rows times its pixels.
    """

    groups: Floats
    rows: Floats
    columns: Floats


def weights(totals: Integers, sizes: Integers, pixels: Integers) -> Weights:
    """Those of a bin whose groups have so many `pixels` of static bins of such `sizes`, which have counted `totals`."""
    seen = totals > 0
    # Counts over their own mean have a mean of 1: their sum is the number of pixels of static bins that saw anything.
    columns = 1 / np.maximum(pixels @ seen, 1)
    return Weights(np.where(seen, sizes[:, None] / np.maximum(totals, 1), 1.0), pixels.sum() * columns, columns)


def weights_of(series: Series, which: int) -> Weights:
    """Those of the `which`th bin of the series."""
    begin, end = series.groups[which], series.groups[which + 1]
    return weights(series.totals[begin:end], series.sizes[begin:end], np.diff(series.pixels[begin : end + 1]))


@compiled()
def fold(index: int, count: int) -> int:
    """A turn of things 0, 1, … in which neighbours are the cheapest and the dearest left: threads take equal shares."""
    return index // 2 if index % 2 == 0 else count - 1 - index // 2


@compiled()
def weigh(sums: Numbers, row_weight: float, weights: Floats, totals: Floats) -> None:
    """Add a group's sums of one row to the row's totals, and begin the next sums with 0."""
    for c in range(totals.size):
        totals[c] += sums[c] * (row_weight * weights[c])
        sums[c] = 0


@compiled()
def settle(totals: Floats, below: int, row_scale: float, scale: Floats, row: NDArray[np.float32]) -> None:
    """The correlations of a row from its totals; the first `below` columns are below the diagonal and 0."""
    for c in range(row.size):
        row[c] = totals[c] * (row_scale * scale[c]) if c >= below else 0.0
