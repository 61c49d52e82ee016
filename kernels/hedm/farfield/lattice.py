"""The crystal's reflections as the search takes them: lines, shells, and which angles lie between two of them.

A *line* is a Friedel pair of reflections. A *shell* is one ring, or several that spots of a sample of this size cannot
tell apart. Any crystal system: families of equivalent reflections come from the rotations of the Laue class alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

BINS = 2048  # of the cosine of an angle
_COLLINEAR = math.cos(math.radians(8.0))
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Lattice:
    """Reflections of an unstrained crystal.

    Attributes
    ----------
    b0 : (3, 3) takes hkl to reciprocal vectors in crystal cartesian, 1/Å
    hkl : (n, 3) indices, both of each Friedel pair
    ring : (n,) which ring each is on, from 0
    rotations : (m, 3, 3) proper rotations of the Laue class in crystal cartesian
    """

    b0: Floats
    hkl: NDArray[np.integer]
    ring: NDArray[np.integer]
    rotations: Floats

    def __post_init__(self) -> None:
        indices = np.asarray(self.hkl)
        if indices.ndim != 2 or indices.shape[1] != 3 or len(self.ring) != len(indices) or not len(indices):
            raise KernelError(f"A lattice needs reflections (n, 3) and as many rings, not arrays of {indices.shape}.")
        known = {tuple(each) for each in indices.tolist()}
        if any(tuple(-index for index in each) not in known for each in known):
            raise KernelError("Of some reflection hkl the list of reflections lacks -h -k -l; both are needed.")

    @cached_property
    def g0(self) -> Floats:
        """(n, 3) reciprocal vectors in crystal cartesian, 1/Å."""
        return np.ascontiguousarray(np.asarray(self.hkl, np.float64) @ np.asarray(self.b0).T)

    @cached_property
    def length(self) -> Floats:
        """(n,) their lengths, 1/Å."""
        return np.asarray(np.linalg.norm(self.g0, axis=1))

    @cached_property
    def ring_length(self) -> Floats:
        """(rings,) 1/Å."""
        count = np.bincount(self.ring)
        return np.asarray(np.bincount(self.ring, self.length) / np.maximum(count, 1))

    @cached_property
    def lines(self) -> Whole:
        """One reflection of each Friedel pair."""
        indices = np.asarray(self.hkl)
        h, k, l = indices.T  # noqa: E741 -- their name
        return np.flatnonzero((h > 0) | ((h == 0) & ((k > 0) | ((k == 0) & (l > 0)))))

    def shells(self, tolerance: Floats) -> tuple[Whole, Floats]:
        """Which shell each ring belongs to, and where shells begin and end.

        Parameters
        ----------
        tolerance : (rings,) how far from a ring's length its spots may lie, 1/Å

        Returns
        -------
        shell : (rings,)
        bounds : (shells, 2) in 1/Å
        """
        order = np.argsort(self.ring_length)
        low, high = (self.ring_length[order] + sign * tolerance[order] for sign in (-1, 1))
        reach = np.maximum.accumulate(high)
        number = np.concatenate([[0], np.cumsum(low[1:] > reach[:-1])])
        shell = np.empty(len(order), np.int64)
        shell[order] = number
        firsts = np.flatnonzero(np.diff(number, prepend=-1))
        lasts = np.append(firsts[1:], len(order)) - 1
        return shell, np.column_stack([np.minimum.accumulate(low[::-1])[::-1][firsts], reach[lasts]])

    def crowding(self, strain: float) -> Whole:
        """(rings,): how many reflections lie within `strain` of each ring's length, its own among them."""
        near = np.abs(self.length / self.ring_length[:, None] - 1.0) <= strain
        return np.asarray(near.sum(1))

    def seed_rings(self, strain: float) -> list[int]:
        """The rings in the order in which to begin with them: those first whose spots have the fewest meanings."""
        crowding = self.crowding(strain)
        return sorted(range(len(self.ring_length)), key=lambda ring: (crowding[ring], self.ring_length[ring]))

    def heads(self, ring: int) -> list[int]:
        """One reflection of each family of a ring; a reflection and its Friedel mate are one family only where a
        rotation of the crystal takes one to the other."""
        left = list(np.flatnonzero(self.ring == ring))
        heads = []
        while left:
            heads.append(int(left[0]))
            family = self.rotations @ self.g0[left[0]]
            left = [one for one in left if np.abs(family - self.g0[one]).max(1).min() > _SAME]
        return heads

    def angles(self, head: int, partners: list[int]) -> tuple[Floats, Whole]:
        """The reflections of the rings `partners` as seen from `head`, one of those that its own rotations take to each
        other, and none that lie along it.

        Returns
        -------
        cosine : (k,) of the angles between, ascending
        reflection : (k,)
        """
        own = [turn for turn in self.rotations if np.abs(turn @ self.g0[head] - self.g0[head]).max() < _SAME]
        direction = self.g0[head] / self.length[head]
        kept: list[int] = []
        seen = np.zeros((0, 3))
        for one in np.flatnonzero(np.isin(self.ring, partners)):
            if abs(self.g0[one] @ direction) > _COLLINEAR * self.length[one]:
                continue
            if len(seen) and np.abs(seen - self.g0[one]).max(1).min() < _SAME:
                continue
            kept.append(int(one))
            seen = np.concatenate([seen, np.array(own) @ self.g0[one]])
        reflection = np.array(kept, np.int64)
        cosine = self.g0[reflection] @ direction / self.length[reflection] if kept else np.zeros(0)
        order = np.argsort(cosine, kind="stable")
        return cosine[order], reflection[order]

    def partner_rings(self, ring: int, order: list[int], wanted: int) -> list[int]:
        """The first rings of `order` that together have `wanted` reflections that do not lie along those of `ring`."""
        head = int(np.flatnonzero(self.ring == ring)[0])
        direction = self.g0[head] / self.length[head]
        partners: list[int] = []
        have = 0
        for other in order:
            mine = self.ring == other
            have += int((np.abs(self.g0[mine] @ direction) < _COLLINEAR * self.length[mine]).sum())
            partners.append(other)
            if have >= wanted:
                break
        return partners


