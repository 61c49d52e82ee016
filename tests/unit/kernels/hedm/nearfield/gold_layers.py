"""Small layers of gold grains and scans of them, for tests of the near field."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.nearfield.setup import Setup, facing
from kernels.hedm.nearfield.voxels import Voxels, squares

Floats = NDArray[np.float64]

GOLD_A = 4.0782


def cubic(longest: float, a_A: float = GOLD_A) -> Floats:
    """Reciprocal vectors of a face-centred cubic crystal up to a length in 1/Å, the shortest first."""
    most = int(longest * a_A) + 1
    every = np.array(list(itertools.product(range(-most, most + 1), repeat=3)))
    same = (every % 2 == every[:, :1] % 2).all(axis=1)
    found = every[same & (every != 0).any(axis=1)] / a_A
    length = np.linalg.norm(found, axis=1)
    found, length = found[length <= longest], length[length <= longest]
    return np.ascontiguousarray(found[np.argsort(length, kind="stable")])


def cubic_rotations() -> Floats:
    made = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            if np.linalg.det(matrix) > 0:
                made.append(matrix)
    return np.array(sorted(made, key=lambda m: -np.trace(m)))


def random_orientations(count: int, seed: int) -> Floats:
    q = np.random.default_rng(seed).normal(size=(count, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.ascontiguousarray(np.moveaxis(np.array(rows), 2, 0))


def misorientation_deg(a: Floats, b: Floats) -> Floats:
    """Of pairs, shape (n,)."""
    traces = np.einsum("nij,nik,mkj->nm", a, b, cubic_rotations().transpose(0, 2, 1))
    return np.asarray(np.rad2deg(np.arccos(np.clip((traces.max(axis=1) - 1) / 2, -1, 1))))


def scan(*, tilts_deg: tuple[float, float, float] = (0.4, -0.7, 0.3), frames: int = 180) -> Setup:
    """A detector of 384 x 768 pixels of 4 µm at two distances, of which the beam hits the lower edge."""
    return facing(
        0.18,
        [5000.0, 6500.0],
        [(370.0, 383.3), (371.0, 384.1)],
        pixel_um=4.0,
        rows=384,
        columns=768,
        omega_start_deg=-180.0,
        omega_step_deg=360.0 / frames,
        frames=frames,
        tilts_deg=tilts_deg,
        rows_along_z=-1,
    )


def layer(size_um: float = 6.0, width_um: float = 200.0) -> Voxels:
    return squares(width_um, size_um, pixel_um=4.0)
