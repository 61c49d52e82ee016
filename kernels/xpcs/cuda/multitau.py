"""Multi-tau sums on a GPU: the integers that `multitau.work.Work` has, by other hands.

The host sends the events as they come, frame by frame; the device puts them into rows, a pixel each, and takes a batch
of frames at a time into the sums (`multitau.cu`). What it holds does not grow with the series but for a level more each
time that the frames double: of each pixel a row of a batch, and the sums with the first and the last values of each
level.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cuda.device import Cuda, failed, open_device
from kernels.cuda.memory import as_many, too_small
from kernels.cuda.sources import defines, functions
from kernels.errors import Exit, KernelError
from kernels.ranks import Ranks
from kernels.xpcs.events import Events, Frames
from kernels.xpcs.lags import Lags, lags
from kernels.xpcs.multitau.batch import check
from kernels.xpcs.multitau.result import WORDS, MultiTau, concluded, unit
from kernels.xpcs.multitau.work import MOST_PHOTONS, check_next, too_bright
from kernels.xpcs.partition import Partition
from kernels.xpcs.readers.source import smallest_word

SOURCE = Path(__file__).with_name("multitau.cu")
KERNELS = ("place_counts", "advance", "settle")

TILE = 512  # frames of a batch at most
LEAST = 32
_COST = 4  # of an event, in frames; by count of instructions, and nothing but time depends on it
_WARPS, _GROUPS, _WARP, _THREADS = 4, 4, 32, 256
_PIXELS = 64  # of a bin that a block settles
_STAGED = 1 << 22  # events on their way at once
_MOST_FRAMES = 2**31 - 1 - TILE


def options(per_level: int, width: int) -> tuple[str, ...]:
    """What the source is compiled with, for counts of `width` bytes."""
    events = TILE // _COST
    constants: dict[str, int | str] = {"BYTES": width, "EDGE": 2 * per_level, "TILE": TILE, "EVENTS": events}
    constants |= {"COST": _COST, "WARPS": _WARPS, "GROUPS": _GROUPS, "MOST": f"{MOST_PHOTONS}ULL"}
    return defines(constants)


def prepare(frames: Frames, partition: Partition, *, per_level: int, ranks: Ranks) -> CudaSums:
    """A GPU made ready for this rank's share of the pixels.

    Raises
    ------
    KernelError
        Exit 2 where there is no GPU, or it is too small; 75 when others have its memory, or it fails.
    """
    check(frames, partition, per_level)
    part = ranks.share(int(partition.bounds[-1]))
    return CudaSums(open_device(), partition, part, lags(frames.count, per_level), per_level, frames)


def multitau(frames: Frames, partition: Partition, gpu: CudaSums, ranks: Ranks) -> MultiTau:
    """g2 of every dynamic bin, as `multitau.batch.multitau` has it, by what was made ready for these frames.

    Raises
    ------
    KernelError
        Exit 65 as there; 75 when the device fails.
    """
    for events in frames.blocks():
        ranks.look()
        gpu.feed(events)
    if gpu.frames != frames.count:
        raise KernelError(f"The series has {gpu.frames} frames and said that they are {frames.count}.", Exit.BAD_INPUT)
    gathered = ranks.gathered(gpu.sums())
    return concluded(ranks.told(np.sum(gathered, axis=0)), gpu.delays, frames.count, partition)


class CudaSums:
    """The sums of some pixels, those that are `part` of the used ones in ascending order as of `multitau.work.Work`, at
    the `delays` of a series of `frames`."""

    def __init__(
        self, cuda: Cuda, partition: Partition, part: range, delays: Lags, per_level: int, frames: Frames
    ) -> None:
        if frames.count > _MOST_FRAMES:
            raise KernelError(f"{frames.count} frames are more than the GPU path can count: take device cpu.")
        self._cuda, self.delays, self._series, self._of = cuda, delays, frames.count, per_level
        of_pixels = partition.static.ravel()
        used = np.flatnonzero(of_pixels)[part.start : part.stop]
        used = used[np.argsort(of_pixels[used], kind="stable")]
        self._pixels, self._bins = len(used), partition.static_bins
        self._kind = smallest_word(frames.largest)
        self._slots = np.full(partition.static.size, -1, np.int32)
        self._slots[used] = np.arange(len(used), dtype=np.int32)
        self.frames = self._taken = 0  # that came, and that are in the sums
        self._pieces = 0
        if not self._pixels:
            return
        what = f"The sums of {self._pixels} pixels at {delays.levels} levels"
        try:
            self._kernels = functions(cuda, SOURCE, options(per_level, self._kind.itemsize), KERNELS)
            self._work, self._up = (cuda.cupy.cuda.Stream(non_blocking=True) for _ in range(2))
            self._kept = _Kept(cuda, self._pixels, delays, 2 * per_level, self._work)
            shape = self._bins, len(delays.frames), WORDS
            self._tallies = _zeros(cuda, shape, np.uint64, self._work)
            self._places, *self._settled = [
                cuda.cupy.asarray(each) for each in (self._slots, *self._to_settle(of_pixels[used] - 1))
            ]
            cuda.cupy.cuda.Device().synchronize()  # other streams use them
            self._staged = [_Slot(cuda, self._kind) for _ in range(2)]
            self._rows = as_many(
                cuda, TILE, lambda room: _Rows(cuda, self._pixels, room, self._kind, self._work), least=LEAST
            )
        except MemoryError as error:
            raise too_small(cuda, what, self._least_bytes(), "take device cpu") from error
        except RuntimeError as error:
            raise failed(error) from error

    def feed(self, events: Events) -> None:
        """Take the frames that follow.

        Raises
        ------
        KernelError
            Exit 65: frames are missing, come twice, or do not hold what they say; 75 when the device fails.
        """
        check_next(events, self.frames)
        largest = np.iinfo(self._kind).max
        if events.counts.itemsize > self._kind.itemsize and events.counts.max(initial=0) > largest:
            raise KernelError(
                f"A pixel has counted {events.counts.max()} from frame {events.first} on, where no count was to be "
                f"above {largest}.",
                Exit.BAD_INPUT,
            )
        try:
            first = 0
            while first < events.frames:
                held = self.frames - self._taken
                frames = min(events.frames - first, self._room - held)
                if self._pixels:
                    self._place(events, slice(first, first + frames), held)
                self.frames, first = self.frames + frames, first + frames
                if self.frames - self._taken == self._room:
                    self._advance()
        except (RuntimeError, MemoryError) as error:
            raise failed(error) from error

    def sums(self) -> NDArray[np.int64]:
        """Those of all bins at the delays, shape (static bins, delays, WORDS), when all frames have come.

        Raises
        ------
        KernelError
            Exit 65: a pixel of too many photons; 75 when the device fails.
        """
        if not self._pixels:
            return np.zeros((self._bins, len(self.delays.frames), WORDS), np.int64)
        try:
            if self.frames > self._taken:
                self._advance()
            tallies = self._settle()
            most = int(self._kept.most.get()[0])
        except (RuntimeError, MemoryError) as error:
            raise failed(error) from error
        if most > MOST_PHOTONS:
            raise too_bright(most)
        return tallies

    @property
    def _room(self) -> int:
        return self._rows.room if self._pixels else TILE

    def _place(self, events: Events, frames: slice, held: int) -> None:
        """Send the events of some frames, and put them into the rows after the `held` frames that are there."""
        starts = events.starts[frames.start : frames.stop + 1]
        for begin in range(int(starts[0]), int(starts[-1]), _STAGED):
            end = min(begin + _STAGED, int(starts[-1]))
            self._place_piece(events, slice(begin, end), np.clip(starts, begin, end) - begin, held)

    def _place_piece(self, events: Events, part: slice, starts: NDArray[np.int64], held: int) -> None:
        slot, count = self._staged[self._pieces % 2], part.stop - part.start
        self._pieces += 1
        slot.arrived.synchronize()  # before that the host's side is still being sent
        slot.host[0][: len(starts)] = starts
        slot.host[1][:count] = events.pixels[part]
        slot.host[2][:count] = events.counts[part]
        self._up.wait_event(slot.placed)  # before that the device's side is in use
        for here, there, length in zip(slot.host, slot.device, (len(starts), count, count), strict=True):
            there.data.copy_from_host_async(here.ctypes.data, length * here.itemsize, self._up)
        slot.arrived.record(self._up)
        self._work.wait_event(slot.arrived)
        blocks = -(-int(np.diff(starts).max()) // _THREADS)
        of_frames, pixels, counts = slot.device
        sizes = np.int32(self._slots.size), np.int32(self._room), np.int32(held)
        with self._work:
            self._kernels["place_counts"](
                (blocks, len(starts) - 1, 1),
                (_THREADS, 1, 1),
                (pixels, counts, of_frames, self._places, *sizes, self._rows.values),
            )
        slot.placed.record(self._work)

    def _advance(self) -> None:
        if self._pixels:
            before, frames, kept = self._taken, self.frames - self._taken, self._kept
            numbers = self._room, before, frames, self._pixels, self.delays.levels, len(self.delays.frames)
            with self._work:
                self._kernels["advance"](
                    (-(-self._pixels // _WARPS), 1, 1),
                    (_WARPS * _WARP, 1, 1),
                    (self._rows.values, *map(np.int32, numbers), *kept.of_pixels, kept.most),
                )
        self._taken = self.frames

    def _to_settle(self, bins: NDArray[np.int32]) -> list[NDArray[np.int32]]:
        """Blocks of pixels, which are in these bins, and delays, as the kernel takes them."""
        steps = self.delays.frames >> self.delays.level
        tables = *_blocks(np.bincount(bins)), self.delays.level, steps
        return [np.asarray(each, np.int32) for each in tables]

    def _settle(self) -> NDArray[np.int64]:
        delays, blocks = len(self.delays.frames), self._settled[0].shape[0]
        numbers = [np.int32(n) for n in (self._series, self.delays.levels, delays)]
        scale = np.float64(1 / unit(self._series))
        with self._work:
            self._kernels["settle"](
                (blocks, -(-delays // _WARP), 1),
                (_GROUPS * _WARP, 1, 1),
                (*self._kept.of_pixels, *self._settled, *numbers, scale, self._tallies),
            )
        self._cuda.cupy.cuda.Device().synchronize()
        return np.asarray(self._tallies.get()).view(np.int64)

    def _least_bytes(self) -> int:
        """What is needed on the device with the shortest batches."""
        levels, edge = self.delays.levels, 2 * self._of
        of_pixel = 8 * levels * edge + 8 * (len(self.delays.frames) + 1) + LEAST * self._kind.itemsize
        return self._pixels * of_pixel + 4 * self._slots.size + 2 * _STAGED * (4 + self._kind.itemsize)


class _Kept:
    """What is kept of pixels between batches; all zero at first. `of_pixels`: early and late values of each level, sums
    at each delay, photons. `most`: those of the brightest pixel, where they are too many."""

    def __init__(self, cuda: Cuda, pixels: int, delays: Lags, edge: int, stream: Any) -> None:
        values = (pixels, delays.levels, edge), np.uint32
        kinds = values, values, ((pixels, len(delays.frames)), np.uint64), ((pixels,), np.uint64)
        self.of_pixels = [_zeros(cuda, shape, kind, stream) for shape, kind in kinds]
        self.most = _zeros(cuda, (1,), np.uint64, stream)


class _Rows:
    """The counts of a batch, a row of `room` frames for each pixel; empty."""

    def __init__(self, cuda: Cuda, pixels: int, room: int, kind: Any, stream: Any) -> None:
        self.room = room
        self.values = _zeros(cuda, (pixels, room), kind, stream)


class _Slot:
    """Room for events on their way, on both sides: starts, pixels, counts; and what has happened to them."""

    def __init__(self, cuda: Cuda, kind: Any) -> None:
        shapes = ((TILE + 1,), np.int64), ((_STAGED,), np.uint32), ((_STAGED,), kind)
        self.host = [cuda.cupyx.empty_pinned(*each) for each in shapes]
        self.device = [cuda.cupy.ndarray(*each) for each in shapes]
        self.arrived, self.placed = (cuda.cupy.cuda.Event(disable_timing=True) for _ in range(2))


def _zeros(cuda: Cuda, shape: tuple[int, ...], kind: Any, stream: Any) -> Any:
    made = cuda.cupy.ndarray(shape, kind)
    made.data.memset_async(0, int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize, stream)
    return made


def _blocks(sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of bins of these sizes in pieces that lie within a bin: where each begins and ends, and its bin."""
    ends = np.cumsum(sizes)
    pieces = -(-sizes // _PIXELS)
    bins = np.repeat(np.arange(len(sizes)), pieces)
    number = np.arange(len(bins)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    firsts = (ends - sizes)[bins] + number * _PIXELS
    return firsts, np.minimum(firsts + _PIXELS, ends[bins]), bins
