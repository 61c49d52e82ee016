"""Multi-tau g2 of a whole series."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.ranks import Ranks
from kernels.xpcs.events import Frames
from kernels.xpcs.lags import Lags, lags
from kernels.xpcs.multitau.result import MultiTau, concluded
from kernels.xpcs.multitau.work import GROUP, MOST_PIXELS, Work
from kernels.xpcs.partition import Partition

MEMORY_BYTES = 4 << 30


class Watcher(Protocol):
    """Who wants to see g2 while frames are still read. With several ranks: rank 0's is asked."""

    def due(self) -> bool:
        """Whether to be shown it now; asked again and again."""

    def show(self, so_far: MultiTau) -> None:
        """Take g2 of the frames that have come."""


def multitau(
    frames: Frames,
    partition: Partition,
    *,
    per_level: int = 4,
    memory_bytes: int = MEMORY_BYTES,
    ranks: Ranks | None = None,
    watcher: Watcher | None = None,
) -> MultiTau:
    """g2 of every dynamic bin at the multi-tau delays.

    The sums are exact: threads, ranks, memory, and which way pixels are worked out change no bit of the result.

    Parameters
    ----------
    frames : Frames
    partition : Partition
    per_level : int
        Delays of a level, from 1.
    memory_bytes : int
        About what frames and sums may take. Frames are held, as events, until half of it is full, and go into sums
        then, which are kept for the frames that follow, about a kilobyte for a pixel. Only if those of all pixels take
        more than the other half, the frames are read several times.
    ranks : Ranks, optional
        Each works on a share of the pixels, and needs the events of these alone: see `takers`. One sum over the ranks
        ends it. All have the result, and all read the frames as often as each other.
    watcher : Watcher, optional
        Is shown g2 while frames are still read, if the memory is enough for the sums of all pixels.

    Raises
    ------
    KernelError
        Exit 65: fewer than two frames or not as many as announced, a partition of another shape, frames out of order,
        a pixel of more than 2^31 - 1 photons. Exit 2: bad `per_level`, too little memory, more than 2^25 pixels.
    """
    ranks = ranks or Ranks()
    check(frames, partition, per_level)
    delays = lags(frames.count, per_level)
    todo = [ranks.share(int(partition.bounds[-1]))]
    sums = np.zeros((partition.static_bins, len(delays.frames), 8), np.int64)
    while any(ranks.said(bool(todo))):
        part, *todo = todo or [range(0)]
        work = Work(partition, per_level, part)
        able = work.state_bytes(delays.levels) <= memory_bytes // 2
        seen = watcher if watcher is not None and all(ranks.said(able)) else None
        done, rest = _pass(frames, work, delays, memory_bytes // 2, ranks, seen)
        sums, todo = sums + done, rest + todo
    return concluded(ranks.summed(sums), delays, frames.count, partition)


def takers(partition: Partition, ranks: Ranks) -> NDArray[np.int16]:
    """Which rank works on each pixel of the detector, as `kernels.xpcs.exchange` has it."""
    used = np.flatnonzero(partition.static.ravel())
    made = np.zeros((partition.static.size, 2), np.int16)
    for rank in range(ranks.size):
        part = Ranks(rank, ranks.size).share(len(used))
        made[used[part.start : part.stop]] = rank, rank + 1
    return made


def check(frames: Frames, partition: Partition, per_level: int) -> None:
    """Refuse frames, bins and delays of which there can be no g2; see `multitau`."""
    if per_level < 1:
        raise KernelError(f"There are {per_level} delays a level; there has to be one at least.")
    if (frames.rows, frames.columns) != partition.static.shape:
        raise KernelError(
            f"The frames are of {frames.rows} x {frames.columns} pixels and the bins of "
            f"{partition.static.shape[0]} x {partition.static.shape[1]}: both need the shape of the detector.",
            Exit.BAD_INPUT,
        )
    if frames.count < 2:
        raise KernelError(f"The series has {frames.count} frames; a delay needs two.", Exit.BAD_INPUT)
    if partition.bounds[-1] > MOST_PIXELS:
        raise KernelError(f"{partition.bounds[-1]} pixels are in bins; the sums hold for up to {MOST_PIXELS}.")


def _pass(
    frames: Frames, work: Work, delays: Lags, memory_bytes: int, ranks: Ranks, watcher: Watcher | None
) -> tuple[NDArray[np.int64], list[range]]:
    """The sums of some pixels, and those that are left for other passes."""
    left: list[range] = []
    for events in frames.blocks():
        ranks.look()
        work.hold(events)
        if work.held_bytes > memory_bytes:
            if work.state is None and work.part:
                work, left = _fitting(work, delays.levels, memory_bytes)
            work.go_on()
        if watcher is not None and work.frames + work.held_frames < frames.count and ranks.told(watcher.due()):
            _show(work, delays.levels, ranks, watcher)
    seen = work.frames + work.held_frames
    if seen != frames.count:
        raise KernelError(f"The series has {seen} frames and said that they are {frames.count}.", Exit.BAD_INPUT)
    return work.go_on(delays), left


def _show(work: Work, levels: int, ranks: Ranks, watcher: Watcher) -> None:
    """g2 of the frames that have come."""
    frames = work.frames + work.held_frames
    if frames < 2:
        return
    if work.state is None:
        work.keep(levels)
    delays = lags(frames, work.per_level)
    sums = ranks.summed(work.go_on(delays))
    if ranks.first:
        watcher.show(concluded(sums, delays, frames, work.partition))


def _fitting(work: Work, levels: int, memory_bytes: int) -> tuple[Work, list[range]]:
    """As many of the pixels as there is memory to keep the sums of, with what is held of theirs; and the others."""
    part, pieces = work.part, -(-work.state_bytes(levels) // memory_bytes)
    size = max(1, len(part) // pieces // GROUP) * GROUP
    if size < len(part):
        smaller = Work(work.partition, work.per_level, part[:size])
        for events in work.held:
            smaller.hold(events)
        work = smaller
    if work.state_bytes(levels) > memory_bytes:
        raise KernelError(
            f"Of {2 * memory_bytes} bytes of memory half is too little for the sums of {len(work.part)} pixels, "
            f"{work.state_bytes(levels)} bytes: give it more."
        )
    work.keep(levels)
    return work, [part[size:]] if size < len(part) else []
