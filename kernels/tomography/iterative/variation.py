"""Least squares with a penalty on the variation of a slice: total variation, or Huber's which spares gentle slopes.

    minimise  1/2 |W^1/2 (A x - b)|^2 + strength sum h(|grad x|),   h(t) = t^2 / (2 d) for t <= d, t - d / 2 beyond

d = 0 is total variation, isotropic, within a slice. Solved by FISTA (Beck & Teboulle, SIAM J. Imaging Sci. 2 (2009)
183) with the restarts of O'Donoghue & Candès (Found. Comput. Math. 15 (2015) 715), slice by slice. Each step denoises
by the fast gradient projection of Beck & Teboulle (IEEE Trans. Image Process. 18 (2009) 2419) on the dual field, which
for Huber's h is only drawn a little to 0. The field is kept from step to step, so few inner iterations are enough.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.tomography.iterative.problem import Problem, Watch
from kernels.tomography.iterative.projector import Projector
from kernels.tomography.lanes import LANES, at_least, into_disc, load, minus, plus, scaled, store, times, zeros

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

INNER = 10
_LEAST = 1e-20  # instead of a strength of 0


class Denoiser:
    """argmin_u 1/2 |u - v|^2 + strength sum h(|grad u|), with u >= 0 if `nonnegative`.

    Differences are those between voxels within the circle.
    """

    def __init__(self, projector: Projector, *, threshold: Doubles, nonnegative: bool, inner: int = INNER) -> None:
        self._bounds, self._inner = projector.bounds, inner
        self._threshold = threshold
        self._floor = np.float32(0.0 if nonnegative else -np.inf)
        self._across, self._down = projector.image(), projector.image()
        self._ahead_across, self._ahead_down = projector.image(), projector.image()

    def __call__(self, image: Floats, gradient: Floats, step: float, strength: Doubles, out: Floats) -> None:
        """Denoise v = image + step gradient into `out`; `strength` (LANES,)."""
        weight = np.maximum(strength, _LEAST)
        weights = weight.astype(np.float32)
        climb = (1.0 / (8.0 * weight)).astype(np.float32)
        shrink = (1.0 / (1.0 + self._threshold / (8.0 * weight))).astype(np.float32)
        given = image, gradient, np.float32(step), weights
        momentum = 1.0
        for _ in range(self._inner):
            _primal(*given, self._ahead_across, self._ahead_down, self._bounds, self._floor, out)
            following = 0.5 + math.sqrt(0.25 + momentum * momentum)
            push = np.float32((momentum - 1.0) / following)
            momentum = following
            _dual(
                out,
                climb,
                shrink,
                push,
                self._bounds,
                self._across,
                self._down,
                self._ahead_across,
                self._ahead_down,
            )
        _primal(*given, self._across, self._down, self._bounds, self._floor, out)


def fista(
    problem: Problem,
    image: Floats,
    watch: Watch,
    *,
    strength: Doubles,
    threshold: Doubles,
    nonnegative: bool,
    spectral: float,
    inner: int = INNER,
) -> None:
    """Minimise the penalised squares from `image` on, in place; `strength` and `threshold` (LANES,).

    `spectral` bounds the largest eigenvalue of A^T A. It is about N times that of the finest detail, for which FISTA
    then takes some sqrt(N) iterations; so the change that `watch` sees is sqrt(N) times the relative one of the slice,
    and none before twice as many iterations, as steps begin small and grow.
    """
    projector = problem.projector
    denoise = Denoiser(projector, threshold=threshold, nonnegative=nonnegative, inner=inner)
    rows, ahead, gradient, after = projector.sinogram(), image.copy(), projector.image(), projector.image()
    momentum, pace, done = np.ones(LANES), math.sqrt(projector.columns), 0
    while watch.goes_on:
        squares = problem.misfit(ahead, rows)
        projector.back(rows, gradient)
        denoise(ahead, gradient, 1.0 / spectral, strength / spectral, after)
        turned, moved, length = _sums(image, ahead, after, projector.bounds)
        momentum[turned > 0] = 1.0
        following = 0.5 + np.sqrt(0.25 + momentum**2)
        push = (momentum - 1.0) / following
        momentum = following
        _advance(after, watch.lanes, push.astype(np.float32), projector.bounds, image, ahead)
        done += 1
        change = pace * np.sqrt(moved / np.maximum(length, 1e-30))
        watch.see(problem.rms(squares), change if done > 2 * pace else np.where(length > 0, np.inf, 0.0))


@compiled(parallel=True, fastmath=True)
def _primal(
    image: Floats,
    gradient: Floats,
    step: np.float32,
    weight: Floats,
    across: Floats,
    down: Floats,
    bounds: Integers,
    floor: np.float32,
    out: Floats,
) -> None:
    """out = max(floor, v + weight div field). The field is 0 outside, and where it would lead out."""
    wide = image.shape[1]
    for row in prange(len(bounds)):
        weights = load(weight, 0)
        for column in range(bounds[row, 0], bounds[row, 1]):
            place = (row * wide + column) * LANES
            spread = minus(load(across, place), load(across, place - LANES))
            spread = plus(spread, load(down, place))
            if row > 0:
                spread = minus(spread, load(down, place - wide * LANES))
            value = plus(load(image, place), scaled(step, load(gradient, place)))
            store(out, place, at_least(plus(value, times(weights, spread)), floor))


@compiled(parallel=True, fastmath=True)
def _dual(
    image: Floats,
    climb: Floats,
    shrink: Floats,
    push: np.float32,
    bounds: Integers,
    across: Floats,
    down: Floats,
    ahead_across: Floats,
    ahead_down: Floats,
) -> None:
    wide = image.shape[1]
    for row in prange(len(bounds)):
        up, less = load(climb, 0), load(shrink, 0)
        first, beyond = bounds[row]
        begin, end = (bounds[row + 1, 0], bounds[row + 1, 1]) if row + 1 < len(bounds) else (0, 0)
        for column in range(first, beyond):
            place = (row * wide + column) * LANES
            here = load(image, place)
            x = y = zeros()
            if column + 1 < beyond:
                x = minus(load(image, place + LANES), here)
            if begin <= column < end:
                y = minus(load(image, place + wide * LANES), here)
            x = times(less, plus(load(ahead_across, place), times(up, x)))
            y = times(less, plus(load(ahead_down, place), times(up, y)))
            inside = into_disc(x, y)
            x, y = times(inside, x), times(inside, y)
            store(ahead_across, place, plus(x, scaled(push, minus(x, load(across, place)))))
            store(ahead_down, place, plus(y, scaled(push, minus(y, load(down, place)))))
            store(across, place, x)
            store(down, place, y)


def _sums(image: Floats, ahead: Floats, after: Floats, bounds: Integers) -> tuple[Doubles, Doubles, Doubles]:
    """(ahead - after) . (after - image), |after - image|^2 and |after|^2 for each slice."""
    rows = np.zeros((len(bounds), 3, LANES), np.float32)
    _row_sums(image, ahead, after, bounds, rows)
    turned, moved, length = rows.sum(0, dtype=np.float64)
    return turned, moved, length


@compiled(parallel=True, fastmath=True)
def _row_sums(image: Floats, ahead: Floats, after: Floats, bounds: Integers, rows: Floats) -> None:
    wide = image.shape[1]
    for row in prange(len(bounds)):
        turned = moved = length = zeros()
        for column in range(bounds[row, 0], bounds[row, 1]):
            place = (row * wide + column) * LANES
            new = load(after, place)
            move = minus(new, load(image, place))
            turned = plus(turned, times(minus(load(ahead, place), new), move))
            moved = plus(moved, times(move, move))
            length = plus(length, times(new, new))
        store(rows, row * 3 * LANES, turned)
        store(rows, (row * 3 + 1) * LANES, moved)
        store(rows, (row * 3 + 2) * LANES, length)


@compiled(parallel=True, fastmath=True)
def _advance(after: Floats, lanes: Floats, push: Floats, bounds: Integers, image: Floats, ahead: Floats) -> None:
    """ahead = after + push (after - image); image = after, in the lanes in work."""
    wide = image.shape[1]
    for row in prange(len(bounds)):
        taken, factor = load(lanes, 0), load(push, 0)
        for column in range(bounds[row, 0], bounds[row, 1]):
            place = (row * wide + column) * LANES
            new, old = load(after, place), load(image, place)
            move = minus(new, old)
            store(ahead, place, plus(new, times(factor, move)))
            store(image, place, plus(old, times(taken, move)))
