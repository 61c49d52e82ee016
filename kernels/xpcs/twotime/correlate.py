"""Two-time correlations of a series of frames, bin by bin and tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.ranks import Ranks
from kernels.xpcs.partition import Partition
from kernels.xpcs.twotime import cost, vnni
from kernels.xpcs.twotime.pairs import Pairs
from kernels.xpcs.twotime.products import BlasProducts, VnniProducts
from kernels.xpcs.twotime.series import Series
from kernels.xpcs.twotime.slices import Means, Slice
from kernels.xpcs.twotime.sums import Span

TILE = 2048  # frames along a side; a chunk of a file should divide it
Way = Literal["pairs", "vnni", "blas"]

Write = Callable[[int, int, int, NDArray[np.float32]], None]
"""Takes a tile: `write(bin, row, column, tile)`. Its place is that of its first element; zeros below the diagonal."""


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
    if tile < 1:
        raise KernelError(f"A tile of {tile} frames is none: take 1 or more.")
    every = [Slice(0, series.frames), *slices]
    results = np.empty((series.frames, len(every), len(series.bins)))
    for which, number in enumerate(series.bins):
        means = Means(series.frames, every)
        for row, column, made in tiles(series, which, way=way, tile=tile, gpu=gpu):
            means.add(row, column, made)
            write(int(number), row, column, made)
        results[:, :, which] = means.means
    return OneTime(series.bins, results[:, 0], results[:, 1:])


def share(partition: Partition, ranks: Ranks) -> list[int]:
    """The dynamic bins that this rank correlates, ascending: of all ranks about as many pixels each.

    A rank needs the counts of its bins alone, so memory is shared out like work, and each bin has the same bits whoever
    works on it.
    """
    sizes = np.bincount(partition.dynamic.ravel())[1:]
    loads, mine = [0] * ranks.size, []
    for which in np.argsort(-sizes, kind="stable"):
        least = loads.index(min(loads))
        loads[least] += int(sizes[which])
        if least == ranks.rank:
            mine.append(int(which) + 1)
    return sorted(mine)


def together(found: OneTime | None, ranks: Ranks) -> OneTime | None:
    """What all ranks have found, for the first of them; None for the others. A rank without bins brings None."""
    parts = [part for part in ranks.gathered(found) if part is not None]
    if not parts:
        return None
    bins = np.concatenate([part.bins for part in parts])
    order = np.argsort(bins)
    g2 = np.concatenate([part.g2 for part in parts], axis=-1)
    slices = np.concatenate([part.slices for part in parts], axis=-1)
    return OneTime(bins[order], g2[..., order], slices[..., order])


def tiles(
    series: Series, which: int, *, way: Way | None = None, tile: int = TILE, gpu: Device | None = None
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """The tiles of the `which`th bin of the series: row, column and correlations of each; see `twotime`."""
    correlating = gpu.bin(which) if gpu else _way(series, which, way or cost.cheapest(series, which))
    spans = [Span(n, min(n + tile, series.frames)) for n in range(0, series.frames, tile)]
    for n, rows in enumerate(spans):
        correlating.take(rows)
        for columns in spans[n:]:
            yield rows.first, columns.first, correlating.tile(columns)


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
