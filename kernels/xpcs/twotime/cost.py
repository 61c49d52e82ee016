"""Which way is the cheapest for a bin, by what each was seen to take.

What all take, as weighing sums, is left out. Measured on one core of a processor with full-width VNNI (Zen 5, 4 GHz); elsewhere all times are longer, and what is
compared is about the same. A wrong choice costs time and changes no bit of the result.
"""

from __future__ import annotations

import numba

from kernels.compiled import compiled
from kernels.xpcs.twotime import vnni
from kernels.xpcs.twotime.series import Series
from kernels.xpcs.twotime.sums import Integers

# Nanoseconds of one core
_PAIR, _FIRST = 1.0, 20.0  # a pair of events; an event as the first of its pairs
_FILL = 6.0  # an event into a matrix
_VNNI, _FLOAT = 1 / 400, 1 / 40  # a product and sum


def cheapest(series: Series, which: int) -> str:
    """The way for the `which`th bin of the series."""
    begin, end = series.groups[which], series.groups[which + 1]
    pixels = series.pixels[begin], series.pixels[end]
    events, pairs = _pairs(series.starts[pixels[0] : pixels[1] + 1])
    triangle = series.frames * (series.frames + 1) / 2
    products = triangle * (pixels[1] - pixels[0])
    costs = {"pairs": _PAIR * pairs + _FIRST * events, "blas": _FLOAT * products + _FILL * events}
    if vnni.available() and series.largest <= vnni.LARGEST:
        costs["vnni"] = _VNNI * products + _FILL * events
    return min(costs, key=lambda way: costs[way])


@compiled(parallel=True)
def _pairs(starts: Integers) -> tuple[int, int]:
    """How many events, and pairs of events of the same pixel, there are."""
    pairs = 0
    for p in numba.prange(starts.size - 1):
        count = starts[p + 1] - starts[p]
        pairs += count * (count + 1) // 2
    return starts[-1] - starts[0], pairs
