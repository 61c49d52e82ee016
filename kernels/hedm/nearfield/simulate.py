"""Near-field images of a layer with known grains, to try and test a search with."""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.distortion import NONE, distort
from kernels.hedm.nearfield.rays import trace
from kernels.hedm.nearfield.setup import Bending, Optics, Setup
from kernels.hedm.nearfield.spots import WORD, Spots, Words
from kernels.hedm.nearfield.voxels import Voxels, sample_points, samples_within

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


class Layer(NamedTuple):
    """A layer of grains: which one each voxel belongs to, and their orientations (crystal to sample)."""

    voxels: Voxels
    grain: Whole
    orientations: Floats


def voronoi(voxels: Voxels, orientations: Floats, *, seed: int = 0) -> Layer:
    """Each voxel belongs to the nearest of random points, one per orientation."""
    rng = np.random.default_rng(seed)
    low, high = voxels.places_um.min(axis=0), voxels.places_um.max(axis=0)
    middles = rng.uniform(low, high, (len(orientations), 2))
    grain = ((voxels.places_um[:, None] - middles) ** 2).sum(axis=2).argmin(axis=1)
    return Layer(voxels, grain.astype(np.int64), np.asarray(orientations, np.float64))


def simulate(
    layer: Layer,
    setup: Setup,
    g0: Floats,
    *,
    spread: int = 0,
    noise: float = 0.0,
    missing: float = 0.0,
    seed: int = 0,
) -> Spots:
    """The bits that the layer's grains set, where a detector with the setup's distortion sees them.

    Parameters
    ----------
    spread : int
        Pixels that a spot is wider on each side, as by a detector that blurs.
    noise : float
        Fraction of all pixels that are set at random.
    missing : float
        Fraction of the reflections that are not seen at all.
    """
    distances, words = len(setup.origin_um), -(-setup.columns // WORD)
    bits = np.zeros((distances, setup.frames, setup.rows, words), np.uint32)
    rng = np.random.default_rng(seed)
    voxels = layer.voxels
    fine = samples_within(voxels.size_um, setup.pixel_um / 3, voxels.shape)  # no pixel of an image is stepped over
    offsets = sample_points(voxels.shape, voxels.size_um, fine)
    sense = np.where(voxels.up, 1.0, -1.0)[:, None]
    x = voxels.places_um[:, :1] + offsets[:, 0]
    y = voxels.places_um[:, 1:] + sense * offsets[:, 1]
    seen = rng.random((len(layer.orientations), 2 * len(g0))) >= missing
    inside = [np.flatnonzero(layer.grain == n) for n in range(len(layer.orientations))]
    for n, mine in enumerate(inside):
        _paint(
            layer.orientations[n], g0, setup.optics, setup.bending, voxels.corners, x[mine], y[mine], seen[n], spread,
            bits,
        )  # fmt: skip
    if noise:
        count = rng.binomial(bits[0].size * WORD, noise, distances)
        for d in range(distances):
            place = rng.integers(0, bits[d].size * WORD, count[d])
            column = place % (words * WORD)
            place = place[column < setup.columns]
            np.bitwise_or.at(bits[d].reshape(-1), place // WORD, np.uint32(1) << (place % WORD).astype(np.uint32))
    return Spots(bits, setup.rows, setup.columns, np.ones(bits.shape[:2], np.bool_))


@compiled(parallel=True)
def _paint(
    u: Floats, g0: Floats, optics: Optics, bending: Bending, corners: Floats, x: Floats, y: Floats,
    seen: NDArray[np.bool_], spread: int, bits: Words,
) -> None:  # fmt: skip
    most, distances = 2 * g0.shape[0], optics.panels.shape[0]
    frames, whole = np.empty(most, np.int32), np.empty(most, np.bool_)
    images = np.empty((most, distances, 6), np.float32)
    count = trace(u, g0, optics, corners, frames, images, whole)
    for d in numba.prange(distances):  # two reflections may share a frame, two distances never
        for k in range(count):
            if not seen[k]:
                continue
            a = images[k, d]
            image = bits[d, frames[k]]
            for n in range(x.shape[0]):
                for p in range(x.shape[1]):
                    down = a[0] + a[1] * x[n, p] + a[2] * y[n, p]
                    across = a[3] + a[4] * x[n, p] + a[5] * y[n, p]
                    if bending.kinds[d] != NONE:
                        down, across = _bent(down, across, d, bending)
                    row, column = math.floor(down), math.floor(across)
                    for r in range(max(0, row - spread), min(optics.rows, row + spread + 1)):
                        for c in range(max(0, column - spread), min(optics.columns, column + spread + 1)):
                            image[r, c >> 5] |= np.uint32(1) << np.uint32(c & 31)


@compiled()
def _bent(row: float, column: float, d: int, bending: Bending) -> tuple[float, float]:
    """Where a place, half a pixel more than that of pixels' centres, is seen at distance `d`."""
    high, wide = bending.pixel_um[d]
    p = (row - 0.5 - bending.half[0]) * high
    q = (column - 0.5 - bending.half[1]) * wide
    p, q = distort(bending.kinds[d], bending.tables, bending.begins[d], p, q)
    return p / high + bending.half[0] + 0.5, q / wide + bending.half[1] + 0.5
