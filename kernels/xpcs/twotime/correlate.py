"""Two-time correlations of a series of frames, bin by bin and tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.xpcs.twotime import cost, vnni
from kernels.xpcs.twotime.pairs import Pairs
from kernels.xpcs.twotime.products import BlasProducts, VnniProducts
from kernels.xpcs.twotime.series import Series
from kernels.xpcs.twotime.slices import Diagonals, Slice
from kernels.xpcs.twotime.sums import Floats, Span

TILE = 2048  # frames along a side; a chunk of a file should divide it
Way = Literal["pairs", "vnni", "blas"]

Write = Callable[[int, int, int, NDArray[np.float32]], None]
"""Takes a tile: `write(bin, row, column, tile)`. Its place is that of its first element; zeros below the diagonal."""


class Strip(NamedTuple):
    """A row of tiles: of the dynamic bin of this number, those whose first row is the frame `first`."""

    bin: int
    first: int


Done = Callable[[Strip, Floats], None]
"""Takes what a strip adds to the diagonals, shape (1 + slices, frames)."""


class OneTime(NamedTuple):
    """What the diagonals of the two-time correlations say.

    Attributes
    ----------
    bins : ndarray, shape (bins,), int64
        Numbers of the dynamic bins.
    g2 : ndarray, shape (frames, bins), float64
        Mean of each delay, from 0 on.
    slices : ndarray, shape (frames, slices, bins), float64
        The same within each slice of age; NaN where it has no pair.
    """

    bins: NDArray[np.int64]
    g2: NDArray[np.float64]
    slices: NDArray[np.float64]


class _Correlating(Protocol):
    def take(self, rows: Span) -> None: ...

    def tile(self, columns: Span) -> NDArray[np.float32]: ...


class Device(Protocol):
    """What has been made ready for a series, and correlates the `which`th bin of it."""

    def bin(self, which: int) -> _Correlating: ...


def twotime(
    series: Series,
    write: Write,
    *,
    slices: Sequence[Slice] = (),
    way: Way | None = None,
    tile: int = TILE,
    gpu: Device | None = None,
) -> OneTime:
    """Correlate the counts of each two frames, for every dynamic bin of the series.

    Counts are divided by the mean of their static bin in their frame; of that, C2(t1, t2) is the mean over the pixels
    of the dynamic bin of the product of both frames, over the product of both means: the definition of boost-corr
    smoothed by static bins. Frames in which a bin has counted nothing are 0 throughout.

    Parameters
    ----------
    series : Series
    write : callable
        Is given the upper triangle in tiles of float32, `write(bin, row, column, tile)`: bin after bin, rows from
        above, in each the tiles from the diagonal to the right. `tile[i, j]` is C2(row + i, column + j).
    slices : sequence of Slice
        Of age, for which diagonals are averaged apart.
    way : {"pairs", "vnni", "blas"}, optional
        By pairs of events, or by products of matrices with or without the processor's VNNI. All give the same bits;
        when it is not given, the cheapest is taken, bin by bin.
    tile : int
        Frames along a side of a tile. Besides the series, memory is needed for three tiles of 8 bytes per element, or
        for two strips of this many frames of the largest bin's pixels at a byte each (up to 8 for "blas").
    gpu : Device, optional
        Is the way, whatever else `way` says, made ready for tiles as large; see `kernels.xpcs.cuda.twotime`.

    Raises
    ------
    KernelError
        Exit 2 for a slice that is not within the frames, or a way that this processor or these counts do not allow.
    """
    found = Found(series.bins, series.frames, slices, tile)
    todo = strips(series.bins, series.frames, tile)
    correlate(series, todo, write, found.take, slices=slices, way=way, tile=tile, gpu=gpu)
    return found.one_time


def strips(bins: Iterable[int], frames: int, tile: int = TILE) -> list[Strip]:
    """All strips of these bins: bin after bin, from above.

    Raises
    ------
    KernelError
        Exit 2 for tiles of less than a frame.
    """
    if tile < 1:
        raise KernelError(f"A tile of {tile} frames is none: take 1 or more.")
    return [Strip(int(number), first) for number in bins for first in range(0, frames, tile)]


def correlate(
    series: Series,
    todo: Iterable[Strip],
    write: Write,
    done: Done,
    *,
    slices: Sequence[Slice] = (),
    way: Way | None = None,
    tile: int = TILE,
    gpu: Device | None = None,
) -> None:
    """Work out some strips of the bins of the series, those of a bin one after another; see `twotime`.

    `done` is told of each strip when its tiles are written.
    """
    diagonals = Diagonals(series.frames, [Slice(0, series.frames), *slices])
    number = None
    for strip in todo:
        if strip.bin != number:
            number, which = strip.bin, int(np.searchsorted(series.bins, strip.bin))
            correlating = gpu.bin(which) if gpu else _way(series, which, way or cost.cheapest(series, which))
        correlating.take(Span(strip.first, min(strip.first + tile, series.frames)))
        for column in range(strip.first, series.frames, tile):
            made = correlating.tile(Span(column, min(column + tile, series.frames)))
            diagonals.add(strip.first, column, made)
            write(strip.bin, strip.first, column, made)
        done(strip, diagonals.row())


class Found:
    """What is found of the diagonals of all bins: `take` every strip, in whatever order, then there is the `one_time`.

    Those of a bin are added up from above, so that their order changes no bit; what comes before its turn waits.
    """

    def __init__(self, bins: NDArray[np.int64], frames: int, slices: Sequence[Slice], tile: int = TILE) -> None:
        self._bins, self._frames, self._tile = bins, frames, tile
        self._every = [Slice(0, frames), *slices]
        self._means = np.empty((frames, len(self._every), len(bins)))
        self._diagonals: dict[int, tuple[int, Diagonals]] = {}  # of bins in work, with the row that is the next
        self._waiting: dict[Strip, Floats] = {}

    def take(self, strip: Strip, sums: Floats) -> None:
        """Add what a strip has found."""
        self._waiting[strip] = sums
        number = strip.bin
        if number not in self._diagonals:
            self._diagonals[number] = 0, Diagonals(self._frames, self._every)
        row, diagonals = self._diagonals.pop(number)
        while (here := self._waiting.pop(Strip(number, row), None)) is not None:
            diagonals.take(here)
            row += self._tile
        if row < self._frames:
            self._diagonals[number] = row, diagonals
        else:
            self._means[:, :, np.searchsorted(self._bins, number)] = diagonals.means

    @property
    def one_time(self) -> OneTime:
        """Of all bins; every strip has been taken."""
        return OneTime(self._bins, self._means[:, 0], self._means[:, 1:])


def _way(series: Series, which: int, way: str) -> _Correlating:
    if way == "pairs":
        return Pairs(series, which)
    if way == "blas":
        return BlasProducts(series, which)
    if way != "vnni":
        raise KernelError(f"The way {way!r} is not known: pairs, vnni or blas.")
    if not vnni.available():
        raise KernelError("This processor has no AVX-512 VNNI: take another way than vnni, or none.")
    if series.largest > vnni.LARGEST:
        raise KernelError(
            f"Counts of {series.largest} are too large for the way vnni, which takes {vnni.LARGEST}: take another, or "
            "none."
        )
    return VnniProducts(series, which)
