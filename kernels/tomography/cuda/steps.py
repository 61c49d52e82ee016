"""The steps of gridding on a device: kernels of `gridrec.cu` and transforms of cuFFT, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kernels.cuda.device import Cuda
from kernels.cuda.sources import defines, functions
from kernels.errors import KernelError
from kernels.tomography.cuda.tiles import TILE, samples_by_tile
from kernels.tomography.direct.spreading import DEGREE
from kernels.tomography.direct.tables import Tables

SOURCE = Path(__file__).with_name("gridrec.cu")
KERNELS = ("take_lines", "take_counts", "filter_lines", "spread_lines", "finish_slices")

_PAIRS = 4  # of slices that share a block of threads
_THREADS = 256
_MOST = 2**31 - 1 - _THREADS  # the last block counts beyond the last number


def options(taps: int) -> tuple[str, ...]:
    """What the source is compiled with."""
    return defines({"TAPS": taps, "DEGREE": DEGREE, "TILE": TILE, "PAIRS": _PAIRS})


class Steps:
    """The kernels and tables of one geometry on the device.

    Raises
    ------
    KernelError
        Exit 2 when there are more samples than the kernels can count.
    MemoryError
        When the tables do not fit.
    """

    def __init__(self, cuda: Cuda, of: Tables) -> None:
        if max(of.angles * (of.padded + 1), of.length**2) > _MOST:
            raise KernelError(
                f"{of.angles} angles of {of.columns} columns are more than the GPU path can count: take device cpu."
            )
        self.cuda, self.of = cuda, of
        cupy = cuda.cupy
        self._kernels = functions(cuda, SOURCE, options(of.taps), KERNELS)
        ratio = of.length / of.padded
        across, down = ratio * of.cosines, ratio * of.sines
        samples = samples_by_tile(across, down, of.padded, of.length, of.taps)
        self._tiles = len(samples.order)
        on_device = cupy.asarray
        self._column_weights = on_device(of.column_weights)
        self._filter = [on_device(each) for each in (of.response, of.weights, of.shifts)]
        self._lines = [on_device(each) for each in (across, down, of.kernel)]
        self._samples = [on_device(each) for each in samples]
        self._shape = on_device(of.shape)
        cupy.cuda.Device().synchronize()  # other streams use them

    def room(self, pairs: int) -> Room:
        """Memory for so many pairs of slices at once, and transforms of that many.

        Raises
        ------
        MemoryError
            When it does not fit.
        """
        return Room(self.cuda, self.of, pairs)

    def run(self, room: Room, source: tuple[str, tuple[Any, ...]], count: int, out: Any) -> None:
        """Enqueue all that makes `count` slices, on the current stream.

        `source` is the kernel that takes them, and those of its arguments that are its own.
        """
        of, fft, pairs = self.of, self.cuda.fft, (count + 1) // 2
        sizes = (np.int32(of.angles), np.int32(of.padded))
        take, own = source
        self._call(
            take,
            (of.angles * of.padded, pairs),
            (*own, np.int32(count), sizes[0], np.int32(of.columns), sizes[1], np.int32(of.edge)),
            (self._column_weights, room.cells),
        )
        cells = fft.fft(room.cells, axis=1, overwrite_x=True, plan=room.across)
        self._call(
            "filter_lines",
            (of.angles * (of.padded + 1), 1),
            (cells, np.int32(pairs), *sizes, *self._filter, room.lines),
        )
        self._kernels["spread_lines"](
            (self._tiles, -(-pairs // _PAIRS), 1),
            (of.taps**2 * _PAIRS, 1, 1),
            (room.lines, np.int32(pairs), *sizes, *self._lines, *self._samples, np.int32(of.length), room.grid),
        )
        grid = fft.ifftn(room.grid, axes=(1, 2), norm="forward", overwrite_x=True, plan=room.along)
        reach = of.size**2 if of.circle else _MOST
        self._call(
            "finish_slices",
            (of.size**2, pairs),
            (grid, np.int32(count), np.int32(of.size), np.int32(of.length), self._shape, np.int32(reach), out),
        )

    def _call(self, name: str, shape: tuple[int, int], *arguments: tuple[Any, ...]) -> None:
        """A thread for each of shape[0] numbers, of each of shape[1] pairs."""
        grid = (-(-shape[0] // _THREADS), shape[1], 1)
        self._kernels[name](grid, (_THREADS, 1, 1), sum(arguments, ()))


class Room:
    """What a chunk of pairs is worked on in: cells, then the grid in their place; lines; plans of the transforms."""

    def __init__(self, cuda: Cuda, of: Tables, pairs: int) -> None:
        cupy, fft = cuda.cupy, cuda.fft
        cells, grid = (pairs * of.angles, of.padded), (pairs, of.length, of.length)
        # No view of a larger array: of a view the transforms would make a copy.
        self._shared = cupy.cuda.alloc(8 * max(cells[0] * cells[1], pairs * of.length**2))
        self.cells = cupy.ndarray(cells, np.complex64, memptr=self._shared)
        self.grid = cupy.ndarray(grid, np.complex64, memptr=self._shared)
        self.lines = cupy.ndarray((pairs, of.angles, of.padded + 1), np.complex64)
        self.across = fft.get_fft_plan(self.cells, axes=1)
        self.along = fft.get_fft_plan(self.grid, axes=(1, 2))
