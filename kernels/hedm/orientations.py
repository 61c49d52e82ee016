"""Orientations: the forms in which programs write them, how far they are apart under a crystal's symmetry, their mean.

An orientation is a rotation `U` (3, 3) that takes the cartesian axes of a crystal (x along a, z along c*) to those of
the sample. Symmetry acts on its right: `U` and `U @ rotation` are the same crystal, for each rotation of
`Crystal.rotations`. Angles are in radians. The forms below say nothing about frames; what programs do with theirs is in
`kernels.hedm.conventions`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import KernelError

Floats = NDArray[np.float64]

_ROUNDS = 50  # of the mean; it settles within a few


def from_quaternions(quaternions: Floats) -> Floats:
    """Rotations (…, 3, 3) of quaternions (…, 4), the scalar first; they need not be of length 1."""
    w, x, y, z = np.moveaxis(quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def to_quaternions(rotations: Floats) -> Floats:
    """Quaternions (…, 4) of rotations (…, 3, 3), the scalar first and not below 0.

    Of the four ways to work one out the best conditioned (Shepperd, J. Guidance and Control 1, 223, 1978).
    """
    r = np.asarray(rotations, np.float64)
    xx, yy, zz = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    products = np.empty((*r.shape[:-2], 4, 4))  # four times each quaternion times its own elements
    products[..., 0, 0], products[..., 1, 1] = 1 + xx + yy + zz, 1 + xx - yy - zz
    products[..., 2, 2], products[..., 3, 3] = 1 - xx + yy - zz, 1 - xx - yy + zz
    for i, j, k in ((1, 2, 3), (2, 3, 1), (3, 1, 2)):
        products[..., 0, i] = products[..., i, 0] = r[..., k - 1, j - 1] - r[..., j - 1, k - 1]
        products[..., j, k] = products[..., k, j] = r[..., k - 1, j - 1] + r[..., j - 1, k - 1]
    best = np.diagonal(products, axis1=-2, axis2=-1).argmax(-1)
    found = np.take_along_axis(products, best[..., None, None], -2)[..., 0, :]
    found = found / np.linalg.norm(found, axis=-1, keepdims=True)
    return np.asarray(np.where(found[..., :1] < 0, -found, found))


def from_rotation_vectors(vectors: Floats) -> Floats:
    """Rotations (…, 3, 3) about the vectors (…, 3) by their lengths: HEXRD's exponential maps."""
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return from_quaternions(np.concatenate([np.cos(angle / 2), 0.5 * np.sinc(angle / (2 * np.pi)) * vectors], -1))


def to_rotation_vectors(rotations: Floats) -> Floats:
    """Vectors (…, 3) along the axes of rotations (…, 3, 3), as long as their angles, 0 to pi."""
    quaternions = to_quaternions(rotations)
    scalar, vector = quaternions[..., :1], quaternions[..., 1:]
    sine = np.linalg.norm(vector, axis=-1, keepdims=True)
    small = sine < 1e-12
    per_sine = np.where(small, 2.0, 2 * np.arctan2(sine, scalar) / np.where(small, 1.0, sine))
    return np.asarray(per_sine * vector)


