"""The scan of frames that are laid out, on a GPU: the pixels and values that `frames.scan` finds, to the last bit.

Frames are read straight into memory that the device can fetch from, a block ahead. While the pixels of one block are
put together (`scan.cu`), the next is on its way to the device and is looked at there, and the one after it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels import devices
from kernels.compiled import threads
from kernels.cuda.device import Choice, Cuda, choose, failed, open_device
from kernels.cuda.memory import as_many, too_small
from kernels.cuda.sources import defines, functions
from kernels.errors import KernelError
from kernels.hedm.frames.chosen import Frames
from kernels.hedm.frames.source import CROWDED, Limits, Seen, Source
from kernels.ranks import Ranks

T = TypeVar("T")

SOURCE = Path(__file__).with_name("scan.cu")
KERNELS = ("mark", "gather")
KINDS = ("uint16", "uint32", "int32", "float32")

_WARP, _WARPS = 32, 8
_PIECE = _WARP * _WARP
_MOST_AT_ONCE = 4096  # frames, of which a grid may have 65535
_LEAST_BYTES = (
    32 << 30
)  # of frames; a core compares them in about the time in which CUDA, CuPy and the source are ready


def options(kind: str) -> tuple[str, ...]:
    """What the source is compiled with, for pixels of this kind."""
    return defines({"KIND": KINDS.index(kind), "WARPS": _WARPS})


def choose_for(frames: Frames, wanted: str, ranks: Ranks) -> Choice:
    """What scans these frames where the user wants `auto`, `cpu` or `gpu`.

    `auto` is a GPU that this process was given where that takes less time: a rank with a single core and frames enough
    that are laid out when they are read.

    Raises
    ------
    KernelError
        Exit 2 where a GPU is wanted and there is none, or nothing for it to do; 75 when others have its memory.
    """
    if wanted == "auto" and (reason := _no_gain(frames, ranks)):
        return Choice("cpu", reason if devices.visible() else "")
    return choose(wanted, lambda: prepare(frames))


def _no_gain(frames: Frames, ranks: Ranks) -> str:
    """Why a GPU would not be faster; empty where it would be."""
    if frames.source.held == "packed":
        return "packed frames are compared as they are"
    if frames.source.held == "pixels":
        return "the frames are sparse"
    if threads() > 1:
        return "the CPU compares frames as fast as they are read"
    if frames.count * frames.rows * frames.columns * frames.kind.itemsize < _LEAST_BYTES * ranks.size:
        return "the frames are compared in less time than a GPU needs to begin"
    return ""


def prepare(frames: Frames) -> CudaScan:
    """A GPU made ready for these frames.

    Raises
    ------
    KernelError
        Exit 2 where there is no GPU, it is too small, or the frames are sparse; 75 when others have its memory, or it
        fails.
    """
    if frames.source.held == "pixels":
        raise KernelError(f"The frames {frames.name!r} are sparse: there is nothing to scan on a GPU, take device cpu.")
    return CudaScan(open_device(), frames.rows * frames.columns, frames.kind, frames.source.at_once)


class CudaScan:
    """Looks at frames of `size` pixels of one kind, up to `at_once` of them together."""

    def __init__(self, cuda: Cuda, size: int, kind: np.dtype[Any], at_once: int) -> None:
        self._cuda, self._size, self._kind = cuda, size, kind
        self._pieces = -(-size // _PIECE)
        most = min(at_once, _MOST_AT_ONCE)
        try:
            self._kernels = functions(cuda, SOURCE, options(kind.name), KERNELS)
            self._up, self._work, self._down = (cuda.cupy.cuda.Stream(non_blocking=True) for _ in range(3))
            self._above, self._dark = cuda.cupy.ndarray((size,), kind), cuda.cupy.ndarray((size,), np.float32)
            self._room = as_many(cuda, most, lambda count: _Room(cuda, size, kind, count, self._pieces))
        except MemoryError as error:
            raise too_small(cuda, f"Frames of {size} pixels", self._least_bytes(), "take device cpu") from error
        except RuntimeError as error:
            raise failed(error) from error

    @property
    def at_once(self) -> int:
        """How many frames it looks at together at most."""
        return self._room.count

    def look(self, source: Source, bounds: Sequence[int], limits: Limits, above: NDArray[Any]) -> Iterator[Seen]:
        """What is above its limit in the frames of a source between each two neighbours of `bounds`, as `scan.look`.

        Raises
        ------
        KernelError
            What the source raises; 75 when the device fails.
        """
        blocks, slots = list(pairwise(bounds)), self._room.slots
        with ThreadPoolExecutor(1, "read") as reader:

            def read(n: int) -> Future[None]:
                first, beyond = blocks[n]
                return reader.submit(source.fill, first, beyond, self._to_fill(slots[n % 2], beyond - first, source))

            try:
                _guarded(self._send_limits, limits, above)
                coming = read(0)
                for n, (first, beyond) in enumerate(blocks):
                    coming.result()
                    if n + 1 < len(blocks):
                        coming = read(n + 1)
                    _guarded(self._send, slots[n % 2], beyond - first, limits.saturation)
                    if n:
                        yield _guarded(self._seen, slots[(n - 1) % 2])
                yield _guarded(self._seen, slots[(len(blocks) - 1) % 2])
            finally:
                with suppress(RuntimeError):  # memory that others get must not be written into any more
                    self._cuda.cupy.cuda.Device().synchronize()

    def _to_fill(self, slot: _Slot, count: int, source: Source) -> NDArray[Any]:
        _guarded(slot.arrived.synchronize)  # before that the host's side is still being sent
        free: NDArray[Any] = slot.host[:count].reshape(count, source.rows, source.columns)
        return free

    def _send_limits(self, limits: Limits, above: NDArray[Any]) -> None:
        for here, there in ((above, self._above), (limits.dark, self._dark)):
            there.data.copy_from_host_async(here.ctypes.data, here.nbytes, self._up)
        self._cuda.cupy.cuda.Device().synchronize()  # the host's arrays may go

    def _send(self, slot: _Slot, count: int, saturation: float) -> None:
        """Send frames, and have counted what is above the limits in them."""
        slot.count = count
        slot.frames.data.copy_from_host_async(slot.host.ctypes.data, slot.host[:count].nbytes, self._up)
        slot.arrived.record(self._up)
        self._work.wait_event(slot.arrived)
        slot.told.device.data.memset_async(0, slot.told.host.nbytes, self._work)
        numbers = np.int32(self._size), np.int32(self._pieces), np.float64(saturation)
        arrays = slot.bits, slot.found.device, slot.told.device
        with self._work:
            self._kernels["mark"](*self._grid(count), (slot.frames, self._above, *numbers, *arrays))
        for both in (slot.found, slot.told):
            both.fetch(count, self._work)
        slot.marked.record(self._work)

    def _seen(self, slot: _Slot) -> Seen:
        """What was found in the frames that were sent, frame by frame."""
        slot.marked.synchronize()
        found, told = slot.found.host[: slot.count], slot.told.host[: slot.count].astype(np.int64)
        totals = found.sum(axis=1, dtype=np.int64)
        crowded = totals > self._size // CROWDED
        kept = np.where(crowded[:, None], 0, found).ravel().astype(np.int64)
        ends = np.cumsum(kept)
        pixels, values = self._gathered(slot, np.where(kept > 0, ends - kept, -1), int(ends[-1]))
        starts = np.concatenate([[0], ends[self._pieces - 1 :: self._pieces]])
        blank = (totals == 0) & (told[:, 2] == 0)
        return Seen(starts, pixels, values, told[:, 0].copy(), told[:, 1].copy(), blank, crowded)

    def _gathered(self, slot: _Slot, starts: NDArray[np.int64], count: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The `count` pixels and values of pieces, which begin at `starts`."""
        if not count:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        room = self._room
        room.starts.host[: len(starts)] = starts
        there = room.starts.device
        there.data.copy_from_host_async(room.starts.host.ctypes.data, starts.nbytes, self._down)
        numbers = np.int32(self._size), np.int32(self._pieces)
        with self._down:
            self._kernels["gather"](
                *self._grid(slot.count),
                (slot.frames, self._dark, slot.bits, there, *numbers, room.pixels.device, room.values.device),
            )
        for both in (room.pixels, room.values):
            both.fetch(count, self._down)
        room.fetched.record(self._down)
        room.fetched.synchronize()
        return room.pixels.host[:count].copy(), room.values.host[:count].copy()

    def _grid(self, count: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        return (-(-self._pieces // _WARPS), count, 1), (_WARPS * _WARP, 1, 1)

    def _least_bytes(self) -> int:
        """What is needed on the device for a frame at a time."""
        of_limits = self._size * (self._kind.itemsize + 4)
        of_slot = self._size * self._kind.itemsize + self._pieces * (4 * _WARP + 4)
        return of_limits + 2 * of_slot + 8 * (self._pieces + self._size // CROWDED)


class _Both:
    """An array on the device, and one on the host, into which it is fetched or from which it is sent."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], kind: Any) -> None:
        self.device = cuda.cupy.ndarray(shape, kind)
        self.host = cuda.cupyx.empty_pinned(shape, kind)

    def fetch(self, count: int, stream: Any) -> None:
        """Copy the first `count` to the host."""
        self.device.data.copy_to_host_async(self.host.ctypes.data, self.host[:count].nbytes, stream)


class _Slot:
    """Room for `most` frames on their way, on both sides, and for what is found in them; how many there are; and what
    has happened to them."""

    def __init__(self, cuda: Cuda, size: int, kind: np.dtype[Any], most: int, pieces: int) -> None:
        self.count = 0
        self.frames = cuda.cupy.ndarray((most, size), kind)
        self.bits = cuda.cupy.ndarray((most, pieces, _WARP), np.uint32)
        self.found, self.told = _Both(cuda, (most, pieces), np.int32), _Both(cuda, (most, 3), np.int32)
        self.host = cuda.cupyx.empty_pinned((most, size), kind)
        self.arrived, self.marked = (cuda.cupy.cuda.Event(disable_timing=True) for _ in range(2))


class _Room:
    """Two slots for `count` frames, and room for the most pixels that one of them can give."""

    def __init__(self, cuda: Cuda, size: int, kind: np.dtype[Any], count: int, pieces: int) -> None:
        self.count = count
        self.slots = [_Slot(cuda, size, kind, count, pieces) for _ in range(2)]
        most = max(1, count * (size // CROWDED))
        self.starts = _Both(cuda, (count * pieces,), np.int64)
        self.pixels, self.values = _Both(cuda, (most,), np.int32), _Both(cuda, (most,), np.float32)
        self.fetched = cuda.cupy.cuda.Event(disable_timing=True)


def _guarded(work: Callable[..., T], *arguments: Any) -> T:
    try:
        return work(*arguments)
    except (RuntimeError, MemoryError) as error:
        raise failed(error) from error
