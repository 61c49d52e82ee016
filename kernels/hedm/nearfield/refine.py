"""Orientations brought from a rough one to where the confidence is largest, each voxel by itself; and those that are
better at a neighbour spread to where they are better, too.

The confidence has steps, not slopes: it is climbed by trying turns in fourteen directions, finer and finer, and of the
plateau that is found the middle is taken, which the true orientation is likelier to be near than its edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled, threads
from kernels.hedm.nearfield.search import Images, check_together, images, score
from kernels.hedm.nearfield.setup import Optics, Setup
from kernels.hedm.nearfield.spots import Spots
from kernels.hedm.nearfield.voxels import Voxels

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Whole = NDArray[np.int64]

_FACES = np.concatenate([np.eye(3), -np.eye(3)])
_CORNERS = np.array([(a, b, c) for a in (-1.0, 1.0) for b in (-1.0, 1.0) for c in (-1.0, 1.0)]) / math.sqrt(3)
DIRECTIONS = np.concatenate([_FACES, _CORNERS])
FARTHEST = 16  # least steps from a point to the edge of its plateau that are looked for


@dataclass(frozen=True, eq=False)
class Fit:
    """What each voxel has come to.

    Attributes
    ----------
    orientations : ndarray, shape (voxels, 3, 3)
    hits, counted : ndarray of int64, shape (voxels,)
        Sample points of reflections on spots at all distances, and all that fall on the detector.
    """

    orientations: Floats
    hits: Whole
    counted: Whole

    @property
    def confidence(self) -> Floats:
        return np.asarray(self.hits / np.maximum(self.counted, 1))


class Turns(NamedTuple):
    """The small turns that are tried, worked out once for all voxels and for whatever computes.

    Each is a rotation vector in radians, in the sample frame, with sin a / a and (1 - cos a) / a^2 of its angle a.

    Attributes
    ----------
    tried : ndarray, shape (levels, 14, 5)
        In all `DIRECTIONS`, each time by half the angle.
    aside : ndarray, shape (2, FARTHEST + 1, 3, 5)
        By so many of the last angle about each axis, one way and the other.
    middles : ndarray, shape (FARTHEST + 1, FARTHEST + 1, 3, 5)
        To the middle between the places so many steps away on both sides.
    """

    tried: Floats
    aside: Floats
    middles: Floats


def turns(step_deg: float, least_deg: float) -> Turns:
    step, least, steps = math.radians(step_deg), math.radians(least_deg), []
    while step >= least * 0.999:
        steps.append(step)
        step *= 0.5
    along = least * np.arange(FARTHEST + 1)
    tried = np.reshape(steps, (-1, 1, 1)) * DIRECTIONS
    aside = np.multiply.outer(np.stack([along, -along]), np.eye(3))
    middles = np.multiply.outer(0.5 * (along[:, None] - along), np.eye(3))
    return Turns(_with_factors(tried), _with_factors(aside), _with_factors(middles))


def _with_factors(vectors: Floats) -> Floats:
    angle = np.sqrt((vectors**2).sum(axis=-1))
    some = np.where(angle > 0, angle, 1.0)
    first = np.where(angle > 0, np.sin(some) / some, 1.0)
    half = np.where(angle > 0, np.sin(0.5 * some) / (0.5 * some), 1.0)
    return np.concatenate([vectors, np.stack([first, 0.5 * half**2], axis=-1)], axis=-1)


def climb(
    spots: Spots,
    setup: Setup,
    voxels: Voxels,
    starts: Floats,
    g0: Floats,
    *,
    step_deg: float,
    least_deg: float,
    centre: bool = True,
) -> Fit:
    """The best orientation near any of each voxel's starts.

    Parameters
    ----------
    starts : ndarray, shape (voxels, k, 3, 3)
    step_deg, least_deg : float
        The first and the last angle of the turns that are tried.
    centre : bool
        Go to the middle of the plateau in the end.
    """
    check_together(spots, setup)
    count = len(voxels.places_um)
    made = np.empty((count, 3, 3))
    hits, counted = np.zeros(count, np.int64), np.ones(count, np.int64)
    x, y = own_points(voxels)
    _climb_all(
        np.ascontiguousarray(starts, np.float64), np.ascontiguousarray(g0, np.float64), setup.optics, images(spots),
        x, y, voxels.corners, turns(step_deg, least_deg), centre, made, hits, counted, threads(),
    )  # fmt: skip
    return Fit(made, hits, counted)


def spread(
    spots: Spots,
    setup: Setup,
    voxels: Voxels,
    fit: Fit,
    g0: Floats,
    *,
    step_deg: float,
    least_deg: float,
    mine: Whole | None = None,
    changed: NDArray[np.bool_] | None = None,
) -> tuple[Fit, NDArray[np.bool_]]:
    """Each voxel takes the orientation of a neighbour where that has a larger confidence here, and climbs from it.

    All look at what their neighbours had before, so that the order in which they do is of no account.

    Parameters
    ----------
    mine : ndarray of int64, optional
        The voxels that are looked at; without it all.
    changed : ndarray of bool, shape (voxels,), optional
        The neighbours whose orientation is new since the last time; others have been tried.

    Returns
    -------
    (Fit, ndarray of bool)
        Of all voxels; and which have changed.
    """
    check_together(spots, setup)
    count = len(voxels.places_um)
    which = np.arange(count) if mine is None else np.asarray(mine, np.int64)
    new = np.zeros(count, np.bool_)
    made = Fit(fit.orientations.copy(), fit.hits.copy(), fit.counted.copy())
    x, y = own_points(voxels)
    _spread_all(
        fit.orientations, fit.hits, fit.counted, voxels.neighbours, which,
        np.ones(count, np.bool_) if changed is None else changed, np.ascontiguousarray(g0, np.float64), setup.optics,
        images(spots), x, y, voxels.corners, turns(step_deg, least_deg), made.orientations, made.hits, made.counted,
        new, threads(),
    )  # fmt: skip
    return made, new


def own_points(voxels: Voxels) -> tuple[Singles, Singles]:
    """Sample points in the order of the voxels themselves."""
    back = np.argsort(voxels.order)
    x, y = voxels.points
    return x[back], y[back]


@compiled()
def turned(u: Floats, turn: Floats, made: Floats) -> None:
    """Fill `made` with `u` turned by one of `Turns`."""
    x, y, z, first, second = turn[0], turn[1], turn[2], turn[3], turn[4]
    for n in range(3):
        a, b, c = u[0, n], u[1, n], u[2, n]
        p, q, r = y * c - z * b, z * a - x * c, x * b - y * a
        made[0, n] = a + first * p + second * (y * r - z * q)
        made[1, n] = b + first * q + second * (z * p - x * r)
        made[2, n] = c + first * r + second * (x * q - y * p)


@compiled()
def _climb(
    u: Floats, hits: int, counted: int, turns: Turns, centre: bool, g0: Floats, optics: Optics, images: Images,
    x: Singles, y: Singles, corners: Floats, frames: NDArray[np.int32], traced: Singles, whole: NDArray[np.bool_],
) -> tuple[int, int]:  # fmt: skip
    """Bring `u` to a larger confidence; what that is."""
    trial, best = np.empty((3, 3)), np.empty((3, 3))
    level = 0
    while level < turns.tried.shape[0]:
        better = False
        for n in range(turns.tried.shape[1]):
            turned(u, turns.tried[level, n], trial)
            hit, of = score(trial, g0, optics, images, x, y, corners, frames, traced, whole)
            if hit * counted > hits * of:
                hits, counted, better = hit, of, True
                best[:] = trial
        if better:
            u[:] = best
        else:
            level += 1
    if centre:
        for axis in range(3):
            reach = np.zeros(2, np.int64)
            for side in range(2):
                for n in range(1, turns.aside.shape[1]):
                    turned(u, turns.aside[side, n, axis], trial)
                    hit, of = score(trial, g0, optics, images, x, y, corners, frames, traced, whole)
                    if hit * counted < hits * of:
                        break
                    reach[side] = n
            turned(u, turns.middles[reach[0], reach[1], axis], trial)
            hit, of = score(trial, g0, optics, images, x, y, corners, frames, traced, whole)
            if hit * counted >= hits * of:
                hits, counted = hit, of
                u[:] = trial
    return hits, counted


@compiled(parallel=True)
def _climb_all(
    starts: Floats, g0: Floats, optics: Optics, images: Images, x: Singles, y: Singles, corners: Floats, turns: Turns,
    centre: bool, made: Floats, hits: Whole, counted: Whole, parts: int,
) -> None:  # fmt: skip
    most, distances = 2 * g0.shape[0], optics.panels.shape[0]
    for part in numba.prange(parts):
        frames, whole = np.empty(most, np.int32), np.empty(most, np.bool_)
        traced = np.empty((most, distances, 6), np.float32)
        u = np.empty((3, 3))
        for n in range(part, starts.shape[0], parts):
            made[n] = starts[n, 0]
            for k in range(starts.shape[1]):
                u[:] = starts[n, k]
                hit, of = score(u, g0, optics, images, x[n], y[n], corners, frames, traced, whole)
                hit, of = _climb(
                    u, hit, of, turns, centre, g0, optics, images, x[n], y[n], corners, frames, traced, whole
                )  # fmt: skip
                if hit * counted[n] > hits[n] * of:
                    made[n], hits[n], counted[n] = u, hit, of


@compiled(parallel=True)
def _spread_all(
    orientations: Floats, hits: Whole, counted: Whole, neighbours: Whole, which: Whole, changed: NDArray[np.bool_],
    g0: Floats, optics: Optics, images: Images, x: Singles, y: Singles, corners: Floats, turns: Turns, made: Floats,
    new_hits: Whole, new_counted: Whole, new: NDArray[np.bool_], parts: int,
) -> None:  # fmt: skip
    most, distances = 2 * g0.shape[0], optics.panels.shape[0]
    for part in numba.prange(parts):
        frames, whole = np.empty(most, np.int32), np.empty(most, np.bool_)
        traced = np.empty((most, distances, 6), np.float32)
        u = np.empty((3, 3))
        for m in range(part, which.shape[0], parts):
            n = which[m]
            better = False
            for k in range(neighbours.shape[1]):
                other = neighbours[n, k]
                if other < 0 or not changed[other] or hits[other] == 0:
                    continue
                hit, of = score(orientations[other], g0, optics, images, x[n], y[n], corners, frames, traced, whole)
                if hit * new_counted[n] > new_hits[n] * of:
                    u[:] = orientations[other]
                    new_hits[n], new_counted[n], better = hit, of, True
            if better:
                new_hits[n], new_counted[n] = _climb(
                    u, new_hits[n], new_counted[n], turns, True, g0, optics, images, x[n], y[n], corners, frames,
                    traced, whole,
                )  # fmt: skip
                made[n] = u
                new[n] = True


__all__ = ["Fit", "Turns", "climb", "spread", "turned", "turns"]
