"""What every format gives: the events of the frames that are wanted, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError
from kernels.xpcs.events import Events

Keep = NDArray[np.uint8]
BLOCK_EVENTS = 1 << 22  # about so many are held at a time
BLOCK_BYTES = 1 << 25  # and so many bytes of a file


class Source(Protocol):
    """The frames of a file as its format numbers them, from 0.

    Attributes
    ----------
    rows, columns, count : int
        Shape of the detector, and how many frames there are.
    largest : int
        No count is larger.
    word : dtype
        In which counts are given.
    left_out : dict
        What the last pass over the frames has left out, by name: how many.
    lost : dict
        What the file lacks, whichever frames are wanted.
    anywhere : bool
        Whether frames can be read without those before them.
    deep : int
        So many neighbouring frames are unpacked at once.
    """

    rows: int
    columns: int
    count: int
    largest: int
    word: np.dtype[np.unsignedinteger]
    left_out: dict[str, int]
    lost: dict[str, int]
    anywhere: bool
    deep: int

    def blocks(self, wanted: range, keep: Keep) -> Iterator[Events]:
        """Events of the `wanted` frames, numbered from 0 in that order, in the pixels where `keep` is not 0."""


def bad(path: str, what: str) -> KernelError:
    return KernelError(f"The frames {path!r} are not usable: {what}", Exit.BAD_INPUT)


def smallest_word(largest: int) -> np.dtype[np.unsignedinteger]:
    """The smallest word of 8, 16 or 32 bits that holds all counts up to `largest`."""
    return np.dtype(np.uint8 if largest < 1 << 8 else np.uint16 if largest < 1 << 16 else np.uint32)


def part(events: Events, first: int, beyond: int) -> Events:
    """Frames `first` to `beyond` of those in `events`, counted from its first."""
    starts = events.starts[first : beyond + 1]
    inside = slice(int(starts[0]), int(starts[-1]))
    return Events(events.first + first, starts - starts[0], events.pixels[inside], events.counts[inside])


def joined(parts: Sequence[Events]) -> Events:
    """Events of frames and of those that follow them, in one."""
    if len(parts) == 1:
        return parts[0]
    before = np.cumsum([0, *(len(events.pixels) for events in parts)])
    starts = [events.starts[:-1] + shift for events, shift in zip(parts, before[:-1], strict=True)]
    return Events(
        parts[0].first,
        np.concatenate([*starts, before[-1:]]).astype(np.int64),
        np.concatenate([events.pixels for events in parts]),
        np.concatenate([events.counts for events in parts]),
    )


@compiled()
def _close_up(
    pixels: NDArray[np.uint32], counts: NDArray[np.unsignedinteger], bounds: NDArray[np.int64], found: NDArray[np.int64]
) -> None:
    out = 0
    for n in range(found.size):
        for k in range(bounds[n], bounds[n] + found[n]):
            pixels[out] = pixels[k]
            counts[out] = counts[k]
            out += 1


def closed_up(
    first: int,
    pixels: NDArray[np.uint32],
    counts: NDArray[np.unsignedinteger],
    bounds: NDArray[np.int64],
    found: NDArray[np.int64],
) -> Events:
    """Events of frames of which `found[n]` begin at `bounds[n]`, with what lies between taken out."""
    _close_up(pixels, counts, bounds, found)
    starts = np.concatenate([[0], np.cumsum(found)])
    return Events(first, starts, pixels[: starts[-1]], counts[: starts[-1]])
