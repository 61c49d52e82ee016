"""Go on with the multi-tau sums of all pixels by frames that follow, each thread with pixels of its own.

Frames are held as they come, sorted by pixel within each. So the events of some pixels in a row are in a row in every
frame too: a thread walks through its pixels, a group at a time, with a finger in each frame, and has all frames of the
group in its cache. Nothing is sorted, and each event is read once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.xpcs.multitau import dense, lanes, sparse
from kernels.xpcs.multitau.dense import LANES, Sums, Words

BLOCKS = 16  # of sixteen pixels in a group
TILE = 1024  # frames that are in work at once: with the blocks, half of a cache of 1 MiB
GROUP = BLOCKS * LANES
AHEAD = 8  # frames whose events are fetched while those of one are put into their places


class State(NamedTuple):
    """What is kept of pixels between frames, in blocks of sixteen; all zero at first.

    Attributes
    ----------
    early : ndarray, shape (blocks, levels, 2·per_level, LANES), int32
        Values of the first frames of each level.
    late : ndarray, shape (blocks, levels, 2·per_level + 2, LANES), int32
        Values of its last frames; the first row is of an even one.
    sums : ndarray, shape (blocks, rows, LANES), int64
        Sums of the products at each delay.
    total : ndarray, shape (blocks, LANES), int64
        Photons.
    """

    early: Words
    late: Words
    sums: Sums
    total: Sums

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self)


def empty(blocks: int, levels: int, per_level: int) -> State:
    """The state before the first frame."""
    return State(
        np.zeros((blocks, levels, 2 * per_level, LANES), np.int32),
        np.zeros((blocks, levels, 2 * per_level + 2, LANES), np.int32),
        np.zeros((blocks, dense.first_row(levels, per_level), LANES), np.int64),
        np.zeros((blocks, LANES), np.int64),
    )


@compiled(parallel=True)
def touch(early: Words, late: Words, sums: Sums, total: Sums, levels: int, rows: int) -> None:
    """Write zeros into so many levels and rows of a new state."""
    for block in prange(len(early)):
        early[block, :levels] = 0
        late[block, :levels] = 0
        sums[block, :rows] = 0
        total[block] = 0


@compiled()
def _count(address: int, width: int, index: int) -> int:
    if width == 1:
        return lanes.read8(address, index)  # type: ignore[no-any-return]
    if width == 2:
        return lanes.read16(address, index)  # type: ignore[no-any-return]
    return lanes.read32(address, index)  # type: ignore[no-any-return]


@compiled()
def fingers(table: Sums, pixel: int, found: Sums) -> None:
    """Where in each frame the events of `pixel` and those after it begin."""
    for f in range(len(table)):
        low, high = 0, table[f, 2]
        while low < high:
            middle = (low + high) >> 1
            if lanes.read32(table[f, 0], middle) < pixel:
                low = middle + 1
            else:
                high = middle
        found[f] = low


@compiled()
def _fill(
    table: Sums,
    found: Sums,
    slots: NDArray[np.int32],
    begin: int,
    end: int,
    odd: int,
    per_level: int,
    rows: int,
    halves: NDArray[np.uint16],
    total: Sums,
) -> int:
    """Put the events of a group, of frames from one of the table on, into its tile; the largest count."""
    largest, corner = 0, (dense.GUARD + per_level) * 2 * LANES
    for f in range(len(table)):
        ahead = min(f + AHEAD, len(table) - 1)
        lanes.fetch(table[ahead, 0] + 4 * found[ahead])
        lanes.fetch(table[ahead, 1] + table[ahead, 3] * found[ahead])
        pixels, counts, events, width = table[f, 0], table[f, 1], table[f, 2], table[f, 3]
        at, i = corner + ((odd + f) >> 1) * 2 * LANES + ((odd + f) & 1), found[f]
        while i < events:
            pixel = lanes.read32(pixels, i)
            if pixel >= end:
                break
            slot = slots[np.uint64(pixel)] - begin
            if slot >= 0:
                count = lanes.read8(counts, i) if width == 1 else _count(counts, width, i)
                largest = max(largest, count)
                halves[np.uint64((slot >> 4) * rows * 2 * LANES + at + (slot & 15) * 2)] = count
                total[np.uint64(slot)] += count
            i += 1
        found[f] = i
    return largest


@compiled()
def _list(
    table: Sums,
    found: Sums,
    slots: NDArray[np.int32],
    begin: int,
    end: int,
    before: int,
    begins: Sums,
    ends: Sums,
    space: int,
    total: Sums,
) -> tuple[NDArray[np.int32], Sums]:
    """The events of a group pixel by pixel: times and counts; of each pixel where they begin and end."""
    ends[:] = 0
    for f in range(len(table)):
        i = found[f]
        while i < table[f, 2]:
            pixel = lanes.read32(table[f, 0], i)
            if pixel >= end:
                break
            slot = slots[pixel] - begin
            if slot >= 0:
                ends[slot] += 1
            i += 1
    place = 0
    for slot in range(len(ends)):
        place += space
        begins[slot], place = place, place + ends[slot]
        ends[slot] = begins[slot]
    times, values = np.empty(place, np.int32), np.empty(place, np.int64)
    for f in range(len(table)):
        i = found[f]
        while i < table[f, 2]:
            pixel = lanes.read32(table[f, 0], i)
            if pixel >= end:
                break
            slot = slots[pixel] - begin
            if slot >= 0:
                count = _count(table[f, 1], table[f, 3], i)
                times[ends[slot]], values[ends[slot]] = before + f, count
                ends[slot] += 1
                total[slot] += count
            i += 1
        found[f] = i
    return times, values


@compiled()
def _crowded(table: Sums, found: Sums, past: int, blocks: int, cost: float) -> bool:
    """Whether frames of a group have so many events that these need not be listed, from some of the frames."""
    step = max(1, len(table) // 64)
    frames, events = 0, 0
    for f in range(0, len(table), step):
        i = found[f]
        while i < table[f, 2] and lanes.read32(table[f, 0], i) < past:
            i += 1
        frames, events = frames + 1, events + i - found[f]
    return events * cost >= frames * blocks and frames > 0


@compiled()
def _clear(values: Words) -> None:
    lanes.clear(values, 0, len(values) // LANES)


@compiled()
def _dense_group(
    table: Sums,
    found: Sums,
    slots: NDArray[np.int32],
    begin: int,
    end: int,
    before: int,
    per_level: int,
    words: Words,
    wide: Words,
    early: Words,
    late: Words,
    sums: Sums,
    total: Sums,
) -> None:
    blocks, levels, rows = early.shape[0], early.shape[1], dense.words_of(TILE, per_level)
    for first in range(0, len(table), TILE):
        frames = min(TILE, len(table) - first)
        for block in range(blocks):
            lanes.clear(words, block * rows * LANES, dense.words_of(frames, per_level))
        now = before + first
        part = slice(first, first + frames)
        peak = _fill(
            table[part], found[part], slots, begin, end, now & 1, per_level, rows, words.view(np.uint16),
            total.reshape(-1),
        )  # fmt: skip
        for block in range(blocks):
            if total[block].any():
                dense.correlate(
                    words, block * rows + dense.GUARD, wide, now, now + frames, 0, levels, per_level, peak,
                    early[block].reshape(-1), late[block].reshape(-1), sums[block].reshape(-1),
                )  # fmt: skip


@compiled()
def _sparse_group(
    table: Sums,
    found: Sums,
    slots: NDArray[np.int32],
    begin: int,
    end: int,
    before: int,
    per_level: int,
    cost: float,
    words: Words,
    wide: Words,
    early: Words,
    late: Words,
    sums: Sums,
    total: Sums,
) -> None:
    blocks, levels = early.shape[0], early.shape[1]
    begins, ends = np.empty(blocks * LANES, np.int64), np.empty(blocks * LANES, np.int64)
    space, after = sparse.gap(levels, per_level), before + len(table)
    times, counts = _list(
        table, found, slots, begin, end, before, begins, ends, space, total.reshape(-1)
    )  # fmt: skip
    halves = words.view(np.uint16)
    for block in range(blocks):
        if not total[block].any():
            continue
        own = slice(block * LANES, (block + 1) * LANES)
        state = early[block].reshape(-1), late[block].reshape(-1), sums[block].reshape(-1)
        level = sparse.levels_of_block(
            times, counts, begins[own], ends[own], before, after, levels, per_level, cost, *state
        )
        now = before
        while level < levels and now >> level < after >> level:
            old = now >> level
            then = min(after, (old + TILE) << level)
            lanes.clear(words, 0, dense.words_of((then >> level) - old, per_level))
            peak = 0
            for lane in range(LANES):
                i = begins[block * LANES + lane]
                while i < ends[block * LANES + lane] and times[i] < then >> level:
                    place = times[i] - 2 * (old >> 1)
                    row = dense.GUARD + per_level + (place >> 1)
                    halves[(row * LANES + lane) * 2 + (place & 1)] = counts[i]
                    peak = max(peak, counts[i])
                    i += 1
                begins[block * LANES + lane] = i
            dense.correlate(words, dense.GUARD, wide, now, then, level, levels, per_level, peak, *state)
            now = then


@compiled()
def settle(
    early: Words,
    late: Words,
    sums: Sums,
    total: Sums,
    frames: int,
    per_level: int,
    scale: float,
    places: Sums,
    table: Sums,
) -> None:
    """Add the sums of sixteen pixels to those of their bins, whose place in `table` is in `places`."""
    edge, shift, n = 2 * per_level, 0, frames
    whole, ends = total.copy(), np.empty(2 * LANES, np.int64)
    for level in range(early.shape[0]):
        values, lag = late[level].reshape(-1), 1 if level == 0 else per_level + 1
        first = early[level].reshape(-1)
        row = dense.first_row(level, per_level) * LANES
        for lane in range(LANES):
            ends[lane] = ends[LANES + lane] = whole[lane]
        for q in range(1, min(edge, n - 1) + 1):
            lanes.take(values, ((n & 1) + edge - q) * LANES, ends, 0)
            lanes.take(first, (q - 1) * LANES, ends, LANES)
            if q >= lag:
                lanes.tally(sums, row, ends, float(n - q), scale, table, places, shift)
                row, shift = row + LANES, shift + lanes.WORDS
        if n & 1:
            lanes.take(values, edge * LANES, whole, 0)
        n >>= 1


@compiled(parallel=True)
def advance(
    table: Sums,
    before: int,
    slots: NDArray[np.int32],
    pixels: NDArray[np.uint32],
    per_level: int,
    cost: float,
    kept: bool,
    early: Words,
    late: Words,
    sums: Sums,
    total: Sums,
    bins: NDArray[np.int32],
    scale: float,
    tallies: Sums,
    most: Sums,
) -> None:
    """Go on by the frames of `table`; add what there is then to `tallies`, unless it is empty.

    Parameters
    ----------
    table : ndarray, shape (frames, 4), int64
        Of each frame the addresses of pixels and counts, the number of events, and the bytes of a count.
    before : int
        Frames of the series until then.
    slots : ndarray, shape (pixels of the detector,), int32
        Place of each pixel in the state; -1 where it has none.
    pixels : ndarray, shape (used,), uint32
        The pixel of each place, ascending.
    cost : float
        Of an event, see `sparse`; 0: events alone.
    kept : bool
        The state is that of all pixels, and goes on; or of `BLOCKS` blocks for each thread, which uses them for one
        group after another, that begins with these frames.
    early, late, sums, total
        The state.
    bins : ndarray, shape (used up to a whole block,), int32
        Bin of each place.
    scale : float
        See `lanes.tally`.
    tallies : ndarray, shape (threads, bins, delays, WORDS), int64
    most : ndarray, shape (threads,), int64
        Becomes the photons of the pixel that has most of them.
    """
    workers, groups = len(most), (len(pixels) + GROUP - 1) // GROUP
    for worker in prange(workers):
        start, stop = worker * groups // workers, (worker + 1) * groups // workers
        if start == stop:
            continue
        rows = dense.words_of(TILE, per_level)
        words, wide = np.zeros(BLOCKS * rows * LANES, np.int32), np.zeros((TILE + 2 * per_level + 8) * LANES, np.int32)
        found, places = np.empty(len(table), np.int64), np.empty(LANES, np.int64)
        fingers(table, pixels[start * GROUP], found)
        for group in range(start, stop):
            begin, end = group * GROUP, min((group + 1) * GROUP, len(pixels))
            blocks = (end - begin + LANES - 1) // LANES
            base = begin // LANES if kept else worker * BLOCKS
            own = slice(base, base + blocks)
            if not kept:
                _clear(early[own].reshape(-1))
                _clear(late[own].reshape(-1))
                _clear(sums[own].reshape(-1).view(np.int32))
                _clear(total[own].reshape(-1).view(np.int32))
            past = pixels[end - 1] + 1
            if _crowded(table, found, past, blocks, cost):
                _dense_group(
                    table, found, slots, begin, past, before, per_level, words, wide, early[own], late[own], sums[own],
                    total[own],
                )  # fmt: skip
            else:
                _sparse_group(
                    table, found, slots, begin, past, before, per_level, cost, words, wide, early[own], late[own],
                    sums[own], total[own],
                )  # fmt: skip
            most[worker] = max(most[worker], total[own].max())
            if tallies.size:
                for block in range(base, base + blocks):
                    if total[block].any():
                        for lane in range(LANES):
                            pixel = begin + (block - base) * LANES + lane
                            places[lane] = bins[pixel] * tallies.shape[2] * lanes.WORDS
                        settle(
                            early[block], late[block], sums[block].reshape(-1), total[block], before + len(table),
                            per_level, scale, places, tallies[worker].reshape(-1),
                        )  # fmt: skip
