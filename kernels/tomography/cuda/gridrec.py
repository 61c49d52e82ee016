"""Gridding on a GPU: `direct.gridrec` with the same tables, in the same order, by other hands.

Slices go in chunks to the device, are made there, and come back, on three streams with two buffers for each way, so
that one chunk is copied in and another out while one is worked on. The results agree with those of the CPU to about
1e-5 of the largest value, and are the same bit by bit whatever the chunks.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import threads
from kernels.cuda.device import Cuda, failed, open_device
from kernels.cuda.memory import SAFE, as_many, too_small
from kernels.errors import KernelError
from kernels.tomography.cuda.sources import Counts, Sinograms, Source
from kernels.tomography.cuda.steps import Room, Steps
from kernels.tomography.cuda.tiles import TILE
from kernels.tomography.direct.tables import Tables, tables
from kernels.tomography.field import Field

Floats = NDArray[np.float32]
Shorts = NDArray[np.uint16]

_GROUP = 64
_COPIERS = 8  # threads, which is as many as a node's memory keeps busy
_PINNED = 2**29  # bytes of host memory that the buffers take at most, where a pair of slices takes less


class CudaGridrec:
    """Direct reconstruction for one geometry on the GPU that this process sees.

    Parameters
    ----------
    theta_deg, columns, how
        As `direct.gridrec.Gridrec` has them.

    Raises
    ------
    KernelError
        Exit 2 when there is no GPU, or it is too small for a pair of slices; 75 when others have its memory, or it
        fails.
    """

    def __init__(self, theta_deg: NDArray[np.float64], columns: int, **how: Any) -> None:
        self._cuda = cuda = open_device(transforms=True)
        # Where the grid is less than two tiles wide, a window could meet one tile from two sides.
        self.tables = of = tables(theta_deg, columns, least_length=2 * TILE, **how)
        self.size, self.group, self.unsettled = of.size, _GROUP, 0
        self._copiers = min(threads(), _COPIERS)
        self._pool = ThreadPoolExecutor(self._copiers, thread_name_prefix="gpu-copy")
        each = 4 * (of.angles * of.columns + of.size**2)
        most = min(_GROUP // 2, max(1, _PINNED // (4 * each)))
        try:
            self._steps = Steps(cuda, of)
            self._streams = [cuda.cupy.cuda.Stream(non_blocking=True) for _ in range(3)]
            self._buffers = self._reserve(most)
        except MemoryError as error:
            raise self._too_small(2 * self._pair_bytes()) from error
        except RuntimeError as error:
            raise failed(error) from error
        self.chunk = 2 * self._buffers.pairs
        self.fixed_bytes = 2 * self.chunk * each

    def slices(self, sinograms: Floats, out: Floats | None = None) -> Floats:
        """Reconstruct slices: arguments, units and result as `Gridrec.slices` has them, but any number of slices.

        Raises
        ------
        KernelError
            Exit 75 when the device fails.
        """
        if out is None:
            out = np.empty((len(sinograms), self.size, self.size), np.float32)
        self._convey(Sinograms(sinograms), out)
        return out

    def slices_of_counts(self, counts: Shorts, field: Field, floor: float, out: Floats) -> int:
        """Reconstruct slices of counts: half of the bytes to copy, and none of the preparation left to the host.

        Parameters
        ----------
        counts : ndarray, shape (angles, slices, columns), uint16
        field
            What flats and darks say of these rows.
        floor
            Least transmission.
        out : ndarray, shape (slices, size, size), float32
            Where to.

        Returns
        -------
        int
            How many transmissions lay below the floor.

        Raises
        ------
        KernelError
            Exit 75 when the device fails.
        """
        try:
            source = Counts(self._cuda, counts, field, floor)
            self._convey(source, out)
            return source.floored()
        except (RuntimeError, MemoryError) as error:
            raise failed(error) from error

    def _convey(self, source: Source, out: Floats) -> None:
        parts = [slice(n, min(n + self.chunk, source.count)) for n in range(0, source.count, self.chunk)]
        try:
            for n in range(len(parts)):
                if n >= 2:  # the buffer that is wanted now holds these
                    self._collect(n - 2, parts, out)
                self._send(n, parts, source)
            for n in range(max(0, len(parts) - 2), len(parts)):
                self._collect(n, parts, out)
        except (RuntimeError, MemoryError) as error:
            raise failed(error) from error

    def _send(self, n: int, parts: list[slice], source: Source) -> None:
        """Chunk n on its way: to the device, through the steps and back, when all before it has been."""
        buffer, part = self._buffers.slots[n % 2], parts[n]
        up, work, down = self._streams
        count = part.stop - part.start
        given, staged = source.staged(part, buffer.host_in)
        self._copy(given, staged)
        buffer.device_in.data.copy_from_host_async(staged.ctypes.data, staged.nbytes, up)
        buffer.arrived.record(up)
        work.wait_event(buffer.arrived)
        with work:
            taken = source.kernel, source.arguments(part, buffer.device_in)
            self._steps.run(self._buffers.room, taken, count, buffer.device_out)
        buffer.made.record(work)
        down.wait_event(buffer.made)
        buffer.device_out.data.copy_to_host_async(buffer.host_out.ctypes.data, buffer.host_out[:count].nbytes, down)
        buffer.back.record(down)

    def _collect(self, n: int, parts: list[slice], out: Floats) -> None:
        """Wait until chunk n is back, after which nothing uses its buffers, and put it where it belongs."""
        buffer, part = self._buffers.slots[n % 2], parts[n]
        buffer.back.synchronize()
        self._copy(buffer.host_out[: part.stop - part.start], out[part])

    def _copy(self, source: NDArray[Any], target: NDArray[Any]) -> None:
        """By several threads: one alone moves less than the link to the device does."""
        bounds = [len(source) * n // self._copiers for n in range(self._copiers + 1)]
        parts = [slice(*ends) for ends in pairwise(bounds)]
        list(self._pool.map(lambda part: np.copyto(target[part], source[part]), parts))

    def _reserve(self, most: int) -> _Buffers:
        """Buffers for as many pairs of slices as fit, `most` at most.

        One pair is tried: what it has taken, with the plans of its transforms, is what each takes. The estimate may
        still be wrong, or another process faster: then half is tried.
        """
        cuda, pool = self._cuda, self._cuda.cupy.get_default_memory_pool()
        before = pool.used_bytes()
        trial = _Buffers(self._steps, 1)
        each = pool.used_bytes() - before
        del trial
        pool.free_all_blocks()
        pairs = max(1, min(most, int(SAFE * cuda.free // each)))
        return as_many(cuda, pairs, lambda count: _Buffers(self._steps, count))

    def _pair_bytes(self) -> int:
        """What a pair of slices takes at least, on the device."""
        of = self.tables
        lines, cells = 8 * of.angles * (of.padded + 1), 8 * max(of.angles * of.padded, of.length**2)
        return lines + cells + 2 * 2 * 4 * (of.angles * of.columns + of.size**2)

    def _too_small(self, need: int) -> KernelError:
        of = self.tables
        what = f"Slices of {of.size} x {of.size} from {of.angles} angles"
        return too_small(self._cuda, what, need, "take device cpu, or binning")


class _Slot:
    """Buffers of one chunk on its way, on both sides, and what has happened to it."""

    def __init__(self, cuda: Cuda, of: Tables, slices: int) -> None:
        coming, going = (slices, of.angles, of.columns), (slices, of.size, of.size)
        self.device_in, self.device_out = (cuda.cupy.ndarray(shape, np.float32) for shape in (coming, going))
        self.host_in, self.host_out = (cuda.cupyx.empty_pinned(shape, np.float32) for shape in (coming, going))
        self.arrived, self.made, self.back = (cuda.cupy.cuda.Event(disable_timing=True) for _ in range(3))


class _Buffers:
    """Room to work in, and two slots to come and go by."""

    def __init__(self, steps: Steps, pairs: int) -> None:
        self.pairs = pairs
        self.room: Room = steps.room(pairs)
        self.slots = [_Slot(steps.cuda, steps.of, 2 * pairs) for _ in range(2)]
