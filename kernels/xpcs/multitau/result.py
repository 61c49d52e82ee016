"""From the sums of all pixels of a bin to g2."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.xpcs.lags import Lags
from kernels.xpcs.multitau.lanes import FRACTION_BITS, WORDS
from kernels.xpcs.partition import Partition

Floats = NDArray[np.float64]


class MultiTau(NamedTuple):
    """The intensity correlation of a series at its multi-tau delays.

    A static bin's is symmetrically normalised: the mean of I(t)·I(t + delay) over its pixels and over time, over the
    means of those I(t) and of those I(t + delay). That of a dynamic bin is the mean of its static bins'; the error is
    the standard deviation of the g2 of its single pixels over the root of their number. A bin or a pixel without light
    counts as 0. All this is as in boost-corr 0.1.7 (github.com/AZjk/boost_corr).

    Attributes
    ----------
    lags : Lags
        The delays, in frames.
    frames : int
        How many there were.
    g2, g2_err : ndarray, shape (delays, dynamic bins), float64
        The error is NaN for a bin of one pixel.
    partial, partial_err : ndarray, shape (delays, static bins), float64
        The same of each static bin.
    sums : ndarray, shape (static bins, delays, 8), int64
        What all that is worked out from, exact integers: products (lower 32 bits, the rest), photons of the earlier
        and of the later frames of each pair; first and second moment of the pixels' own g2, each as fractions of 2^38
        and of 2^76, with 2^ceil(log2(frames)) as unit.
    """

    lags: Lags
    frames: int
    g2: Floats
    g2_err: Floats
    partial: Floats
    partial_err: Floats
    sums: NDArray[np.int64]


def unit(frames: int) -> float:
    """A power of two that no pixel's own g2 is above."""
    return float(1 << max(0, frames - 1).bit_length())


def concluded(sums: NDArray[np.int64], delays: Lags, frames: int, partition: Partition) -> MultiTau:
    """g2 from the sums, shape (static bins, delays, WORDS), of all pixels."""
    pixels = np.diff(partition.bounds).astype(np.float64)
    words = np.moveaxis(sums, 2, 0).astype(np.float64).transpose(0, 2, 1)  # (WORDS, delays, static bins)
    terms = ((frames >> delays.level) - (delays.frames >> delays.level)).astype(np.float64)[:, None]
    products, below = words[0] + words[1] * 2.0**32, words[2] * words[3]
    partial = np.divide(products * terms * pixels, below, out=np.zeros_like(below), where=below > 0)
    first, second = (
        (words[n] + words[n + 1] * 2.0**-FRACTION_BITS) * 2.0**-FRACTION_BITS * unit(frames) ** power
        for n, power in ((4, 1), (6, 2))
    )
    member = np.arange(1, partition.dynamic_bins + 1) == partition.owner[:, None]
    g2 = partial @ (member / member.sum(axis=0))
    return MultiTau(
        delays,
        frames,
        g2,
        _error(first @ member, second @ member, pixels @ member),
        partial,
        _error(first, second, pixels),
        sums,
    )


def _error(first: Floats, second: Floats, pixels: Floats) -> Floats:
    """Of the mean of values of which the sum and the sum of the squares are given."""
    variance = np.maximum(second - first**2 / pixels, 0)
    return np.sqrt(np.divide(variance, pixels - 1, out=np.full_like(variance, np.nan), where=pixels > 1) / pixels)


__all__ = ["WORDS", "MultiTau", "concluded", "unit"]
