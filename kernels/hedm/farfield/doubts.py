"""What grains that were found say against what was given: limits that are too narrow."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.farfield.limits import Limits

Floats = NDArray[np.float64]

_STEP_UM = 10.0
_SLIGHT = 0.1  # of how far the other limit is passed: as far as noise takes a position


def outside(outside_um: Floats, limits: Limits) -> str:
    """Which grains were left out since they lie outside of the sample, and what would take them in; or nothing.

    Parameters
    ----------
    outside_um : (k, 3) where they lie
    """
    if not len(outside_um):
        return ""
    radius, height = float(np.hypot(*outside_um.T[:2]).max()), float(np.abs(outside_um[:, 2]).max())
    over = {"sampleRadius": radius / limits.radius_um - 1, "sampleHeight": 2 * height / limits.height_um - 1}
    reach = {"sampleRadius": radius, "sampleHeight": 2 * height}
    wanted = [
        f"{name} (at least {_STEP_UM * math.ceil(reach[name] / _STEP_UM):.0f})"
        for name in over
        if over[name] > _SLIGHT * max(over.values())
    ]
    one = len(outside_um) == 1
    return (
        f"{len(outside_um)} {'grain lies' if one else 'grains lie'} outside of the sample's limits and "
        f"{'is' if one else 'are'} left out, as far as {radius:.0f} µm from the axis and {height:.0f} µm from z = 0: "
        f"give a larger {' and '.join(wanted)}."
    )
