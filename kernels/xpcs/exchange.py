"""Frames that several ranks read together: each decodes a share of them, and is given of all frames the events of the
pixels that it works on.

It goes round by round. In each, every rank reads the next few frames after those of the rank before, deals their events
out by pixel, and gets its own: of all these frames in order, so that whoever asks for `blocks` sees nothing of it. How
many frames that are, follows from how full they were in the round before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.ranks import Ranks
from kernels.xpcs.events import Events
from kernels.xpcs.readers.frames import Chosen
from kernels.xpcs.readers.source import BLOCK_EVENTS, joined

_MOST_BYTES = 1 << 30  # of the events of a rank's frames in a round, were all their pixels lit

Ints = NDArray[np.int64]


class Exchanged:
    """`frames` as one of the ranks needs them (see `kernels.xpcs.events.Frames`).

    All ranks have to ask for `blocks` as often as each other, and to read them to the end. What one of them cannot
    read fails all. Frames of a format that has to be read from its beginning are read by rank 0 alone.

    Parameters
    ----------
    frames : Chosen
    ranks : Ranks
    takers : ndarray, shape (pixels of the detector, 2), int16
        The events of a pixel go to the ranks from the first to before the second of these.
    seen : callable
        Is given what this rank has decoded, with all pixels, of the first reading.
    """

    def __init__(
        self, frames: Chosen, ranks: Ranks, takers: NDArray[np.int16], seen: Callable[[Events], None] = lambda _: None
    ) -> None:
        self.rows, self.columns, self.count = frames.rows, frames.columns, frames.count
        self.frame_time_s, self.largest = frames.frame_time_s, frames.largest
        self._frames, self._ranks, self._takers, self._seen = frames, ranks, takers, seen

    def blocks(self) -> Iterator[Events]:
        """Of all frames the events of this rank's pixels; what the frames have left out is then that of all ranks."""
        left_out: Counter[str] = Counter()
        yield from self._together(left_out) if self._frames.anywhere else self._by_the_first(left_out)
        self._seen = lambda _: None
        self._frames.counted = dict(sum(self._ranks.said(left_out), Counter[str]()))

    def _together(self, left_out: Counter[str]) -> Iterator[Events]:
        ranks, pixels, done = self._ranks, self.rows * self.columns, 0
        most = max(1, _MOST_BYTES // (8 * pixels))
        each = min(most, max(1, BLOCK_EVENTS // pixels))
        while done < self.count:
            each = -(-each // self._frames.deep) * self._frames.deep
            begin, end = (min(done + n * each, self.count) for n in (ranks.rank, ranks.rank + 1))
            mine = self._nothing()
            if begin < end:
                mine = joined([self._told(events) for events in self._frames.blocks(range(begin, end))])
                left_out.update(self._frames.counted)
            fullest = max(ranks.said(int(np.diff(mine.starts).max(initial=0))))
            yield self._dealt(mine, done)
            done = min(done + ranks.size * each, self.count)
            each = min(most, max(1, BLOCK_EVENTS // (fullest + fullest // 4 + 64)))

    def _by_the_first(self, left_out: Counter[str]) -> Iterator[Events]:
        first, done = self._ranks.first, 0
        coming = self._frames.blocks() if first else iter(())
        while done < self.count:
            here = self._dealt(self._told(next(coming)) if first else self._nothing(), done)
            yield here
            done += here.frames
        for _ in coming:
            raise AssertionError("There are more frames than announced.")
        if first:
            left_out.update(self._frames.counted)

    def _nothing(self) -> Events:
        return Events(0, np.zeros(1, np.int64), np.empty(0, np.uint32), np.empty(0, self._frames.word))

    def _told(self, events: Events) -> Events:
        self._seen(events)
        return events

    def _dealt(self, mine: Events, first: int) -> Events:
        """What all ranks have read in this round, of the pixels of this one."""
        ranks = self._ranks
        words = mine.counts.astype(self._frames.word, copy=False)
        numbers, pixels, counts = _deal(mine.starts, mine.pixels, words, self._takers, ranks.size)
        frames, given = ranks.said(mine.frames), numbers.sum(axis=1).tolist()
        by_frame = ranks.exchanged(numbers.ravel(), [mine.frames] * ranks.size, frames)
        ends = np.concatenate([[0], np.cumsum(frames)])
        taken = [int(by_frame[begin:end].sum()) for begin, end in pairwise(ends)]
        starts = np.concatenate([[0], np.cumsum(by_frame)])
        return Events(first, starts, ranks.exchanged(pixels, given, taken), ranks.exchanged(counts, given, taken))


def share_of_frames(frames: Chosen, ranks: Ranks) -> Iterator[Events]:
    """The blocks of this rank, where it does not matter who reads which: of all ranks each frame once."""
    if frames.anywhere:
        part = ranks.share(frames.count, frames.deep)
        return frames.blocks(part) if part else iter(())
    return frames.blocks() if ranks.first else iter(())


def sample(frames: Chosen, most: int = 8) -> Events:
    """Some frames from all over the series, or the first block where only those can be had."""
    if not frames.anywhere:
        return next(frames.blocks())
    numbers = np.unique(np.linspace(0, frames.count - 1, most).astype(int))
    return joined([events for n in numbers for events in frames.blocks(range(n, n + 1))])


@compiled(parallel=True)
def _deal(
    starts: Ints,
    pixels: NDArray[np.uint32],
    counts: NDArray[np.unsignedinteger],
    takers: NDArray[np.int16],
    ranks: int,
) -> tuple[Ints, NDArray[np.uint32], NDArray[np.unsignedinteger]]:
    """How many events each rank gets of each frame, shape (ranks, frames); and these, rank by rank, then by frame."""
    frames = starts.size - 1
    numbers = np.zeros((ranks, frames), np.int64)
    for f in prange(frames):
        found = np.zeros(ranks, np.int64)
        for i in range(starts[f], starts[f + 1]):
            for r in range(takers[pixels[i], 0], takers[pixels[i], 1]):
                found[r] += 1
        numbers[:, f] = found
    places, total = np.empty((ranks, frames), np.int64), np.int64(0)
    for r in range(ranks):
        for f in range(frames):
            places[r, f] = total
            total += numbers[r, f]
    dealt_pixels, dealt_counts = np.empty(total, np.uint32), np.empty(total, counts.dtype)
    for f in prange(frames):
        place = places[:, f].copy()
        for i in range(starts[f], starts[f + 1]):
            for r in range(takers[pixels[i], 0], takers[pixels[i], 1]):
                dealt_pixels[place[r]], dealt_counts[place[r]] = pixels[i], counts[i]
                place[r] += 1
    return numbers, dealt_pixels, dealt_counts
