"""The delays of a multi-tau correlation: evenly spaced at each level, twice as far apart at the next.

Schätzel, Drewel and Stimac, J. Mod. Opt. 35 (1988) 711. With 4 lags a level these are the delays of boost-corr.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Lags(NamedTuple):
    """The delays, in frames, ascending, and of each the level at which it is worked out.

    At level l, frames are sums of 2^l neighbours; a delay there is `frames >> level` of them.
    """

    frames: NDArray[np.int64]
    level: NDArray[np.int64]

    @property
    def levels(self) -> int:
        return int(self.level[-1]) + 1


def lags(count: int, per_level: int = 4) -> Lags:
    """1 to 2·per_level at level 0; then per_level at each level, as long as `count` frames hold such a delay."""
    delays = [(n, 0) for n in range(1, min(per_level, count - 1) + 1)]
    level = 0
    while True:
        step = 1 << level
        for n in range(per_level + 1, 2 * per_level + 1):
            if n * step >= (count >> level) << level:
                return Lags(np.array([d for d, _ in delays], np.int64), np.array([k for _, k in delays], np.int64))
            delays.append((n * step, level))
        level += 1
