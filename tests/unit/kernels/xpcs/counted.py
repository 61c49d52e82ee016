"""Frames that a test makes up, and what correlations of them are, worked out slowly and plainly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kernels.xpcs.events import Events
from kernels.xpcs.partition import Partition


class Counted:
    """Frames out of memory: `counts` has shape (frames, rows, columns); `at_once` of them come in a block."""

    frame_time_s = 1.0

    def __init__(self, counts: NDArray[np.integer], at_once: int = 7) -> None:
        self.counts, self._at_once = counts, at_once
        self.count, self.rows, self.columns = counts.shape
        self.largest = int(counts.max())

    def blocks(self) -> Iterator[Events]:
        for first in range(0, self.count, self._at_once):
            frames = self.counts[first : first + self._at_once]
            frames = frames.reshape(len(frames), -1)
            frame, pixel = np.nonzero(frames)
            starts = np.searchsorted(frame, np.arange(len(frames) + 1))
            yield Events(first, starts, pixel.astype(np.uint32), frames[frame, pixel].astype(np.uint32))


def partition(seed: int, rows: int, columns: int, static: int, per_dynamic: int = 3) -> Partition:
    """Pixels in static bins by chance, some in none; `per_dynamic` neighbouring numbers make a dynamic bin."""
    bins = np.random.default_rng(seed).integers(0, static + 1, (rows, columns)).astype(np.int32)
    return Partition(bins, ((bins + per_dynamic - 1) // per_dynamic).astype(np.int32))


def twotime_plainly(counts: NDArray[np.integer], bins: Partition) -> NDArray[np.float64]:
    """C2 of every dynamic bin, shape (bins, frames, frames); zero below the diagonal."""
    flat = counts.reshape(len(counts), -1).astype(np.float64)
    for number in range(1, bins.static_bins + 1):
        inside = bins.static.ravel() == number
        mean = flat[:, inside].mean(axis=1)
        flat[:, inside] /= np.where(mean > 0, mean, 1)[:, None]
    found = []
    for number in range(1, bins.dynamic_bins + 1):
        own = flat[:, bins.dynamic.ravel() == number]
        total = own.sum(axis=1)
        total[total <= 0] = 1
        found.append(np.triu(own @ own.T * own.shape[1] / total / total[:, None]))
    return np.array(found)
