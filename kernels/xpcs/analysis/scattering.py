"""Mean scattering: of each pixel, of each static bin, of each frame, and how it changes from one part of a series to
the next. All of it is summed while the frames are read once, as whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError
from kernels.ranks import Ranks
from kernels.xpcs.events import Events, Frames
from kernels.xpcs.partition import Partition

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEGMENTS = 10


class Scattering(NamedTuple):
    """Mean counts per pixel and frame.

    Attributes
    ----------
    image : ndarray, shape (rows, columns)
        Of each pixel, in a bin or not.
    bins : ndarray, shape (static bins,)
        Of each static bin.
    segments : ndarray, shape (segments, static bins)
        Of each static bin, in parts of the series that follow each other and are as long as each other to one frame.
    intensity : ndarray, shape (frames,)
        Of each frame, over the pixels that are in a bin.
    counts : ndarray, shape (segments, static bins), int64
        What `segments` was worked out from: photons.
    """

    image: Floats
    bins: Floats
    segments: Floats
    intensity: Floats
    counts: Ints


class Tally:
    """`frames` that are summed up while somebody else reads them: give `Tally(…)` in their place, then ask for
    `scattering`.

    Parameters
    ----------
    frames, partition
        What is read, and its bins, of the same detector.
    segments
        So many parts; fewer where there are fewer frames.
    average
        Each frame is the sum of so many that were measured.
    watch
        Is told how many frames have been read, again and again.

    Raises
    ------
    KernelError
        Exit 65 when frames and bins are of different shapes, or there are no frames.
    """

    def __init__(
        self,
        frames: Frames,
        partition: Partition,
        *,
        segments: int = SEGMENTS,
        average: int = 1,
        watch: Callable[[int], None] = lambda done: None,
    ) -> None:
        check_shape(frames, partition)
        self.rows, self.columns, self.count = frames.rows, frames.columns, frames.count
        self.frame_time_s, self.largest = frames.frame_time_s, frames.largest
        self._frames, self._partition = frames, partition
        self._segments, self._average = min(segments, frames.count), average
        self._watch, self._done = watch, False
        self._flat = partition.static.ravel()
        self._begin()

    def _begin(self) -> None:
        self._image = np.zeros(self.rows * self.columns, np.int64)
        self._counts = np.zeros((self._segments, self._partition.static_bins), np.int64)
        self._intensity = np.zeros(self.count, np.int64)

    def blocks(self) -> Iterator[Events]:
        """The blocks of the frames as they are. Those of the first whole reading are summed up."""
        if self._done:
            yield from self._frames.blocks()
            return
        self._begin()
        for block in self._frames.blocks():
            self.add(block)
            yield block
        self._done = True

    def add(self, block: Events) -> None:
        """Sum up some frames that somebody else has read: of several ranks each adds its own, of all each once."""
        here = np.arange(block.first, block.first + block.frames)
        segment = _segment(here, self.count, self._segments)
        intensity = self._intensity[block.first : block.first + block.frames]
        _add(*block[1:], self._flat, self._image, self._counts, segment, intensity)
        self._watch(block.first + block.frames)

    def together(self, ranks: Ranks) -> None:
        """Sum up what all ranks have added, which are all frames."""
        self._image = ranks.summed(self._image)
        self._counts = ranks.summed(self._counts)
        self._intensity = ranks.summed(self._intensity)
        self._done = True

    def scattering(self) -> Scattering:
        """What was summed up; reads the frames now where nobody has read them all."""
        if not self._done:
            for _ in self.blocks():
                pass
        sizes = np.diff(self._partition.bounds)
        lengths = self._average * np.bincount(_segment(np.arange(self.count), self.count, self._segments))
        measured = self._average * self.count
        return Scattering(
            self._image.reshape(self.rows, self.columns) / measured,
            self._counts.sum(0) / (sizes * measured),
            self._counts / (lengths[:, None] * sizes),
            self._intensity / (len(self._partition.pixels) * self._average),
            self._counts,
        )


def check_shape(frames: Frames, partition: Partition) -> None:
    """Refuse bins that are not those of the detector, and a series without frames."""
    if (frames.rows, frames.columns) != partition.static.shape:
        rows, columns = partition.static.shape
        raise KernelError(
            f"The frames have {frames.rows} x {frames.columns} pixels and the qmap {rows} x {columns}: it is of "
            "another detector, or of another orientation.",
            Exit.BAD_INPUT,
        )
    if frames.count < 1:
        raise KernelError("There are no frames.", Exit.BAD_INPUT)


def _segment(numbers: Ints, count: int, segments: int) -> Ints:
    """In which part each of these frames is."""
    return numbers * segments // count


@compiled()
def _add(
    starts: Ints,
    pixels: NDArray[np.uint32],
    counts: NDArray[np.unsignedinteger],
    bins: NDArray[np.int32],
    image: Ints,
    by_segment: Ints,
    segment: Ints,
    intensity: Ints,
) -> None:
    """Add the events of a block: to their pixels, and where those are in a bin to that and to their frame."""
    for frame in range(len(starts) - 1):
        here = by_segment[segment[frame]]
        total = np.int64(0)
        for n in range(starts[frame], starts[frame + 1]):
            pixel, count = pixels[n], np.int64(counts[n])
            image[pixel] += count
            if bins[pixel]:
                here[bins[pixel] - 1] += count
                total += count
        intensity[frame] += total
