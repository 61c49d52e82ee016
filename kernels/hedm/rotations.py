"""Rotation matrices as the geometry needs them: about axes, from a vector, from a beam's tilts and back."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def about_x(angle: float) -> Matrix:
    """Right-handed rotation by `angle` (radians) about x."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def about_y(angle: float) -> Matrix:
    """Right-handed rotation by `angle` (radians) about y."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def about_z(angle: float) -> Matrix:
    """Right-handed rotation by `angle` (radians) about z."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def by_vector(vector: NDArray[np.float64]) -> Matrix:
    """Rotation about the direction of `vector` by its length in radians (the exponential map)."""
    x, y, z = (float(value) for value in vector)
    angle = math.sqrt(x * x + y * y + z * z)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    if angle < 1e-4:
        first, second = 1.0 - angle**2 / 6.0, 0.5 - angle**2 / 24.0
    else:
        first, second = math.sin(angle) / angle, (1.0 - math.cos(angle)) / angle**2
    return np.asarray(np.eye(3) + first * cross + second * (cross @ cross))


def as_vector(matrix: Matrix) -> NDArray[np.float64]:
    """The rotation vector of `matrix`, of a length up to pi: the inverse of `by_vector`."""
    axis = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]]) / 2.0
    sine, cosine = float(np.linalg.norm(axis)), (float(np.trace(matrix)) - 1.0) / 2.0
    angle = math.atan2(sine, cosine)
    if sine > 1e-7:
        return axis * (angle / sine)
    if cosine > 0.0:
        return axis
    # Half a turn: the axis is the column of R + 1 that is longest.
    columns = matrix + np.eye(3)
    longest = columns[:, int(np.argmax(np.linalg.norm(columns, axis=0)))]
    return np.asarray(longest / np.linalg.norm(longest) * angle)


def from_tilts(tilt_x: float, tilt_y: float, tilt_z: float) -> Matrix:
    """Rx(tilt_x) Ry(tilt_y) Rz(tilt_z): the order in which MIDAS and ImageD11 turn a panel."""
    return about_x(tilt_x) @ about_y(tilt_y) @ about_z(tilt_z)


def to_tilts(matrix: Matrix) -> tuple[float, float, float]:
    """The angles of `from_tilts`; the middle one lies between -90 and 90 degrees."""
    tilt_y = math.atan2(matrix[0, 2], math.hypot(matrix[0, 0], matrix[0, 1]))
    return math.atan2(-matrix[1, 2], matrix[2, 2]), tilt_y, math.atan2(-matrix[0, 1], matrix[0, 0])
