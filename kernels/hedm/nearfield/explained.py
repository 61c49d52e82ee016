"""How much of the images a map explains: confidence asked the other way round.

A lattice of which some rings lie near true ones is told by this, whatever confidence it has: most of the spots are
none of its.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.nearfield.rays import trace
from kernels.hedm.nearfield.search import Images, _lit, _on, images
from kernels.hedm.nearfield.setup import Optics, Setup
from kernels.hedm.nearfield.spots import Spots, Words
from kernels.hedm.nearfield.voxels import Voxels

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


_FRAMES_BYTES = 128 << 20


def explained(spots: Spots, setup: Setup, voxels: Voxels, orientations: Floats, g0: Floats) -> float:
    """The share of all pixels of spots that some voxel has a hit on, in up to 128 MiB of frames at equal steps.

    A spot has two pixels at least: single ones are noise.

    Parameters
    ----------
    orientations : ndarray, shape (voxels, 3, 3)
        Crystal to sample.
    """
    step = -(-spots.bits.nbytes // _FRAMES_BYTES)
    chosen = np.arange(step // 2, spots.frames, step)
    slots = np.full(spots.frames, -1, np.int64)
    slots[chosen] = np.arange(len(chosen))
    hit = np.zeros((spots.distances, len(chosen), *spots.bits.shape[2:]), np.uint32)
    x, y = voxels.points
    _hits(
        np.ascontiguousarray(orientations[voxels.order], np.float64), np.ascontiguousarray(g0, np.float64),
        setup.optics, images(spots), x, y, voxels.corners, slots, hit,
    )  # fmt: skip
    seen = total = 0
    for slot, frame in enumerate(chosen):
        grouped = _grouped(spots.bits[:, frame])
        seen += int(np.bitwise_count(grouped & hit[:, slot]).sum())
        total += int(np.bitwise_count(grouped).sum())
    return seen / max(1, total)


def _grouped(words: Words) -> Words:
    """Those bits of images, shape (distances, rows, words), that have another beside them, corners included."""
    beside = (words << np.uint32(1)) | (words >> np.uint32(1))
    beside[..., 1:] |= words[..., :-1] >> np.uint32(31)
    beside[..., :-1] |= words[..., 1:] << np.uint32(31)
    three = beside | words
    beside[:, 1:] |= three[:, :-1]
    beside[:, :-1] |= three[:, 1:]
    return np.asarray(words & beside)


@compiled(parallel=True)
def _hits(
    orientations: Floats, g0: Floats, optics: Optics, images: Images, x: Singles, y: Singles, corners: Floats,
    slots: NDArray[np.int64], hit: Words,
) -> None:  # fmt: skip
    most, distances = 2 * g0.shape[0], optics.panels.shape[0]
    for d in numba.prange(distances):  # two voxels may hit one pixel, two distances never
        frames, whole = np.empty(most, np.int32), np.empty(most, np.bool_)
        traced = np.empty((most, distances, 6), np.float32)
        for n in range(orientations.shape[0]):
            count = trace(orientations[n], g0, optics, corners, frames, traced, whole)
            for k in range(count):
                a, frame = traced[k], frames[k]
                if slots[frame] < 0 or not images.present[d, frame]:
                    continue
                for p in range(x.shape[1]):
                    inside = whole[k] or _on(a, x[n, p], y[n, p], optics)
                    if inside and _lit(a, frame, x[n, p], y[n, p], images):
                        row = int(a[d, 0] + a[d, 1] * x[n, p] + a[d, 2] * y[n, p])
                        column = int(a[d, 3] + a[d, 4] * x[n, p] + a[d, 5] * y[n, p])
                        hit[d, slots[frame], row, column >> 5] |= np.uint32(1) << np.uint32(column & 31)
