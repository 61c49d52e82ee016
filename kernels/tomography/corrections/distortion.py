"""Radial distortion of the lens between scintillator and camera.

The backward model of Vo, Atwood, Drakopoulos (Opt. Express 23 (2015) 32859): what belongs at the distance r from the
centre of distortion is found at r (k0 + k1 r + k2 r^2 + ...) on the camera, in the same direction.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import KernelError

Floats = NDArray[np.float32]


class Lens(NamedTuple):
    """Centre of distortion, pixels from the middle of pixel (0, 0), and the coefficients k0, k1, ... of r in pixels."""

    row: float
    column: float
    coefficients: tuple[float, ...]


def rows_needed(lens: Lens, shape: tuple[int, int], start: int, stop: int) -> tuple[int, int]:
    """Which rows of a camera of `shape` are needed for rows `start` to `stop` of the picture without distortion.

    Returns
    -------
    (first, beyond)
        For `undistort`: rows `first` to `beyond`.
    """
    rows, columns = shape
    lows, highs = [], []
    # along a row the distance to the centre, and with it what is found, goes through all factors between these
    reach = max(lens.column, columns - 1 - lens.column, 0.0)
    for y in {start, stop - 1}:
        x = np.linspace(0, reach, 2 * columns)
        away = y - lens.row
        found = lens.row + away * np.polyval(lens.coefficients[::-1], np.hypot(x, away))
        lows.append(found.min())
        highs.append(found.max())
    first = min(max(0, math.floor(min(lows)) - 1), max(rows - 2, 0))
    return first, max(min(first + 2, rows), min(rows, math.ceil(max(highs)) + 2))


def undistort(
    frames: Floats, lens: Lens, *, rows: tuple[int, int] | None = None, first: int = 0, height: int | None = None
) -> Floats:
    """Frames as a lens without distortion would have given them.

    Parameters
    ----------
    frames : ndarray, shape (frames, rows, columns), float32
        Whole frames, or rows `first` and following of frames that are `height` high: those of `rows_needed`.
    lens
        What is known of the lens.
    rows
        Rows (start, stop) of the result; all by default.
    first, height
        See `frames`.

    Returns
    -------
    ndarray, shape (frames, stop - start, columns), float32
        Interpolated linearly; what comes from outside of the camera has the value of its edge.

    Raises
    ------
    KernelError
        When the model folds the picture over itself, or rows are asked for that a frame does not have.

    Notes
    -----
    Harm: interpolation smooths the noise, by up to a half of its standard deviation between pixels, and detail at the
    limit of resolution. What is told by its noise, such as zingers, is to be taken out before.
    """
    height = frames.shape[1] if height is None else height
    start, stop = (0, height) if rows is None else rows
    if not 0 <= start < stop <= height:
        raise KernelError(f"Distortion: rows {start} to {stop} are not a part of the {height} rows of a frame.")
    farthest = math.hypot(
        max(lens.row, height - 1 - lens.row, 0.0), max(lens.column, frames.shape[2] - 1 - lens.column, 0.0)
    )
    slopes = np.array(lens.coefficients) * np.arange(1, len(lens.coefficients) + 1)
    growth = np.polyval(slopes[::-1], np.linspace(0, farthest, 1000))
    if not (growth > 0).all():
        raise KernelError(
            f"Distortion: with these coefficients the picture folds over itself within {farthest:.0f} pixels of the "
            "centre; they are for distances in pixels."
        )
    result = np.empty((len(frames), stop - start, frames.shape[2]), np.float32)
    _remap(frames, lens.row, lens.column, np.array(lens.coefficients), start, first, height, result)
    return result


@compiled(parallel=True)
def _remap(
    frames: Floats,
    centre_row: float,
    centre_column: float,
    coefficients: NDArray[np.float64],
    start: int,
    first: int,
    height: int,
    result: Floats,
) -> None:
    """Where each pixel of a row comes from is worked out once for all frames."""
    count, rows, columns = frames.shape
    for row in prange(result.shape[1]):
        top = np.empty(columns, np.int32)
        left = np.empty(columns, np.int32)
        down = np.empty(columns, np.float32)
        right = np.empty(columns, np.float32)
        away = start + row - centre_row
        for c in range(columns):
            aside = c - centre_column
            distance = math.sqrt(away * away + aside * aside)
            factor = 0.0
            for n in range(len(coefficients) - 1, -1, -1):
                factor = factor * distance + coefficients[n]
            y = min(max(centre_row + away * factor, 0.0), height - 1.0)
            x = min(max(centre_column + aside * factor, 0.0), columns - 1.0)
            # the same numbers whatever rows are given, so that slabs join without a seam
            top[c], left[c] = int(y), int(x)
            down[c], right[c] = y - top[c], x - left[c]
            top[c] = min(max(top[c] - first, 0), rows - 1)
        for k in range(count):
            for c in range(columns):
                y0, x0 = top[c], left[c]
                y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
                upper = frames[k, y0, x0] + (frames[k, y0, x1] - frames[k, y0, x0]) * right[c]
                lower = frames[k, y1, x0] + (frames[k, y1, x1] - frames[k, y1, x0]) * right[c]
                result[k, row, c] = upper + (lower - upper) * down[c]
