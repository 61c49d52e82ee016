"""Images as a detector that bends nothing would have them, so that rays stay linear in a voxel's place.

Each pixel of the ideal detector takes the bit of the measured pixel that its middle falls on. A bit has no finer place
than its pixel: the edge of a spot moves by up to half of one, and on average not at all. What falls beside the real
detector is cut off, so that no reflection is looked for where nothing can be seen.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError
from kernels.hedm.distortion import DEXELA, distort, undistort
from kernels.hedm.nearfield.search import check_together
from kernels.hedm.nearfield.setup import Bending, Setup
from kernels.hedm.nearfield.spots import WORD, Spots, Words
from kernels.io.bitshuffle import lowest_bit
from kernels.ranks import Ranks

Pixels = NDArray[np.int32]  # rows * columns + column, or -1 for none

_PART = 128  # frames of a piece of work
_LEAST = 0.5  # of the pixels that have to be left


class _Window(NamedTuple):
    top: int
    bottom: int
    left: int
    right: int


def ideal_images(spots: Spots, setup: Setup, ranks: Ranks | None = None) -> tuple[Spots, Setup]:
    """The images without distortion, and the setup of the ideal detector that they are of; without any, those given.

    Work and memory are shared by the `ranks` on a node.

    Raises
    ------
    KernelError
        Exit 65 when the distortion leaves less than half of the detector.
    """
    if not setup.distortion:
        return spots, setup
    plain = replace(setup, distortion=())
    check_together(spots, plain)
    ranks = ranks or Ranks()
    bending = setup.bending

    def find(made: Pixels, which: int, of: int) -> None:
        for d in range(len(made)):
            _sources(d, bending, which, of, made[d])

    sources: Pixels = ranks.shared((spots.distances, setup.rows, setup.columns), np.int32, find)
    window = _seen_whole(np.all(sources >= 0, axis=0))
    rows, columns = window.bottom - window.top, window.right - window.left
    if rows * columns < _LEAST * setup.rows * setup.columns:
        raise KernelError(
            f"The detector's distortion leaves {rows} x {columns} of {setup.rows} x {setup.columns} pixels: check its "
            "coefficients, and what units they are in.",
            Exit.BAD_INPUT,
        )

    def fill(made: Words, which: int, of: int) -> None:
        for d in range(len(made)):
            source = sources[d, window.top : window.bottom, window.left : window.right]
            first, targets = _targets(source, setup.rows * setup.columns)
            for begin in range(which * _PART, spots.frames, of * _PART):
                part = slice(begin, begin + _PART)
                _move(spots.bits[d, part], setup.columns, first, targets, columns, made[d, part])

    bits = ranks.shared((spots.distances, spots.frames, rows, -(-columns // WORD)), np.uint32, fill)
    origin = setup.origin_um + window.top * setup.row_um + window.left * setup.column_um
    return Spots(bits, rows, columns, spots.present), replace(plain, origin_um=origin, rows=rows, columns=columns)


@compiled(parallel=True)
def _sources(d: int, bending: Bending, which: int, of: int, made: Pixels) -> None:
    """The measured pixel that the middle of each ideal one falls on, in every row that is this one's part."""
    rows, columns = made.shape
    kind, begin = bending.kinds[d], bending.begins[d]
    high, wide = bending.pixel_um[d]
    for n in numba.prange((rows - which + of - 1) // of):
        row = which + n * of
        a = (row - bending.half[0]) * high
        for column in range(columns):
            b = (column - bending.half[1]) * wide
            p, q = distort(kind, bending.tables, begin, a, b)
            x, y = undistort(kind, bending.tables, begin, p, q)
            # Dexela's tiles have gaps between them, where nothing is measured; others are one to one or wrong.
            same = kind == DEXELA or (abs(x - a) <= 0.5 * high and abs(y - b) <= 0.5 * wide)
            down, across = p / high + bending.half[0] + 0.5, q / wide + bending.half[1] + 0.5
            if same and 0 <= down < rows and 0 <= across < columns:
                made[row, column] = math.floor(down) * columns + math.floor(across)
            else:
                made[row, column] = -1


def _seen_whole(seen: NDArray[np.bool_]) -> _Window:
    """A rectangle on whose edges every pixel is seen: from the whole image that side is taken off, line by line, on
    which most is missing."""
    top, left = 0, 0
    bottom, right = seen.shape
    while top < bottom and left < right:
        edges = (
            seen[top, left:right], seen[bottom - 1, left:right], seen[top:bottom, left], seen[top:bottom, right - 1],
        )  # fmt: skip
        missing = [1 - float(edge.mean()) for edge in edges]
        worst = int(np.argmax(missing))
        if missing[worst] == 0:
            break
        top, bottom = top + (worst == 0), bottom - (worst == 1)
        left, right = left + (worst == 2), right - (worst == 3)
    return _Window(top, bottom, left, right)


@compiled()
def _targets(source: Pixels, measured: int) -> tuple[Pixels, Pixels]:
    """The ideal pixels that take from each measured one: of pixel n those from `first[n]` up to `first[n + 1]`."""
    first = np.zeros(measured + 1, np.int32)
    for pixel in source.flat:
        if pixel >= 0:
            first[pixel + 1] += 1
    for n in range(measured):
        first[n + 1] += first[n]
    targets = np.empty(first[measured], np.int32)
    filled = first[:-1].copy()
    for target, pixel in enumerate(source.flat):
        if pixel >= 0:
            targets[filled[pixel]] = target
            filled[pixel] += 1
    return first, targets


@compiled(parallel=True)
def _move(bits: Words, columns: int, first: Pixels, targets: Pixels, across: int, made: Words) -> None:
    """Frames of `columns` to ideal ones of `across` columns."""
    for f in numba.prange(bits.shape[0]):
        for row in range(bits.shape[1]):
            for w in range(bits.shape[2]):
                word = np.uint64(bits[f, row, w])
                while word:
                    pixel = row * columns + w * WORD + lowest_bit(word)
                    word &= word - np.uint64(1)
                    for k in range(first[pixel], first[pixel + 1]):
                        r, c = divmod(targets[k], across)
                        made[f, r, c >> 5] |= np.uint32(1) << np.uint32(c & 31)
