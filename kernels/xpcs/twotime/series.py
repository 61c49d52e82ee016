"""The counts pixel by pixel: of each pixel when it saw how much, in the order of time.

Frames come frame by frame, and a two-time correlation needs all frames of a pixel at once. Pixels are sorted by dynamic
bin, within it by static bin, and what belongs together is taken in groups of at most `GROUP` pixels of one static bin:
few enough for the sums of products of small counts to fit into 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError
from kernels.xpcs.events import Events, Frames
from kernels.xpcs.partition import Partition
from kernels.xpcs.readers.source import joined

Integers = NDArray[np.int64]
Numbers = NDArray[Any]

GROUP = 16384  # pixels; times 255 squared they stay below 2^31
NARROW, WIDE = 8, 32  # bits of a count, beside the frame's number in a word of 32 bits or of 64
_AT_ONCE = 4096  # pixels whose words are written at the same time
_LARGEST = 2**24 - 1  # a group's sum of squares stays below 2^63
_MOST_FRAMES = 2**24  # what is left of the narrow word


class Series(NamedTuple):
    """All counts of the pixels of some dynamic bins.

    Attributes
    ----------
    frames : int
        How many frames there are.
    bins : ndarray, shape (bins,), int64
        Numbers of the dynamic bins, ascending.
    groups : ndarray, shape (bins + 1,), int64
        Where the groups of each bin begin.
    pixels : ndarray, shape (groups + 1,), int64
        Where the pixels of each group begin.
    starts : ndarray, shape (pixels + 1,), int64
        Where the words of each pixel begin.
    words : ndarray, uint32 or uint64
        `frame << bits | count`, ascending within a pixel.
    totals : ndarray, shape (groups, frames), int64
        What the group's static bin has counted in each frame.
    sizes : ndarray, shape (groups,), int64
        How many pixels that static bin has, that may be more than the group.
    largest : int
        No count is larger.
    """

    frames: int
    bins: Integers
    groups: Integers
    pixels: Integers
    starts: Integers
    words: NDArray[np.unsignedinteger]
    totals: Integers
    sizes: Integers
    largest: int

    @property
    def bits(self) -> int:
        """How many bits of a word are the count."""
        return _bits(self.words)


def gather(frames: Frames, partition: Partition, bins: Sequence[int] | None = None) -> Series:
    """Read all frames once and sort their counts by pixel.

    Parameters
    ----------
    frames : Frames
    partition : Partition
        Of the same rows and columns.
    bins : sequence of int, optional
        Only these dynamic bins, which are numbered from 1; all when it is not given.

    Raises
    ------
    KernelError
        Exit 65 when shapes differ, frames are missing or too few, or counts are too large; exit 2 for a bin that is
        not there.

    Notes
    -----
    It takes about 10 bytes per event while they are sorted, and 4 afterwards (8 with counts above 255).
    """
    chosen = chosen_bins(bins, partition.dynamic_bins)
    _fit(frames, partition)
    order = np.lexsort((np.arange(partition.static_bins), partition.owner))  # of static bins: by dynamic bin
    order = order[np.isin(partition.owner[order], chosen)]
    sizes = np.diff(partition.bounds)
    place = np.full(frames.rows * frames.columns, -1, np.int32)
    mine = [partition.pixels[partition.bounds[s] : partition.bounds[s + 1]] for s in order]
    used = np.concatenate(mine)
    place[used] = np.arange(len(used), dtype=np.int32)
    pieces = [-(-int(sizes[s]) // GROUP) for s in order]
    lengths = [
        min(GROUP, int(sizes[s]) - n * GROUP) for s, count in zip(order, pieces, strict=True) for n in range(count)
    ]
    pixels = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    static = np.repeat(np.arange(len(order)), pieces)  # of each group, in `order`
    groups = np.searchsorted(partition.owner[order][static], [*chosen, chosen[-1] + 1]).astype(np.int64)

    starts, words, largest = by_pixel(frames, place, len(used))
    bits = _bits(words)
    bounds = np.concatenate([[0], np.cumsum(sizes[order])]).astype(np.int64)
    totals = _totals(starts, words, bits, bounds, frames.count)
    return Series(
        frames=frames.count,
        bins=chosen,
        groups=groups,
        pixels=pixels,
        starts=starts,
        words=words,
        totals=totals[static],
        sizes=sizes[order][static],
        largest=largest,
    )


def by_pixel(
    frames: Frames, place: NDArray[np.int32], pixels: int
) -> tuple[Integers, NDArray[np.unsignedinteger], int]:
    """Where each pixel's words begin, the words, and the largest count; `place` is a pixel's new number, or -1 where it
    is not wanted."""
    blocks: list[Events] = []
    count = largest = 0
    for block in frames.blocks():
        if block.first != count:
            raise KernelError(
                f"Frame {block.first} follows frame {count - 1}: frames are missing or come twice.", Exit.BAD_INPUT
            )
        if not block.frames:
            continue
        count += block.frames
        most, wrong = _survey(block.starts, block.pixels, block.counts, place)
        if wrong:
            raise KernelError(
                f"Frames {block.first} to {count - 1} name {wrong} pixels out of order, twice, or outside the detector "
                f"of {len(place)} pixels: the file is damaged, or of another detector.",
                Exit.BAD_INPUT,
            )
        largest = max(largest, most)
        blocks.append(block)
    if count != frames.count:
        raise KernelError(f"{frames.count} frames were announced and {count} came.", Exit.BAD_INPUT)
    if largest > _LARGEST:
        raise KernelError(
            f"A pixel has counted {largest} in a frame: two-time correlations take up to {_LARGEST}. Mask the pixel.",
            Exit.BAD_INPUT,
        )
    whole = joined(blocks)
    blocks.clear()
    kind: Numbers = np.empty(0, np.uint32 if largest < 1 << NARROW else np.uint64)
    starts, words = _sorted(*whole[1:], place, pixels, _bits(kind), kind)
    return starts, words, largest


@compiled(parallel=True)
def _sorted(
    starts: Integers,
    frame_pixels: NDArray[np.uint32],
    counts: Numbers,
    place: NDArray[np.int32],
    pixels: int,
    bits: int,
    kind: Numbers,
) -> tuple[Integers, Numbers]:
    """A counting sort, some neighbouring pixels at a time: where their words go lies in the second cache."""
    frames, parts = starts.size - 1, -(-place.size // _AT_ONCE)
    cuts = np.empty((parts + 1, frames), np.int64)  # where the events of each part begin in each frame
    cuts[0], cuts[parts] = starts[:-1], starts[1:]
    for part in numba.prange(1, parts):
        for frame in range(frames):
            of_frame = frame_pixels[starts[frame] : starts[frame + 1]]
            cuts[part, frame] = starts[frame] + np.searchsorted(of_frame, np.uint32(part * _AT_ONCE))
    begins = np.zeros(pixels + 1, np.int64)
    for part in numba.prange(parts):
        for frame in range(frames):
            for i in range(cuts[part, frame], cuts[part + 1, frame]):
                p = place[frame_pixels[i]]
                if p >= 0:
                    begins[p + 1] += 1
    for p in range(pixels):
        begins[p + 1] += begins[p]
    words = np.empty(begins[pixels], kind.dtype)
    for part in numba.prange(parts):
        first = part * _AT_ONCE
        places = place[first : first + _AT_ONCE]
        target = np.empty(places.size, np.int64)
        for n in range(places.size):
            target[n] = begins[max(places[n], 0)]
        for frame in range(frames):
            high = np.uint64(frame) << np.uint64(bits)
            for i in range(cuts[part, frame], cuts[part + 1, frame]):
                own = np.int64(frame_pixels[i]) - first
                if places[own] >= 0:
                    words[target[own]] = high | np.uint64(counts[i])
                    target[own] += 1
    return begins, words


@compiled(parallel=True)
def _totals(starts: Integers, words: Numbers, bits: int, bounds: Integers, frames: int) -> Integers:
    """What each static bin counted in each frame."""
    totals = np.zeros((bounds.size - 1, frames), np.int64)
    mask = np.uint64((1 << bits) - 1)
    for s in numba.prange(bounds.size - 1):
        for i in range(starts[bounds[s]], starts[bounds[s + 1]]):
            word = np.uint64(words[i])
            totals[s, word >> np.uint64(bits)] += np.int64(word & mask)
    return totals


@compiled(parallel=True)
def _survey(starts: Integers, pixels: NDArray[np.uint32], counts: Numbers, place: NDArray[np.int32]) -> tuple[int, int]:
    """The largest count of a pixel that is wanted, and how many pixels are out of order or outside the detector."""
    largest, wrong = np.zeros(starts.size - 1, np.int64), np.zeros(starts.size - 1, np.int64)
    for frame in numba.prange(starts.size - 1):
        last = np.int64(-1)
        for i in range(starts[frame], starts[frame + 1]):
            pixel = np.int64(pixels[i])
            if not last < pixel < place.size:
                wrong[frame] += 1
            elif place[pixel] >= 0:
                largest[frame] = max(largest[frame], np.int64(counts[i]))
            last = pixel
    return int(largest.max()), int(wrong.sum())


def _bits(words: Numbers) -> int:
    return NARROW if words.dtype == np.uint32 else WIDE


def chosen_bins(bins: Sequence[int] | None, count: int) -> NDArray[np.int64]:
    """Numbers of dynamic bins, ascending; all of so many when none are given."""
    chosen = np.arange(1, count + 1) if bins is None else np.unique(np.asarray(bins, np.int64))
    if not len(chosen) or chosen[0] < 1 or chosen[-1] > count:
        raise KernelError(f"Dynamic bins are numbered 1 to {count}: {list(bins or [])} are not all among them.")
    return chosen.astype(np.int64)


def _fit(frames: Frames, partition: Partition) -> None:
    if partition.static.shape != (frames.rows, frames.columns):
        raise KernelError(
            f"The bins are for a detector of {partition.static.shape[0]} x {partition.static.shape[1]} pixels, and the "
            f"frames have {frames.rows} x {frames.columns}: take the partition map of this detector.",
            Exit.BAD_INPUT,
        )
    if not 2 <= frames.count <= _MOST_FRAMES:
        raise KernelError(
            f"There are {frames.count} frames: a two-time correlation takes 2 to {_MOST_FRAMES}.", Exit.BAD_INPUT
        )
