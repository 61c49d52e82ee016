"""Where a crystal's reflections fall on the detector at each distance, as an affine function of a voxel's place.

A reflection leaves every voxel of one orientation in the same direction at the same turn omega, and parallel rays hit a
plane in an affine image of where they began: row and column are linear in the voxel's x and y, without approximation
and for a detector tilted in any way. So a reflection is solved for once, and voxels cost two multiplications each. Rows
and columns are those of the ideal detector: distortion is taken out of the images, see `kernels.hedm.nearfield.ideal`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.nearfield.arcs import angle_of
from kernels.hedm.nearfield.setup import Optics

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

MARGIN = 0.02  # pixels that single precision may move a spot by, generously


def limit(reflections: int) -> int:
    """The most spots that one orientation can have."""
    return 2 * reflections


@compiled()
def trace(
    u: Floats,
    g0: Floats,
    optics: Optics,
    corners: Floats,
    frames: NDArray[np.int32],
    images: Singles,
    whole: NDArray[np.bool_],
) -> int:
    """The spots of one orientation that anything within `corners` throws on the detector at all distances.

    Parameters
    ----------
    u : ndarray, shape (3, 3)
        Crystal to sample.
    g0 : ndarray, shape (n, 3)
        Reciprocal vectors in the crystal, in 1/Å.
    corners : ndarray, shape (m, 2)
        Places (x, y) in µm whose convex hull is all that matters.
    frames, images, whole : ndarray, shapes (most,), (most, distances, 6) and (most,)
        Filled: the frame; (row, its slopes in x and y, column, its slopes), half a pixel more than the centre's, so
        that the integer part is the pixel; whether all that is within the corners falls on the detector.

    Returns
    -------
    int
        How many spots there are.
    """
    found = 0
    beam = optics.beam
    for h in range(g0.shape[0]):
        gx = u[0, 0] * g0[h, 0] + u[0, 1] * g0[h, 1] + u[0, 2] * g0[h, 2]
        gy = u[1, 0] * g0[h, 0] + u[1, 1] * g0[h, 1] + u[1, 2] * g0[h, 2]
        gz = u[2, 0] * g0[h, 0] + u[2, 1] * g0[h, 1] + u[2, 2] * g0[h, 2]
        kz = beam[2] + optics.wavelength * gz
        # Bragg's law b.(Rz(w) g) = -lambda |g|^2 / 2 is `a cos w + c sin w = v`
        v = -0.5 * optics.wavelength * (gx * gx + gy * gy + gz * gz) - gz * beam[2]
        a = gx * beam[0] + gy * beam[1]
        c = gx * beam[1] - gy * beam[0]
        square = a * a + c * c
        left = square - v * v
        if left <= 0:
            continue
        root = math.sqrt(left)
        for side in range(2):
            q = root if side == 0 else -root
            cosine = (a * v - c * q) / square
            sine = (c * v + a * q) / square
            ky = beam[1] + optics.wavelength * (gx * sine + gy * cosine)
            across, up = abs(ky), abs(kz)
            if across * optics.eta[0] < up * optics.eta[1] or across * optics.eta[2] > up * optics.eta[3]:
                continue
            turn = (angle_of(sine, cosine) - optics.start) / optics.step
            turn -= math.floor(turn / optics.period) * optics.period
            frame = int(turn)
            if frame >= optics.frames:
                continue
            kx = beam[0] + optics.wavelength * (gx * cosine - gy * sine)
            state = _image(kx, ky, kz, cosine, sine, optics, corners, images[found])
            if state:
                frames[found] = frame
                whole[found] = state == 2
                found += 1
    return found


@compiled()
def _image(
    kx: float, ky: float, kz: float, cosine: float, sine: float, optics: Optics, corners: Floats, image: Singles
) -> int:
    """Fill `image`; 0 when all within `corners` misses the detector at some distance, 2 when all falls on it."""
    state = 2
    for d in range(optics.panels.shape[0]):
        p = optics.panels[d]
        along = p[9] * kx + p[10] * ky + p[11] * kz
        if (p[9] * p[0] + p[10] * p[1] + p[11] * p[2]) * along <= 0:
            return 0
        for what in range(2):  # row, column
            k = 3 + 3 * what
            part = (p[k] * kx + p[k + 1] * ky + p[k + 2] * kz) / along
            wx, wy, wz = p[k] - p[9] * part, p[k + 1] - p[10] * part, p[k + 2] - p[11] * part
            at = (optics.z - p[2]) * wz - p[0] * wx - p[1] * wy + 0.5
            in_x, in_y = cosine * wx + sine * wy, cosine * wy - sine * wx
            low, high = math.inf, -math.inf
            for n in range(corners.shape[0]):
                place = at + in_x * corners[n, 0] + in_y * corners[n, 1]
                low, high = min(low, place), max(high, place)
            count = optics.rows if what == 0 else optics.columns
            if high < -MARGIN or low >= count + MARGIN:
                return 0
            if low < MARGIN or high >= count - MARGIN:
                state = 1
            image[d, 3 * what], image[d, 3 * what + 1], image[d, 3 * what + 2] = at, in_x, in_y
    return state


def spots(u: Floats, g0: Floats, optics: Optics, place_um: Floats) -> Floats:
    """All spots of one orientation at one place (x, y), shape (spots, 1 + 2 distances): the frame, and the row and the
    column at each distance."""
    most = limit(len(g0))
    frames, whole = np.empty(most, np.int32), np.empty(most, np.bool_)
    images = np.empty((most, len(optics.panels), 6), np.float32)
    corners = np.asarray(place_um, np.float64).reshape(1, 2)
    count = trace(np.ascontiguousarray(u, np.float64), np.ascontiguousarray(g0), optics, corners, frames, images, whole)
    at = images[:count].astype(np.float64).reshape(count, -1, 3) @ np.array([1.0, *corners[0]]) - 0.5
    return np.concatenate([frames[:count, None].astype(np.float64), at], axis=1)
