"""How coarse images may be made for orientations that are known to some angle only, and from there to the exact ones.

An orientation that is off by an angle throws its spots beside the true ones: by as many frames as the angle has omega
steps, and by the angle times the spot's distance from the beam. Images in which spots are as much wider still tell it
from others, as long as they are not full.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.nearfield.setup import Setup
from kernels.hedm.nearfield.spots import Spots
from kernels.hedm.nearfield.voxels import Voxels
from kernels.hedm.nearfield.ways import Cpu, Way
from kernels.ranks import Ranks

Floats = NDArray[np.float64]

_USUAL = 0.75  # of the gap: few orientations are as far from all candidates as the gap allows
_REACH = 2  # blocks on each side
_FULL = 0.15  # by chance a place is on spots at all distances so often; with more, wrong orientations look right
_GAPS_DEG = (3.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.35, 0.25)
_FINER = 3.0


class Rung(NamedTuple):
    """Images that are good for orientations off by up to `gap_deg`."""

    gap_deg: float
    spots: Spots


def widened(spots: Spots, setup: Setup, gap_deg: float, ranks: Ranks | None = None) -> Spots:
    """Images for orientations that are off by up to an angle; the same ones where that is less than a pixel."""
    frames = math.ceil(_USUAL * gap_deg / abs(setup.omega_step_deg) - 0.5)
    pixels = _USUAL * math.radians(gap_deg) * farthest(setup)
    if frames < 1 and pixels < 1:
        return spots
    shift = max(0, math.ceil(math.log2(max(pixels, 1.0) / _REACH) - 0.25))
    return spots.coarse(shift, reach=_REACH, frames=max(frames, 0), wrap=setup.full_turn, ranks=ranks)


def ladder(
    spots: Spots,
    setup: Setup,
    gap_deg: float | None = None,
    *,
    most_deg: float = 180.0,
    ranks: Ranks | None = None,
) -> list[Rung]:
    """Images from coarse to the given ones, each good for a third of the angle of the one before.

    Without `gap_deg` it begins with the largest angle, up to `most_deg`, at which the images are not yet full.
    """
    first = None
    usual = [angle for angle in _GAPS_DEG if angle <= most_deg]
    for angle in [gap_deg] if gap_deg else usual or [most_deg]:
        wide = widened(spots, setup, angle, ranks)
        first = Rung(angle, wide)
        if wide.occupied().prod() < _FULL:
            break
    assert first is not None
    rungs = [first]
    while rungs[-1].spots is not spots:
        angle = rungs[-1].gap_deg / _FINER
        rungs.append(Rung(angle, widened(spots, setup, angle, ranks)))
    return rungs


def descend(
    rungs: list[Rung],
    setup: Setup,
    voxels: Voxels,
    starts: Floats,
    g0: Floats,
    *,
    least_deg: float,
    way: Way | None = None,
) -> tuple[Floats, Floats]:
    """From each voxel's starts, shape (voxels, k, 3, 3), down all rungs, with fewer of them on each; without `way` on
    the CPU.

    Returns
    -------
    orientations : ndarray, shape (voxels, 3, 3)
    confidence : ndarray, shape (voxels,)
    """
    way = way or Cpu()
    count, keep = starts.shape[:2]
    for n, rung in enumerate(rungs):
        last = n == len(rungs) - 1
        pairs = voxels.chosen(np.repeat(np.arange(count), keep))
        fit = way.climb(
            rung.spots,
            setup,
            pairs,
            starts.reshape(-1, 1, 3, 3),
            g0,
            step_deg=rung.gap_deg * (0.7 if n == 0 else 1.0),
            least_deg=least_deg if last else rung.gap_deg / 4,
        )
        confidence = fit.confidence.reshape(count, keep)
        keep = 1 if last else max(1, keep // 3)
        best = np.argsort(-confidence, axis=1, kind="stable")[:, :keep]
        starts = np.take_along_axis(fit.orientations.reshape(count, -1, 3, 3), best[:, :, None, None], axis=1)
        confidence = np.take_along_axis(confidence, best, axis=1)
    return starts[:, 0], confidence[:, 0]


def farthest(setup: Setup) -> float:
    """How many pixels the detector reaches from the beam, at the distance where that is the most."""
    corners = np.array([(r, c) for r in (0, setup.rows) for c in (0, setup.columns)], float)
    most = 0.0
    for origin, row, column in zip(setup.origin_um, setup.row_um, setup.column_um, strict=True):
        places = origin + corners[:, :1] * row + corners[:, 1:] * column
        across = places - np.outer(places @ setup.beam, setup.beam)
        most = max(most, float(np.linalg.norm(across, axis=1).min()), float(np.median(np.linalg.norm(across, axis=1))))
    return most / setup.pixel_um
