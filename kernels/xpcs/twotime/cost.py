"""Which way is the cheapest for a bin, by what each was seen to take.

Measured on one core of a processor with full-width VNNI (Zen 5, 4 GHz), of matrices by BLAS as NumPy has it; elsewhere
all times are longer, and what is compared is about the same. What every way has, as the weighing of sums, is left out.
A wrong choice costs time and changes no bit of the result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.xpcs.events import Events
from kernels.xpcs.partition import Partition
from kernels.xpcs.twotime import vnni
from kernels.xpcs.twotime.series import Series

# Nanoseconds of one core
_PAIR, _FIRST = 1.0, 20.0  # a pair of events; an event as the first of its pairs
_FILL = 6.0  # an event into a matrix
_VNNI, _FLOAT = 1 / 400, 1 / 40  # a product and sum


def cheapest(series: Series, which: int) -> str:
    """The way for the `which`th bin of the series."""
    begin, end = series.groups[which], series.groups[which + 1]
    pixels = series.pixels[begin], series.pixels[end]
    of_pixels = np.diff(series.starts[pixels[0] : pixels[1] + 1])
    pairs = float((of_pixels * (of_pixels + 1) // 2).sum())
    costs = _costs(series.frames, pixels[1] - pixels[0], float(of_pixels.sum()), pairs, series.largest)
    return min(costs, key=lambda way: costs[way])


def expected(sample: Events, partition: Partition, frames: int) -> NDArray[np.float64]:
    """About what each dynamic bin of so many frames will cost, by a few of them."""
    dynamic = partition.dynamic.ravel()
    pixels = np.bincount(dynamic)[1:]
    events = np.bincount(dynamic[sample.pixels], minlength=len(pixels) + 1)[1:] * (frames / sample.frames)
    pairs = events**2 / (2 * pixels) + events
    largest = int(sample.counts.max(initial=1))
    return np.array(
        [min(_costs(frames, *of_bin, largest).values()) for of_bin in zip(pixels, events, pairs, strict=True)]
    )


def expected_by_delay(sample: Events, partition: Partition, frames: int) -> NDArray[np.float64]:
    """About what each dynamic bin will cost in a multi-tau scheme: by its events, and by its pixels for all levels."""
    dynamic = partition.dynamic.ravel()
    pixels = np.bincount(dynamic)[1:]
    events = np.bincount(dynamic[sample.pixels], minlength=len(pixels) + 1)[1:] * (frames / sample.frames)
    return np.asarray(events + pixels)


def _costs(frames: int, pixels: float, events: float, pairs: float, largest: int) -> dict[str, float]:
    """Nanoseconds of a bin by each way that can be taken."""
    products = frames * (frames + 1) / 2 * pixels
    costs = {"pairs": _PAIR * pairs + _FIRST * events, "blas": _FLOAT * products + _FILL * events}
    if vnni.available() and largest <= vnni.LARGEST:
        costs["vnni"] = _VNNI * products + _FILL * events
    return costs
