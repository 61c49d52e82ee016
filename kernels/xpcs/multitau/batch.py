"""Multi-tau g2 of a whole series."""

from __future__ import annotations

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


def multitau(
    frames: Frames,
    partition: Partition,
    *,
    per_level: int = 4,
    memory_bytes: int = MEMORY_BYTES,
    ranks: Ranks | None = None,
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
        Each reads all frames (a series is read from its beginning on) and works on a share of the pixels; one sum over
        the ranks ends it. All have the result.

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
    while todo:
        part, *todo = todo
        done, rest = _pass(frames, Work(partition, per_level, part), delays, memory_bytes // 2, ranks)
        sums, todo = sums + done, rest + todo
    gathered = ranks.gathered(sums)
    return concluded(ranks.told(np.sum(gathered, axis=0)), delays, frames.count, partition)


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
    frames: Frames, work: Work, delays: Lags, memory_bytes: int, ranks: Ranks
) -> tuple[NDArray[np.int64], list[range]]:
    """The sums of some pixels, and those that are left for other passes."""
    left: list[range] = []
    for events in frames.blocks():
        ranks.look()
        work.hold(events)
        if work.held_bytes > memory_bytes:
            if work.state is None:
                work, left = _fitting(work, delays.levels, memory_bytes)
            work.go_on()
    seen = work.frames + work.held_frames
    if seen != frames.count:
        raise KernelError(f"The series has {seen} frames and said that they are {frames.count}.", Exit.BAD_INPUT)
    return work.go_on(delays), left


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
