"""What pixels without a spot read: background, noise of reading and offset, drawn from a table.

All such pixels have one distribution, so that a draw is a random number looked up in its cumulative sum, to one in
2^32. The random numbers are SplitMix64's (Steele, Lea, Flood, OOPSLA 2014, 453), by frame and pixel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled

_BITS = 12
_GOLDEN, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Darkness(NamedTuple):
    """The distribution of a pixel without a spot.

    Attributes
    ----------
    values : ndarray of uint16, shape (n,)
        What may be read.
    below : ndarray of uint64, shape (n,)
        Random numbers of 32 bits below `below[i]` read `values[i]` or less.
    begin : ndarray of int32, shape (4096,)
        Where to look first, by the leading bits.
    """

    values: NDArray[np.uint16]
    below: NDArray[np.uint64]
    begin: NDArray[np.int32]


def darkness(background: float, offset: float, read_noise: float, saturation: int, noise: bool) -> Darkness:
    """The distribution of round(offset + Poisson(background) + Normal(read_noise)), within 0 and `saturation`."""
    from scipy.special import gammaln, ndtr

    if not noise:
        background, offset, read_noise = 0.0, offset + background, 0.0
    counts = np.arange(int(background + 9.0 * math.sqrt(background)) + 30 if background > 0 else 1)
    share = np.exp(counts * math.log(max(background, 1e-300)) - background - gammaln(counts + 1.0))
    share = share / share.sum()
    reach = 7.0 * read_noise + 1.0
    least = min(max(math.floor(offset - reach), 0), saturation)
    most = min(max(math.ceil(offset + counts[-1] + reach), 0), saturation)
    values = np.arange(least, most + 1)
    beyond = values[:, None] + 0.5 - offset - counts
    whole = ndtr(beyond / read_noise) @ share if read_noise > 0 else (beyond > 0.0) @ share
    below = np.minimum(np.round(whole * 2.0**32), 2.0**32).astype(np.uint64)
    below[-1] = 2**32
    starts = np.arange(1 << _BITS, dtype=np.uint64) << np.uint64(32 - _BITS)
    return Darkness(values.astype(np.uint16), below, np.searchsorted(below, starts, side="right").astype(np.int32))


@compiled()
def stir(x: np.uint64) -> np.uint64:
    """A number of 64 bits that looks random, of any."""
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


@compiled()
def fill(dark: Darkness, key: np.uint64, frame: NDArray[np.uint16]) -> None:
    """Read all pixels of `frame`; what is drawn depends on `key` and the pixel."""
    values, below, begin = dark
    flat = frame.ravel()
    half = np.uint64(0xFFFFFFFF)
    for n in range(0, flat.size, 2):
        key += _GOLDEN
        both = stir(key)
        for k in range(min(2, flat.size - n)):
            u = both & half if k == 0 else both >> np.uint64(32)
            i = begin[u >> np.uint64(32 - _BITS)]
            while u >= below[i]:
                i += 1
            flat[n + k] = values[i]
