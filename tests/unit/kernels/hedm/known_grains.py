"""Grains and lattices that tests make, without the modules that are tested."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Vector = NDArray[np.float64]


def orientations(count: int, seed: int = 0) -> Vector:
    return np.asarray(Rotation.random(count, np.random.default_rng(seed)).as_matrix())


def positions_um(count: int, radius: float = 500.0, seed: int = 0) -> Vector:
    return np.random.default_rng([seed, 1]).uniform(-radius, radius, (count, 3))


def strains(count: int, size: float = 1e-3, seed: int = 0) -> Vector:
    return np.random.default_rng([seed, 2]).normal(0.0, size, (count, 6))


def face_centred(a_A: float, highest: int) -> Vector:
    """Reciprocal vectors (1/Å) of a face-centred cubic lattice with h² + k² + l² up to `highest`."""
    span = range(-int(highest**0.5) - 1, int(highest**0.5) + 2)
    hkl = [h for h in product(span, repeat=3) if 0 < sum(i * i for i in h) <= highest and len({i % 2 for i in h}) == 1]
    return np.array(hkl, float) / a_A


def full(strain: Vector) -> Vector:
    """The symmetric matrices of six numbers each in the order 11, 22, 33, 23, 13, 12."""
    a, b, c, d, e, f = np.moveaxis(strain, -1, 0)
    return np.moveaxis(np.array([[a, f, e], [f, b, d], [e, d, c]]), (0, 1), (-2, -1))
