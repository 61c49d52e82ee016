"""Flat fields that change during a scan: transmission with a flat field of each projection's own.

`drifting_transmission` goes on a straight line from the flats before the scan to those after it.
`dynamic_transmission` finds, for each projection, how much of each way in which the flats differ among themselves is in
it (Van Nieuwenhove, De Beenhouwer, De Carlo, Mancini, Marone, Sijbers, Opt. Express 23 (2015) 27975): the ways are the
principal components of the flats; the amounts are those with the least total variation of what is left.

The total variation is taken of the logarithm, to which a flat field adds: so the amounts come from a regression on the
gradients, in absolute values and by weighted least squares, and not from a search.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_ROUNDS, _ENTRIES = 2, 8  # of the linearised logarithm; of weights that make squares into absolute values
_ENOUGH = 2**15  # places where gradients are taken; there are only a few amounts to find
_NOISE_EDGE = 3.0
_LEAST_LIGHT = 1e-6


class EigenFlats(NamedTuple):
    """The mean of the flats without the dark field, (rows, columns), and their ways to differ, (count, rows, columns),
    each with a root mean square of 1 of the mean flat, strongest first."""

    mean: Floats
    components: Floats


def drifting_transmission(counts: Floats, dark: Floats, before: Floats, after: Floats, progress: Doubles) -> Floats:
    """(counts - dark) / flat, with a flat that goes from `before` to `after`.

    Parameters
    ----------
    counts : ndarray, shape (frames, rows, columns), float32
    dark, before, after : ndarray, shape (rows, columns), float32
        Mean frames, the dark one included in the flats.
    progress : ndarray, shape (frames,), float64
        When each frame was taken: 0 at the flats before, 1 at those after.

    Returns
    -------
    ndarray, shape (frames, rows, columns), float32
        1 where the flat is not brighter than the dark.

    Notes
    -----
    Harm: each flat counts for half of the scan, so its noise, a ring, is up to 1.4 times that of the mean of both.
    """
    result = np.empty(counts.shape, np.float32)
    _divide_between(counts, dark, before - dark, after - dark, progress.astype(np.float32), result)
    return result


def eigen_flats(flats: Floats, dark: Floats, *, most: int = 5) -> EigenFlats:
    """Principal components of the flats that are above the noise.

    Parameters
    ----------
    flats : ndarray, shape (flats, rows, columns), float32
        Counts; 10 flats or more for the components to mean something.
    dark : ndarray, shape (rows, columns), float32
        Mean dark frame.
    most
        Components at most.

    Returns
    -------
    EigenFlats
        Without components where the flats differ by noise and brightness only. Brightness is taken out first: that is
        for `intensity`.

    Raises
    ------
    KernelError
        Exit 65 when a flat is not brighter than the dark.
    """
    light = flats - dark
    levels = light.mean((1, 2), dtype=np.float64)
    if not (levels > 0).all():
        raise KernelError("A flat field is not brighter than the dark field.", Exit.BAD_INPUT)
    light = light * (levels.mean() / levels).astype(np.float32)[:, None, None]
    mean = light.mean(0, dtype=np.float64).astype(np.float32)
    # a weaker flat that was made as bright as the others has the more noise, and would count as a way to differ
    certain = np.sqrt(levels / levels.mean()).astype(np.float32)
    differences = ((light - mean) * certain[:, None, None]).reshape(len(flats), -1)
    gram = differences.astype(np.float64) @ differences.T.astype(np.float64)
    strengths, turns = np.linalg.eigh(gram)
    strengths, turns = strengths[::-1], turns[:, ::-1]
    # with p pixels of noise s, the Gram matrix of n frames has eigenvalues within sum(s^2) +- 2 sqrt(n sum(s^4))
    square = np.square(differences).mean(0, dtype=np.float64)
    floor = float(np.median(strengths[:-1])) if len(strengths) > 2 else np.inf
    width = 2 * np.sqrt(len(flats) * np.sum(square**2)) / max(np.sum(square), 1e-300)
    keep = int(min(most, np.sum(strengths > floor * (1 + _NOISE_EDGE * width))))
    components = (turns[:, :keep].T @ differences).reshape(keep, *mean.shape)
    scale = np.sqrt(np.mean(components**2, axis=(1, 2), keepdims=True)) / np.sqrt(np.mean(mean**2))
    return EigenFlats(mean, np.asarray(components / scale, np.float32))


def dynamic_transmission(
    counts: Floats, dark: Floats, flats: EigenFlats, *, binning: int = 2
) -> tuple[Floats, Doubles]:
    """(counts - dark) / flat, with a flat of each frame's own.

    Parameters
    ----------
    counts : ndarray, shape (frames, rows, columns), float32
        Whole frames: what a few rows show is too little.
    dark : ndarray, shape (rows, columns), float32
        Mean dark frame.
    flats
        From `eigen_flats`.
    binning
        Pixels are averaged by so many each way to find the amounts.

    Returns
    -------
    transmission : ndarray, shape (frames, rows, columns), float32
        1 where the flat is not brighter than the dark.
    amounts : ndarray, shape (frames, components), float64
        Of each component.

    Raises
    ------
    KernelError
        When the binned frame is smaller than 4 x 4.

    Notes
    -----
    Harm: a sample that looks like a component, as horizontal layers look like a beam that moves, is weakened.
    """
    rows, columns = flats.mean.shape
    if binning < 1 or min(rows, columns) < 4 * binning:
        raise KernelError(
            f"Dynamic flat fields: binning {binning} is too much for frames of {rows} x {columns}. Take mean or "
            "drifting ones for frames so small."
        )
    number = len(flats.components)
    amounts = np.zeros((len(counts), number))
    if number:
        mean, dark_binned = _binned(flats.mean, binning), _binned(dark, binning)
        ways = np.stack([_binned(component, binning) for component in flats.components])
        least = np.float32(_LEAST_LIGHT * float(mean.max()))
        step = max(1, mean.size // _ENOUGH)
        upper = np.arange(0, mean.shape[0] - 1, step)
        pairs = np.stack((upper, upper + 1))  # rows and the ones below them
        mean, ways = mean[pairs], ways[:, pairs]
        for k, frame in enumerate(counts):
            light = np.log(np.maximum(_binned(frame, binning)[pairs] - dark_binned[pairs], least))
            for _ in range(_ROUNDS):
                flat = np.maximum(mean + np.tensordot(amounts[k].astype(np.float32), ways, 1), least)
                amounts[k] += _least_variation(light - np.log(flat), np.asarray(ways / flat, np.float32))
    result = np.empty(counts.shape, np.float32)
    _divide_by_own(counts, dark, flats.mean, flats.components, amounts.astype(np.float32), result)
    return result, amounts


def _least_variation(left: Floats, ways: Floats) -> Doubles:
    """The amounts of `ways` (count, 2, rows, columns) that make the sum of |gradient| of `left` least without them."""
    target, slopes = _gradients(left), _gradients(ways)
    amounts = np.zeros(len(ways))
    for _ in range(_ENTRIES):
        rest = np.abs(target - amounts.astype(np.float32) @ slopes)
        weights = 1 / np.maximum(rest, 0.1 * rest.mean() + 1e-12)
        weighted = slopes * weights
        amounts = np.linalg.lstsq(
            (weighted @ slopes.T).astype(np.float64), (weighted @ target).astype(np.float64), rcond=1e-10
        )[0]
    return np.asarray(amounts)


def _gradients(pairs: Floats) -> Floats:
    """Differences along the columns of the first of two rows and between both, (..., 2, rows, columns) to one axis."""
    flat = (*pairs.shape[:-3], -1)
    across = np.diff(pairs[..., 0, :, :], axis=-1).reshape(flat)
    return np.concatenate((across, (pairs[..., 1, :, :] - pairs[..., 0, :, :]).reshape(flat)), axis=-1)


def _binned(frame: Floats, binning: int) -> Floats:
    rows, columns = frame.shape[0] // binning, frame.shape[1] // binning
    cut = frame[: rows * binning, : columns * binning]
    return np.asarray(cut.reshape(rows, binning, columns, binning).mean((1, 3), dtype=np.float32))


@compiled(parallel=True)
def _divide_between(
    counts: Floats, dark: Floats, before: Floats, after: Floats, progress: Floats, result: Floats
) -> None:
    frames, rows, columns = counts.shape
    for job in prange(frames * rows):
        k, y = job // rows, job % rows
        for c in range(columns):
            flat = before[y, c] + (after[y, c] - before[y, c]) * progress[k]
            result[k, y, c] = (counts[k, y, c] - dark[y, c]) / flat if flat > 0 else np.float32(1)


@compiled(parallel=True)
def _divide_by_own(
    counts: Floats, dark: Floats, mean: Floats, components: Floats, amounts: Floats, result: Floats
) -> None:
    frames, rows, columns = counts.shape
    for job in prange(frames * rows):
        k, y = job // rows, job % rows
        flat = mean[y].copy()
        for n in range(components.shape[0]):
            for c in range(columns):
                flat[c] += amounts[k, n] * components[n, y, c]
        for c in range(columns):
            result[k, y, c] = (counts[k, y, c] - dark[y, c]) / flat[c] if flat[c] > 0 else np.float32(1)
