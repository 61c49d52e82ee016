"""What a detector counts without X-rays, and how much that scatters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError
from kernels.hedm.frames.chosen import Frames
from kernels.hedm.frames.source import BLOCK_BYTES, Floats, Source

MOST_FRAMES = 64
_TOGETHER = 256  # pixels that are sorted one after the other while their lines of memory are at hand
_TO_SIGMA = 1.4826  # of a normal distribution over its median absolute deviation
_LEAST_NOISE = 12**-0.5  # of rounding to whole counts
_AROUND = 5
_NOISY = 3.0


class Dark(NamedTuple):
    """Counts without X-rays of each pixel as stored, and their standard deviation if it is known; NaN: no number."""

    level: Floats
    noise: Floats | None


def flat_dark(value: float, frames: Frames) -> Dark:
    """The same for all pixels.

    Raises
    ------
    KernelError
        Exit 2 when it is not finite.
    """
    if not np.isfinite(value):
        raise KernelError(f"A dark must be a finite number of counts, not {value}.")
    return Dark(np.full((frames.rows, frames.columns), value, np.float32), None)


def dark_of_first(frames: Frames, count: int = 16) -> Dark:
    """Median and noise of the first frames, at most 64: spots, which come and go, are in few of them.

    Raises
    ------
    KernelError
        Exit 2 when there are fewer than 3 or as many are not asked for.
    """
    if not 3 <= count <= MOST_FRAMES:
        raise KernelError(f"A dark is the median of 3 to {MOST_FRAMES} frames, not of {count}.")
    if frames.count < count:
        raise KernelError(f"The frames {frames.name!r} are {frames.count}: a dark of {count} cannot be had from them.")
    return _of(lambda first, beyond: frames.pictures(first, beyond), count, frames)


def dark_of_source(source: Source, frames: Frames) -> Dark:
    """Median and noise of the frames of a file of darks, at most 64 of them.

    Raises
    ------
    KernelError
        Exit 65 when they are of another shape than the `frames`.
    """
    if (source.rows, source.columns) != (frames.rows, frames.columns):
        there, here = f"{source.rows} x {source.columns}", f"{frames.rows} x {frames.columns}"
        raise KernelError(
            f"The dark {source.name!r} is of {there} pixels, the frames {frames.name!r} of {here}: it is of another "
            "detector, or was binned or turned.",
            Exit.BAD_INPUT,
        )
    return _of(source.frames, min(source.count, MOST_FRAMES), frames)


def _of(pictures: Any, count: int, frames: Frames) -> Dark:
    """Median and noise of `count` pictures, a band of rows after the other, so that little is held."""
    level = np.empty((frames.rows, frames.columns), np.float32)
    spread = np.empty_like(level)
    if count * level.size * frames.kind.itemsize <= 4 * BLOCK_BYTES:
        stack = pictures(0, count)
    else:
        stack = np.stack([pictures(n, n + 1)[0].astype(np.float32) for n in range(count)])
    frames_of_pixels = np.ascontiguousarray(stack).reshape(count, -1)
    _median(frames_of_pixels, _network(count), level.reshape(-1), spread.reshape(-1))
    return Dark(level, _smoothed(spread) if count >= 3 else None)


def _smoothed(spread: Floats) -> Floats:
    """Noise of each pixel from the pixels about it, since its own is of few frames; that of noisy pixels stays."""
    known = np.isfinite(spread)
    weights = uniform_filter(known.astype(np.float32), _AROUND)
    around = uniform_filter(np.where(known, spread, 0), _AROUND) / np.maximum(weights, 1e-6)
    noise = np.maximum(np.where(spread > _NOISY * around, spread, around), _LEAST_NOISE)
    return np.asarray(noise, np.float32)


def _network(count: int) -> NDArray[np.int64]:
    """Pairs of places to be put in order, one after the other, until `count` numbers are sorted.

    Batcher's odd-even merge sort: it asks nothing of the numbers, so that those of many pixels are sorted at once.
    """
    pairs = []
    size = 1
    while size < count:
        step = size
        while step >= 1:
            for low in range(step % size, count - step, 2 * step):
                for k in range(min(step, count - low - step)):
                    if (low + k) // (2 * size) == (low + k + step) // (2 * size):
                        pairs.append((low + k, low + k + step))
            step //= 2
        size *= 2
    return np.array(pairs, np.int64).reshape(-1, 2)


@compiled(parallel=True)
def _median(stack: NDArray[Any], network: NDArray[np.int64], level: Floats, spread: Floats) -> None:
    """Median and scaled median absolute deviation of each pixel of `stack` (frames, pixels), without NaN."""
    count, size = stack.shape
    for block in prange((size + _TOGETHER - 1) // _TOGETHER):
        first, beyond = block * _TOGETHER, min(size, (block + 1) * _TOGETHER)
        held = np.empty((count, beyond - first), np.float32)
        valid = np.zeros(beyond - first, np.int64)
        for n in range(count):
            for k in range(beyond - first):
                value = np.float32(stack[n, first + k])
                good = np.isfinite(value)
                valid[k] += good
                held[n, k] = value if good else np.float32(np.inf)
        _sort(held, network)
        for k in range(beyond - first):
            middle = np.float32(np.nan)
            if valid[k]:
                middle = _middle(held[:, k], valid[k])
            level[first + k] = middle
            for n in range(valid[k]):
                held[n, k] = abs(held[n, k] - middle)
        _sort(held, network)
        for k in range(beyond - first):
            spread[first + k] = np.float32(np.nan)
            if valid[k]:
                spread[first + k] = np.float32(_TO_SIGMA) * _middle(held[:, k], valid[k])


@compiled()
def _sort(held: Floats, network: NDArray[np.int64]) -> None:
    """Sort the columns."""
    for pair in range(network.shape[0]):
        low, high = held[network[pair, 0]], held[network[pair, 1]]
        for k in range(held.shape[1]):
            a, b = low[k], high[k]
            low[k] = min(a, b)
            high[k] = max(a, b)


@compiled()
def _middle(ascending: Floats, count: int) -> np.float32:
    half = count // 2
    if count % 2:
        return np.float32(ascending[half])
    return np.float32(0.5 * (ascending[half - 1] + ascending[half]))
