"""Pixels that are correlated together: their frames until there is time for them, and their sums."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled, threads
from kernels.errors import Exit, KernelError
from kernels.xpcs.events import Events
from kernels.xpcs.lags import Lags
from kernels.xpcs.multitau import sparse
from kernels.xpcs.multitau.advance import BLOCKS, GROUP, State, advance, empty, touch
from kernels.xpcs.multitau.dense import LARGEST_STORED, first_row
from kernels.xpcs.multitau.lanes import LANES, WORDS
from kernels.xpcs.multitau.result import unit
from kernels.xpcs.partition import Partition

MOST_PIXELS = 1 << 25  # sums over as many stay below 2^63
MOST_PHOTONS = (1 << 31) - 1  # of a pixel: so do products of two sums of them


class Work:
    """Some of the pixels of a partition: those that are `part` of the used ones, in ascending order.

    `held` are frames that came and are not in the sums yet; their arrays are not copied.
    """

    def __init__(
        self, partition: Partition, per_level: int, part: range | None = None, cost: float | None = None
    ) -> None:
        used = np.flatnonzero(partition.static.ravel())
        part = range(len(used)) if part is None else part
        self.partition, self.part, self.per_level = partition, part, per_level
        self.pixels = used[part.start : part.stop].astype(np.uint32)
        self.cost = sparse.EVENT_COST if cost is None else cost
        self.blocks = -(-len(self.pixels) // LANES)
        self._bins = partition.static_bins
        self._slots = np.full(partition.static.size, -1, np.int32)
        self._slots[self.pixels] = np.arange(len(self.pixels))
        self._bin = np.full(self.blocks * LANES, self._bins, np.int32)  # what fills the last block up has its own
        self._bin[: len(self.pixels)] = partition.static.ravel()[self.pixels] - 1
        self._whole = 2 * len(self.pixels) > partition.static.size
        self.frames = 0  # in the sums
        self.held: list[Events] = []
        self.held_frames = self.held_bytes = 0
        self.state: State | None = None

    def hold(self, events: Events) -> None:
        """Take the frames that follow.

        Raises
        ------
        KernelError
            Exit 65: frames are missing, come twice, or do not hold what they say.
        """
        check_next(events, self.frames + self.held_frames)
        if not self._whole:
            events = _between(
                events, *((int(self.pixels[0]), int(self.pixels[-1]) + 1) if len(self.pixels) else (0, 0))
            )
        pixels, counts = np.ascontiguousarray(events.pixels, np.uint32), np.ascontiguousarray(events.counts)
        self.held.append(Events(events.first, events.starts, pixels, counts))
        self.held_frames += events.frames
        self.held_bytes += pixels.nbytes + counts.nbytes + 5 * events.starts.nbytes

    def state_bytes(self, levels: int) -> int:
        """How much the state takes that goes on from frame to frame."""
        rows = first_row(levels, self.per_level)
        return self.blocks * LANES * (levels * (4 * self.per_level + 2) * 4 + rows * 8 + 8)

    def keep(self, levels: int) -> None:
        """Have a state with so many levels that goes on."""
        made = empty(self.blocks, levels, self.per_level)
        if self.state is not None:
            old = self.state
            made.early[:, : old.early.shape[1]] = old.early
            made.late[:, : old.late.shape[1]] = old.late
            made.sums[:, : old.sums.shape[1]] = old.sums
            made.total[:] = old.total
        self.state = made

    def touch(self, levels: int) -> None:
        """Have the system give the memory of so many levels now, and not when it is first used."""
        assert self.state is not None
        touch(*self.state, levels, first_row(levels, self.per_level))

    def go_on(self, delays: Lags | None = None) -> NDArray[np.int64]:
        """Take what is held into the sums; those of all bins at the delays, (static bins, delays, WORDS), if asked for.

        Without a state that goes on, there are the frames held and no more.
        """
        workers, kept = threads(), self.state is not None
        asked = 0 if delays is None else len(delays.frames)
        tallies = np.zeros((workers, self._bins + 1 if asked else 0, asked, WORDS), np.int64)
        most = np.zeros(workers, np.int64)
        after = self.frames + self.held_frames
        if len(self.pixels):
            levels = delays.levels if delays is not None else 0
            state = self.state or empty(workers * BLOCKS, levels, self.per_level)
            table, largest = self._table()
            advance(
                table, self.frames, self._slots, self.pixels, self.per_level,
                0.0 if largest > LARGEST_STORED else self.cost, kept, *state, self._bin, 1 / unit(after), tallies, most,
            )  # fmt: skip
        self.frames, self.held, self.held_frames, self.held_bytes = after, [], 0, 0
        if most.max() > MOST_PHOTONS:
            raise too_bright(int(most.max()))
        return np.asarray(tallies.sum(axis=0)[: self._bins])

    def _table(self) -> tuple[NDArray[np.int64], int]:
        """Of each frame held where its events are in memory, how many, and how wide; the largest count there may be."""
        table, largest, row = np.empty((self.held_frames, 4), np.int64), 0, 0
        for events in self.held:
            mine, begin = table[row : row + events.frames], events.starts[:-1]
            mine[:, 0] = events.pixels.ctypes.data + begin * events.pixels.itemsize
            mine[:, 1] = events.counts.ctypes.data + begin * events.counts.itemsize
            mine[:, 2], mine[:, 3] = np.diff(events.starts), events.counts.itemsize
            row += events.frames
            if events.counts.itemsize > 2 and len(events.counts):
                largest = max(largest, int(events.counts.max()))
        return table, largest


def check_next(events: Events, expected: int) -> None:
    """Refuse frames that do not follow the `expected` ones that came, or do not hold what they say; exit 65."""
    if events.first != expected:
        raise KernelError(
            f"Frame {expected} was to come, and frame {events.first} came: each has to come once, in order.",
            Exit.BAD_INPUT,
        )
    if (
        len(events.pixels) != len(events.counts)
        or (np.diff(events.starts, prepend=0, append=len(events.pixels)) < 0).any()
    ):
        raise KernelError(
            f"The events of the frames from {events.first} on are not where the frames say.", Exit.BAD_INPUT
        )


def too_bright(photons: int) -> KernelError:
    """What to say of a pixel that sums do not hold for."""
    return KernelError(
        f"A pixel has counted {photons} photons; the sums hold for up to {MOST_PHOTONS}: mask it, or take fewer "
        "frames.",
        Exit.BAD_INPUT,
    )


def _between(events: Events, low: int, high: int) -> Events:
    """The events of pixels from `low` to before `high`."""
    begins, ends = _runs(events.starts, np.ascontiguousarray(events.pixels, np.uint32), low, high)
    starts = np.concatenate([[0], np.cumsum(ends - begins)])
    if starts[-1] == len(events.pixels):
        return events
    taken = _places(begins, starts)
    return Events(events.first, starts, events.pixels[taken], events.counts[taken])


@compiled()
def _runs(
    starts: NDArray[np.int64], pixels: NDArray[np.uint32], low: int, high: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where in each frame the events of pixels from `low` to before `high` begin and end."""
    begins, ends = starts[:-1].copy(), starts[1:].copy()
    for f in range(len(begins)):
        own = pixels[starts[f] : starts[f + 1]]
        begins[f] = starts[f] + np.searchsorted(own, low)
        ends[f] = starts[f] + np.searchsorted(own, high)
    return begins, ends


@compiled()
def _places(begins: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """What follows each of `begins`, which is put at `starts`."""
    taken = np.empty(starts[-1], np.int64)
    for f in range(len(begins)):
        for i in range(starts[f], starts[f + 1]):
            taken[i] = begins[f] + i - starts[f]
    return taken


__all__ = ["GROUP", "MOST_PHOTONS", "MOST_PIXELS", "Work"]
