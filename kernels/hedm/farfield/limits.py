"""What is looked for, and how far a spot may lie from where it should."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError

TURN = 2.0 * math.pi


@dataclass(frozen=True)
class Limits:
    """Noise of the spots, size of the sample, range of the strain, and what counts as a grain.

    Attributes
    ----------
    spot_um : float
        Standard deviation of a spot's place on the detector, in each direction. With `omega` it sets how far away a
        spot is still taken for a grain's: five standard deviations.
    omega : float
        Standard deviation of a spot's omega, radians.
    mosaicity : float
        Spread of orientations in a grain, radians: it blurs the omega of a spot by mosaicity / |sin eta|, most near the
        poles.
    radius_um, height_um : float
        Grains lie within this radius of the rotation axis, and within this height across z = 0.
    strain : float
        The largest strain that is looked for.
    min_completeness : float
        The least share of the expected spots that a grain must have.
    omega_ranges : tuple of (start, stop)
        Radians; where frames were taken.
    min_eta : float
        Radians; spots closer than this to the z axis are neither expected nor used.
    """

    spot_um: float = 20.0
    omega: float = math.radians(0.03)
    mosaicity: float = math.radians(0.005)
    radius_um: float = 500.0
    height_um: float = 200.0
    strain: float = 2e-3
    min_completeness: float = 0.5
    omega_ranges: tuple[tuple[float, float], ...] = ((-math.pi, math.pi),)
    min_eta: float = math.radians(6.0)

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self) if each.name != "omega_ranges"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (value == 0 and name not in ("mosaicity", "min_eta")):
                raise KernelError(f"{name} is {value}: it must be above 0.")
        if not self.min_completeness < 1:
            raise KernelError(f"min_completeness is {self.min_completeness}: it is a share, below 1.")
        if not self.omega_ranges or any(not start < stop for start, stop in self.omega_ranges):
            raise KernelError(f"Each omega range must end after its start, in radians, not {self.omega_ranges}.")

    @property
    def extent_um(self) -> float:
        """How far from the origin a grain may lie."""
        return math.hypot(self.radius_um, self.height_um / 2)

    @property
    def turn_covered(self) -> float:
        """The share of a full turn in which frames were taken."""
        return float(self._covered(0.0).mean())

    @property
    def friedel_covered(self) -> float:
        """The share of a full turn in which frames were taken both here and half a turn on."""
        return float((self._covered(0.0) & self._covered(math.pi)).mean())

    def _covered(self, shift: float) -> NDArray[np.bool_]:
        omega = np.radians(np.arange(0.05, 360.0, 0.1)) + shift
        covered = np.zeros(len(omega), bool)
        for start, stop in self.omega_ranges:
            covered |= (omega - start) % TURN <= stop - start
        return covered

    @property
    def ranges(self) -> NDArray[np.float64]:
        """(n, 2): start and length of each range, for compiled code."""
        return np.array([(start, min(stop - start, TURN)) for start, stop in self.omega_ranges])
