"""A three-dimensional object whose projections are known exactly: ellipsoids that stand on the rotation axis' frame.

An ellipsoid with half axes (a, b, c), c along the rotation axis and (a, b) turned by phi in the plane, has at height
z the line integral, at angle theta and signed distance d from its centre's ray,

    density * 2 a b * sqrt(q r^2 - d^2) / r^2,   r^2 = (a cos(theta - phi))^2 + (b sin(theta - phi))^2,
    q = 1 - ((z - z0) / c)^2

(Kak & Slaney, 1988, eq. 3.6, scaled by the height). A detector pixel sees the mean of this over its width, for which
the integral has a closed form. Truth and projections both are means over the same `PLANES` planes of a row's height.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled

PLANES = (-0.25, 0.25)  # heights within a detector row, rows
_SUBSAMPLES = 4

Doubles = NDArray[np.float64]


def sample_object(
    columns: int, rows: int, *, margin: float, absorption: float, seed: int, tall: float | None = None
) -> Doubles:
    """A rod-like body with a shell, pores and grains, as rows of (density, x, y, z, a, b, c, phi).

    Parameters
    ----------
    columns, rows
        Detector size, pixels; lengths are in pixels, z from the middle of the detector's height.
    margin
        Distance between axis and the nearer detector edge, pixels; the body stays within 0.9 of it.
    absorption
        Line integral through the body's middle, from which the density (per pixel) follows.
    seed
        Of the pores and grains.
    tall
        Half the height of the body. Not given: it goes on above and below the view.

    Returns
    -------
    ndarray, shape (parts, 8), float64
    """
    random = np.random.default_rng([seed, 0])
    size, tall = 0.9 * margin, max(rows, 0.75 * columns) if tall is None else tall
    density = absorption / (1.7 * size)
    parts = [
        (1.3 * density, 0.0, 0.0, 0.0, 0.95 * size, 0.80 * size, tall, 0.3),
        (-0.5 * density, 0.0, 0.0, 0.0, 0.86 * size, 0.71 * size, 0.95 * tall, 0.3),
        (0.4 * density, 0.25 * size, -0.20 * size, 0.0, 0.30 * size, 0.20 * size, 0.8 * tall, -0.7),
        (-0.6 * density, -0.35 * size, 0.15 * size, 0.0, 0.13 * size, 0.22 * size, 0.6 * tall, 0.4),
    ]
    for _ in range(36):
        distance, turn = 0.62 * size * math.sqrt(random.random()), 2 * math.pi * random.random()
        radius = size * random.uniform(0.015, 0.075)
        height = random.uniform(-0.5, 0.5) * min(rows, tall)
        shape = radius * random.uniform(0.7, 1.4, 3)
        sign = random.choice([-0.55, 0.9])
        parts.append((sign * density, distance * math.cos(turn), distance * math.sin(turn), height, *shape, turn))
    return np.array(parts, np.float64)


def truth_rows(parts: Doubles, columns: int, rows: int, start: int, stop: int) -> NDArray[np.float32]:
    """The object in voxels, (stop - start, columns, columns) float32, centred on the axis, density per pixel.

    Voxels are means over 4 x 4 points in the plane and the planes `PLANES`.
    """
    out = np.empty((stop - start, columns, columns), np.float32)
    heights = np.arange(start, stop, dtype=np.float64) - 0.5 * (rows - 1)
    _fill_truth(parts, heights, np.array(PLANES), out)
    return out


def project_rows(
    parts: Doubles, theta_deg: Doubles, columns: int, rows: int, axis: float, start: int, stop: int
) -> NDArray[np.float32]:
    """Exact line integrals (stop - start, angles, columns) float32, means over each detector pixel's width."""
    out = np.zeros((stop - start, len(theta_deg), columns), np.float32)
    heights = np.arange(start, stop, dtype=np.float64) - 0.5 * (rows - 1)
    _fill_projections(parts, np.deg2rad(theta_deg), heights, np.array(PLANES), axis, out)
    return out


@compiled(parallel=True)
def _fill_truth(parts: Doubles, heights: Doubles, planes: Doubles, out: NDArray[np.float32]) -> None:
    size = out.shape[1]
    middle = 0.5 * (size - 1)
    share = 1.0 / (_SUBSAMPLES * _SUBSAMPLES * len(planes))
    for job in prange(out.shape[0] * size):
        layer, row = job // size, job % size
        line = np.zeros(size)
        for plane in range(len(planes)):
            z = heights[layer] + planes[plane]
            for part in range(parts.shape[0]):
                density, x0, y0, z0, a, b, c, phi = parts[part]
                q = 1.0 - ((z - z0) / c) ** 2
                reach = max(a, b)
                if q <= 0.0 or abs(row - middle - y0) > reach + 1.0:
                    continue
                first = max(0, int(middle + x0 - reach) - 1)
                beyond = min(size, int(middle + x0 + reach) + 3)
                cosine, sine = math.cos(phi), math.sin(phi)
                for column in range(first, beyond):
                    inside = 0
                    for i in range(_SUBSAMPLES):
                        y = row - middle - y0 + (i + 0.5) / _SUBSAMPLES - 0.5
                        for j in range(_SUBSAMPLES):
                            x = column - middle - x0 + (j + 0.5) / _SUBSAMPLES - 0.5
                            u, v = (x * cosine + y * sine) / a, (y * cosine - x * sine) / b
                            if u * u + v * v <= q:
                                inside += 1
                    line[column] += density * share * inside
        for column in range(size):
            out[layer, row, column] = line[column]


@compiled()
def _area(d: float, radius: float) -> float:
    """Integral of sqrt(radius^2 - x^2) from 0 to d, d cut to the circle."""
    d = min(max(d, -radius), radius)
    return 0.5 * (d * math.sqrt(radius * radius - d * d) + radius * radius * math.asin(d / radius))


@compiled(parallel=True)
def _fill_projections(
    parts: Doubles, theta: Doubles, heights: Doubles, planes: Doubles, axis: float, out: NDArray[np.float32]
) -> None:
    layers, angles, columns = out.shape
    for job in prange(layers * angles):
        layer, k = job // angles, job % angles
        line = np.zeros(columns)
        cosine, sine = math.cos(theta[k]), math.sin(theta[k])
        for plane in range(len(planes)):
            z = heights[layer] + planes[plane]
            for part in range(parts.shape[0]):
                density, x0, y0, z0, a, b, c, phi = parts[part]
                q = 1.0 - ((z - z0) / c) ** 2
                if q <= 0.0:
                    continue
                turned = theta[k] - phi
                square = (a * math.cos(turned)) ** 2 + (b * math.sin(turned)) ** 2
                radius = math.sqrt(q * square)
                centre = axis + x0 * cosine + y0 * sine
                scale = density * 2.0 * a * b / square / len(planes)
                first = max(0, math.floor(centre - radius + 0.5))
                beyond = min(columns, math.floor(centre + radius + 0.5) + 1)
                before = _area(first - 0.5 - centre, radius)
                for column in range(first, beyond):
                    after = _area(column + 0.5 - centre, radius)
                    line[column] += scale * (after - before)
                    before = after
        for column in range(columns):
            out[layer, k, column] = line[column]
