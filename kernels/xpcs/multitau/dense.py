"""The levels of a multi-tau correlation of sixteen pixels whose counts are given frame by frame.

Frames come tile by tile. What a tile needs of those before is kept between: the last values of each level (`late`), and
for the sums over the earlier and the later frames of all pairs the first ones (`early`) and the total. So a series may
be as long as it likes, and ends anywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.xpcs.multitau import lanes

LANES = lanes.LANES
GUARD = 4  # rows that the lags beyond the last of a level reach before the first that counts
LARGEST_PACKED = 32767  # of a value that shares a word with another
LARGEST_STORED = 65535  # of a value that can be taken out of a word again
_LARGEST_SUM = 2**31 - 1

Words = NDArray[np.int32]
Sums = NDArray[np.int64]


@compiled()
def words_of(frames: int, per_level: int) -> int:
    """How many words of a tile are before, of and after `frames` frames."""
    return GUARD + per_level + frames // 2 + 3


@compiled()
def first_row(level: int, per_level: int) -> int:
    """Row of the first delay of a level, which has 2·per_level of them at level 0, then per_level: in whole fours, as
    instructions take them."""
    return 0 if level == 0 else (2 * per_level + 3) // 4 * 4 + (level - 1) * ((per_level + 3) // 4 * 4)


@compiled()
def correlate(
    words: Words,
    at: int,
    wide: Words,
    before: int,
    after: int,
    level: int,
    levels: int,
    per_level: int,
    peak: int,
    early: Words,
    late: Words,
    sums: Sums,
) -> None:
    """Go on with the sums of a block of pixels from `level` on by one tile.

    Parameters
    ----------
    words : flat array
        Row `at` + per_level holds the word in which the first new frame of `level` is; what is before is worked out
        here. New frames are filled in, others zero. Nothing is left of it.
    wide : flat array
        Room for as many rows of values as the tile has frames, and 2·per_level + 4.
    before, after : int
        Frames of the series so far, without the tile and with it.
    peak : int
        Largest value in the tile, at most `LARGEST_STORED`.
    early, late : flat arrays, (levels, 2·per_level, LANES) and (levels, 2·per_level + 2, LANES)
    sums : flat array, (`first_row` of `levels`, LANES)
    """
    packed, edge = True, 2 * per_level
    row = at * LANES
    for k in range(level, levels):
        old, new = before >> k, after >> k
        if old == new:
            break
        odd, mine = old & 1, k * (edge + 2) * LANES
        count, moved = (odd + new - old + 1) >> 1, (new >> 1) - (old >> 1)
        lag, s = (1, 0) if k == 0 else (per_level + 1, first_row(k, per_level) * LANES)
        shown = min(edge, new) - old  # of those that are to be kept for ever
        if packed:
            largest = max(peak, lanes.pack(late, mine, words, row, per_level))
            first = row + per_level * LANES
            if odd:
                for lane in range(LANES):
                    pending = late[mine + edge * LANES + lane]
                    largest = max(largest, pending)
                    words[first + lane] = (words[first + lane] & ~0xFFFF) | (pending & 0xFFFF)
            for lane in range(LANES):
                words[first + count * LANES + lane] = 0
            packed = largest <= LARGEST_PACKED and 2 * count * largest * largest <= _LARGEST_SUM
            if not packed:
                lanes.unpack(words, row, wide, 0, per_level + count + 1)
        if packed:
            mask = -0x10000 if odd else -1
            if k == 0 and per_level == 4:
                lanes.correlate8_odd(words, first, count, 0, mask, sums, s)
            else:
                while lag <= edge:
                    if lag & 1:
                        lanes.correlate4_odd(words, first, count, lag >> 1, mask, sums, s)
                    else:
                        lanes.correlate4_even(words, first, count, lag >> 1, mask, sums, s)
                    lag, s = lag + 4, s + 4 * LANES
            if shown > 0:
                lanes.unpack(words, first, wide, 0, (odd + shown + 1) >> 1)
                for i in range(shown * LANES):
                    early[(k * edge + old) * LANES + i] = wide[odd * LANES + i]
            lanes.unpack(words, row + moved * LANES, late, mine, per_level + 1)
            # In the next level's words, frames stand as they do here: even ones below.
            turned = (old >> 1) & 1
            halves = (turned + moved + 1) >> 1
            peak = lanes.halve(words, first - turned * LANES, first, halves)
            if (turned + moved) & 1:
                for lane in range(LANES):
                    words[first + (halves - 1) * LANES + lane] &= 0xFFFF
        else:
            for i in range((edge + odd) * LANES):
                wide[i] = late[mine + i]
            first = (edge + odd) * LANES
            for i in range(first + (new - old) * LANES, first + (new - old + 2) * LANES):
                wide[i] = 0
            while lag <= edge:
                lanes.correlate_wide(wide, first, new - old, lag, sums, s)
                lag, s = lag + 1, s + LANES
            for i in range(shown * LANES):
                early[(k * edge + old) * LANES + i] = wide[first + i]
            for i in range((edge + 2) * LANES):
                late[mine + i] = wide[moved * 2 * LANES + i]
            lanes.halve_wide(wide, edge * LANES, (edge + ((old >> 1) & 1)) * LANES, moved)
