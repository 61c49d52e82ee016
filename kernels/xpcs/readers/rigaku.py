"""Rigaku's sparse binary files: 64-bit words, frame << 40 | pixel << 16 | count of 12 bits, little-endian.

`*.bin` is the 500k detector of 512 x 1024 pixels. `*.bin.000` to `.005` are the six such modules of the 3M, two beside
each other in three rows with gaps between; the layout is that of boost-corr 0.1.7.
"""

from __future__ import annotations

import numpy as np

from kernels.xpcs.readers.source import bad
from kernels.xpcs.readers.streams import FRAME, PIXEL, Stream, StreamSource, Words, checked_pixels, sibling

ROWS, COLUMNS = 512, 1024
GAPS = 70, 52  # rows and columns of pixels between modules
ORDER = 5, 0, 4, 1, 3, 2  # endings of the modules, left to right, then down
SHAPE_3M = 3 * ROWS + 2 * GAPS[0], 2 * COLUMNS + GAPS[1]
_OFFSET = 1 << 20  # added to all pixels of some modules of the 3M


def open_rigaku(path: str) -> StreamSource:
    """The frames of `*.bin`, or of all six of `*.bin.000` to `.005`.

    Frames are numbered as in the file; those with no word have no photons.

    Raises
    ------
    KernelError
        Exit 66 when a file is missing or empty, 65 when one is truncated, of another detector or out of order.
    """
    if path.endswith(".bin"):
        return StreamSource(path, ROWS, COLUMNS, _some(path, [_module(path, 0, COLUMNS)]), add=False)
    stem = path[: path.rindex(".")]
    streams = []
    for place, ending in enumerate(ORDER):
        file = sibling(path, f"{stem.rpartition('/')[2]}.{ending:03d}")
        streams.append(_module(file, corner_of(place), SHAPE_3M[1]))
    return StreamSource(path, *SHAPE_3M, _some(path, streams), add=False)


def corner_of(place: int) -> int:
    """The number of the first pixel of a module of the 3M, counted left to right, then down."""
    return place // 2 * (ROWS + GAPS[0]) * SHAPE_3M[1] + place % 2 * (COLUMNS + GAPS[1])


def _some(path: str, streams: list[Stream]) -> list[Stream]:
    if not any(stream.events for stream in streams):
        raise bad(path, "they hold no events.")
    return streams


def _module(path: str, corner: int, columns: int) -> Stream:
    """A module whose first pixel is `corner` of a detector of so many columns."""

    def translated(words: Words) -> Words:
        return _translated(path, words, corner, columns)

    return Stream(path, lambda: translated)


def _translated(path: str, words: Words, corner: int, columns: int) -> Words:
    pixels: Words = words >> np.uint64(16) & np.uint64((1 << 21) - 1)
    if len(pixels) and int(pixels.min()) >= _OFFSET:
        pixels -= np.uint64(_OFFSET)
    checked_pixels(path, pixels, ROWS, COLUMNS)
    if columns != COLUMNS:
        shift = np.uint64(COLUMNS.bit_length() - 1)
        pixels += (pixels >> shift) * np.uint64(columns - COLUMNS) + np.uint64(corner)
    frames = words >> np.uint64(40)
    counts = words & np.uint64((1 << 12) - 1)
    events: Words = frames << np.uint64(FRAME) | pixels << np.uint64(PIXEL) | counts
    return events
