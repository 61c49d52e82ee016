"""Daubechies wavelets: of a signal, the part that is smooth at a scale. And the slow waves of a sinogram."""

from __future__ import annotations

from math import comb

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled

Floats = NDArray[np.float32]

_BLOCK = 128  # columns whose sums stay in cache


def daubechies(order: int) -> NDArray[np.float64]:
    """The 2 `order` coefficients of the low-pass filter with `order` vanishing moments; their sum is sqrt(2).

    By spectral factorisation with the roots inside the unit circle (Daubechies, Ten Lectures on Wavelets, 1992,
    section 6.1); exact to 1e-9 up to order 12.
    """
    bernstein = [comb(order - 1 + k, k) for k in range(order)]
    filter = np.ones(1)
    for root in np.roots(bernstein[::-1]):
        half = 1 - 2 * root  # z + 1/z = 2 - 4 y
        turn = np.sqrt(half * half - 1 + 0j)
        inside = half + turn if abs(half + turn) < 1 else half - turn
        filter = np.convolve(filter, [1, -inside])
    for _ in range(order):
        filter = np.convolve(filter, [1, 1])
    filter = filter.real
    return np.asarray(filter * (np.sqrt(2) / filter.sum()))


def smooth_part(signals: Floats, levels: int, order: int) -> Floats:
    """Signals (count, samples) without their wavelet details of the `levels` finest levels; at the ends, mirrored."""
    filter = daubechies(order).astype(np.float32)
    samples = signals.shape[1]
    margin = min(samples, len(filter) * 2**levels)
    beyond = -(samples + 2 * margin) % 2**levels
    part = np.pad(signals, ((0, 0), (margin, margin + beyond)), mode="symmetric")
    for _ in range(levels):
        length = part.shape[1]
        around = np.concatenate((part, np.take(part, np.arange(len(filter)) % length, axis=1)), axis=1)
        part = sum(f * around[:, m : m + length : 2] for m, f in enumerate(filter))
    for _ in range(levels):
        length = 2 * part.shape[1]
        whole = np.zeros((part.shape[0], length + len(filter)), np.float32)
        for m, f in enumerate(filter):
            whole[:, m : m + length : 2] += f * part
        part = whole[:, :length]
        for m in range(len(filter)):  # a filter can be longer than a coarse signal, so one by one
            part[:, m % length] += whole[:, length + m]
    return part[:, margin : margin + samples]


@compiled(parallel=True)
def course(sinogram: Floats, waves: Floats) -> Floats:
    """Sums over the angles of `sinogram` (angles, columns) times each of the `waves` (angles, waves).

    A product of matrices, but a thin one: here it costs a quarter of what BLAS takes with the threads that it wakes.
    """
    angles, columns = sinogram.shape
    number = waves.shape[1]
    result = np.zeros((number, columns), np.float32)
    for block in prange((columns + _BLOCK - 1) // _BLOCK):
        first = block * _BLOCK
        beyond = min(first + _BLOCK, columns)
        sums = np.zeros((number, beyond - first), np.float32)
        for k in range(angles):
            for n in range(number):
                _add(sums[n], sinogram[k, first:beyond], waves[k, n])
        result[:, first:beyond] = sums
    return result


@compiled(parallel=True)
def subtract(sinogram: Floats, waves: Floats, amounts: Floats, result: Floats) -> None:
    """Fill `result` with the sinogram without `amounts` (waves, columns) of each wave."""
    angles, columns = sinogram.shape
    for block in prange((columns + _BLOCK - 1) // _BLOCK):
        first = block * _BLOCK
        beyond = min(first + _BLOCK, columns)
        mine = amounts[:, first:beyond].copy()
        for k in range(angles):
            line = sinogram[k, first:beyond].copy()
            for n in range(len(mine)):
                _add(line, mine[n], -waves[k, n])
            result[k, first:beyond] = line


@compiled(fastmath=True)
def _add(sums: Floats, values: Floats, factor: np.float32) -> None:
    for c in range(len(sums)):
        sums[c] += factor * values[c]
