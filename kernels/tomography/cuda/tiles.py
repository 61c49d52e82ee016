"""Which samples reach which tile of the grid: the lists by which blocks of the device gather."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled

Doubles = NDArray[np.float64]
Integers = NDArray[np.int32]
Longs = NDArray[np.int64]

TILE = 16  # small, so that the fullest tile, in the middle, does not keep all others waiting


class Samples(NamedTuple):
    """Those of each tile, row by row: `numbers[starts[tile]:starts[tile + 1]]`, each k (padded + 1) + n for sample n of
    line k, in this order; `order` has the tiles, fullest first."""

    starts: Longs
    numbers: Integers
    order: Integers


def samples_by_tile(across: Doubles, down: Doubles, padded: int, length: int, taps: int) -> Samples:
    """Those of which a tap lies in the tile; most lie in one, those near its edges in more.

    Parameters
    ----------
    across, down : ndarray, shape (lines,)
        From a sample of a line to the next, grid cells.
    padded, length, taps
        As `Tables` has them; length at least two tiles, so that no window meets a tile from two sides.
    """
    tiles = -(-length // TILE)
    bands = 64  # of lines, counted by themselves so that threads can fill the lists of all tiles side by side
    counts = np.zeros((bands, tiles * tiles), np.int64)
    nowhere = np.zeros(0, np.int32)
    _by_tile(across, down, padded, length, taps, counts, nowhere)
    totals = counts.sum(0)
    starts = np.concatenate(([0], np.cumsum(totals)))
    begins = starts[:-1] + np.cumsum(counts, axis=0) - counts
    numbers = np.empty(int(starts[-1]), np.int32)
    _by_tile(across, down, padded, length, taps, begins, numbers)
    order = np.argsort(-totals, kind="stable").astype(np.int32)
    return Samples(starts, numbers, order)


@compiled(parallel=True)
def _by_tile(across: Doubles, down: Doubles, padded: int, length: int, taps: int, at: Longs, numbers: Integers) -> None:
    """Count the samples of each band and tile in `at`; or, where there are `numbers`, put them from there on."""
    bands, tiles = at.shape[0], (length + TILE - 1) // TILE
    for band in prange(bands):
        rows, columns = np.empty(2, np.int64), np.empty(2, np.int64)
        for k in range(len(across) * band // bands, len(across) * (band + 1) // bands):
            for n in range(padded + 1):
                _meets(math.ceil((n - padded // 2) * across[k] - 0.5 * taps), length, taps, columns)
                _meets(math.ceil((n - padded // 2) * down[k] - 0.5 * taps), length, taps, rows)
                for row in rows:
                    for column in columns:
                        if row >= 0 and column >= 0:
                            tile = row * tiles + column
                            if len(numbers):
                                numbers[at[band, tile]] = k * (padded + 1) + n
                            at[band, tile] += 1


@compiled()
def _meets(first: float, length: int, taps: int, found: Longs) -> None:
    """The one or two tiles that the taps from cell `first` on lie in; -1 where there is no second."""
    begin = (int(first) + length // 2) % length
    end = (begin + taps - 1) % length
    found[0] = begin // TILE
    found[1] = end // TILE if end // TILE != begin // TILE else -1
