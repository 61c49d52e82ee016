"""Which way is the cheapest for a bin, by what each was seen to take.

Measured on one core of a processor with full-width VNNI (Zen 5, 4 GHz), of matrices by BLAS as NumPy has it; elsewhere
all times are longer, and what is compared is about the same. What every way has, as the weighing of sums, is left out.
A wrong choice costs time and changes no bit of the result.
"""

from __future__ import annotations

import numpy as np

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
    events, pairs = int(of_pixels.sum()), int((of_pixels * (of_pixels + 1) // 2).sum())
    triangle = series.frames * (series.frames + 1) / 2
    products = triangle * (pixels[1] - pixels[0])
    costs = {"pairs": _PAIR * pairs + _FIRST * events, "blas": _FLOAT * products + _FILL * events}
    if vnni.available() and series.largest <= vnni.LARGEST:
        costs["vnni"] = _VNNI * products + _FILL * events
    return min(costs, key=lambda way: costs[way])
