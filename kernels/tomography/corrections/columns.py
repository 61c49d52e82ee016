"""Columns of a sinogram that stand out as a whole, and what is put in their place."""

from __future__ import annotations

import math

import numpy as np
import scipy.ndimage
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.tomography.corrections.limits import check, check_width
from kernels.tomography.corrections.ranks import median_of_columns, put_back, sort_columns

Floats = NDArray[np.float32]
Columns = NDArray[np.bool_]

_BLOCK = 128
_BOX = 10  # angles over which a column's own course is smoothed
_SHARE_LEFT_OUT = 0.05  # of the lowest and of the highest ranks
_AROUND = 15  # columns over which the object's own slope is taken
_LEAST_JUMP = 0.01  # of the range of the columns' means; less than that is not a large stripe
_LEAST_ROUGHNESS = 1e-6  # of the sinogram's height
_MUCH = 2.0  # times smoother or rougher


def remove_large_stripes(sinograms: Floats, *, snr: float = 3.0, width: int | None = None) -> Floats:
    """Find columns whose values all lie too high or too low, and give them the ranks of the columns around.

    Vo et al., 2018, the algorithm for large stripes; but what a column stands out by is a difference, not a ratio,
    since columns that see only air have the mean 0.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Line integrals.
    snr
        What a column has to stand out by, in units of the spread between columns.
    width
        Columns of the median, an odd number, above twice the width of the widest stripe. By default a 33rd of the
        columns, 31 at least.

    Harm: none outside of the columns that are found; sharp edges parallel to the axis may be among them.

    Raises
    ------
    KernelError
        For an even width, one below 3, or an `snr` that is not above 0.
    """
    width = _wide(sinograms) if width is None else width
    check_width(width)
    check("snr", snr > 0, snr, "above 0")
    result = sinograms.copy()
    work = _Work(sinograms.shape)
    for row in range(len(sinograms)):
        _large(result[row], snr, width, work)
    return result


def remove_dead_stripes(sinograms: Floats, *, snr: float = 3.0, width: int | None = None) -> Floats:
    """Find columns that are much smoother or rougher over the angles than those around, and interpolate across them.

    Vo et al., 2018, the algorithm for unresponsive and fluctuating stripes. For data with noise: without any, there
    is nothing to tell a dead column by.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Line integrals.
    snr
        What a column has to stand out by, in units of the spread between columns.
    width
        Columns that are around, an odd number, above twice the width of the widest stripe. By default a 33rd of the
        columns, 31 at least.

    Harm: detail that is narrower than the columns found is lost there; none elsewhere.

    Raises
    ------
    KernelError
        For an even width, one below 3, or an `snr` that is not above 0.
    """
    width = _wide(sinograms) if width is None else width
    check_width(width)
    check("snr", snr > 0, snr, "above 0")
    result = sinograms.copy()
    for row in range(len(sinograms)):
        _dead(result[row], snr, width)
    return result