def from_bunge(angles: Floats) -> Floats:
    """Rotations (…, 3, 3) of Bunge's Euler angles phi1, Phi, phi2 (…, 3): Rz(phi1) Rx(Phi) Rz(phi2), as MIDAS and xfab
    have them: from crystal to sample, which is the transpose of Bunge's own matrix."""
    (c1, c, c2), (s1, s, s2) = np.moveaxis(np.cos(angles), -1, 0), np.moveaxis(np.sin(angles), -1, 0)
    rows = [
        [c1 * c2 - s1 * c * s2, -c1 * s2 - s1 * c * c2, s1 * s],
        [s1 * c2 + c1 * c * s2, -s1 * s2 + c1 * c * c2, -c1 * s],
        [s * s2, s * c2, c],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def to_bunge(rotations: Floats) -> Floats:
    """Bunge's Euler angles (…, 3) of rotations (…, 3, 3): phi1 and phi2 in 0 to 2 pi, Phi in 0 to pi.

    Where Phi is 0 or pi only a sum or a difference is defined; then phi1 is 0, as MIDAS has it.
    """
    r = np.asarray(rotations, np.float64)
    sine = np.hypot(r[..., 0, 2], r[..., 1, 2])
    locked = sine < 1e-9
    first = np.where(locked, 0.0, np.arctan2(r[..., 0, 2], -r[..., 1, 2]))
    alone = np.arctan2(np.where(r[..., 2, 2] > 0, r[..., 1, 0], -r[..., 1, 0]), r[..., 0, 0])
    last = np.where(locked, alone, np.arctan2(r[..., 2, 0], r[..., 2, 1]))
    turns = 2 * np.pi
    return np.stack([first % turns % turns, np.arctan2(sine, r[..., 2, 2]), last % turns % turns], -1)


def random_orientations(count: int, random: np.random.Generator) -> Floats:
    """Rotations (count, 3, 3), all equally likely (Shoemake, in Graphics Gems III, 124, 1992: normal quaternions)."""
    return from_quaternions(random.normal(size=(count, 4)))


def symmetric_equivalents(orientations: Floats, rotations: Floats) -> Floats:
    """(…, s, 3, 3): all orientations that cannot be told from each of `orientations` (…, 3, 3)."""
    return np.asarray(orientations[..., None, :, :] @ rotations)


def nearest_equivalents(orientations: Floats, reference: Floats, rotations: Floats) -> Floats:
    """(n, 3, 3): of each of `orientations` (n, 3, 3) that equivalent which is nearest to `reference` (3, 3), or to its
    own (n, 3, 3). With the identity as reference they lie in the fundamental zone."""
    near = np.broadcast_to(reference, np.shape(orientations))
    overlap = np.einsum("nij,nik,skj->ns", near, orientations, rotations, optimize=True)
    return np.asarray(orientations @ rotations[overlap.argmax(1)])


def misorientations(first: Floats, second: Floats, rotations: Floats) -> Floats:
    """(n,): smallest angles in radians between `first` and `second` (n, 3, 3 each, or one 3, 3) under symmetry."""
    shape = np.broadcast_shapes(np.shape(first), np.shape(second), (1, 3, 3))
    one, other = (to_quaternions(np.broadcast_to(each, shape)) for each in (first, second))
    angles = np.empty(len(one))
    _between(one, other, to_quaternions(rotations), angles)
    return angles


def misorientation_table(first: Floats, second: Floats, rotations: Floats) -> Floats:
    """(n, m): smallest angles in radians between each of `first` (n, 3, 3) and each of `second` (m, 3, 3)."""
    angles = np.empty((len(first), len(second)))
    _among(to_quaternions(first), to_quaternions(second), to_quaternions(rotations), angles)
    return angles


def mean_orientation(orientations: Floats, rotations: Floats, weights: Floats | None = None) -> Floats:
    """(3, 3): the mean of `orientations` (n, 3, 3) that are alike under symmetry.

    Each is taken as its equivalent nearest to the mean, and the mean is that of quaternions (Markley, Cheng, Crassidis
    and Oshman, J. Guidance, Control and Dynamics 30, 1193, 2007), until both stay. It begins at the first; of
    orientations that are spread over the fundamental zone there is no one mean.

    Raises
    ------
    KernelError
        There are no orientations.
    """
    if not len(orientations):
        raise KernelError("There is no mean of no orientations.")
    weight = np.ones(len(orientations)) if weights is None else np.asarray(weights, np.float64)
    mean = np.asarray(orientations[0], np.float64)
    for _ in range(_ROUNDS):
        quaternions = to_quaternions(nearest_equivalents(orientations, mean, rotations))
        _, vectors = np.linalg.eigh(np.einsum("n,ni,nj->ij", weight, quaternions, quaternions))
        before, mean = mean, from_quaternions(vectors[:, -1])
        if np.abs(mean - before).max() < 1e-14:
            break
    return mean


@compiled()
def _angle(one: Floats, other: Floats, turns: Floats) -> float:
    """The smallest angle between two quaternions under symmetry. Of its sine where it is small: a cosine would round
    what is below 1e-8 to 0."""
    a, b, c, d = one[0], one[1], one[2], one[3]
    e, f, g, h = other[0], other[1], other[2], other[3]
    w = a * e + b * f + c * g + d * h
    x = a * f - b * e - c * h + d * g
    y = a * g + b * h - c * e - d * f
    z = a * h - b * g + c * f - d * e
    most, best = -1.0, 0
    for n in range(len(turns)):
        t = turns[n]
        scalar = abs(w * t[0] - x * t[1] - y * t[2] - z * t[3])
        if scalar > most:
            most, best = scalar, n
    t = turns[best]
    i = w * t[1] + x * t[0] + y * t[3] - z * t[2]
    j = w * t[2] - x * t[3] + y * t[0] + z * t[1]
    k = w * t[3] + x * t[2] - y * t[1] + z * t[0]
    return 2.0 * math.atan2(math.sqrt(i * i + j * j + k * k), most)


@compiled(parallel=True)
def _between(first: Floats, second: Floats, turns: Floats, angles: Floats) -> None:
    for n in prange(len(first)):
        angles[n] = _angle(first[n], second[n], turns)


@compiled(parallel=True)
def _among(first: Floats, second: Floats, turns: Floats, angles: Floats) -> None:
    for n in prange(len(first)):
        for m in range(len(second)):
            angles[n, m] = _angle(first[n], second[m], turns)
