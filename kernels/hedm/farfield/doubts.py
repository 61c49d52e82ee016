"""What grains that were found say against what was given: limits that are too narrow, a lattice that is off."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.farfield.limits import Limits

Floats = NDArray[np.float64]

_STEP_UM = 10.0
_SLIGHT = 0.1  # of how far the other limit is passed: as far as noise takes a position
_CLOSE = 0.5  # of the largest strain
_ALIKE = 0.2  # of the common strain: what half of the grains may differ from it


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


def strained(strain: Floats, limits: Limits) -> str:
    """That all grains have one strain in all directions, more than half of the largest that is looked for, and what it
    means; or nothing.

    Parameters
    ----------
    strain : (n, 6) of the grains
    """
    hydrostatic = strain[:, :3].mean(axis=1)
    usual = float(np.median(hydrostatic)) if len(hydrostatic) else 0.0
    scatter = float(np.median(np.abs(hydrostatic - usual))) if len(hydrostatic) else 0.0
    if abs(usual) <= _CLOSE * limits.strain or scatter > _ALIKE * abs(usual):
        return ""
    return (
        f"The grains share a strain of {usual:+.2%} in all directions, and the largest that is looked for is "
        f"{limits.strain:.2%} (maxStrain): lattice, wavelength or distance are likely off, and grains may be missing. "
        f"With a lattice {1.0 + usual:.4f} times as large it is gone."
    )