class _Work:
    """Arrays that the rows use one after the other; fresh ones would cost as much as the sort, in page faults."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        _, angles, columns = shape
        self.ordered = np.empty((columns, angles), np.float32)
        self.smooth = np.empty((columns, angles), np.float32)
        self.order = np.empty((columns, angles), np.int32)


def _large(sinogram: Floats, snr: float, width: int, work: _Work) -> None:
    angles = sinogram.shape[0]
    sort_columns(sinogram, work.ordered, work.order)
    left_out = int(_SHARE_LEFT_OUT * angles)
    level = _mean_of_ranks(work.ordered, left_out, angles - left_out)
    found = _between_jumps(level, snr, width // 2)
    if found.any():
        median_of_columns(work.ordered, width, work.smooth)
        put_back(work.smooth, work.order, _widened(found), sinogram)


def _between_jumps(level: NDArray[np.float64], snr: float, longest: int) -> Columns:
    """Columns between a jump of `level` and the next one back, at most `longest` columns on.

    The level over the columns bends with the object, by more than many a stripe; but only a stripe jumps.
    """
    slope = np.zeros_like(level)
    slope[1:-1] = level[2:] - level[:-2]
    slope -= scipy.ndimage.median_filter(slope, _AROUND, mode="nearest")
    jumps = np.where(_standing_out(slope, snr) & (np.abs(slope) > _LEAST_JUMP * np.ptp(level)), np.sign(slope), 0)
    found = np.zeros(len(level), bool)
    at = np.flatnonzero(jumps)
    for i, first in enumerate(at):
        for last in at[i + 1 :]:
            if last - first > longest + 1:
                break
            if jumps[last] == -jumps[first]:
                found[first : last + 1] = True
                break
    return found


def _dead(sinogram: Floats, snr: float, width: int) -> None:
    roughness = _roughness(sinogram)
    around = scipy.ndimage.median_filter(roughness, width, mode="nearest")
    least = _LEAST_ROUGHNESS * sinogram.shape[0] * max(float(np.abs(sinogram[0]).max()), 1e-30)
    # logarithms, since a dead column is at 0 times the others' roughness and a flickering one at any number
    ratio = np.log((roughness + least) / (around + least))
    found = _standing_out(ratio, snr) & (np.abs(ratio) > math.log(_MUCH))
    if not found.any():
        return
    good = np.flatnonzero(~_widened(found))
    bad = np.flatnonzero(_widened(found))
    if len(good) < 2:
        return
    after = np.clip(np.searchsorted(good, bad), 0, len(good) - 1)
    right, left = good[after], good[np.maximum(after - 1, 0)]
    left = np.where(bad > right, right, left)
    left = np.where(bad < left, right, left)
    share = np.where(right > left, (bad - left) / np.maximum(right - left, 1), 0).astype(np.float32)
    sinogram[:, bad] = sinogram[:, left] + (sinogram[:, right] - sinogram[:, left]) * share


def _standing_out(values: NDArray[np.float64], snr: float) -> Columns:
    """Which values are no part of the bulk: beyond the line through the middle half of them, sorted, by `snr` / 2 times
    the range of that line."""
    count = len(values)
    ordered = np.sort(values)
    ranks = np.arange(count)
    middle = slice(count // 4, count - count // 4)
    slope, start = np.polyfit(ranks[middle], ordered[middle], 1)
    spread = slope * (count - 1)
    low, high = start - 0.5 * snr * spread, start + spread + 0.5 * snr * spread
    return np.asarray((values < low) | (values > high))


def _widened(found: Columns) -> Columns:
    wide = found.copy()
    wide[1:] |= found[:-1]
    wide[:-1] |= found[1:]
    return wide


def _wide(sinograms: Floats) -> int:
    return max(31, int(sinograms.shape[2]) // 33 | 1)


@compiled(parallel=True)
def _mean_of_ranks(ordered: Floats, first: int, beyond: int) -> NDArray[np.float64]:
    """Mean of each column of `ordered` (columns, angles) over ranks `first` to `beyond`."""
    columns = ordered.shape[0]
    result = np.empty(columns, np.float64)
    for c in prange(columns):
        total = 0.0
        for k in range(first, beyond):
            total += ordered[c, k]
        result[c] = total / (beyond - first)
    return result


@compiled(parallel=True)
def _roughness(sinogram: Floats) -> NDArray[np.float64]:
    """Sum over the angles of what each column (angles, columns) departs from its own running mean of `_BOX` angles."""
    angles, columns = sinogram.shape
    half = min(_BOX // 2, (angles - 1) // 2)
    box = 2 * half + 1
    result = np.empty(columns, np.float64)
    for block in prange((columns + _BLOCK - 1) // _BLOCK):
        first = block * _BLOCK
        beyond = min(first + _BLOCK, columns)
        running = np.zeros(beyond - first, np.float64)
        total = np.zeros(beyond - first, np.float64)
        for k in range(box):
            running += sinogram[k, first:beyond]
        for k in range(half, angles - half):
            for c in range(beyond - first):
                total[c] += abs(sinogram[k, first + c] - running[c] / box)
            if k + half + 1 < angles:
                for c in range(beyond - first):
                    running[c] += sinogram[k + half + 1, first + c] - sinogram[k - half, first + c]
        result[first:beyond] = total
    return result
