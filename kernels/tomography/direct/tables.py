"""What gridding needs to know of one geometry, whatever computes it: lengths, angles, weights, kernel, filter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.tomography.direct.fft import good_length
from kernels.tomography.direct.spreading import DEGREE, Spreading
from kernels.tomography.fbp import angle_weights, filter_response

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

TAPS, OVERSAMPLING = 5, 1.25


@dataclass(frozen=True, slots=True)
class Tables:
    """One geometry.

    Attributes
    ----------
    angles, columns, size
        Of a sinogram; slices are size x size.
    padded, length
        Of the transforms: of a padded projection, and of either side of the grid.
    taps
        Width of the spreading kernel, grid cells.
    edge
        Projections go on beyond the detector, instead of with zeros.
    column_weights : ndarray, shape (columns,)
        What each column counts.
    response : ndarray, shape (padded + 1,)
        Of the filter, frequencies from -padded / 2 to padded / 2; the highest counts half on either side.
    weights, shifts, cosines, sines : ndarray, shape (angles,)
        What each angle counts, where the axis is on the detector for the middle of the transform, and its direction.
    kernel : ndarray
        The spreading kernel, as `Spreading.table` has it.
    shape : ndarray, shape (size,)
        What a row and a column of the transformed grid are multiplied by: one over the kernel's transform.
    circle
        What lies outside of the inscribed circle is 0.
    """

    angles: int
    columns: int
    size: int
    padded: int
    length: int
    taps: int
    edge: bool
    column_weights: Floats
    response: Floats
    weights: Floats
    shifts: Doubles
    cosines: Doubles
    sines: Doubles
    kernel: Floats
    shape: Floats
    circle: bool


def tables(
    theta_deg: Doubles,
    columns: int,
    *,
    axis: float,
    window: str = "ramp",
    padding: str = "zero",
    circle: bool = True,
    scale: float = 1.0,
    size: int | None = None,
    column_weights: Floats | None = None,
    taps: int = TAPS,
    least_length: int = 0,
) -> Tables:
    """For one geometry; arguments as `Gridrec` has them, and the least `length` of the grid."""
    size = size or columns
    theta = np.deg2rad(theta_deg)
    cosines, sines = np.cos(theta), np.sin(theta)
    # A voxel's place on the detector and a column are at most this far apart; the filter must not wrap around.
    farthest = max(axis, columns - 1 - axis, 0.5 * columns) + 0.5 * size
    padded = good_length(math.ceil(2 * farthest))
    response = filter_response(padded, window) / padded
    both_sides = np.concatenate((response[:0:-1], response))
    both_sides[[0, -1]] *= 0.5
    length = good_length(max(math.ceil(OVERSAMPLING * size), least_length))
    kernel = Spreading(taps, length / size, DEGREE)
    pixels = np.arange(size) - size // 2
    middle = 0.5 * (size - 1) - size // 2  # half a pixel off for even sizes
    return Tables(
        angles=len(theta_deg),
        columns=columns,
        size=size,
        padded=padded,
        length=length,
        taps=taps,
        edge=padding == "edge",
        column_weights=np.ones(columns, np.float32)
        if column_weights is None
        else np.asarray(column_weights, np.float32),
        response=both_sides.astype(np.float32),
        weights=(angle_weights(theta_deg) / scale).astype(np.float32),
        shifts=axis - middle * (cosines + sines),
        cosines=cosines,
        sines=sines,
        kernel=kernel.table(),
        shape=((-1.0) ** pixels / kernel.transform(pixels / length)).astype(np.float32),
        circle=circle,
    )
