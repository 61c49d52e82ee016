"""Pixels that count when they should not, or never: found by what speckle cannot be.

The counts of a pixel over all frames, with mean m, are spread by the speckle as by photon statistics: they follow the
negative binomial distribution with n modes, n = m² / (variance - m) (J. W. Goodman, Statistical Optics, 2nd ed. 2015,
ch. 9). Within a static bin the scattering is alike, so mean and variance are measured there, over all but the
pixels that are found. A pixel is hot when as many counts as it has, or dead when none at all, come about with a
probability below `RARE` in such a bin. Static speckle, slow against the whole series, so remains.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError
from kernels.xpcs.events import Events, Frames
from kernels.xpcs.partition import Partition

RARE = 1e-9
_LEAST_PIXELS = 16  # of a bin, for its variance to be known
_TRUSTED = 0.05, 0.8  # the part of a bin's pixels, by their counts, with which the search begins
_UNSEEN = 3.0  # counts that a bin could well have where none were seen
_MOST_PASSES = 20


class BadPixels(NamedTuple):
    """Numbers of dead and of hot pixels, ascending."""

    dead: NDArray[np.int64]
    hot: NDArray[np.int64]

    @property
    def all(self) -> NDArray[np.int64]:
        return np.sort(np.concatenate([self.dead, self.hot]))


def find_bad(frames: Frames, partition: Partition) -> BadPixels:
    """Dead and hot pixels among those in a bin; one pass over all frames.

    Raises
    ------
    KernelError
        Exit 65 when the partition is of another shape.
    """
    if partition.static.shape != (frames.rows, frames.columns):
        raise KernelError(
            f"The bins are of {partition.static.shape} pixels, the frames of {(frames.rows, frames.columns)}.",
            Exit.BAD_INPUT,
        )
    return judged(by_pixel(frames.blocks(), partition.static.size), partition)


def by_pixel(blocks: Iterable[Events], pixels: int) -> NDArray[np.int64]:
    """What each of so many pixels has counted in all."""
    sums = np.zeros(pixels, np.int64)
    for events in blocks:
        _add_up(events.pixels, events.counts, sums)
    return sums


def judged(sums: NDArray[np.int64], partition: Partition) -> BadPixels:
    """Bad pixels by what each has counted in all, shape (pixels,)."""
    dead, hot = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for first, beyond in zip(partition.bounds[:-1], partition.bounds[1:], strict=True):
        pixels = partition.pixels[first:beyond].astype(np.int64)
        if len(pixels) < _LEAST_PIXELS:
            continue
        counts = sums[pixels]
        least, most = _usual(counts)
        dead.append(pixels[counts < least])
        hot.append(pixels[counts > most])
    return BadPixels(np.sort(np.concatenate(dead)), np.sort(np.concatenate(hot)))


def _usual(counts: NDArray[np.int64]) -> tuple[int, int]:
    """Between which counts the good pixels of a bin are: at least 0 or 1, and at most."""
    ranked = np.sort(counts)
    low, high = (int(part * len(ranked)) for part in _TRUSTED)
    good = ranked[low:high]
    for _ in range(_MOST_PASSES):
        mean, variance = max(float(good.mean()), _UNSEEN / len(good)), float(good.var(ddof=1))
        modes = min(mean**2 / (variance - mean), 1e9) if variance > mean else 1e9
        least, most = int(-modes * np.log1p(mean / modes) < np.log(RARE)), _most(mean, modes)
        before, good = good, ranked[(ranked >= least) & (ranked <= most)]
        if len(good) == len(before) or len(good) < 2:
            break
    return least, most


def _most(mean: float, modes: float) -> int:
    """The largest count that is not rarer than `RARE`: P(count >= k) = I(k, modes), I the incomplete beta function."""
    share = mean / (mean + modes)
    low, high = 1, 2
    while betainc(high, modes, share) >= RARE:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if betainc(middle, modes, share) >= RARE else (low, middle)
    return low


@compiled()
def _add_up(pixels: NDArray[np.uint32], counts: NDArray[np.unsignedinteger], sums: NDArray[np.int64]) -> None:
    for k in range(pixels.size):
        sums[pixels[k]] += counts[k]
