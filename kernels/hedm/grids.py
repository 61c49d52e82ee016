"""Grids of orientations that leave no gap larger than they say: over the fundamental zone of any Laue class, and about
one orientation.

The gap of a grid is the largest angle by which an orientation can be away from the nearest of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.hedm.orientations import from_quaternions, from_rotation_vectors

Floats = NDArray[np.float64]

_CANDIDATES = 2000  # directions tried as the middle of a sector


@dataclass(frozen=True, eq=False)
class Grid:
    """Orientations over the fundamental zone: each of `directions` (m, 3), crystal directions that point along the
    sample's z, with `turns` equal turns about it. They are made in parts, since a fine grid does not fit in memory.

    Every orientation, or one of its symmetric equivalents, is at most `gap_rad` away from one of the grid.
    """

    directions: Floats
    turns: int
    gap_rad: float

    def __len__(self) -> int:
        return len(self.directions) * self.turns

    def orientations(self, start: int = 0, stop: int | None = None) -> Floats:
        """Those from `start` to `stop` (n, 3, 3)."""
        number = np.arange(start, len(self) if stop is None else min(stop, len(self)))
        direction = self.directions[number // self.turns]
        half = np.pi * (number % self.turns) / self.turns
        lifted = _lifting(direction)
        turn = np.stack([np.cos(half), np.sin(half)], 1)
        w, x, y = lifted.T
        c, s = turn.T
        to_crystal = np.stack([w * c, x * c + y * s, y * c - x * s, w * s], 1)
        return from_quaternions(to_crystal * np.array([1.0, -1.0, -1.0, -1.0]))

    def parts(self, most: int) -> Iterator[Floats]:
        """All of them, at most so many at a time."""
        for start in range(0, len(self), most):
            yield self.orientations(start, start + most)


def grid_zone(rotations: Floats, gap_rad: float) -> Grid:
    """A grid over the fundamental zone of `rotations` (`Crystal.rotations`) with gaps of at most `gap_rad`.

    Rotations as a circle over each direction of a sphere, the Hopf fibration (Yershova, Jain, LaValle and Mitchell,
    Int. J. Robotics Research 29, 801, 2010), with the sphere in HEALPix (Górski et al., Astrophys. J. 622, 759, 2005).
    Symmetry moves the directions alone, so that the zone is one sector of the sphere, with full circles. A direction is
    at most an angle r (`healpix_radius`) from one of the grid, about an axis at right angles to the turn t that is
    left: the gap is 2 acos(cos(r/2) cos(t/2)).

    Raises
    ------
    KernelError
        The gap is not between 0 and pi / 2.
    """
    if not 0 < gap_rad <= math.pi / 2:
        raise KernelError(f"The gap of a grid of orientations is above 0° and at most 90°, not {gap_rad} rad.")
    side = next(n for n in _sides(gap_rad) if healpix_radius(n) <= gap_rad * math.sqrt(2 / 3))
    radius = healpix_radius(side)
    left = 2 * math.acos(min(1.0, math.cos(gap_rad / 2) / math.cos(radius / 2)))
    turns = math.ceil(math.pi / left - 1e-9)
    gap = 2 * math.acos(math.cos(radius / 2) * math.cos(math.pi / (2 * turns)))
    directions = healpix(side)
    for normal in _sector(rotations):
        directions = directions[directions @ normal >= -math.sin(radius)]
    return Grid(directions, turns, gap)


def grid_ball(radius_rad: float, gap_rad: float) -> Floats:
    """Small rotations (n, 3, 3), the identity among them, which leave no gap above `gap_rad` up to the angle
    `radius_rad`; times an orientation from the left they surround it.

    Their vectors are a body-centred lattice, the one with the fewest points to a gap (Bambah, 1954; Conway and Sloane,
    Sphere Packings, Lattices and Groups, ch. 2). Rotations are no farther apart than their vectors.
    """
    if not (gap_rad > 0 and 0 <= radius_rad <= math.pi):
        raise KernelError("A grid about an orientation has a gap above 0° and a radius of 0° to 180°.")
    edge = 4 * gap_rad / math.sqrt(5)
    most = math.ceil((radius_rad + gap_rad) / edge)
    along = np.arange(-most, most + 1) * edge
    corners = np.stack(np.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3)
    vectors = np.concatenate([corners, corners + edge / 2])
    length = np.linalg.norm(vectors, axis=1)
    inside = length <= (radius_rad + gap_rad if radius_rad else 0)
    return from_rotation_vectors(vectors[inside][np.argsort(length[inside], kind="stable")])


def healpix(side: int) -> Floats:
    """(12 side², 3): the centres of HEALPix cells, in rings from the north to the south."""
    ring = np.arange(1, 2 * side)
    cap, belt = ring[ring < side], np.append(ring[ring >= side], 2 * side)
    z = np.concatenate([1 - cap**2 / (3 * side**2), 4 / 3 - 2 * belt / (3 * side)])
    cells = np.concatenate([4 * cap, np.full(len(belt), 4 * side)])
    shift = np.concatenate([np.full(len(cap), 0.5), np.where((belt - side) % 2 == 0, 0.5, 0.0)])
    z, cells, shift = (np.concatenate([half, half[-2::-1]]) for half in (z, cells, shift))
    z[len(z) // 2 + 1 :] *= -1
    number = np.arange(cells.sum()) - np.repeat(np.cumsum(cells) - cells, cells)
    azimuth = (number + np.repeat(shift, cells)) * 2 * np.pi / np.repeat(cells, cells)
    height = np.repeat(z, cells)
    across = np.sqrt(1 - height**2)
    return np.stack([across * np.cos(azimuth), across * np.sin(azimuth), height], 1)


def healpix_radius(side: int) -> float:
    """The largest angle by which a direction can be away from the nearest centre of a HEALPix cell: that of the poles,
    which lie in the middle of the four first. (It is less than to the corners of cells, which are no neighbourhoods.)
    """
    return math.acos(1 - 1 / (3 * side**2))


def _sides(gap_rad: float) -> Iterator[int]:
    first = max(1, int(0.5 / gap_rad))
    yield from range(first, 100 * first + 100)


def _sector(rotations: Floats) -> Floats:
    """(n, 3): inward normals of the planes about one sector of the sphere under `rotations`: what is nearer to its
    middle than to the images of that. The middle is as far from its images as can be: so the sector is compact."""
    number = np.arange(_CANDIDATES) + 0.5
    z, azimuth = 1 - 2 * number / _CANDIDATES, np.pi * (1 + math.sqrt(5)) * number
    across = np.sqrt(1 - z**2)
    candidates = np.stack([across * np.cos(azimuth), across * np.sin(azimuth), z], 1)
    others = rotations[1:]
    if not len(others):
        return np.zeros((0, 3))
    nearest = np.einsum("ni,sij,nj->ns", candidates, others, candidates).max(1)
    middle = candidates[nearest.argmin()]
    normals = middle - others @ middle
    return np.asarray(normals / np.linalg.norm(normals, axis=1, keepdims=True))


def _lifting(directions: Floats) -> Floats:
    """(n, 3): the elements w, x and y of the quaternions that lift z to `directions` by the shortest way."""
    x, y, z = directions.T
    w = np.sqrt((1 + z) / 2)
    down = w < 1e-9  # the way to -z may go through any direction
    twice = np.where(down, 1.0, 2 * w)
    return np.stack([w, np.where(down, 1.0, -y / twice), np.where(down, 0.0, x / twice)], 1)
