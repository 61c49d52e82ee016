"""Stripes that are offsets of columns: found in all of them at once, and taken away."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from kernels.compiled import threads
from kernels.tomography.corrections.limits import check, check_width
from kernels.tomography.corrections.ranks import median_of_columns
from kernels.tomography.corrections.wavelets import course, smooth_part, subtract

Floats = NDArray[np.float32]

_PIECES = 90  # of the angles, in each of which an offset is constant
_RUN = 11  # pieces: an offset stays for half of them at least
_STANDS_OUT = 3.0  # times the noise of such medians


def remove_constant_stripes(sinograms: Floats, *, width: float | None = None, blocks: int = 1) -> Floats:
    """Take from each column the offset that makes the mean over the angles smooth.

    The offsets q of the mean p over the angles minimise |D (p - q)|^2 + alpha |q|^2, D being the difference of
    neighbouring columns: regularised least squares, of which the solution is closed (S. Titarenko, Withers, Yagola,
    Appl. Math. Lett. 23 (2010) 1489; V. Titarenko, J. Synchrotron Rad. 23 (2016) 1447), and diagonal in cosines.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Line integrals.
    width
        Structures that are broader than so many columns stay: alpha = (2 pi / width)^2. By default a 25th of the
        columns.
    blocks
        The angles are cut into that many parts with offsets of their own, for gains that change over the scan.

    Harm: what is circular about the axis, or stands across many angles, becomes smoother. The fewer angles a block has,
    the more of the object looks constant.

    Raises
    ------
    KernelError
        For a width below 2, or more blocks than angles.
    """
    _, angles, columns = sinograms.shape
    width = max(2.0, columns / 25) if width is None else width
    check("width", width >= 2, width, "2 columns at least")
    alpha = (2 * np.pi / width) ** 2
    check("blocks", 1 <= blocks <= angles, blocks, f"from 1 to the number of angles, {angles}")
    stiffness = 2 - 2 * np.cos(np.pi * np.arange(columns) / columns)
    response = (stiffness / (stiffness + alpha)).astype(np.float32)
    edges = np.linspace(0, angles, blocks + 1).astype(int)
    result = np.empty_like(sinograms)
    for first, beyond in pairwise(edges):
        means = sinograms[:, first:beyond].mean(1)
        offsets = scipy.fft.idct(scipy.fft.dct(means, axis=1, workers=threads()) * response, axis=1, workers=threads())
        np.subtract(sinograms[:, first:beyond], offsets[:, None, :], out=result[:, first:beyond])
    return result


def remove_slow_stripes(sinograms: Floats, *, levels: int | None = None, order: int = 5, sigma: float = 2.0) -> Floats:
    """Take from each column what changes slowly over the angles and fast over the columns.

    The Fourier-wavelet filter (Munch, Trtik, Marone, Stampanoni, Opt. Express 17 (2009) 8567): wavelet details across
    the columns, of which Fourier components k along the angles are damped by 1 - exp(-k^2 / (2 sigma^2)). As only the
    few lowest components are damped at all, they alone are computed, and only their course over the columns is taken
    apart into wavelets; that the two-dimensional transform would halve the angles as well changes nothing in them.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Line integrals.
    levels
        Stripes up to about 2**(levels - 1) columns wide go. By default such as are a 64th of the columns wide.
    order
        Vanishing moments of the Daubechies wavelet.
    sigma
        Damping, in periods per scan.

    Harm: as `remove_constant_stripes`; grows with levels and sigma.

    Raises
    ------
    KernelError
        For parameters below their least values, or more levels than the columns allow.
    """
    rows, angles, columns = sinograms.shape
    levels = max(1, round(math.log2(columns / 64))) if levels is None else levels
    check("levels", levels >= 1 and 2**levels <= columns, levels, f"from 1 to {int(math.log2(columns))}")
    check("order", 1 <= order <= 12, order, "from 1 to 12")
    check("sigma", sigma > 0, sigma, "above 0")
    highest = min((angles - 1) // 2, math.ceil(4.3 * sigma))  # exp(-4.3^2 / 2) = 1e-4
    waves = np.arange(highest + 1)
    turn = 2 * np.pi * np.arange(angles) / angles
    basis = np.concatenate((np.cos(waves[:, None] * turn), np.sin(waves[1:, None] * turn)))
    damping = np.exp(-0.5 * (np.concatenate((waves, waves[1:])) / sigma) ** 2) * 2 / angles
    damping[0] /= 2
    waves_of_angle = np.ascontiguousarray(basis.T, np.float32)
    result = np.empty_like(sinograms)
    for row in range(rows):
        slow = course(sinograms[row], waves_of_angle)
        details = (slow - smooth_part(slow, levels, order)) * damping[:, None].astype(np.float32)
        subtract(sinograms[row], waves_of_angle, details, result[row])
    return result


def remove_partial_stripes(sinograms: Floats, *, width: int | None = None) -> Floats:
    """Take from each column, over each part of the angles, what it stands out by for a while.

    The angles are cut into 90 pieces. In their means, which have less noise and a smoother object, each column is
    compared with the median of those around; of that the running median over 11 pieces is what stays for a while. It
    is an offset where it stands out from noise. Vo, Atwood, Drakopoulos, Opt. Express 26
    (2018) 28396, sort the columns instead and smooth across them; but an offset over a part of the angles also shuffles
    the ranks, so two thirds of it stay, where this leaves a third to a sixth and does less harm.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Line integrals.
    width
        Columns of the median, an odd number; stripes narrower than half of it go. By default a 100th of the columns,
        5 at least.

    Harm: what is narrower than half of the width and turns slowly, as a wire on the axis, loses contrast. Stripes over
    less than a 16th of the angles stay.

    Raises
    ------
    KernelError
        For an even width, or one below 3.
    """
    rows, angles, columns = sinograms.shape
    width = max(5, columns // 100 | 1) if width is None else width
    check_width(width)
    edges = np.unique(np.linspace(0, angles, _PIECES + 1).astype(int))
    lengths = np.diff(edges)
    result = np.empty_like(sinograms)
    for row in range(rows):
        means = (np.add.reduceat(sinograms[row], edges[:-1], axis=0) / lengths[:, None]).astype(np.float32)
        offsets = _offsets(means, width)
        for first, beyond, offset in zip(edges[:-1], edges[1:], offsets, strict=True):
            np.subtract(sinograms[row, first:beyond], offset, out=result[row, first:beyond])
    return result


def _offsets(means: Floats, width: int) -> Floats:
    """Of each piece and column, (pieces, columns)."""
    around = np.empty(means.shape[::-1], np.float32)
    median_of_columns(np.ascontiguousarray(means.T), width, around)
    beyond = np.ascontiguousarray(means - around.T)
    stays = np.empty_like(beyond)
    median_of_columns(beyond, _RUN, stays)
    noise = 1.4826 * np.median(np.abs(np.diff(beyond, axis=0))) / math.sqrt(2) if len(means) > 1 else 0.0
    of_median = math.sqrt(0.5 * np.pi / _RUN) * noise
    return np.where(np.abs(stays) > _STANDS_OUT * of_median, stays, np.float32(0.0))
