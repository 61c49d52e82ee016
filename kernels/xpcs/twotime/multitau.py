"""Two-time correlations of long series: for each delay of a multi-tau scheme, how its correlation changes with time.

A whole two-time correlation grows with the square of the frames. Here short delays are looked at frame by frame, and
at each further level twice as long ones between sums of twice as many neighbouring frames, so that time and memory grow
with the number of frames alone; what is lost is how long delays change within their own length. The idea is that of
Brugnara et al., J. Synchrotron Rad. 33 (2026) 698; delays are those of `lags` and counts are weighted as in `twotime`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.xpcs.lags import Lags, lags
from kernels.xpcs.twotime.series import Series
from kernels.xpcs.twotime.sums import Floats, Integers, Numbers, weights


class MultiTau(NamedTuple):
    """Correlations by delay and time.

    Attributes
    ----------
    bins : ndarray, shape (bins,), int64
        Numbers of the dynamic bins.
    lags : Lags
        The delays.
    values : tuple of ndarray, shape (bins, times), float32
        For each delay: C2 between frames i and i + (delay >> level) of the level, whose frame i is the sum of frames
        i << level to (i + 1 << level) - 1.
    """

    bins: NDArray[np.int64]
    lags: Lags
    values: tuple[NDArray[np.float32], ...]

    @property
    def g2(self) -> Floats:
        """The mean over time of each delay, shape (delays, bins)."""
        return np.stack([values.mean(axis=1, dtype=np.float64) for values in self.values])


def multitau_twotime(series: Series, per_level: int = 4) -> MultiTau:
    """Correlate the counts of each two frames whose distance is a delay of the multi-tau scheme.

    Parameters
    ----------
    series : Series
    per_level : int
        Delays of a level; of the first twice as many.

    Returns
    -------
    MultiTau
        Equal to the two-time correlation's diagonals at level 0, and at others to those of the summed frames.
    """
    delays = lags(series.frames, per_level)
    steps = delays.frames >> delays.level
    times = (series.frames >> delays.level) - steps
    begins = np.concatenate([[0], np.cumsum(times)]).astype(np.int64)
    lengths = series.frames >> np.arange(delays.levels)
    ends = np.cumsum(lengths)
    shape = (len(series.bins), int(ends[-1]))
    groups, rows, columns = np.empty((len(series.sizes), shape[1])), np.empty(shape), np.empty(shape)
    totals = series.totals
    for length, end in zip(lengths, ends, strict=True):
        part = slice(int(end - length), int(end))
        for which in range(len(series.bins)):
            own = slice(series.groups[which], series.groups[which + 1])
            of_bin = weights(totals[own], series.sizes[own], np.diff(series.pixels)[own])
            groups[own, part], rows[which, part], columns[which, part] = of_bin
        totals = totals[:, : length // 2 * 2].reshape(len(totals), -1, 2).sum(axis=2)
    out = np.empty((len(series.bins), begins[-1]), np.float32)
    _correlate(
        series.words, series.bits, series.starts, series.pixels, series.groups, series.frames, delays.level, steps,
        begins, ends - lengths, groups, rows, columns, out,
    )  # fmt: skip
    cut = tuple(out[:, begin:end] for begin, end in pairwise(begins))
    return MultiTau(series.bins, delays, cut)


@compiled(parallel=True)
def _correlate(
    words: Numbers,
    bits: int,
    starts: Integers,
    pixels: Integers,
    groups: Integers,
    frames: int,
    level: Integers,
    steps: Integers,
    begins: Integers,
    places: Integers,
    weights: Floats,
    row_scale: Floats,
    scale: Floats,
    out: NDArray[np.float32],
) -> None:
    most = 0
    for p in range(starts.size - 1):
        most = max(most, starts[p + 1] - starts[p])
    for which in numba.prange(groups.size - 1):
        totals = np.zeros(out.shape[1])
        times, counts = np.empty(most, np.int64), np.empty(most)
        for g in range(groups[which], groups[which + 1]):
            sums = np.zeros(out.shape[1])  # whole numbers; exact below 2^53
            for p in range(pixels[g], pixels[g + 1]):
                _pixel(words[starts[p] : starts[p + 1]], bits, frames, level, steps, begins, times, counts, sums)
            for k in range(steps.size):
                place = places[level[k]]
                for t in range(begins[k + 1] - begins[k]):
                    both = weights[g, place + t] * weights[g, place + t + steps[k]]
                    totals[begins[k] + t] += sums[begins[k] + t] * both
        for k in range(steps.size):
            place = places[level[k]]
            for t in range(begins[k + 1] - begins[k]):
                both = row_scale[which, place + t] * scale[which, place + t + steps[k]]
                out[which, begins[k] + t] = totals[begins[k] + t] * both


@compiled()
def _pixel(
    words: Numbers,
    bits: int,
    frames: int,
    level: Integers,
    steps: Integers,
    begins: Integers,
    times: Integers,
    counts: Floats,
    sums: Floats,
) -> None:
    """Add a pixel's products of counts, at each level those of its delays."""
    mask = (1 << bits) - 1
    events = words.size
    for i in range(events):
        word = np.int64(words[i])
        times[i], counts[i] = word >> bits, float(word & mask)
    k = 0
    while k < steps.size:
        last = k
        while last + 1 < steps.size and level[last + 1] == level[k]:
            last += 1
        for i in range(events):
            for j in range(i + 1, events):
                step = times[j] - times[i]
                if step > steps[last]:
                    break
                if step >= steps[k]:
                    sums[begins[k + step - steps[k]] + times[i]] += counts[i] * counts[j]
        frames >>= 1
        kept = 0
        for i in range(events):
            time = times[i] >> 1
            if time >= frames:
                break
            if kept and times[kept - 1] == time:
                counts[kept - 1] += counts[i]
            else:
                times[kept], counts[kept] = time, counts[i]
                kept += 1
        events = kept
        k = last + 1
