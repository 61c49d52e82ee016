"""Daubechies wavelets: of a signal, the part that is smooth at a scale."""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


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
