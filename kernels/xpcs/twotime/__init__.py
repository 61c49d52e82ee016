"""Two-time correlations: `gather` the counts of a series by pixel, then `twotime` for C2 in tiles with its g2, or
`multitau_twotime` where the series is long."""

from kernels.xpcs.twotime.correlate import OneTime, twotime
from kernels.xpcs.twotime.multitau import MultiTau, multitau_twotime
from kernels.xpcs.twotime.series import Series, gather
from kernels.xpcs.twotime.slices import Slice, segments

__all__ = [
    "MultiTau",
    "OneTime",
    "Series",
    "Slice",
    "gather",
    "multitau_twotime",
    "segments",
    "twotime",
]
