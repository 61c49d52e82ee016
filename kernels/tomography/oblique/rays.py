"""What a detector sees of ellipsoids along any ray, exactly: the chord of each times its density.

In coordinates in which an ellipsoid is the unit ball, a ray p + s d runs within it between the roots of
|d|^2 s^2 + 2 p.d s + |p|^2 - 1. A pixel is the mean of `_RAYS` x `_RAYS` rays.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.tomography.oblique.geometry import Geometry, Mapping

_RAYS = 2

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def project(parts: Doubles, geometry: Geometry, theta_deg: Doubles, columns: int, start: int, stop: int) -> Floats:
    """Line integrals of detector rows start to stop.

    Parameters
    ----------
    parts : ndarray, shape (parts, 8), float64
        As `phantom.sample_object` gives them, lengths in voxels.

    Returns
    -------
    ndarray, shape (stop - start, angles, columns), float32
        Density times length, in voxels.
    """
    lines = np.empty((stop - start, len(theta_deg), columns), np.float32)
    theta = np.deg2rad(theta_deg)
    _fill(np.asarray(parts, np.float64), geometry.mapping, np.cos(theta), np.sin(theta), start, lines)
    return lines


@compiled(parallel=True)
def _fill(parts: Doubles, mapping: Mapping, cosines: Doubles, sines: Doubles, start: int, lines: Floats) -> None:
    rows, angles, columns = lines.shape
    for job in prange(rows * angles):
        row, k = job // angles, job % angles
        for column in range(columns):
            total = 0.0
            for ray in range(_RAYS * _RAYS):
                across = column + (ray % _RAYS + 0.5) / _RAYS - 0.5 - mapping.perpendicular
                along = start + row + (ray // _RAYS + 0.5) / _RAYS - 0.5 - mapping.middle_row
                total += _along(parts, mapping, cosines[k], sines[k], across, along)
            lines[row, k, column] = total / (_RAYS * _RAYS)


@compiled()
def _along(parts: Doubles, mapping: Mapping, cosine: float, sine: float, across: float, along: float) -> float:
    """The ray that meets the detector so many pixels from its perpendicular ray and its middle row."""
    q, w, z = across - mapping.shift, mapping.side * along * mapping.sine, along * mapping.cosine
    x, y = q * cosine - w * sine, q * sine + w * cosine
    q, w, dz = -across * mapping.curve, mapping.side * mapping.cosine, -mapping.sine - along * mapping.curve
    dx, dy = q * cosine - w * sine, q * sine + w * cosine
    length = math.sqrt(dx * dx + dy * dy + dz * dz)
    total = 0.0
    for part in range(len(parts)):
        density, x0, y0, z0, a, b, c, phi = parts[part]
        u, v = math.cos(phi), math.sin(phi)
        px, py, pz = ((x - x0) * u + (y - y0) * v) / a, ((y - y0) * u - (x - x0) * v) / b, (z - z0) / c
        ex, ey, ez = (dx * u + dy * v) / a, (dy * u - dx * v) / b, dz / c
        square, half = ex * ex + ey * ey + ez * ez, px * ex + py * ey + pz * ez
        inside = half * half - square * (px * px + py * py + pz * pz - 1.0)
        if inside > 0.0:
            total += density * 2.0 * math.sqrt(inside) / square * length
    return total
