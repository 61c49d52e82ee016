"""From detector frames to bits: the background is each pixel's median over the scan, and what stands out is a spot.

Frames come as anything that has a shape (frames, rows, columns) and is sliced like an array: an array, HDF5 data,
a memory map. They are read twice, in blocks: of rows, for the median, then of frames. Memory holds one block, and the
bits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError
from kernels.hedm.nearfield.spots import WORD, Spots, Words, set_pixels
from kernels.ranks import Ranks

Floats = NDArray[np.float32]
_BLOCK_BYTES = 512 << 20


class Frames(Protocol):
    """The frames of one distance."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(frames, rows, columns)."""

    def __getitem__(self, key: Any, /) -> Any:
        """A block of them, as an array."""


def median(
    frames: Frames, *, block_bytes: int = _BLOCK_BYTES, leave: Collection[int] = (), ranks: Ranks | None = None
) -> Floats:
    """Each pixel's median over all frames but those to `leave` out, shape (rows, columns).

    Of an even number of frames it is the lower of the two in the middle. Not more than `block_bytes` of frames are
    held at once, except where a single row of all frames is more. The `ranks` on a node share the rows.
    """
    count, rows, columns = frames.shape
    used = np.setdiff1d(np.arange(count), np.fromiter(leave, np.int64, len(leave)))
    if not len(used):
        raise KernelError("There are no frames to take the median of.", Exit.NO_INPUT)
    item = np.asarray(frames[0:1, 0:1]).dtype.itemsize
    step = max(1, block_bytes // (count * columns * item))

    def fill(made: Floats, which: int, of: int) -> None:
        for top in range(which * step, rows, of * step):
            block = np.asarray(frames[:, top : top + step])
            if len(used) < count:
                block = block[used]
            part = made[top : top + step]
            if block.dtype in (np.uint8, np.uint16):
                _medians(block.reshape(len(used), -1), part.reshape(-1))
            else:
                middle = (len(used) - 1) // 2
                part[:] = np.partition(block, middle, axis=0)[middle]

    return (ranks or Ranks()).shared((rows, columns), np.float32, fill)


def reduce(
    sources: Sequence[Frames],
    *,
    threshold: float,
    sigma: float = 0.0,
    least_pixels: int = 4,
    backgrounds: Sequence[NDArray[np.floating]] | None = None,
    missing: Sequence[Collection[int]] | None = None,
    block_bytes: int = _BLOCK_BYTES,
    ranks: Ranks | None = None,
) -> Spots:
    """Bits of the frames of all distances.

    Parameters
    ----------
    sources
        The frames of each distance, from near to far.
    threshold : float
        Counts above the background that a pixel of a spot has at least.
    sigma : float
        Pixels; above 0, spots end at their edges: where the Laplacian of the image, smoothed by a Gaussian of this
        width, changes its sign, and not where an overlapping tail falls below the threshold.
    least_pixels : int
        Smaller groups of touching pixels are noise.
    backgrounds : optional
        Instead of the medians.
    missing : optional
        Per distance the frames that were not measured. Frames without any count are taken as missing, too.
    ranks : Ranks, optional
        Processes that share the work; those on a node have the bits in common.

    Raises
    ------
    KernelError
        No frames, distances that differ in shape, or no spots (exits 65 and 66).
    """
    count, rows, columns = _common_shape(sources)
    if threshold <= 0:
        raise KernelError(f"The threshold {threshold:g} is not above the background: give one above 0.")
    absent = [np.array(sorted(missing[d] if missing else ()), np.int64) for d in range(len(sources))]
    for lost in absent:
        if len(lost) and (lost[0] < 0 or lost[-1] >= count):
            raise KernelError(f"Frames {lost.tolist()} are said to be missing, but there are {count}, from 0.")
    ranks = ranks or Ranks()
    step = max(1, block_bytes // (rows * columns * 8))
    below = []
    for d, source in enumerate(sources):
        image = backgrounds[d] if backgrounds else median(source, block_bytes=block_bytes, leave=absent[d], ranks=ranks)
        below.append(np.ascontiguousarray(image, np.float32))
        if image.shape != (rows, columns):
            raise KernelError(f"A background of shape {image.shape} does not fit frames of {rows} x {columns} pixels.")
    present = ranks.shared((len(sources), count), np.bool_, lambda *_: None)

    def fill(bits: Words, which: int, of: int) -> None:
        blocks = [(d, first) for d in range(len(sources)) for first in range(0, count, step)]
        for d, first in blocks[which::of]:
            block = np.ascontiguousarray(sources[d][first : first + step])
            part = slice(first, first + len(block))
            present[d, part] = block.reshape(len(block), -1).any(axis=1)
            present[d, np.intersect1d(absent[d], np.arange(part.start, part.stop))] = False
            _binarise(block, below[d], float(threshold), int(least_pixels), bits[d, part])
            if sigma > 0:
                for image, words in zip(block, bits[d, part], strict=True):
                    _edged(image, below[d], words, columns, sigma, least_pixels)
            bits[d, part][~present[d, part]] = 0

    bits = ranks.shared((len(sources), count, rows, -(-columns // WORD)), np.uint32, fill)
    return Spots(bits, rows, columns, present)


def _common_shape(sources: Sequence[Frames]) -> tuple[int, ...]:
    shapes = [tuple(source.shape) for source in sources]
    if not shapes or any(len(shape) != 3 or 0 in shape for shape in shapes):
        raise KernelError("There are no frames: each distance needs an array (frames, rows, columns).", Exit.NO_INPUT)
    if len(set(shapes)) > 1:
        said = ", ".join(" x ".join(str(n) for n in shape) for shape in shapes)
        raise KernelError(
            f"The distances have frames of different shape ({said} frames, rows and columns). Where some are missing, "
            "put empty ones in their place.",
            Exit.BAD_INPUT,
        )
    return shapes[0]


@compiled(parallel=True)
def _medians(block: NDArray[np.uint16], made: Floats) -> None:
    """Medians down the columns: first of the upper byte, then of the lower among those with that upper one."""
    count, pixels = block.shape
    wanted = (count - 1) // 2
    for part in numba.prange((pixels + 1023) // 1024):
        histogram = np.empty(256, np.int64)
        for n in range(part * 1024, min(pixels, part * 1024 + 1024)):
            high, before = 0, 0
            histogram[:] = 0
            for f in range(count):
                histogram[block[f, n] >> 8] += 1
            while before + histogram[high] <= wanted:
                before += histogram[high]
                high += 1
            histogram[:] = 0
            for f in range(count):
                if block[f, n] >> 8 == high:
                    histogram[block[f, n] & 255] += 1
            low = 0
            while before + histogram[low] <= wanted:
                before += histogram[low]
                low += 1
            made[n] = high * 256 + low


@compiled(parallel=True)
def _binarise(block: NDArray[Any], below: Floats, threshold: float, least: int, bits: Words) -> None:
    """Set the bits of groups of at least `least` touching pixels that are above the background by the threshold."""
    for n in numba.prange(block.shape[0]):
        _runs(block[n], below, threshold, least, bits[n])


@compiled()
def _runs(image: NDArray[Any], below: Floats, threshold: float, least: int, words: Words) -> None:
    """One frame: runs of pixels in a row, joined with those they touch in the row before, corners included."""
    rows, columns = image.shape
    total = 0
    for r in range(rows):
        before = False
        for c in range(columns):
            now = image[r, c] - below[r, c] > threshold
            total += now and not before
            before = now
    row, begin, end = np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total, np.int64)
    root, size = np.arange(total), np.zeros(total, np.int64)
    count, previous, first = 0, 0, 0
    for r in range(rows):
        previous, first = first, count
        candidate = previous
        c = 0
        while c < columns:
            if not image[r, c] - below[r, c] > threshold:
                c += 1
                continue
            row[count], begin[count] = r, c
            while c < columns and image[r, c] - below[r, c] > threshold:
                c += 1
            end[count] = c
            while candidate < first and end[candidate] < begin[count]:
                candidate += 1
            other = candidate
            while other < first and begin[other] <= c:
                _join(root, other, count)
                other += 1
            count += 1
    for n in range(count):
        size[_root(root, n)] += end[n] - begin[n]
    for n in range(count):
        if size[_root(root, n)] >= least:
            for c in range(begin[n], end[n]):
                words[row[n], c >> 5] |= np.uint32(1) << np.uint32(c & 31)


@compiled()
def _root(root: NDArray[np.int64], n: int) -> int:
    while root[n] != n:
        root[n] = root[root[n]]
        n = root[n]
    return n


@compiled()
def _join(root: NDArray[np.int64], a: int, b: int) -> None:
    a, b = _root(root, a), _root(root, b)
    root[max(a, b)] = min(a, b)


def _edged(image: NDArray[Any], below: Floats, words: Words, columns: int, sigma: float, least: int) -> None:
    """Cut the spots of one frame back to their edges, in place."""
    mask = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, :columns].astype(np.bool_)
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    margin = int(np.ceil(4 * sigma))
    kept = np.zeros_like(mask)
    for label, (down, across) in enumerate(ndimage.find_objects(labels), 1):
        wide = tuple(
            slice(max(0, one.start - margin), min(length, one.stop + margin))
            for one, length in zip((down, across), mask.shape, strict=True)
        )
        excess = image[wide].astype(np.float32) - below[wide]
        inside = (ndimage.gaussian_laplace(excess, sigma) < 0) & (labels[wide] == label)
        kept[wide] |= ndimage.binary_fill_holes(inside)
    groups, count = ndimage.label(kept, np.ones((3, 3)))
    sizes = np.bincount(groups.ravel(), minlength=count + 1)
    sizes[0] = 0
    rows, across = np.nonzero(sizes[groups] >= least)
    words[:] = 0
    set_pixels(words, rows, across)
