"""The reflections of a crystal, sorted into rings, with what is to be expected of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.hedm.crystals import Crystal

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SAME = 1e-7  # relative difference of lengths that are one ring
_MOST = 3_000_000  # reflections that are looked at
_FINER = 1.3  # by how much the sphere grows until it holds as many rings as were asked for


class Close(NamedTuple):
    """Two rings that lie close together."""

    first: int
    second: int
    apart_rad: float


@dataclass(frozen=True, eq=False)
class Reflections:
    """Reflections (n) in rings (r), from the smallest angle on; both of each Friedel pair are there.

    A ring is what has the same length of the reciprocal vector: one family of equivalent reflections, or several where
    the lattice makes them coincide exactly, as {333} and {511} of a cube.

    Attributes
    ----------
    hkl : (n, 3) indices
    ring : (n,) number of the ring, from 0
    g0 : (n, 3) reciprocal vectors of the unstrained crystal in its cartesian axes, 1/Å
    length : (n,) their lengths, 1/Å
    strength : (n,) squared structure factor, electrons²; 1 where the atoms are not known
    d_A, two_theta : (r,) spacing in Å, scattering angle in radians
    multiplicity : (r,) how many reflections a ring has
    intensity : (r,) of the ring of a powder against the strongest listed: the sum of strengths with the Lorentz
        factor 1/(sin² theta cos theta); by multiplicity alone where the atoms are not known
    labels : the families of each ring, such as "{333} {511}"
    """

    crystal: Crystal
    wavelength_A: float
    hkl: Ints
    ring: Ints
    g0: Floats
    length: Floats
    strength: Floats
    d_A: Floats
    two_theta: Floats
    multiplicity: Ints
    intensity: Floats
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.hkl)

    @property
    def rings(self) -> int:
        return len(self.d_A)

    def of_rings(self, rings: Sequence[int] | Ints) -> Reflections:
        """Only these rings, numbered anew in their order from the smallest angle on."""
        kept = np.unique(np.asarray(rings, np.int64))
        if len(kept) and not (kept[0] >= 0 and kept[-1] < self.rings):
            raise KernelError(f"There are rings 0 to {self.rings - 1}, and not all of {kept.tolist()}.")
        number = np.full(self.rings, -1)
        number[kept] = np.arange(len(kept))
        mine = number[self.ring] >= 0
        return Reflections(
            self.crystal,
            self.wavelength_A,
            self.hkl[mine],
            number[self.ring[mine]],
            self.g0[mine],
            self.length[mine],
            self.strength[mine],
            self.d_A[kept],
            self.two_theta[kept],
            self.multiplicity[kept],
            self.intensity[kept],
            tuple(self.labels[n] for n in kept),
        )

    def close_rings(self, within_rad: float) -> list[Close]:
        """Neighbouring rings that lie within so many radians of each other in two theta, which spots cannot tell
        apart."""
        gaps = np.diff(self.two_theta)
        return [Close(int(n), int(n) + 1, float(gaps[n])) for n in np.flatnonzero(gaps < within_rad)]


def list_reflections(
    crystal: Crystal,
    wavelength_A: float,
    *,
    max_two_theta: float | None = None,
    rings: int | None = None,
    min_intensity: float = 0.0,
) -> Reflections:
    """The reflections that are not extinct, up to `max_two_theta` (radians), of the first `rings` rings of at least
    `min_intensity` of the strongest, which may be farther out.

    Raises
    ------
    KernelError
        There is no limit, or none is within it.
    """
    if max_two_theta is None and rings is None:
        raise KernelError("Give a limit of the reflections: the largest two theta, or how many rings.")
    if not 0 < wavelength_A < math.inf:
        raise KernelError(f"The wavelength {wavelength_A} Å is not above 0.")
    most = math.pi if max_two_theta is None else min(max_two_theta, math.pi)
    longest = 2 * math.sin(most / 2) / wavelength_A
    reach = longest if rings is None else min(longest, 2 / (crystal.volume_A3 ** (1 / 3)))
    while True:
        found = _within(crystal, wavelength_A, reach)
        strong = np.flatnonzero(found.intensity >= min_intensity) if found.rings else np.zeros(0, np.int64)
        if reach >= longest or (rings is not None and len(strong) >= rings):
            break
        reach = min(longest, reach * _FINER)
    if not len(strong):
        sentence = f"No reflection of {crystal.name} lies within two theta {math.degrees(most):.4g}° at this wavelength"
        raise KernelError(f"{sentence} and reaches the intensity {min_intensity:g}.", Exit.BAD_INPUT)
    listed = found.of_rings(strong[:rings])
    return replace(listed, intensity=listed.intensity / max(float(listed.intensity.max()), 1e-300))


def _within(crystal: Crystal, wavelength_A: float, reach: float) -> Reflections:
    """All reflections with reciprocal vectors no longer than `reach` (1/Å)."""
    if 4 / 3 * math.pi * reach**3 * crystal.volume_A3 > _MOST:
        raise KernelError(f"More than {_MOST:,} reflections lie within the limit; give a smaller two theta.")
    hkl = _indices(crystal, reach * (1 + 1e-12))
    hkl = hkl[~crystal.absent(hkl)]
    family, heads = _families(crystal, hkl)
    length = np.linalg.norm(heads @ crystal.b0.T, axis=1)
    order = np.argsort(length, kind="stable")
    starts = np.diff(length[order], prepend=-1.0) > _SAME * length[order]
    ring_of_family = np.empty(len(heads), np.int64)
    ring_of_family[order] = np.cumsum(starts) - 1
    ring = ring_of_family[family]
    order = np.lexsort((-hkl[:, 2], -hkl[:, 1], -hkl[:, 0], family, length[family], ring))
    hkl, family, ring = hkl[order], family[order], ring[order]
    g0 = hkl @ crystal.b0.T
    strength = _strengths(crystal, heads, wavelength_A)[family]
    rings = int(ring.max(initial=-1)) + 1
    multiplicity = np.bincount(ring, minlength=rings)
    d_A = np.bincount(ring, minlength=rings) / np.bincount(ring, np.linalg.norm(g0, axis=1), rings)
    theta = np.arcsin(np.minimum(wavelength_A / (2 * d_A), 1.0))
    intensity = np.bincount(ring, strength, rings)
    if crystal.atoms:
        intensity = intensity / (np.sin(theta) ** 2 * np.maximum(np.cos(theta), 1e-9))
    return Reflections(
        crystal,
        wavelength_A,
        hkl,
        ring,
        g0,
        np.linalg.norm(g0, axis=1),
        strength,
        d_A,
        2 * theta,
        multiplicity,
        intensity / max(float(intensity.max(initial=0)), 1e-300),
        _labels(heads, ring_of_family, rings),
    )


def _indices(crystal: Crystal, reach: float) -> Ints:
    """All indices but 000 of reciprocal vectors no longer than `reach`: |h| <= reach · a, and so on."""
    most = np.floor(reach * np.linalg.norm(crystal.a0, axis=0)).astype(int)
    h, k, l = (np.arange(-n, n + 1) for n in most)  # noqa: E741 -- their name
    hkl = np.stack(np.meshgrid(h, k, l, indexing="ij"), -1).reshape(-1, 3)
    squared = ((hkl @ crystal.b0.T) ** 2).sum(1)
    return np.asarray(hkl[(squared > 0) & (squared <= reach**2)], np.int64)


def _families(crystal: Crystal, hkl: Ints) -> tuple[Ints, Ints]:
    """The number (n,) of each reflection's family under the Laue class, and the member (m, 3) by which each is called:
    with the fewest negative indices, and of those with the largest h, then k, then l."""
    reach = int(np.abs(hkl).max(initial=0)) * 3  # equivalents in oblique axes may have larger indices
    base = 2 * reach + 1
    largest = np.full(len(hkl), -1, np.int64)
    for turn in crystal.fractional_rotations:
        for equivalent in (hkl @ turn, -(hkl @ turn)):
            key = (equivalent + reach) @ np.array([base**2, base, 1]) + (equivalent >= 0).sum(1) * base**3
            np.maximum(largest, key, out=largest)
    keys, family = np.unique(largest, return_inverse=True)
    heads = np.stack([keys // base**2 % base, keys // base % base, keys % base], 1) - reach
    return family.astype(np.int64), heads.astype(np.int64)


def _strengths(crystal: Crystal, heads: Ints, wavelength_A: float) -> Floats:
    if not crystal.atoms:
        return np.ones(len(heads))
    return np.abs(crystal.structure_factors(heads, wavelength_A)) ** 2


def _labels(heads: Ints, ring_of_family: Ints, rings: int) -> tuple[str, ...]:
    names: list[list[str]] = [[] for _ in range(rings)]
    for head, ring in sorted(zip(heads.tolist(), ring_of_family.tolist(), strict=True), key=lambda one: one[0]):
        wide = any(abs(index) > 9 for index in head)
        names[ring].append("{" + (" " if wide else "").join(str(index) for index in head) + "}")
    return tuple(" ".join(families) for families in names)
