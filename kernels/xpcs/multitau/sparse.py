"""The first levels of a multi-tau correlation of pixels that have counted in few frames, from their events alone.

The events of a pixel are correlated with the few that are near, and merged by twos for the next level. There, as many
events are within half as many frames; from some level on it takes less time to go on frame by frame (`dense`), and
where that is, is asked for each sixteen pixels. The sums are the same integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.xpcs.multitau.dense import LANES, LARGEST_STORED, Sums, Words, first_row

# Of the time that one frame of sixteen pixels takes, an event takes so much: measured, and nothing but time depends on
# it (`benchmarks/xpcs.py --costs`).
EVENT_COST = 15.0


@compiled()
def gap(levels: int, per_level: int) -> int:
    """Places before the events of each pixel: for those of frames before, one more at each level."""
    return 2 * per_level + levels


@compiled()
def level_of_pixel(
    times: NDArray[np.int32],
    counts: Sums,
    begin: int,
    end: int,
    lane: int,
    before: int,
    after: int,
    level: int,
    per_level: int,
    early: Words,
    late: Words,
    sums: Sums,
) -> tuple[int, int]:
    """Go on with the sums of one pixel at one level by its events from `begin` to `end`, which are merged for the next.

    Where they begin and end then is the result. The other arguments are those of `dense.correlate`.
    """
    old, new, edge = before >> level, after >> level, 2 * per_level
    mine = level * (edge + 2) * LANES + lane
    least = begin  # of the events that count, those before among them
    for i in range(1, edge + 1):
        value = late[mine + ((old & 1) + edge - i) * LANES]
        if value:
            least -= 1
            times[least], counts[least] = old - i, value
    lag, row = (1, 0) if level == 0 else (per_level + 1, first_row(level, per_level))
    for j in range(begin, end):
        time, count, i = times[j], counts[j], j - 1
        while i >= least and time - times[i] <= edge:
            apart = time - times[i]
            if apart >= lag:
                sums[(row + apart - lag) * LANES + lane] += count * counts[i]
            i -= 1
    if old < edge:
        for j in range(begin, end):
            if times[j] >= edge:
                break
            early[(level * edge + times[j]) * LANES + lane] = counts[j]
    kept = 2 * ((new >> 1) - per_level)  # the frame of the first row that is kept
    for i in range(edge + 2):
        late[mine + i * LANES] = 0
    i = end - 1
    while i >= least and times[i] >= kept:
        late[mine + (times[i] - kept) * LANES] = counts[i]
        i -= 1
    if old & 1 and begin > least and times[begin - 1] == old - 1:
        begin -= 1
    last, o = -1, begin - 1
    for i in range(begin, end):
        half = times[i] >> 1
        if half >= new >> 1:
            break
        if half == last:
            counts[o] += counts[i]
        else:
            o, last = o + 1, half
            times[o], counts[o] = half, counts[i]
    return begin, o + 1


@compiled()
def levels_of_block(
    times: NDArray[np.int32],
    counts: Sums,
    begins: Sums,
    ends: Sums,
    before: int,
    after: int,
    levels: int,
    per_level: int,
    cost: float,
    early: Words,
    late: Words,
    sums: Sums,
) -> int:
    """Go on with the sums of sixteen pixels, from level 0 to that which is the result, where frames take less time.

    `begins` and `ends` say where the events of each are. `cost` is that of an event, in frames of sixteen pixels.
    """
    for level in range(levels):
        old, new = before >> level, after >> level
        if old == new:
            return levels
        events, largest = 0, 0
        for lane in range(LANES):
            events += ends[lane] - begins[lane]
            for i in range(begins[lane], ends[lane]):
                largest = max(largest, counts[i])
        if events * cost > new - old and largest <= LARGEST_STORED:
            return level
        for lane in range(LANES):
            begins[lane], ends[lane] = level_of_pixel(
                times, counts, begins[lane], ends[lane], lane, before, after, level, per_level, early, late, sums
            )
    return levels
