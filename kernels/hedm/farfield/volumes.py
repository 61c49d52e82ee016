"""How large grains are, from the intensities of their spots.

Where diffraction is kinematic, the integrated intensity of a spot is k · V · |F|² · L · P: V the volume of the grain in
the beam, L = 1 / (lambda · w) the Lorentz factor with w as `forward.solve` has it, which is 1 / (sin 2theta |sin eta|)
where the beam is across the axis, P the polarisation, k the same for all spots of a scan (Poulsen, Three-Dimensional
X-Ray Diffraction Microscopy, Springer 2004; Sharma, Huizenga and Offerman, J. Appl. Cryst. 45 (2012) 705). Where the
atoms are not known, what stands in the place of |F|² is measured: the factor by which a family of reflections is
brighter than others, over all grains, as Lauridsen et al., J. Appl. Cryst. 34 (2001) 744, and MIDAS refer spots to the
whole of their ring.

k is not known: volumes are relative until it is told what all grains are together.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.farfield.find import Found
from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.spots import Spots
from kernels.hedm.geometry import Geometry
from kernels.hedm.strains import to_matrices

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

_ROUNDS = 4
_WEAK = 1e-3  # of the strongest reflection: too weak to tell a volume
_SAME = 1e-6  # of reciprocal vectors, 1/Å


def relative_volumes(
    found: Found, spots: Spots, geometry: Geometry, lattice: Lattice, *, strength: Floats | None = None
) -> Floats:
    """(n,): the volume of each grain in counts of the median spot, as it would be from that grain; nan where none of
    its own spots tells.

    It is the V with the least sum of |I - V q| over the spots that the grain owns, q what I is to be expected in
    proportion to: a median, which overlapped spots, and those that the edge of a scan cuts, do not pull.

    Parameters
    ----------
    found : Found
        The grains, and whose the spots are.
    strength : (reflections,), optional
        |F|² of the reflections of `lattice`, in any unit; measured where it is not given.
    """
    mine = np.flatnonzero((found.owner >= 0) & (spots.intensity > 0))
    reflection = found.reflection[mine]
    if strength is not None:
        strong = strength[reflection] > _WEAK * strength.max()
        mine, reflection = mine[strong], reflection[strong]
    if not len(mine):
        return np.full(len(found), np.nan)
    grain, intensity = found.owner[mine].astype(np.int64), spots.intensity[mine]
    expected = _lorentz_polarisation(found, grain, lattice.g0[reflection], spots.omega[mine], geometry)
    if strength is not None:
        expected *= strength[reflection]
        volume = _weighted_medians(intensity / expected, expected, grain, len(found))
    else:
        family = families(lattice)[reflection]
        volume = np.ones(len(found))
        for _ in range(_ROUNDS):
            alone = expected * volume[grain]
            factor = _weighted_medians(intensity / alone, alone, family, int(family.max()) + 1)
            alone = expected * factor[family]
            volume = _weighted_medians(intensity / alone, alone, grain, len(found))
        expected = alone
    return np.asarray(volume * np.median(expected))


def radii(volumes: Floats, together_um3: float) -> Floats:
    """(n,): µm, of balls of these relative volumes that have `together_um3` together."""
    share = volumes / np.nansum(volumes)
    return np.asarray(np.cbrt(0.75 / math.pi * together_um3 * share))


def families(lattice: Lattice) -> Whole:
    """(reflections,): which family of equivalent reflections each belongs to, Friedel mates being of one."""
    family = np.full(len(lattice.g0), -1, np.int64)
    for one in range(len(family)):
        if family[one] < 0:
            turned = lattice.rotations @ lattice.g0[one]
            alike = np.flatnonzero((lattice.ring == lattice.ring[one]) & (family < 0))
            off = np.abs(lattice.g0[alike, None] - np.concatenate([turned, -turned])).max(-1).min(-1)
            family[alike[off < _SAME]] = family.max() + 1
    return family


def _lorentz_polarisation(found: Found, grain: Whole, g0: Floats, omega: Floats, geometry: Geometry) -> Floats:
    """(s,): L · P of spots, for a beam that is polarised along y of the lab, as that of a storage ring."""
    source = geometry.flat.source
    beam, wavelength, along = source[:3], source[3], source[4:7] - (source[4:7] @ source[:3]) * source[:3]
    turn = np.linalg.inv(np.eye(3) + to_matrices(found.strain)) @ found.orientation
    gx, gy, gz = np.einsum("sij,sj->is", turn[grain], g0)
    cos, sin = np.cos(omega), np.sin(omega)
    hx, hy = cos * gx - sin * gy, sin * gx + cos * gy
    ray = beam + wavelength * np.column_stack([hx, hy, gz])
    polarisation = 1.0 - (ray @ along) ** 2 / (along @ along)
    return np.asarray(polarisation / (wavelength * np.maximum(np.abs(hx * beam[1] - hy * beam[0]), 1e-9)))


def _weighted_medians(value: Floats, weight: Floats, group: Whole, groups: int) -> Floats:
    """(groups,): of the values of each group; nan where it has none."""
    order = np.lexsort((value, group))
    first, beyond = (np.searchsorted(group[order], np.arange(groups), side=side) for side in ("left", "right"))
    total = np.append(0.0, np.cumsum(weight[order]))
    middle = np.searchsorted(total[1:], 0.5 * (total[first] + total[beyond]))
    there = beyond > first
    return np.where(there, value[order][np.clip(middle, first, np.maximum(beyond, 1) - 1)], np.nan)
