"""Strain as six numbers, and with the orientation in one matrix: UB, and ImageD11's UBI.

A strained crystal has the reciprocal vectors `g = (I + strain)^-T U B0 hkl` in the sample's axes, and the lattice
vectors `(I + strain) U A0`. The strain is symmetric, so that a polar decomposition gives both back exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.crystals import Crystal

Floats = NDArray[np.float64]

_PLACES = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])  # of 11, 22, 33, 23, 13, 12 in the matrix


def to_matrices(strain: Floats) -> Floats:
    """(…, 3, 3): symmetric matrices of six numbers (…, 6) in the order 11, 22, 33, 23, 13, 12."""
    return np.asarray(np.asarray(strain, np.float64)[..., _PLACES])


def from_matrices(matrices: Floats) -> Floats:
    """(…, 6): of the symmetric part of `matrices` (…, 3, 3)."""
    pairs = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
    return np.stack([(matrices[..., i, j] + matrices[..., j, i]) / 2 for i, j in pairs], -1)


def to_crystal_axes(strain: Floats, orientation: Floats) -> Floats:
    """(…, 6): strain of the sample's axes (…, 6) in the cartesian axes of the crystal."""
    turned = np.swapaxes(orientation, -1, -2) @ to_matrices(strain) @ orientation
    return from_matrices(np.asarray(turned))


def to_ubi(crystal: Crystal, orientation: Floats, strain: Floats) -> Floats:
    """(…, 3, 3): the rows are a, b and c of the strained crystal in the sample's axes, in Å, as ImageD11 has them; the
    inverse of UB."""
    axes = (np.eye(3) + to_matrices(strain)) @ orientation @ crystal.a0
    return np.asarray(np.swapaxes(axes, -1, -2))


def from_ubi(crystal: Crystal, ubi: Floats) -> tuple[Floats, Floats]:
    """The orientations (…, 3, 3) and strains (…, 6) of crystals with the lattice vectors `ubi` (…, 3, 3).

    The lattice vectors have to be right-handed.
    """
    deformation = np.swapaxes(ubi, -1, -2) @ np.linalg.inv(crystal.a0)
    left, _, right = np.linalg.svd(deformation)
    orientation = np.asarray(left @ right)
    stretch = deformation @ np.swapaxes(orientation, -1, -2)
    return orientation, from_matrices(stretch - np.eye(3))