class AngleTable(NamedTuple):
    """All ways to read a pair of spots as a pair of reflections, of the families (f) of one ring.

    Attributes
    ----------
    first, last : (f, BINS) the entries whose cosine may lie in a bin, and one past the last
    cosine, slack : (entries,) ascending within a family, and how far from it a measured cosine may lie
    length : (entries,) of the partner, 1/Å
    triad : (entries, 3, 3) rows: along the first reflection, across both, and third
    """

    first: NDArray[np.int32]
    last: NDArray[np.int32]
    cosine: Floats
    slack: Floats
    length: Floats
    triad: Floats


def angle_table(lattice: Lattice, ring: int, partners: list[int], tolerance: float) -> AngleTable:
    """The table of a ring against its partners, for angles measured to `tolerance` radians."""
    first, last, cosines, reflections, triads = [], [], [], [], []
    begin = 0
    for head in lattice.heads(ring):
        cosine, reflection = lattice.angles(head, partners)
        slack = _slack(cosine, tolerance)
        centre = (np.arange(BINS) + 0.5) * (2.0 / BINS) - 1.0
        near = np.abs(cosine[None, :] - centre[:, None]) <= slack[None, :] + 1.0 / BINS
        first.append(np.where(near.any(1), begin + near.argmax(1) if len(cosine) else begin, 0))
        last.append(np.where(near.any(1), begin + len(cosine) - near[:, ::-1].argmax(1) if len(cosine) else 0, 0))
        cosines.append(cosine)
        reflections.append(reflection)
        triads += [triad(lattice.g0[head], lattice.g0[one]) for one in reflection]
        begin += len(cosine)
    reflection = np.concatenate(reflections)
    return AngleTable(
        np.array(first, np.int32),
        np.array(last, np.int32),
        np.concatenate(cosines),
        _slack(np.concatenate(cosines), tolerance),
        lattice.length[reflection],
        np.array(triads).reshape(-1, 3, 3),
    )


def triad(a: Floats, b: Floats) -> Floats:
    """(3, 3): rows are unit vectors along a, along a × b, and the third at right angles to both."""
    along = a / np.linalg.norm(a)
    across = np.cross(a, b)
    across = across / np.linalg.norm(across)
    return np.stack([along, across, np.cross(along, across)])


def _slack(cosine: Floats, tolerance: float) -> Floats:
    return np.asarray(tolerance * np.sqrt(np.maximum(1.0 - cosine**2, 0.0)) + 0.5 * tolerance**2)
