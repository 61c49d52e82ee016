"""Sums and moments of spots, about their maxima so that nothing is lost to large numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.frames.source import Doubles, Floats
from kernels.hedm.peaks.label import Ints, Keys

# Flags of a spot, which may be added up.
EDGE = 1  # a pixel of it lies at the edge of the detector
MASKED = 2  # a pixel of it lies beside one that does not count
CUT = 4  # it goes on where no frame is: before the first, after the last, over a gap in omega
SATURATED = 8  # a pixel of it is saturated
OVERLAPPED = 16  # it touches another spot
_SUM, _ROW, _COLUMN, _FRAME, _OMEGA = range(5)
_ROW2, _COLUMN2, _OMEGA2, _COLUMN_OMEGA, _ROW_OMEGA, _ROW_COLUMN = range(5, 11)


class Measured(NamedTuple):
    """Of each spot, with rows and columns as stored.

    Attributes
    ----------
    peak : ndarray, shape (n, 3), int64
        Row, column and frame of the maximum.
    position : ndarray, shape (n, 3)
        Centroid: row, column, frame; the frame about that of the maximum, so that it may lie beyond the first or last.
    omega : ndarray, shape (n,)
        Its centroid in radians, about that of the maximum.
    moments : ndarray, shape (n, 6)
        Second moments about the centroid: row row, column column, omega omega, column omega, row omega, row column.
    intensity, largest : ndarray, shape (n,)
        Sum and maximum.
    pixels, frames, flags : ndarray, shape (n,), int64
        How many pixels, over how many frames; flags.
    """

    peak: Ints
    position: Doubles
    omega: Doubles
    moments: Doubles
    intensity: Doubles
    largest: Doubles
    pixels: Ints
    frames: Ints
    flags: Ints


class Where(NamedTuple):
    """What is known of frames and pixels.

    Attributes
    ----------
    frame : ndarray, shape (slots,)
        Number of the frame in each slot.
    omega : ndarray, shape (frames,)
        Middle of each frame, radians.
    cut : ndarray of bool, shape (frames,)
        Whether no frame comes before or after.
    border : ndarray, shape (pixels,), uint8
        `EDGE` and `MASKED`.
    full : ndarray, shape (pixels,)
        Value from which on a pixel is saturated.
    columns : int
    turn : int
        How many frames make a full turn, after which they begin again; 0 when they do not.
    """

    frame: Ints
    omega: Doubles
    cut: NDArray[np.bool_]
    border: NDArray[np.uint8]
    full: Floats
    columns: int
    turn: int


def measure(starts: Ints, keys: Keys, values: Floats, spot: Ints, maxima: Ints, where: Where) -> Measured:
    """Measure spots.

    Parameters
    ----------
    starts, keys, values
        The list of pixels, as in `Slots`.
    spot : ndarray, shape (n,)
        To which spot a pixel belongs; -1: to none.
    maxima : ndarray, shape (spots,)
    where : Where
    """
    sums, counts = np.zeros((len(maxima), 11)), np.zeros((len(maxima), 4), np.int64)
    largest = np.zeros(len(maxima))
    peaks = np.empty((len(maxima), 3), np.int64)
    _locate(starts, keys, maxima, where.frame, where.columns + 1, peaks)
    _add_up(starts, keys, values, spot, peaks, *where, sums, counts, largest)
    total = sums[:, _SUM]
    means = sums[:, _ROW:_ROW2] / total[:, None]
    row, column, omega = means[:, 0], means[:, 1], means[:, 3]
    products = (row * row, column * column, omega * omega, column * omega, row * omega, row * column)
    return Measured(
        peak=peaks,
        position=peaks + means[:, :3],
        omega=where.omega[peaks[:, 2]] + omega,
        moments=sums[:, _ROW2:] / total[:, None] - np.stack(products, axis=1),
        intensity=total.copy(),
        largest=largest,
        pixels=counts[:, 0].copy(),
        frames=counts[:, 2] - counts[:, 1] + 1,
        flags=counts[:, 3].copy(),
    )


@compiled()
def _locate(starts: Ints, keys: Keys, maxima: Ints, frame: Ints, stride: int, peaks: Ints) -> None:
    """Row, column and frame of maxima, which ascend."""
    slot = 0
    for n in range(maxima.size):
        i = maxima[n]
        while starts[slot + 1] <= i:
            slot += 1
        peaks[n, 0] = keys[i] // stride
        peaks[n, 1] = keys[i] % stride
        peaks[n, 2] = frame[slot]


@compiled()
def _add_up(
    starts: Ints,
    keys: Keys,
    values: Floats,
    spot: Ints,
    peaks: Ints,
    frame: Ints,
    omega: Doubles,
    cut: NDArray[np.bool_],
    border: NDArray[np.uint8],
    full: Floats,
    columns: int,
    turn: int,
    sums: Doubles,
    counts: Ints,
    largest: Doubles,
) -> None:
    """Sums (spots, 11) in the order of the names above; pixels, first and last frame from the maximum's, and flags."""
    stride = columns + 1
    for slot in range(starts.size - 1):
        f = frame[slot]
        for i in range(starts[slot], starts[slot + 1]):
            n = spot[i]
            if n < 0:
                continue
            row = keys[i] // stride
            column = keys[i] - row * stride
            pixel = row * columns + column
            df = f - peaks[n, 2]
            dw = omega[f] - omega[peaks[n, 2]]
            if turn:
                if 2 * df > turn:
                    df -= turn
                elif 2 * df < -turn:
                    df += turn
                if dw > np.pi:
                    dw -= 2 * np.pi
                elif dw < -np.pi:
                    dw += 2 * np.pi
            value = np.float64(values[i])
            dr = np.float64(row - peaks[n, 0])
            dc = np.float64(column - peaks[n, 1])
            s = sums[n]
            s[_SUM] += value
            s[_ROW] += value * dr
            s[_COLUMN] += value * dc
            s[_FRAME] += value * df
            s[_OMEGA] += value * dw
            s[_ROW2] += value * dr * dr
            s[_COLUMN2] += value * dc * dc
            s[_OMEGA2] += value * dw * dw
            s[_COLUMN_OMEGA] += value * dc * dw
            s[_ROW_OMEGA] += value * dr * dw
            s[_ROW_COLUMN] += value * dr * dc
            counts[n, 0] += 1
            counts[n, 1] = min(counts[n, 1], df)
            counts[n, 2] = max(counts[n, 2], df)
            counts[n, 3] |= border[pixel]
            if cut[f]:
                counts[n, 3] |= CUT
            if values[i] >= full[pixel]:
                counts[n, 3] |= SATURATED
            largest[n] = max(largest[n], value)
