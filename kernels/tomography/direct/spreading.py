"""The spreading kernel of gridding: Kaiser-Bessel, as polynomials.

Jackson et al., IEEE Trans. Med. Imaging 10 (1991) 473, with the shape that Beatty et al., IEEE Trans. Med. Imaging 24
(2005) 799, give for a given width and oversampling; evaluated tap by tap as polynomials as in Barnett et al., SIAM J.
Sci. Comput. 41 (2019) C479.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

DEGREE = 8  # of the polynomials
_NODES = 64


class Spreading:
    """A kernel that reaches over `taps` cells of a grid.

    Parameters
    ----------
    taps
        Width, cells.
    oversampling
        Of the grid: its length over that of the image.
    degree
        Of the polynomials.
    """

    def __init__(self, taps: int, oversampling: float, degree: int) -> None:
        self.taps = taps
        self._beta = math.pi * math.sqrt((taps / oversampling * (oversampling - 0.5)) ** 2 - 0.8)
        # Sums of our own, each in one order: a linear algebra library rounds otherwise on another number of threads.
        angles = np.pi * (np.arange(_NODES) + 0.5) / _NODES
        waves = np.cos(np.arange(degree + 1)[:, None] * angles)
        rows = []
        for tap in range(taps):
            values = self._exact(0.5 * (np.cos(angles) + 1) - 0.5 * taps + tap)
            series = 2 / _NODES * (waves * values).sum(1)
            series[0] *= 0.5
            rows.append(np.polynomial.chebyshev.cheb2poly(series))
        self._coefficients = np.stack(rows)

    def _exact(self, x: Doubles) -> Doubles:
        inside = np.maximum(1 - (2 * x / self.taps) ** 2, 0)
        return np.asarray(np.i0(self._beta * np.sqrt(inside)) / np.i0(self._beta))

    def table(self) -> NDArray[np.float32]:
        """Coefficients from the highest power down, 8 (one per tap, the rest 0) each, of t from -1 to 1: how far the
        first tap lies beyond the kernel's edge, 0 to 1 cells."""
        table = np.zeros((self._coefficients.shape[1], 8), np.float32)
        table[:, : self.taps] = self._coefficients.T[::-1]
        return table.ravel()

    def transform(self, frequencies: Doubles) -> Doubles:
        """The Fourier transform of the polynomials, at frequencies in cycles per cell; by Fejer's first rule."""
        angles = np.pi * (np.arange(_NODES) + 0.5) / _NODES
        orders = np.arange(1, _NODES // 2 + 1)
        waves = np.cos(2 * orders * angles[:, None]) / (4 * orders**2 - 1)
        weights = 2 / _NODES * (1 - 2 * waves.sum(1))
        nodes, total = np.cos(angles), np.zeros_like(frequencies)
        for tap in range(self.taps):
            x = 0.5 * (nodes + 1) - 0.5 * self.taps + tap
            values = 0.5 * weights * np.polynomial.polynomial.polyval(nodes, self._coefficients[tap])
            total += (np.cos(2 * np.pi * np.outer(frequencies, x)) * values).sum(1)
        return total
