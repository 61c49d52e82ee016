"""Two-time correlations on a GPU: a way for `twotime.correlate` with the bits of all others.

The events of a dynamic bin lie on the device, pixel by pixel as on the host. Of those of the rows and of the columns of
a tile the device makes panels of bytes, and of these the tile (`twotime.cu`); it copies a tile back while it works on
the next. Panels are of as many frames as there is memory for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.cuda.device import Cuda, failed, open_device
from kernels.cuda.memory import as_many, too_small
from kernels.cuda.sources import defines, functions
from kernels.errors import KernelError
from kernels.xpcs.twotime.correlate import TILE
from kernels.xpcs.twotime.series import Series
from kernels.xpcs.twotime.sums import Span, weights_of

A = TypeVar("A")
B = TypeVar("B")

SOURCE = Path(__file__).with_name("twotime.cu")
KERNELS = ("fill", "correlate")
LARGEST = 65535  # count: two bytes

_SIDE, _QUADS, _WARP = 64, 16, 32
_THREADS = (_SIDE // 4) ** 2


def options(planes: int) -> tuple[str, ...]:
    """What the source is compiled with, for counts of so many bytes."""
    return defines({"PLANES": planes, "LARGE": planes - 1, "SIDE": _SIDE, "QUADS": _QUADS})


def prepare(series: Series, *, tile: int = TILE) -> CudaTwoTime:
    """A GPU made ready for the bins of a series.

    Raises
    ------
    KernelError
        Exit 2 where there is no GPU, it is too small, or counts are too large; 75 when others have its memory, or it
        fails.
    """
    if series.largest > LARGEST:
        raise KernelError(
            f"Counts of {series.largest} are too large for the GPU, which takes {LARGEST}: take device cpu."
        )
    return CudaTwoTime(open_device(), series, tile)


class CudaTwoTime:
    """Correlations of the bins of a series, in tiles of up to `tile` frames. A tile is asked for after the one to the
    left of it, if there is one, and is worked on then already."""

    def __init__(self, cuda: Cuda, series: Series, tile: int) -> None:
        self._cuda, self._series = cuda, series
        self._tile = min(tile, series.frames)
        self._planes = 1 if series.words.dtype == np.uint32 else 2
        sizes = [_Size.of(series, which) for which in range(len(series.bins))]
        self._most = _Size(*(max(each) for each in zip(*sizes, strict=True)))
        try:
            self._kernels = functions(cuda, SOURCE, options(self._planes), KERNELS)
            self._work, self._down = (cuda.cupy.cuda.Stream(non_blocking=True) for _ in range(2))
            self._buffers = as_many(cuda, _up(self._tile), self._reserved, least=_SIDE)
        except MemoryError as error:
            what = f"{self._most.pixels} pixels of a bin, {self._most.events} events"
            need = 8 * self._most.quads * self._planes * _SIDE + 8 * self._tile**2
            need += self._most.events * series.words.itemsize + 8 * self._most.groups * series.frames
            raise too_small(cuda, what, need, "take device cpu") from error
        except RuntimeError as error:
            raise failed(error) from error
        self._held: list[Any] = []  # what is on its way to the device
        self._sent = 0  # tiles
        self._coming: Span | None = None  # the columns of the last one sent, where it is still to be asked for

    def bin(self, which: int) -> CudaTwoTime:
        """Go on with the `which`th bin of the series.

        Raises
        ------
        KernelError
            Exit 75 when the device fails, here and in what follows.
        """
        self._guarded(self._begin, which)
        return self

    def take(self, rows: Span) -> None:
        """Take the rows that the next tiles are of."""
        self._rows, self._coming = rows, None

    def tile(self, columns: Span) -> NDArray[np.float32]:
        """Correlations of the rows with `columns`, which begin with the rows or after them."""
        return self._guarded(self._tile_of, columns)

    def _tile_of(self, columns: Span) -> NDArray[np.float32]:
        if self._coming != columns:
            self._send(columns)
        slot, frames = self._buffers.slots[(self._sent - 1) % 2], self._series.frames
        self._coming = Span(columns.last, min(columns.last + self._tile, frames)) if columns.last < frames else None
        if self._coming is not None:
            self._send(self._coming)
        slot.back.synchronize()
        size = len(self._rows), len(columns)
        made: NDArray[np.float32] = slot.host[: size[0] * size[1]].reshape(size).copy()
        return made

    def _guarded(self, work: Callable[[A], B], argument: A) -> B:
        try:
            return work(argument)
        except (RuntimeError, MemoryError) as error:
            raise failed(error) from error

    def _reserved(self, span: int) -> _Buffers:
        return _Buffers(self._cuda, self._most, self._series, self._planes, _up(span), self._tile)

    def _begin(self, which: int) -> None:
        """Send what is to be known of a bin."""
        series, to = self._series, self._buffers
        groups = slice(series.groups[which], series.groups[which + 1] + 1)
        bounds = series.pixels[groups]
        starts = series.starts[bounds[0] : bounds[-1] + 1]
        sizes = np.diff(bounds)
        quads = np.concatenate([[0], np.cumsum(-(-sizes // 4))])
        places = np.arange(bounds[-1] - bounds[0]) - np.repeat(bounds[:-1] - bounds[0], sizes)
        weights = weights_of(series, which)
        self._groups, self._pixels, self._quads = len(sizes), len(places), int(quads[-1])
        given = {
            "events": series.words[starts[0] : starts[-1]],
            "starts": starts - starts[0],
            "cells": (4 * np.repeat(quads[:-1], sizes) + places).astype(np.int32),
            "quads": quads.astype(np.int32),
            "weights": np.ascontiguousarray(weights.groups),
            "row_scale": weights.rows,
            "scale": weights.columns,
        }
        self._held = list(given.values())
        for name, values in given.items():
            if values.nbytes:
                getattr(to, name).data.copy_from_host_async(values.ctypes.data, values.nbytes, self._work)
        self._spans: list[Span | None] = [None, None]  # of which the panels are

    def _send(self, columns: Span) -> None:
        """A tile on its way: through the kernels and back, when what was sent before is through them."""
        of, slot, span, rows = self._buffers, self._buffers.slots[self._sent % 2], self._buffers.span, self._rows
        self._sent += 1
        self._work.wait_event(slot.back)  # of a tile that was sent and that nobody asked for
        with self._work:
            for top in range(rows.first, rows.last, span):
                mine = Span(top, min(top + span, rows.last))
                for left in range(columns.first, columns.last, span):
                    other = Span(left, min(left + span, columns.last))
                    panels = self._panel(0, mine), self._panel(0 if mine == other else 1, other)
                    place = [self._groups, top, left, len(mine), len(other), self._series.frames]
                    begin = (top - rows.first) * len(columns) + left - columns.first
                    self._kernels["correlate"](
                        (-(-len(other) // _SIDE), -(-len(mine) // _SIDE), 1),
                        (_THREADS, 1, 1),
                        (
                            *(*panels, np.int32(span), np.int64(self._quads * span), of.quads, *map(np.int32, place)),
                            *(of.weights, of.row_scale, of.scale, slot.device),
                            *(np.int64(begin), np.int32(len(columns))),
                        ),
                    )
        slot.made.record(self._work)
        self._down.wait_event(slot.made)
        slot.device.data.copy_to_host_async(slot.host.ctypes.data, 4 * len(rows) * len(columns), self._down)
        slot.back.record(self._down)

    def _panel(self, which: int, span: Span) -> Any:
        """The panel of these frames; on the stream that works, after all that used it for others."""
        of, panel = self._buffers, self._buffers.panels[which]
        if self._spans[which] != span:
            self._spans[which] = span
            plane = self._quads * of.span
            size = 4 * self._planes * plane
            panel.data.memset_async(0, size, self._work)
            in_bytes = self._cuda.cupy.ndarray((size,), np.uint8, memptr=panel.data)
            numbers = [np.int32(n) for n in (self._pixels, span.first, span.last, of.span)]
            self._kernels["fill"](
                (-(-self._pixels * _WARP // _THREADS), 1, 1),
                (_THREADS, 1, 1),
                (of.events, of.starts, of.cells, *numbers, np.int64(plane), in_bytes),
            )
        return panel


class _Size(NamedTuple):
    """How much of each there is in a bin, or at most in any."""

    pixels: int
    quads: int
    groups: int
    events: int

    @classmethod
    def of(cls, series: Series, which: int) -> _Size:
        bounds = series.pixels[series.groups[which] : series.groups[which + 1] + 1]
        sizes = np.diff(bounds)
        events = series.starts[bounds[-1]] - series.starts[bounds[0]]
        return cls(int(sizes.sum()), int((-(-sizes // 4)).sum()), len(sizes), int(events))


class _Slot:
    """Room for a tile on its way back, on both sides, and what has happened to it."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self.device, self.host = cuda.cupy.ndarray((size,), np.float32), cuda.cupyx.empty_pinned((size,), np.float32)
        self.made, self.back = (cuda.cupy.cuda.Event(disable_timing=True) for _ in range(2))


class _Buffers:
    """Room for the largest bin: what is sent of it, two panels of `span` frames, and two tiles."""

    def __init__(self, cuda: Cuda, most: _Size, series: Series, planes: int, span: int, tile: int) -> None:
        ndarray, frames = cuda.cupy.ndarray, series.frames
        self.span = span
        self.events = ndarray((max(1, most.events),), series.words.dtype)
        self.starts, self.cells = ndarray((most.pixels + 1,), np.int64), ndarray((most.pixels,), np.int32)
        self.quads = ndarray((most.groups + 1,), np.int32)
        self.weights = ndarray((most.groups, frames), np.float64)
        self.row_scale, self.scale = ndarray((frames,), np.float64), ndarray((frames,), np.float64)
        self.panels = [ndarray((planes * most.quads * span,), np.uint32) for _ in range(2)]
        self.slots = [_Slot(cuda, tile * tile) for _ in range(2)]


def _up(frames: int) -> int:
    """As many, in whole blocks."""
    return -(-frames // _SIDE) * _SIDE
