"""Least squares without a penalty: SIRT, OS-SART and CGLS.

They differ in what they weigh and how fast they go. Each begins with what is large and smooth and comes to the noise
last, so stopping in time is what regularises them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.tomography.iterative.problem import Problem, Watch, combine, dot, multiply
from kernels.tomography.iterative.projector import Projector
from kernels.tomography.lanes import LANES

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

_SHORTEST = 0.1  # voxels: a ray that meets less of the slice tells nothing that is not rounding


class Preconditioner:
    """The reciprocal row and column sums of A: `rays` (angles, columns) and `voxels` (N, N)."""

    def __init__(self, projector: Projector) -> None:
        image, rows = projector.ones(), projector.sinogram()
        self.rays = _reciprocal(projector.forward(image, rows)[:, :, 0], _SHORTEST)
        rows[:] = 1.0
        self.voxels = _reciprocal(projector.slices_of(projector.back(rows, image), 1)[0], 0.0)


def _reciprocal(values: Floats, least: float) -> Floats:
    return np.divide(1.0, values, out=np.zeros(values.shape, np.float32), where=values > least)


def subsets_of(angles: int, count: int) -> list[Integers]:
    """Angles k, k + count, … for each k < count, in an order in which neighbours in time are far apart in angle."""
    stride = max(1, round(count * 0.618))
    while np.gcd(stride, count) > 1:
        stride += 1
    return [np.arange(i * stride % count, angles, count) for i in range(count)]


def sart(
    problem: Problem,
    image: Floats,
    watch: Watch,
    *,
    subsets: int,
    relaxation: float,
    nonnegative: bool,
    preconditioner: Preconditioner,
) -> None:
    """SIRT with one subset, OS-SART with more; `image` is changed in place.

    x <- x + relaxation C A_s^T R W (b - A_s x) for each subset s in turn, with R and C the reciprocal row and column
    sums (Gilbert, J. Theor. Biol. 36 (1972) 105; Andersen & Kak, Ultrason. Imaging 6 (1984) 81; subsets: Hudson &
    Larkin, IEEE Trans. Med. Imaging 13 (1994) 601). C is that of all angles and weights 1, scaled to the subset:
    as weights are at most 1, it bounds the true one, so missing data make steps shorter and never unstable. One
    subset converges for relaxations below 2; more subsets come near the solution faster, and go round it.

    The residual that `watch` sees is the one met on the way, each subset's before its step.
    """
    projector, rows = problem.projector, problem.projector.sinogram()
    parts = subsets_of(projector.angles, subsets)
    floor = 0.0 if nonnegative else -np.inf
    while watch.goes_on:
        squares = np.zeros(LANES)
        for chosen in parts:
            squares += problem.misfit(image, rows, chosen, rays=preconditioner.rays)
            factor = watch.lanes * np.float32(relaxation * projector.angles / len(chosen))
            projector.back(rows, image, chosen, keep=1.0, factor=factor, scale=preconditioner.voxels, floor=floor)
        watch.see(problem.rms(squares))


def cgls(problem: Problem, image: Floats, watch: Watch) -> None:
    """Conjugate gradients on A^T W A x = A^T W b; `image` is changed in place.

    Hestenes & Stiefel, J. Res. Natl. Bur. Stand. 49 (1952) 409, in the form of Björck, Numerical Methods for Least
    Squares Problems (1996), 7.4.1, with a step length for each slice.
    """
    projector = problem.projector
    residual, work = projector.sinogram(), projector.sinogram()
    problem.misfit(image, residual, whole=False)
    gradient = _gradient(problem, residual, work, projector.image())
    direction = gradient.copy()
    slope = dot(gradient, gradient)
    while watch.goes_on:
        projector.forward(direction, work)
        if problem.roots is not None:
            multiply(work, problem.roots, work)
        step = _ratio(slope, dot(work, work)) * watch.lanes
        combine(image, np.ones(LANES), step, direction)
        combine(residual, np.ones(LANES), -step, work)
        watch.see(problem.rms(dot(residual, residual)))
        _gradient(problem, residual, work, gradient)
        before, slope = slope, dot(gradient, gradient)
        combine(direction, _ratio(slope, before), np.ones(LANES), gradient)


def _gradient(problem: Problem, residual: Floats, work: Floats, out: Floats) -> Floats:
    if problem.roots is None:
        return problem.projector.back(residual, out)
    multiply(work, problem.roots, residual)
    return problem.projector.back(work, out)


def _ratio(above: Doubles, below: Doubles) -> Doubles:
    """0 where there is nothing left to do."""
    return np.divide(above, below, out=np.zeros(LANES), where=below > 1e-30)


def spectral_bound(projector: Projector, *, within: float = 1.03, iterations: int = 30) -> float:
    """The largest eigenvalue of A^T A, from above: its ratio to the true one is at most `within` if that is reached.

    Power iteration; as no entry of A is negative, the largest of the quotients (A^T A v)_i / v_i bounds the eigenvalue
    from above for every positive v (Collatz, Math. Z. 48 (1942) 221), and the Rayleigh quotient from below.
    """
    image, rows, after = projector.ones(), projector.sinogram(), projector.image()
    upper = np.inf
    for _ in range(iterations):
        projector.back(projector.forward(image, rows), after)
        inside = image[..., 0] > 0
        upper = min(upper, float((after[..., 0][inside] / image[..., 0][inside]).max()))
        lower = dot(image, after)[0] / dot(image, image)[0]
        if upper <= within * lower:
            break
        image, after = after, image
        image *= np.float32(1.0 / image.max())
    return upper
