"""Series of frames: in memory, for tests that know every count, and as files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.xpcs.events import Events


class Measured(NamedTuple):
    """Files of a measurement; not to be changed."""

    frames: Path
    qmap: Path
    metadata: Path
    truth: Path


@dataclass(frozen=True)
class Dense:
    """Frames of an array of counts, (frames, rows, columns), some at a time."""

    counts: NDArray[Any]
    at_once: int = 7
    frame_time_s: float = 0.5

    @property
    def rows(self) -> int:
        return int(self.counts.shape[1])

    @property
    def columns(self) -> int:
        return int(self.counts.shape[2])

    @property
    def count(self) -> int:
        return len(self.counts)

    @property
    def largest(self) -> int:
        return int(self.counts.max(initial=0))

    def blocks(self) -> Iterator[Events]:
        for first in range(0, len(self.counts), self.at_once):
            here = self.counts[first : first + self.at_once].reshape(-1, self.rows * self.columns)
            frame, pixel = np.nonzero(here)
            starts = np.searchsorted(frame, np.arange(len(here) + 1)).astype(np.int64)
            yield Events(first, starts, pixel.astype(np.uint32), here[frame, pixel].astype(np.uint16))


def rings(rows: int, columns: int, static: int, dynamic: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Static and dynamic bins: rings about the middle; a corner is in none."""
    y, x = np.mgrid[:rows, :columns]
    radius = np.hypot(y - 0.5 * rows, x - 0.5 * columns)
    inner = np.minimum((radius / radius.max() * static).astype(np.int32), static - 1) + 1
    inner[:2, :2] = 0
    outer = np.where(inner, (inner - 1) * dynamic // static + 1, 0)
    return inner.astype(np.int32), outer.astype(np.int32)
