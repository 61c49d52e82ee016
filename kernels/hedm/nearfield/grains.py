"""Grains of an orientation map: neighbouring voxels whose orientations differ by less than an angle."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.nearfield.voxels import Voxels
from kernels.hedm.orientations import mean_orientation

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


class Segments(NamedTuple):
    """Grains, from the largest to the smallest.

    Attributes
    ----------
    grain : ndarray of int64, shape (voxels,)
        From 1; 0 for voxels that were not to be used.
    voxels : ndarray of int64, shape (grains,)
        How many each has.
    orientations : ndarray, shape (grains, 3, 3)
        Their mean, in the symmetric equivalent of one of their voxels.
    places_um : ndarray, shape (grains, 2)
        Their middles.
    """

    grain: Whole
    voxels: Whole
    orientations: Floats
    places_um: Floats


def segment(
    voxels: Voxels, orientations: Floats, rotations: Floats, *, angle_deg: float = 1.0, used: NDArray[np.bool_]
) -> Segments:
    """Join neighbours among the `used` voxels whose misorientation is at most `angle_deg`.

    Parameters
    ----------
    orientations : ndarray, shape (voxels, 3, 3)
    rotations : ndarray, shape (m, 3, 3)
        The rotations of the crystal's Laue class, in its cartesian frame.
    """
    roots = _joined(orientations, rotations, voxels.neighbours, used, 1 + 2 * math.cos(math.radians(angle_deg)))
    names, inverse, counts = np.unique(roots[used], return_inverse=True, return_counts=True)
    order = np.lexsort((names, -counts))
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(1, len(names) + 1)
    grain = np.zeros(len(orientations), np.int64)
    grain[used] = rank[inverse]
    means = np.empty((len(names), 3, 3))
    places = np.empty((len(names), 2))
    for n in range(len(names)):
        mine = grain == n + 1
        means[n] = mean_orientation(orientations[mine], rotations)
        places[n] = voxels.places_um[mine].mean(axis=0)
    return Segments(grain, counts[order], means, places)


@compiled()
def _alike(a: Floats, b: Floats, rotations: Floats, least: float) -> bool:
    """Whether the trace of any rotation between two orientations is `least` or more."""
    for n in range(rotations.shape[0]):
        trace = 0.0
        for i in range(3):
            for j in range(3):
                trace += a[i, j] * (
                    b[i, 0] * rotations[n, 0, j] + b[i, 1] * rotations[n, 1, j] + b[i, 2] * rotations[n, 2, j]
                )
        if trace >= least:
            return True
    return False


@compiled()
def _joined(orientations: Floats, rotations: Floats, neighbours: Whole, used: NDArray[np.bool_], least: float) -> Whole:
    """The least of all voxels that each is joined with."""
    root = np.arange(orientations.shape[0])
    for n in range(orientations.shape[0]):
        if not used[n]:
            continue
        for k in range(neighbours.shape[1]):
            other = neighbours[n, k]
            if other < n or not used[other]:
                continue
            if _alike(orientations[n], orientations[other], rotations, least):
                a, b = n, other
                while root[a] != a:
                    a = root[a]
                while root[b] != b:
                    b = root[b]
                root[max(a, b)] = min(a, b)
    for n in range(orientations.shape[0]):
        a = n
        while root[a] != a:
            a = root[a]
        root[n] = a
    return root


@compiled()
def unlike(orientations: Floats, rotations: Floats, angle: float) -> Whole:
    """Which of the orientations, best first, are further than an angle (radians) from all that come before."""
    least = 1 + 2 * math.cos(angle)
    kept = np.empty(orientations.shape[0], np.int64)
    count = 0
    for n in range(orientations.shape[0]):
        new = True
        for m in range(count):
            if _alike(orientations[n], orientations[kept[m]], rotations, least):
                new = False
                break
        if new:
            kept[count] = n
            count += 1
    return kept[:count]
