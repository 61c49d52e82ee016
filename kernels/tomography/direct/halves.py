"""Full turns with the axis near an edge of the detector: two views joined to one nearly twice as wide.

Rays that pass the axis no farther than the nearer edge are seen twice in a full turn, from either side; others once.
So that each counts once, the columns are weighted, across the part that is seen twice with a smooth slope (Wang, Med.
Phys. 29 (2002) 1634), before they are filtered: a step there would be sharpened by the filter into a ring.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_LEAST_TURN_DEG = 345.0
_LEAST_OFFSET = 0.1  # of the width, below which a full turn is seen twice nearly everywhere


class Halves(NamedTuple):
    """`size` of the slices, pixels, and what each column counts, (columns,) float32."""

    size: int
    weights: NDArray[np.float32]


def is_half_acquisition(theta_deg: NDArray[np.float64], columns: int, axis: float) -> bool:
    """Whether a scan is a full turn with its axis far off the detector's middle."""
    spread = np.sort(theta_deg)
    covered = float(np.ptp(spread)) * len(spread) / (len(spread) - 1)
    return covered >= _LEAST_TURN_DEG and abs(axis - 0.5 * (columns - 1)) >= _LEAST_OFFSET * columns


def halves(columns: int, axis: float) -> Halves:
    """How to join the two views of a full turn of a parallel beam."""
    return join(np.arange(columns, dtype=np.float64) - axis)


def join(from_axis: NDArray[np.float64]) -> Halves:
    """How to join the two views of a full turn whose columns see rays at these distances from the axis, pixels.

    A ray at distance r on the wide side gets the weight 1 + sin(pi r / 2 d) within the part seen twice, |r| <= d, and 2
    beyond; with the one on the other side that is 2 in all, half of it for each half turn.
    """
    if from_axis[0] + from_axis[-1] < 0:
        from_axis = -from_axis
    both = max(0.5, -float(from_axis.min()) + 0.5)  # to the outer edge of the last pixel
    weights = 1 + np.sin(0.5 * np.pi * np.clip(from_axis / both, -1, 1))
    return Halves(2 * math.ceil(float(from_axis.max()) + 0.5), weights.astype(np.float32))
