"""Zingers: pixels that a stray X-ray or a cosmic ray has made far too bright, in one frame.

A pixel is compared with the median of those around it, either in its frame or, at the same place, in the frames before
and after it. Speed: the median lies below a limit when half of the values do, and these are counted for all pixels of a
row at once; only the few that are left have a median taken.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import KernelError

Floats = NDArray[np.float32]

_REACH = 2
_IN_FRAME = np.array([(0, y, x) for y in range(-2, 3) for x in range(-2, 3) if (x, y) != (0, 0)], np.int64)
_OVER_ANGLES = np.array([(k, 0, x) for k in (-2, -1, 1, 2) for x in (-1, 0, 1)], np.int64)
_EDGE = 4.0  # robust spreads of the values around: more than an edge of the object is from their median
_DIMMEST = 0.1  # of the frame's noise is the least anywhere, such as read-out noise
_SECOND_DIFFERENCE = 0.6745 * np.sqrt(6.0)  # median |a - 2 b + c| of unit noise


class Despiked(NamedTuple):
    """Frames without zingers, and how many values were replaced."""

    frames: Floats
    replaced: int


class FrameNoise(NamedTuple):
    """Robust noise of each frame at its median brightness, and that brightness, both (frames,) float32."""

    spread: Floats
    level: Floats


def frame_noise(frames: Floats) -> FrameNoise:
    """The noise of frames (frames, rows, columns), or of some of their rows.

    From bends along the rows, each as it would be at the median brightness; else a frame that is dark for the most part
    would have the noise of the dark.
    """
    some = frames[:, :: max(1, frames.shape[1] // 64)]
    spread, level = np.zeros(len(frames), np.float32), np.zeros(len(frames), np.float32)
    for k, frame in enumerate(some):
        finite = np.isfinite(frame)
        if not finite.any():
            continue
        level[k] = max(np.median(frame[finite]), 0)
        left, here, right = (np.where(finite, frame, 0)[:, i : i + frame.shape[1] - 2] for i in range(3))
        known = finite[:, :-2] & finite[:, 1:-1] & finite[:, 2:]
        bends = np.abs(left - 2 * here + right)
        if level[k] > 0:
            brightness = (left + 2 * here + right) / (4 * level[k])
            bright = brightness >= _DIMMEST**2
            known &= bright
            bends[bright] /= np.sqrt(brightness[bright])
        if known.any():
            spread[k] = np.median(bends[known]) / _SECOND_DIFFERENCE
    return FrameNoise(spread, level)


def remove_zingers(
    frames: Floats,
    *,
    noise: FrameNoise | None = None,
    threshold: float = 8.0,
    relative: float = 0.05,
    over_angles: bool = False,
    dark: bool = False,
) -> Despiked:
    """Put the median of the values around it in the place of each value that is far above it, or not finite.

    Parameters
    ----------
    frames : ndarray, shape (frames, rows, columns), float32
        Counts without the dark field, or transmission.
    noise
        Of these frames, from `frame_noise`; for slabs, which are to give the same whatever their height, from the same
        rows each time. By default from `frames`.
    threshold
        How far above, in units of the frame's noise, which goes with the square root of the brightness. Besides, 4
        robust standard deviations of the values around, so that edges stay.
    relative
        How far above at least, as a share of the median; 0.05 leaves all that is less than 5 % brighter.
    over_angles
        Compare with the two frames before and after, 3 columns each, in the place of the 5 x 5 pixels of the frame: for
        spots of several pixels, and for samples with detail as fine as a pixel. Does not see what stays in its place.
    dark
        Take values that are too dark as well.

    Returns
    -------
    Despiked
        `frames` is a new array. What has nothing finite around it stays as it is.

    Raises
    ------
    KernelError
        For a threshold that is not above 0, a negative share, or too few frames, rows or columns to compare with.

    Notes
    -----
    Harm: bright detail of one or two pixels above the threshold is lost. Of pure noise, less than one value in 10^9 is.
    """
    if not threshold > 0 or not relative >= 0:
        raise KernelError(
            f"Zingers: threshold is {threshold:g} and must be above 0; relative is {relative:g} and must be 0 or more."
        )
    offsets = _OVER_ANGLES if over_angles else _IN_FRAME
    for name, size, reach in zip(("frames", "rows", "columns"), frames.shape, np.abs(offsets).max(0), strict=True):
        if size < 2 * reach + 1:
            raise KernelError(f"Zingers: {size} {name} are too few to compare with; {2 * reach + 1} are needed.")
    spread, level = frame_noise(frames) if noise is None else noise
    result = frames.copy()
    replaced = _replace(frames, offsets, spread, level, threshold, relative, dark, result)
    return Despiked(result, int(replaced))


@compiled()
def _mirrored(i: int, size: int) -> int:
    i = abs(i)
    return i if i < size else 2 * (size - 1) - i


@compiled()
def _count_below(other: Floats, limit: Floats, below: NDArray[np.int32]) -> None:
    """A function of its own with arrays of one dimension, so that it becomes vector arithmetic."""
    for c in range(len(other)):
        below[c] += other[c] < limit[c]


@compiled()
def _count_above(other: Floats, limit: Floats, above: NDArray[np.int32]) -> None:
    for c in range(len(other)):
        above[c] += other[c] > limit[c]


@compiled()
def _limits(row: Floats, scale: float, least: float, relative: float, low: Floats, high: Floats) -> None:
    """For each value, below which median it is too bright and above which too dark.

    A value v is `scale` sqrt(m), `least` and `relative` m above the median m; the first is a quadratic in sqrt(m).
    """
    for c in range(len(row)):
        value = row[c]
        root = np.sqrt(scale * scale + 4 * max(value, np.float32(0)))
        low[c] = min(0.25 * (root - scale) ** 2, value - least, value / (1 + relative))
        high[c] = max(0.25 * (root + scale) ** 2, value + least, value * (1 + relative))


@compiled(parallel=True)
def _replace(
    frames: Floats,
    offsets: NDArray[np.int64],
    noise: Floats,
    level: Floats,
    threshold: float,
    relative: float,
    dark: bool,
    result: Floats,
) -> int:
    count, rows, columns = frames.shape
    many = len(offsets)
    replaced = 0
    for job in prange(count * rows):
        k, y = job // rows, job % rows
        row = frames[k, y]
        scale = threshold * noise[k] / np.sqrt(level[k]) if level[k] > 0 else 0.0
        least = _DIMMEST * threshold * noise[k] if level[k] > 0 else threshold * noise[k]
        low, high = np.empty(columns, np.float32), np.empty(columns, np.float32)
        _limits(row, scale, least, relative, low, high)
        below, above = np.zeros(columns, np.int32), np.zeros(columns, np.int32)
        padded = np.empty(columns + 2 * _REACH, np.float32)
        for n in range(many):
            dk, dy, dx = offsets[n]
            other = frames[_mirrored(k + dk, count), _mirrored(y + dy, rows)]
            if dx == 0:
                shifted = other
            else:
                if n == 0 or offsets[n - 1, 0] != dk or offsets[n - 1, 1] != dy or offsets[n - 1, 2] == 0:
                    padded[_REACH : _REACH + columns] = other
                    for e in range(1, _REACH + 1):
                        padded[_REACH - e] = other[_mirrored(-e, columns)]
                        padded[_REACH + columns - 1 + e] = other[_mirrored(columns - 1 + e, columns)]
                shifted = padded[_REACH + dx : _REACH + dx + columns]
            _count_below(shifted, low, below)
            if dark:
                _count_above(shifted, high, above)
        around = np.empty(many, np.float32)
        for c in range(columns):
            finite = np.isfinite(row[c])
            if finite and 2 * below[c] < many and 2 * above[c] < many:
                continue
            known = 0
            for n in range(many):
                value = frames[
                    _mirrored(k + offsets[n, 0], count),
                    _mirrored(y + offsets[n, 1], rows),
                    _mirrored(c + offsets[n, 2], columns),
                ]
                if np.isfinite(value):
                    around[known] = value
                    known += 1
            if known == 0:
                continue
            middle = np.median(around[:known])
            if finite:
                spread = 1.4826 * np.median(np.abs(around[:known] - middle))
                here = max(scale * np.sqrt(max(middle, np.float32(0))), least)
                limit = max(_EDGE * spread, here, relative * abs(middle))
                excess = row[c] - middle
                if not (excess > limit or (dark and -excess > limit)):
                    continue
            result[k, y, c] = middle
            replaced += 1
    return replaced
