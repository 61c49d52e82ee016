"""What is to be solved for a group of slices, when it is solved, and sums over groups that any number of threads gives
alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.tomography.iterative.projector import Projector
from kernels.tomography.lanes import LANES, load, minus, plus, scaled, store, times, zeros

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

OnIteration = Callable[[int, Doubles], None]
"""Called after each iteration with its number, from 1, and the residual of each slice. What it raises ends the work."""

_PATIENCE = 3
_NO_RAYS = np.ones((1, 1), np.float32)


class Reason(StrEnum):
    """Why the work on a slice ended."""

    NOISE = "noise"  # the residual is as small as the noise: more iterations would fit the noise
    SETTLED = "settled"  # iterations hardly change anything any more
    ITERATIONS = "iterations"  # as many as were allowed


@dataclass(frozen=True)
class Rule:
    """When a slice is done.

    `tolerance` is the relative change per iteration below which, three times in a row, it has settled (0: never);
    `noise` (LANES,) the standard deviation of the line integrals, for those methods that stop at it.
    """

    iterations: int
    tolerance: float
    noise: Doubles | None = None


@dataclass
class Watch:
    """Holds the rule against the slices of a group. A slice that is done is left as it is while others go on, so that
    it does not matter which slices share a group."""

    rule: Rule
    slices: int
    on_iteration: OnIteration | None = None

    def __post_init__(self) -> None:
        self.residuals: list[Doubles] = []
        self.active = np.arange(LANES) < self.slices
        self.iterations = np.zeros(LANES, np.int64)
        self.reasons = [Reason.ITERATIONS] * self.slices
        self._quiet = np.zeros(LANES, np.int64)
        self._last = np.full(LANES, np.inf)

    @property
    def lanes(self) -> Floats:
        """1 for slices in work, 0 for those that are done."""
        return self.active.astype(np.float32)

    @property
    def goes_on(self) -> bool:
        return bool(self.active.any()) and len(self.residuals) < self.rule.iterations

    def see(self, residual: Doubles, change: Doubles | None = None) -> None:
        """After an iteration: the residual of each slice, root mean square, and the relative change of whatever tells
        that the method has settled, if that is not the residual."""
        if change is None:
            change = np.abs(self._last - residual) / np.maximum(residual, 1e-30)
        self._last = residual
        self.iterations[self.active] += 1
        self._quiet = np.where(change <= self.rule.tolerance, self._quiet + 1, 0)
        shown = np.where(self.active, residual, np.nan)
        self.residuals.append(shown)
        for lane in map(int, np.flatnonzero(self.active)):
            if self.rule.noise is not None and residual[lane] <= self.rule.noise[lane]:
                self._done(lane, Reason.NOISE)
            elif self._quiet[lane] >= _PATIENCE and self.rule.tolerance > 0:
                self._done(lane, Reason.SETTLED)
        if self.on_iteration:
            self.on_iteration(len(self.residuals), shown[: self.slices])

    def _done(self, lane: int, reason: Reason) -> None:
        self.active[lane] = False
        self.reasons[lane] = reason


class Problem:
    """Find x with A x = `measured` in the sense of least weighted squares.

    Parameters
    ----------
    projector
        A.
    measured : ndarray, (angles, columns, LANES) float32
        Line integrals.
    roots : ndarray of that shape, or None
        Square roots of the weights of the line integrals, 0 where one is missing.
    """

    def __init__(self, projector: Projector, measured: Floats, roots: Floats | None) -> None:
        self.projector, self.measured, self.roots = projector, measured, roots
        rays = projector.angles * projector.columns
        self.weight = np.full(LANES, rays) if roots is None else np.maximum(dot(roots, roots), 1e-30)

    def misfit(
        self, image: Floats, out: Floats, chosen: Integers | None = None, *, rays: Floats = _NO_RAYS, whole: bool = True
    ) -> Doubles:
        """Fill the rows `chosen` of `out` with rays W (b - A x), or W^1/2 (b - A x) unless `whole`.

        Returns the sum of W (b - A x)^2 over these rows, for each slice.
        """
        chosen = np.arange(self.projector.angles) if chosen is None else chosen
        self.projector.forward(image, out, chosen)
        squares = np.zeros((len(chosen), LANES), np.float32)
        roots = np.ones((1, 1, LANES), np.float32) if self.roots is None else self.roots
        _misfit(self.measured, roots, rays, chosen, whole, out, squares)
        return np.asarray(squares.sum(0, dtype=np.float64))

    def rms(self, squares: Doubles) -> Doubles:
        """Root of the weighted mean square from the sum of squares."""
        return np.asarray(np.sqrt(squares / self.weight))


def dot(left: Floats, right: Floats) -> Doubles:
    """Sum of the products for each lane, (LANES,)."""
    sums = np.zeros((len(left), LANES), np.float32)
    _dot(left, right, sums)
    return np.asarray(sums.sum(0, dtype=np.float64))


def combine(out: Floats, keep: Doubles | Floats, factor: Doubles | Floats, other: Floats) -> None:
    """out = keep out + factor other, `keep` and `factor` (LANES,)."""
    _combine(out, np.asarray(keep, np.float32), np.asarray(factor, np.float32), other)


def multiply(out: Floats, left: Floats, right: Floats) -> None:
    """out = left right."""
    _multiply(out, left, right)


@compiled(parallel=True, fastmath=True)
def _misfit(
    measured: Floats, roots: Floats, rays: Floats, chosen: Integers, whole: bool, out: Floats, squares: Floats
) -> None:
    columns = out.shape[1]
    for at in prange(len(chosen)):
        k = chosen[at]
        total = zeros()
        for i in range(columns):
            place = (k * columns + i) * LANES
            value = minus(load(measured, place), load(out, place))
            if len(roots) > 1:
                value = times(load(roots, place), value)
            total = plus(total, times(value, value))
            if whole:
                if len(roots) > 1:
                    value = times(load(roots, place), value)
                if len(rays) > 1:
                    value = scaled(rays[k, i], value)
            store(out, place, value)
        store(squares, at * LANES, total)


@compiled(parallel=True, fastmath=True)
def _dot(left: Floats, right: Floats, sums: Floats) -> None:
    wide = left.shape[1]
    for row in prange(left.shape[0]):
        total = zeros()
        for i in range(wide):
            place = (row * wide + i) * LANES
            total = plus(total, times(load(left, place), load(right, place)))
        store(sums, row * LANES, total)


@compiled(parallel=True, fastmath=True)
def _combine(out: Floats, keep: Floats, factor: Floats, other: Floats) -> None:
    wide = out.shape[1]
    for row in prange(out.shape[0]):
        kept, taken = load(keep, 0), load(factor, 0)
        for i in range(wide):
            place = (row * wide + i) * LANES
            store(out, place, plus(times(kept, load(out, place)), times(taken, load(other, place))))


@compiled(parallel=True, fastmath=True)
def _multiply(out: Floats, left: Floats, right: Floats) -> None:
    wide = out.shape[1]
    for row in prange(out.shape[0]):
        for i in range(wide):
            place = (row * wide + i) * LANES
            store(out, place, times(load(left, place), load(right, place)))
