"""Gaussians fitted to spots in row, column and frame, all spots at once.

The model is a Gaussian integrated over pixels and over frames, as a detector does it, so that the intensity is that of
the whole spot and narrow spots keep their width; it is the product of three functions of one coordinate, of which each
is worked out once per row, column and frame. Gauss-Newton with Marquardt's damping; each pixel's variance is that of
counting what the model says plus the noise of the dark, and uncertainties are scaled by the reduced chi², so counts
need be photons up to a factor only. A direction in which a spot has fewer than three pixels is not fitted: along omega,
the shares of the frames are then taken as they are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.frames.source import Doubles, Floats
from kernels.hedm.peaks.label import Ints

_LEAST = 3  # pixels in a direction
_SPARE = 2  # pixels more than parameters
_STEPS = 40
_SETTLED = 1e-5  # of a pixel
_NARROW, _WIDE = 0.15, 4.0  # widths: least, in pixels, and most, in the extent of the spot
_SQRT_HALF = 0.5**0.5
_NORMAL = (2 * math.pi) ** -0.5


class Fitted(NamedTuple):
    """Of each spot; NaN where nothing was fitted.

    Attributes
    ----------
    parameters, errors : ndarray, shape (n, 7)
        Intensity; row, column, frame; standard deviations in these; and the standard errors of all.
    chi2 : ndarray, shape (n,)
        Reduced.
    """

    parameters: Doubles
    errors: Doubles
    chi2: Doubles


def fit(bounds: Ints, places: Ints, values: Floats, variance: Floats, start: Doubles) -> Fitted:
    """Fit spots.

    Parameters
    ----------
    bounds : ndarray, shape (n + 1,)
        The pixels of spot k are `bounds[k]:bounds[k + 1]` of the others.
    places : ndarray, shape (pixels, 3)
        Row, column, frame.
    values, variance : ndarray, shape (pixels,)
        Counts less the dark, and the variance of the dark.
    start : ndarray, shape (n, 7)
        As `Fitted.parameters`, to begin with.
    """
    parameters, errors = np.full(start.shape, np.nan), np.full(start.shape, np.nan)
    chi2 = np.full(len(start), np.nan)
    _fit_all(bounds, places, values, variance, start, parameters, errors, chi2)
    return Fitted(parameters, errors, chi2)


@compiled()
def _line(first: int, centre: float, width: float, line: Doubles) -> None:
    """A normal distribution integrated over pixels `first`, `first` + 1, …, and its derivatives by centre and width:
    line (pixels, 3)."""
    scale = 1 / width
    last_error, last_normal, last_moment = 0.0, 0.0, 0.0
    for k in range(line.shape[0] + 1):
        z = (first + k - 0.5 - centre) * scale
        error = 0.5 * math.erf(z * _SQRT_HALF)
        normal = _NORMAL * math.exp(-0.5 * z * z)
        if k:
            line[k - 1, 0] = error - last_error
            line[k - 1, 1] = (last_normal - normal) * scale
            line[k - 1, 2] = (last_moment - z * normal) * scale
        last_error, last_normal, last_moment = error, normal, z * normal


@compiled()
def _equations(
    places: Ints,
    values: Floats,
    variance: Floats,
    weights: Doubles,
    first: Ints,
    theta: Doubles,
    free: Ints,
    shares: Doubles,
    lines: tuple[Doubles, Doubles, Doubles],
    weigh: bool,
    matrix: Doubles,
    vector: Doubles,
) -> float:
    """Normal equations of the `free` parameters and the sum of squares; `weigh` takes the weights from the model."""
    rows, columns, frames = lines
    _line(first[0], theta[1], theta[4], rows)
    _line(first[1], theta[2], theta[5], columns)
    if shares.size:
        for k in range(shares.size):
            frames[k, 0], frames[k, 1], frames[k, 2] = shares[k], 0.0, 0.0
    else:
        _line(first[2], theta[3], theta[6], frames)
    slope = np.empty(7)
    matrix[:] = 0
    vector[:] = 0
    total = 0.0
    for i in range(values.size):
        r, c, f = places[i, 0] - first[0], places[i, 1] - first[1], places[i, 2] - first[2]
        a, b, d = rows[r, 0], columns[c, 0], frames[f, 0]
        model = theta[0] * a * b * d
        if weigh:
            weights[i] = 1 / (max(model, 0.0) + variance[i])
        slope[0] = a * b * d
        slope[1] = theta[0] * rows[r, 1] * b * d
        slope[2] = theta[0] * a * columns[c, 1] * d
        slope[3] = theta[0] * a * b * frames[f, 1]
        slope[4] = theta[0] * rows[r, 2] * b * d
        slope[5] = theta[0] * a * columns[c, 2] * d
        slope[6] = theta[0] * a * b * frames[f, 2]
        residual = values[i] - model
        total += weights[i] * residual * residual
        for j in range(free.size):
            weighted = weights[i] * slope[free[j]]
            vector[j] += weighted * residual
            for k in range(j + 1):
                matrix[j, k] += weighted * slope[free[k]]
    for j in range(free.size):
        for k in range(j):
            matrix[k, j] = matrix[j, k]
    return total


@compiled()
def _inverse(matrix: Doubles) -> tuple[Doubles, bool]:
    """Inverse of a symmetric positive matrix, scaled to ones on the diagonal first; whether it is positive."""
    size = matrix.shape[0]
    scale = np.empty(size)
    for j in range(size):
        if not matrix[j, j] > 0:
            return matrix, False
        scale[j] = 1 / math.sqrt(matrix[j, j])
    lower = np.zeros((size, size))
    for j in range(size):
        for k in range(j + 1):
            total = matrix[j, k] * scale[j] * scale[k]
            for m in range(k):
                total -= lower[j, m] * lower[k, m]
            if j > k:
                lower[j, k] = total / lower[k, k]
            elif total > 1e-12:
                lower[j, j] = math.sqrt(total)
            else:
                return matrix, False
    inverse = np.empty((size, size))
    column = np.empty(size)
    for n in range(size):
        for j in range(size):
            total = scale[n] if j == n else 0.0
            for m in range(j):
                total -= lower[j, m] * column[m]
            column[j] = total / lower[j, j]
        for j in range(size - 1, -1, -1):
            total = column[j]
            for m in range(j + 1, size):
                total -= lower[m, j] * column[m]
            column[j] = total / lower[j, j]
        for j in range(size):
            inverse[j, n] = column[j] * scale[j]
    return inverse, True


@compiled()
def _fit_one(
    places: Ints, values: Floats, variance: Floats, start: Doubles, parameters: Doubles, errors: Doubles
) -> float:
    """Fit one spot; the reduced chi², or NaN when it could not be fitted."""
    count = values.size
    first, extent = np.empty(3, np.int64), np.empty(3, np.int64)
    for axis in range(3):
        first[axis] = places[:, axis].min()
        extent[axis] = places[:, axis].max() - first[axis] + 1
    deep = extent[2] >= _LEAST
    free = np.array([0, 1, 2, 3, 4, 5, 6]) if deep else np.array([0, 1, 2, 4, 5])
    if extent[0] < _LEAST or extent[1] < _LEAST or count < free.size + _SPARE:
        return np.nan
    shares = np.zeros(0 if deep else extent[2])
    if not deep:
        for i in range(count):
            shares[places[i, 2] - first[2]] += values[i]
        shares /= shares.sum()
    theta = start.copy()
    for axis in range(3):
        theta[4 + axis] = min(max(theta[4 + axis], 2 * _NARROW), extent[axis])
    lines = (np.empty((extent[0], 3)), np.empty((extent[1], 3)), np.empty((extent[2], 3)))
    weights = np.empty(count)
    size = free.size
    matrix, vector = np.empty((size, size)), np.empty(size)
    trial_matrix, trial_vector = np.empty((size, size)), np.empty(size)
    damping = 1e-3
    settled = False
    for _ in range(_STEPS):
        total = _equations(places, values, variance, weights, first, theta, free, shares, lines, True, matrix, vector)
        better = False
        while damping < 1e8:
            for j in range(size):
                trial_matrix[j, :] = matrix[j, :]
                trial_matrix[j, j] *= 1 + damping
            inverse, positive = _inverse(trial_matrix)
            if not positive:
                damping *= 10
                continue
            step = inverse @ vector
            trial = theta.copy()
            moved = 0.0
            for j in range(size):
                trial[free[j]] += step[j]
                if free[j]:
                    moved = max(moved, abs(step[j]))
            for axis in range(3):
                trial[4 + axis] = min(max(trial[4 + axis], _NARROW), _WIDE * extent[axis])
            inside = trial[0] > 0
            for axis in range(3):
                inside &= first[axis] - 0.5 <= trial[1 + axis] <= first[axis] + extent[axis] - 0.5
            if inside:
                now = _equations(
                    places, values, variance, weights, first, trial, free, shares, lines, False, trial_matrix,
                    trial_vector,
                )  # fmt: skip
                if now <= total * (1 + 1e-12):
                    better = True
                    break
            damping *= 10
        if not better:
            break
        theta = trial
        damping = max(damping / 10, 1e-9)
        if moved < _SETTLED:
            settled = True
            break
    if not settled:
        return np.nan
    total = _equations(places, values, variance, weights, first, theta, free, shares, lines, True, matrix, vector)
    inverse, positive = _inverse(matrix)
    if not positive:
        return np.nan
    chi2 = total / (count - size)
    parameters[:] = theta
    for j in range(size):
        errors[free[j]] = math.sqrt(inverse[j, j] * chi2)
    if not deep:
        parameters[6] = np.nan
    return chi2


@compiled(parallel=True)
def _fit_all(
    bounds: Ints,
    places: Ints,
    values: Floats,
    variance: Floats,
    start: Doubles,
    parameters: Doubles,
    errors: Doubles,
    chi2: Doubles,
) -> None:
    for n in prange(chi2.size):
        a, b = bounds[n], bounds[n + 1]
        chi2[n] = _fit_one(places[a:b], values[a:b], variance[a:b], start[n], parameters[n], errors[n])


def list_by_spot(spot: NDArray[np.int64], count: int) -> tuple[Ints, Ints]:
    """Which pixels each spot has, in their order: they are `order[bounds[k]:bounds[k + 1]]`."""
    order = np.argsort(spot, kind="stable")
    order = order[np.searchsorted(spot[order], 0) :]
    return np.searchsorted(spot[order], np.arange(count + 1)), order
