"""Stripes of a sinogram, which are rings of a slice: what a detector column adds by itself.

All functions take sinograms of line integrals, (rows, angles, columns) float32 and finite, and return new ones of the
same shape. What they do to a sinogram without stripes is said with each; none is free of harm, so the gentlest that
removes the rings is the right one:

================================  ==================================  =======================================
what the stripes are              which                               what it may harm
================================  ==================================  =======================================
constant over the scan, narrow    `remove_constant_stripes`           rings of the object about the axis
constant or slowly changing       `remove_slow_stripes`               the same, and what turns slowly
over a part of the angles         `remove_partial_stripes`            edges, by the width of a few columns
wide and strong                   `remove_large_stripes`              nothing but the columns it picks
dead, stuck or flickering         `remove_dead_stripes`               nothing but the columns it picks
all of the last three             `remove_all_stripes`                their sum
================================  ==================================  =======================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import scipy.fft
import scipy.ndimage
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled, threads
from kernels.errors import KernelError
from kernels.tomography.corrections.ranks import median_of_columns, put_back, sort_columns
from kernels.tomography.corrections.wavelets import course, smooth_part, subtract

Floats = NDArray[np.float32]
Columns = NDArray[np.bool_]

_BLOCK = 128
_BOX = 10  # angles over which a column's own course is smoothed
_SHARE_LEFT_OUT = 0.05  # of the lowest and of the highest ranks
_AROUND = 15  # columns over which the object's own slope is taken
_LEAST_JUMP = 0.01  # of the range of the columns' means; less than that is not a large stripe
_LEAST_ROUGHNESS = 1e-6  # of the sinogram's height
_MUCH = 2.0  # times smoother or rougher


def remove_constant_stripes(sinograms: Floats, *, width: float | None = None, blocks: int = 1) -> Floats:
    """Take from each column the offset that makes the mean over the angles smooth.

    The offsets q of the mean p over the angles minimise |D (p - q)|^2 + alpha |q|^2, D being the difference of
    neighbouring columns: regularised least squares, of which the solution is closed (S. Titarenko, Withers, Yagola,
    Appl. Math. Lett. 23 (2010) 1489; V. Titarenko, J. Synchrotron Rad. 23 (2016) 1447), and diagonal in cosines.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Line integrals.
    width
        Structures that are broader than so many columns stay: alpha = (2 pi / width)^2. By default a 25th of the
        columns.
    blocks
        The angles are cut into that many parts with offsets of their own, for gains that change over the scan.

    Harm: what is circular about the axis, or stands across many angles, becomes smoother. The fewer angles a block has,
    the more of the object looks constant.

    Raises
    ------
    KernelError
        For a width below 2, or more blocks than angles.
    """
    _, angles, columns = sinograms.shape
    width = max(2.0, columns / 25) if width is None else width
    _check("width", width >= 2, width, "2 columns at least")
    alpha = (2 * np.pi / width) ** 2
    _check("blocks", 1 <= blocks <= angles, blocks, f"from 1 to the number of angles, {angles}")
    stiffness = 2 - 2 * np.cos(np.pi * np.arange(columns) / columns)
    response = (stiffness / (stiffness + alpha)).astype(np.float32)
    edges = np.linspace(0, angles, blocks + 1).astype(int)
    result = np.empty_like(sinograms)
    for first, beyond in pairwise(edges):
        means = sinograms[:, first:beyond].mean(1)
        offsets = scipy.fft.idct(scipy.fft.dct(means, axis=1, workers=threads()) * response, axis=1, workers=threads())
        np.subtract(sinograms[:, first:beyond], offsets[:, None, :], out=result[:, first:beyond])
    return result


def remove_slow_stripes(sinograms: Floats, *, levels: int | None = None, order: int = 5, sigma: float = 2.0) -> Floats:
    """Take from each column what changes slowly over the angles and fast over the columns.

    The Fourier-wavelet filter (Munch, Trtik, Marone, Stampanoni, Opt. Express 17 (2009) 8567): wavelet details across
    the columns, of which Fourier components k along the angles are damped by 1 - exp(-k^2 / (2 sigma^2)). As only the
    few lowest components are damped at all, they alone are computed, and only their course over the columns is taken
    apart into wavelets; that the two-dimensional transform would halve the angles as well changes nothing in them.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Line integrals.
    levels
        Stripes up to about 2**(levels - 1) columns wide go. By default such as are a 64th of the columns wide.
    order
        Vanishing moments of the Daubechies wavelet.
    sigma
        Damping, in periods per scan.

    Harm: as `remove_constant_stripes`; grows with levels and sigma.

    Raises
    ------
    KernelError
        For parameters below their least values, or more levels than the columns allow.
    """
    rows, angles, columns = sinograms.shape
    levels = max(1, round(math.log2(columns / 64))) if levels is None else levels
    _check("levels", levels >= 1 and 2**levels <= columns, levels, f"from 1 to {int(math.log2(columns))}")
    _check("order", 1 <= order <= 12, order, "from 1 to 12")
    _check("sigma", sigma > 0, sigma, "above 0")
    highest = min((angles - 1) // 2, math.ceil(4.3 * sigma))  # exp(-4.3^2 / 2) = 1e-4
    waves = np.arange(highest + 1)
    turn = 2 * np.pi * np.arange(angles) / angles
    basis = np.concatenate((np.cos(waves[:, None] * turn), np.sin(waves[1:, None] * turn)))
    damping = np.exp(-0.5 * (np.concatenate((waves, waves[1:])) / sigma) ** 2) * 2 / angles
    damping[0] /= 2
    waves_of_angle = np.ascontiguousarray(basis.T, np.float32)
    result = np.empty_like(sinograms)
    for row in range(rows):
        slow = course(sinograms[row], waves_of_angle)
        details = (slow - smooth_part(slow, levels, order)) * damping[:, None].astype(np.float32)
        subtract(sinograms[row], waves_of_angle, details, result[row])
    return result


def remove_partial_stripes(sinograms: Floats, *, width: int | None = None) -> Floats:
    """Smooth the sorted columns across the columns, and put the values back at their angles.

    Vo, Atwood, Drakopoulos, Opt. Express 26 (2018) 28396, the algorithm of sorting, with a median.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Line integrals.
    width
        Columns of the median, an odd number; stripes narrower than half of it go. By default a 100th of the columns,
        5 at least.

    Harm: values move between angles of like rank; fine texture loses contrast, the more the wider.

    Raises
    ------
    KernelError
        For an even width, or one below 3.
    """
    width = _small(sinograms) if width is None else width
    _check_width(width)
    result = np.empty_like(sinograms)
    work = _Work(sinograms.shape)
    for row in range(len(sinograms)):
        _smooth_sorted(sinograms[row], width, work)
        put_back(work.smooth, work.order, work.every, result[row])
    return result


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
    _check_width(width)
    _check("snr", snr > 0, snr, "above 0")
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
    _check_width(width)
    _check("snr", snr > 0, snr, "above 0")
    result = sinograms.copy()
    for row in range(len(sinograms)):
        _dead(result[row], snr, width)
    return result


def remove_all_stripes(
    sinograms: Floats, *, snr: float = 3.0, large_width: int | None = None, small_width: int | None = None
) -> Floats:
    """Dead and flickering stripes, then large ones, then what is left by sorting (Vo et al., 2018).

    Parameters as in `remove_dead_stripes`, `remove_large_stripes` (large_width) and `remove_partial_stripes`
    (small_width); so are harm and errors.
    """
    large_width = _wide(sinograms) if large_width is None else large_width
    small_width = _small(sinograms) if small_width is None else small_width
    _check_width(large_width)
    _check_width(small_width)
    _check("snr", snr > 0, snr, "above 0")
    result = sinograms.copy()
    work = _Work(sinograms.shape)
    for row in range(len(sinograms)):
        _dead(result[row], snr, large_width)
        _large(result[row], snr, large_width, work)
        _smooth_sorted(result[row], small_width, work)
        put_back(work.smooth, work.order, work.every, result[row])
    return result


class _Work:
    """Arrays that the rows use one after the other; fresh ones would cost as much as the sort, in page faults."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        _, angles, columns = shape
        self.ordered = np.empty((columns, angles), np.float32)
        self.smooth = np.empty((columns, angles), np.float32)
        self.order = np.empty((columns, angles), np.int32)
        self.every = np.ones(columns, bool)


def _smooth_sorted(sinogram: Floats, width: int, work: _Work) -> None:
    sort_columns(sinogram, work.ordered, work.order)
    median_of_columns(work.ordered, width, work.smooth)


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


def _small(sinograms: Floats) -> int:
    return max(5, int(sinograms.shape[2]) // 100 | 1)


def _wide(sinograms: Floats) -> int:
    return max(31, int(sinograms.shape[2]) // 33 | 1)


def _check(name: str, holds: bool, value: float, allowed: str) -> None:
    if not holds:
        raise KernelError(f"Stripe removal: {name} is {value:g}; it must be {allowed}.")


def _check_width(width: int) -> None:
    _check("the width of the median", width >= 3 and width % 2 == 1, width, "an odd number from 3 on")


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


STRIPES: Mapping[str, Callable[..., Floats]] = MappingProxyType(
    {
        "constant": remove_constant_stripes,
        "slow": remove_slow_stripes,
        "partial": remove_partial_stripes,
        "large": remove_large_stripes,
        "dead": remove_dead_stripes,
        "all": remove_all_stripes,
    }
)
