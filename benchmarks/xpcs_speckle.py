"""Frames of speckle that the benchmarks of XPCS measure with.

A detector of 516 x 1556 pixels with 27 dynamic and 270 static bins, rings around a beam that hits it. Each pixel sees a
speckle of its own whose field is a complex Ornstein-Uhlenbeck process, slower towards the beam, and counts photons of
it; 0.0101 of them in a frame are 1 % of occupied pixels, 0.116 are 10 %.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kernels.xpcs.events import Events
from kernels.xpcs.partition import Partition

ROWS, COLUMNS, STATIC, DYNAMIC = 516, 1556, 270, 27


class Series(NamedTuple):
    """Frames in memory, given in blocks."""

    all: Events
    count: int
    rows: int = ROWS
    columns: int = COLUMNS
    frame_time_s: float = 1e-3
    largest: int = 255
    block: int = 256

    def blocks(self) -> Iterator[Events]:
        for first in range(0, self.count, self.block):
            starts = self.all.starts[first : first + self.block + 1]
            part = slice(starts[0], starts[-1])
            yield Events(first, starts - starts[0], self.all.pixels[part], self.all.counts[part])


def rings() -> Partition:
    """Static bins of equal width around a beam, ten to a dynamic one, without the gaps between modules."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    radius = np.hypot(y - 258.3, x - 200.7)
    used = radius > 20
    used[:, 774:782] = used[255:261] = False
    edges = np.linspace(20, radius.max() + 1, STATIC + 1)
    static = np.where(used, np.digitize(radius, edges), 0).astype(np.int32)
    return Partition(static, np.where(used, (static - 1) * DYNAMIC // STATIC + 1, 0).astype(np.int32))


@numba.njit(parallel=True)
def _counted(
    frames: int, mean: float, tau: NDArray[np.float64], seed: int, chunk: int, room: int,
    times: NDArray[np.uint16], counts: NDArray[np.uint8], ends: NDArray[np.int64],
) -> None:  # fmt: skip
    for part in numba.prange((len(tau) + chunk - 1) // chunk):
        state = np.uint64(seed * 1000003 + part * 7919 + 88172645463325252)
        at = part * room
        for pixel in range(part * chunk, min((part + 1) * chunk, len(tau))):
            if tau[pixel] > 0:
                keep = np.exp(-1 / tau[pixel])
                # A sum of four uniform numbers of 16 bits for each part: as good as normal, and fast.
                size = np.sqrt((1 - keep * keep) * 0.5 * 3) / 65536
                x, y = np.random.normal() * np.sqrt(0.5), np.random.normal() * np.sqrt(0.5)
                for frame in range(frames):
                    kicks = [0.0, 0.0]
                    for n in range(2):
                        state ^= state << np.uint64(13)
                        state ^= state >> np.uint64(7)
                        state ^= state << np.uint64(17)
                        a, b = state & np.uint64(0xFFFF), (state >> np.uint64(16)) & np.uint64(0xFFFF)
                        c, d = (state >> np.uint64(32)) & np.uint64(0xFFFF), state >> np.uint64(48)
                        kicks[n] = float(a) + float(b) - float(c) - float(d)
                    x, y = keep * x + size * kicks[0], keep * y + size * kicks[1]
                    state ^= state << np.uint64(13)
                    state ^= state >> np.uint64(7)
                    state ^= state << np.uint64(17)
                    rate, chance = mean * (x * x + y * y), float(state >> np.uint64(11)) * 2.0**-53
                    if chance > 1 - rate:  # never below: exp(-rate) is larger
                        term = np.exp(-rate)
                        below, count = term, 0
                        while chance > below and count < 200:
                            count += 1
                            term *= rate / count
                            below += term
                        if count:
                            times[at], counts[at] = frame, count
                            at += 1
            ends[pixel] = at


@numba.njit(parallel=True)
def _by_frame(
    frames: int, chunk: int, room: int, times: NDArray[np.uint16], counts: NDArray[np.uint8], ends: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:  # fmt: skip
    parts = (len(ends) + chunk - 1) // chunk
    place = np.zeros((parts, frames), np.int64)
    for part in numba.prange(parts):
        for i in range(part * room, ends[min((part + 1) * chunk, len(ends)) - 1]):
            place[part, times[i]] += 1
    total = 0
    for frame in range(frames):
        starts[frame] = total
        for part in range(parts):
            mine = place[part, frame]
            place[part, frame], total = total, total + mine
    starts[frames] = total
    pixels, values = np.empty(total, np.uint32), np.empty(total, np.uint8)
    for part in numba.prange(parts):
        i = part * room
        for pixel in range(part * chunk, min((part + 1) * chunk, len(ends))):
            while i < ends[pixel]:
                at = place[part, times[i]]
                pixels[at], values[at] = pixel, counts[i]
                place[part, times[i]] = at + 1
                i += 1
    return pixels, values


def speckle(frames: int, mean: float, partition: Partition) -> Series:
    """Counts of speckle whose field forgets in 400 frames near the beam, and in 5 far from it."""
    dynamic = partition.dynamic.ravel()
    tau = np.where(dynamic > 0, 400 * np.exp(-dynamic / 6), 0.0)
    chunk = 4096
    room = int(chunk * frames * min(1, 1.3 * mean) + 100000)
    parts = -(-len(tau) // chunk)
    times, counts = np.empty(parts * room, np.uint16), np.empty(parts * room, np.uint8)
    ends, starts = np.empty(len(tau), np.int64), np.empty(frames + 1, np.int64)
    _counted(frames, mean, tau, 7, chunk, room, times, counts, ends)
    pixels, values = _by_frame(frames, chunk, room, times, counts, ends, starts)
    return Series(Events(0, starts, pixels, values), frames)
