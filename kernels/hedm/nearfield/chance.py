"""What confidence wrong orientations reach, so that more than that means something.

Each reflection of a wrong orientation hits a spot by chance, and as often as any other: their number is binomial, which
images of simulated layers bear out to a twentieth of its deviation. The best of all orientations at all voxels is then
far out in the tail of that distribution, further for more of them and for fewer reflections. How often a reflection
hits is measured with the detector mirrored, which no crystal fits: of orientations at random, and as what the best of a
search among all of them says, whichever is more, since hits in crowded images are not quite independent.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, betaincinv

from kernels.hedm.nearfield.ladder import farthest
from kernels.hedm.nearfield.search import scores
from kernels.hedm.nearfield.setup import Setup
from kernels.hedm.nearfield.spots import Spots
from kernels.hedm.nearfield.voxels import Voxels
from kernels.hedm.orientations import random_orientations

Floats = NDArray[np.float64]

_ODDS = 0.05  # that some voxel of the layer is above the level by chance
_TRIED = 64  # orientations at random at each voxel


class Chance(NamedTuple):
    """What is by chance.

    Attributes
    ----------
    share : float
        Of the reflections of a wrong orientation, those that hit.
    reflections : float
        How many an orientation has.
    orientations : float
        How many orientations can be told from each other among those that are searched.
    """

    share: float
    reflections: float
    orientations: float

    def level(self, voxels: int, odds: float = _ODDS) -> float:
        """The confidence that wrong orientations exceed at any of so many voxels with these odds; 1 if all of their
        reflections are likely to hit at one of them."""
        wanted = -math.log1p(-odds) / (voxels * self.orientations)

        def excess(hits: float) -> float:
            return float(betainc(hits, self.reflections - hits + 1, self.share)) - wanted

        if self.share <= 0:
            return 0.0
        if excess(self.reflections) >= 0:
            return 1.0
        return float(brentq(excess, 1e-9, self.reflections)) / self.reflections


def chance_of(
    spots: Spots, setup: Setup, voxels: Voxels, g0: Floats, *, orientations: float, measured: Floats
) -> Chance:
    """How often reflections hit by chance.

    Parameters
    ----------
    setup : Setup
        With the detector mirrored.
    measured : ndarray, shape (k,)
        The confidence that a search among all orientations has found at some of the voxels.
    """
    count = len(voxels.places_um)
    random = random_orientations(count * _TRIED, np.random.default_rng(0))
    pairs = voxels.chosen(np.repeat(np.arange(count), _TRIED))
    hits, counted = scores(spots, setup, pairs, random, g0)
    reflections = max(1.0, float(counted.mean()) / voxels.points[0].shape[1])
    share = float(hits.sum() / max(1, counted.sum()))
    most = min(float(measured.max()), 1.0) * reflections
    if most > 0:  # the share with which the best of the search is as often above as below what was found
        searched = float(
            betaincinv(most, reflections - most + 1, min(1.0, math.log(2) / (len(measured) * orientations)))
        )
        share = max(share, searched)
    return Chance(share, reflections, orientations)


def distinct(setup: Setup, rotations: Floats, seeds: Floats | None, radius_deg: float) -> float:
    """How many orientations can be told from each other in the fundamental zone or around the seeds: they are a frame
    apart, or throw spots far from the beam a pixel apart, whichever is less."""
    gap = min(math.radians(abs(setup.omega_step_deg)), 1 / farthest(setup))
    volume = 8 * math.pi**2 / len(rotations)
    if seeds is not None:
        volume = min(volume, len(seeds) * 4 / 3 * math.pi * math.radians(radius_deg) ** 3)
    return max(1.0, volume / gap**3)
