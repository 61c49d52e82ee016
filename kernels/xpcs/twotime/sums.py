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

Numbers = NDArray[Any]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Span(NamedTuple):
    """Frames that follow each other: rows or columns of a tile."""

    first: int
    last: int  # the first that is not among them

    def __len__(self) -> int:
        return self.last - self.first


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
