"""The frames that were chosen of a file: a range of them, every so many, and sums of neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled, threads
from kernels.errors import Exit, KernelError
from kernels.xpcs.events import Events
from kernels.xpcs.readers.source import Source, closed_up, joined, part, smallest_word

_MOST = (1 << 32) - 1


class Selection(NamedTuple):
    """Which frames: `first` to `beyond` (left out; None: all), every `stride`-th, `average` neighbours as one.

    Averages are kept as sums, whole numbers: what XPCS works out of them does not depend on the factor, and stays
    exact.
    """

    first: int = 0
    beyond: int | None = None
    stride: int = 1
    average: int = 1


class Chosen:
    """The chosen frames of a source (see `kernels.xpcs.events.Frames`).

    Attributes
    ----------
    average : int
        Of how many frames each is the sum.
    anywhere : bool
        Whether a part can be read without what is before it.
    deep : int
        So many neighbours at least should be read together, as they are packed together.
    counted : dict
        What the last reading has left out, by name: how many.
    left_out : dict
        What was left out in all. Complete when all frames have been read once.

    Raises
    ------
    KernelError
        Exit 2 for a selection that no frames fit, 65 for a mask of another shape, one that leaves no pixel, or sums
        beyond 32 bits.
    """

    def __init__(
        self,
        source: Source,
        *,
        name: str,
        frame_time_s: float,
        selection: Selection = Selection(),  # noqa: B008 -- immutable
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        first, beyond, stride, average = selection
        if min(first, stride - 1, average - 1) < 0 or (beyond is not None and beyond < 0):
            raise KernelError(f"first {first} and beyond {beyond} must not be negative, stride and average at least 1.")
        if source.count == 0:
            raise KernelError(f"The frames {name!r} are none: there is nothing to correlate.", Exit.BAD_INPUT)
        beyond = source.count if beyond is None else beyond
        if beyond > source.count:
            raise KernelError(f"The frames {name!r} are {source.count}: they do not go to {beyond}.")
        usable = max(0, beyond - first) // (stride * average) * average
        if not usable:
            raise KernelError(
                f"No {average} of the {source.count} frames {name!r} fit between {first} and {beyond}, {stride} apart."
            )
        self.rows, self.columns = source.rows, source.columns
        self.average = average
        self.count = usable // average
        self.frame_time_s = frame_time_s * stride * average
        self.largest = min(source.largest * average, _MOST)
        self.word = smallest_word(self.largest)
        self.anywhere, self.deep = source.anywhere, -(-source.deep // (stride * average))
        self._name, self._source = name, source
        self._wanted = range(first, first + usable * stride, stride)
        self._keep = np.ones(self.rows * self.columns, np.uint8)
        self._own, self.counted = dict(source.lost), dict[str, int]()
        if beyond - first - usable * stride:
            self._own["frames at the end"] = beyond - first - usable * stride
        if mask is not None:
            if mask.shape != (self.rows, self.columns):
                raise KernelError(
                    f"The mask is of {mask.shape} pixels, the detector of {name!r} of {(self.rows, self.columns)}.",
                    Exit.BAD_INPUT,
                )
            self._keep = np.ascontiguousarray(mask, np.uint8).ravel()
            self._own["masked pixels"] = int((self._keep == 0).sum())
        if not self._keep.any():
            raise KernelError(f"The mask leaves no pixel of the frames {name!r}.", Exit.BAD_INPUT)

    @property
    def left_out(self) -> dict[str, int]:
        return {name: count for name, count in (self._own | self.counted).items() if count}

    def blocks(self, part: range | None = None) -> Iterator[Events]:
        """All frames in order, or a part of them."""
        part = range(self.count) if part is None else part
        wanted = self._wanted[part.start * self.average : part.stop * self.average]
        blocks = self._source.blocks(wanted, self._keep)
        for events in blocks if self.average == 1 else self._sums(blocks):
            yield events._replace(first=events.first + part.start)
        self.counted = dict(self._source.left_out)

    def without(self, pixels: NDArray[np.integer]) -> Chosen:
        """The same frames without these pixels as well."""
        other = Chosen.__new__(Chosen)
        other.__dict__.update(self.__dict__)
        other._keep = self._keep.copy()
        other._keep[pixels] = 0
        other._own = self._own | {"bad pixels": int(self._keep[pixels].astype(bool).sum())}
        if not other._keep.any():
            raise KernelError(f"No good pixel is left of the frames {self._name!r}.", Exit.BAD_INPUT)
        return other

    def _sums(self, blocks: Iterator[Events]) -> Iterator[Events]:
        first = 0
        held: Events | None = None
        for events in blocks:
            held = events if held is None else joined([held, events])
            groups = held.frames // self.average
            if not groups:
                continue
            sums = self._sum(part(held, 0, groups * self.average), first)
            held = part(held, groups * self.average, held.frames)
            first += groups
            yield sums

    def _sum(self, events: Events, first: int) -> Events:
        groups = events.frames // self.average
        bounds = events.starts[:: self.average]
        pixels, counts = np.empty(bounds[-1], np.uint32), np.empty(bounds[-1], np.uint32)
        found = np.zeros(groups, np.int64)
        counted = events.counts.astype(np.uint32, copy=False)  # one kind, so that it is compiled once
        if not _add(events.pixels, counted, bounds, self._keep.size, threads(), pixels, counts, found):
            raise KernelError(
                f"Sums of {self.average} frames of {self._name!r} go beyond 32 bits: average fewer.", Exit.BAD_INPUT
            )
        sums = closed_up(first, pixels, counts, bounds, found)
        return sums._replace(counts=sums.counts.astype(self.word))


@compiled(parallel=True)
def _add(
    pixels: NDArray[np.uint32],
    counts: NDArray[np.uint32],
    bounds: NDArray[np.int64],
    size: int,
    parts: int,
    all_pixels: NDArray[np.uint32],
    all_counts: NDArray[np.uint32],
    found: NDArray[np.int64],
) -> bool:
    """Add up the events of each group, bounds[g] to bounds[g + 1], by pixel, ascending; False when a sum is too large.

    A group's sums begin where its events do, of which there are at least as many.
    """
    groups = bounds.size - 1
    good = np.ones(parts, np.bool_)
    for p in prange(parts):
        sums = np.zeros(size, np.int64)
        touched = np.zeros((size + 63) // 64, np.uint64)
        for g in range(p * groups // parts, (p + 1) * groups // parts):
            for k in range(bounds[g], bounds[g + 1]):
                pixel = int(pixels[k])
                sums[pixel] += np.int64(counts[k])
                touched[pixel >> 6] |= np.uint64(1) << np.uint64(pixel & 63)
            out = bounds[g]
            for w in range(touched.size):
                if touched[w] == 0:
                    continue
                touched[w] = 0
                for pixel in range(w * 64, min(size, w * 64 + 64)):
                    if sums[pixel]:
                        good[p] &= sums[pixel] <= 4294967295
                        all_pixels[out] = pixel
                        all_counts[out] = sums[pixel]
                        sums[pixel] = 0
                        out += 1
            found[g] = out - bounds[g]
    return bool(good.all())
