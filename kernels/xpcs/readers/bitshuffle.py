"""Frames packed by bitshuffle and LZ4 turned into events, without ever being laid out as frames.

Bitshuffle writes a block of n elements as bit planes: first bit 0 of all of them, then bit 1, and so on; LZ4 then packs
what is mostly zeros. So the pixels that have counted at all are the set bits of the planes combined by `or`, 64 at a
time, and only for those is a count put together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.io.bitshuffle import HEADER, LARGEST_BLOCK, SPARE, big_endian, load8, lowest_bit, unpack_lz4

DAMAGED, TOO_MANY = -1, -2


@compiled()
def _frame(
    packed: NDArray[np.uint8],
    at: int,
    end: int,
    keep: NDArray[np.uint8],
    width: int,
    limit: int,
    block: NDArray[np.uint8],
    pixels: NDArray[np.uint32],
    counts: NDArray[np.uint32],
) -> tuple[int, int]:
    """Events of one packed frame, and how many values are markers (`limit` or more)."""
    if end - at < HEADER or big_endian(packed, at, 8) != keep.size * width:
        return DAMAGED, 0
    block_bytes = big_endian(packed, at + 8, 4)
    if block_bytes < 8 * width or block_bytes > LARGEST_BLOCK or block_bytes % (8 * width):
        return DAMAGED, 0
    at += HEADER
    any_bits = np.empty((LARGEST_BLOCK // 8 if block_bytes > 65536 else 8192) + 8, np.uint8)
    planes = np.empty(8 * width, np.int64)
    events = 0
    marked = 0
    first = 0
    whole = keep.size - keep.size % 8
    while first < whole:
        n = min(block_bytes // width, whole - first)
        if end - at < 4:
            return DAMAGED, 0
        size = big_endian(packed, at, 4)
        at += 4
        if size > end - at or not unpack_lz4(packed, at, at + size, block, n * width):
            return DAMAGED, 0
        at += size
        row = n // 8
        words = (row + 7) // 8
        words_of = any_bits[: words * 8].view(np.uint64)
        words_of[:] = 0
        used = 0
        for plane in range(8 * width):
            start = plane * row
            there = np.uint64(0)
            for w in range(row // 8):
                bits = load8(block, start + w * 8)
                there |= bits
                words_of[w] |= bits
            for k in range(row // 8 * 8, row):
                there |= np.uint64(block[start + k])
                any_bits[k] |= block[start + k]
            if there:
                planes[used] = plane
                used += 1
        if used:
            for w in range(words):
                left = words_of[w]
                while left:
                    bit = lowest_bit(left)
                    left &= left - np.uint64(1)
                    element = w * 64 + bit
                    byte, shift = element >> 3, np.uint8(element & 7)
                    value = np.int64(0)
                    for k in range(used):
                        value |= np.int64((block[planes[k] * row + byte] >> shift) & 1) << planes[k]
                    pixel = first + element
                    if not keep[pixel]:
                        continue
                    if value >= limit:
                        marked += 1
                        continue
                    if events == pixels.size:
                        return TOO_MANY, 0
                    pixels[events] = pixel
                    counts[events] = value
                    events += 1
        first += n
    for pixel in range(whole, keep.size):  # fewer than eight are left as they are
        if end - at < width:
            return DAMAGED, 0
        value = np.int64(0)
        for k in range(width):
            value |= np.int64(packed[at + k]) << (8 * k)
        at += width
        if value == 0 or not keep[pixel]:
            continue
        if value >= limit:
            marked += 1
            continue
        if events == pixels.size:
            return TOO_MANY, 0
        pixels[events] = pixel
        counts[events] = value
        events += 1
    return (events, marked) if at == end else (DAMAGED, 0)


@compiled(parallel=True)
def sparse_from_packed(
    packed: NDArray[np.uint8],
    starts: NDArray[np.int64],
    keep: NDArray[np.uint8],
    width: int,
    limit: int,
    pixels: NDArray[np.uint32],
    counts: NDArray[np.uint32],
    events: NDArray[np.int64],
    marked: NDArray[np.int64],
) -> None:
    """Events of packed frames.

    Parameters
    ----------
    packed, starts : ndarray
        Frame n is `packed[starts[n]:starts[n + 1]]`, a chunk as bitshuffle with LZ4 has written it.
    keep : ndarray, shape (pixels,), uint8
        0 for pixels that are left out.
    width, limit : int
        Bytes of an element; values from `limit` on are markers, which are counted only.
    pixels, counts : ndarray, shape (frames, room)
        Where the events go.
    events, marked : ndarray, shape (frames,)
        How many; `DAMAGED` or `TOO_MANY` for the room in the place of the first.
    """
    for n in prange(starts.size - 1):
        block = np.empty(LARGEST_BLOCK + SPARE, np.uint8)
        events[n], marked[n] = _frame(packed, starts[n], starts[n + 1], keep, width, limit, block, pixels[n], counts[n])


@compiled(parallel=True)
def sparse_from_dense(
    frames: NDArray[Any],
    keep: NDArray[np.uint8],
    limit: int,
    pixels: NDArray[np.uint32],
    counts: NDArray[np.uint32],
    events: NDArray[np.int64],
    marked: NDArray[np.int64],
) -> None:
    """Events of frames that are laid out, shape (frames, pixels), unsigned; the rest as `sparse_from_packed`."""
    together = 8 // frames.itemsize
    for n in prange(frames.shape[0]):
        frame = frames[n]
        full = frame.size - frame.size % together
        words = frame[:full].view(np.uint64)
        found = 0
        marks = 0
        for w in range(words.size + frame.size - full):
            if w < words.size:
                if words[w] == 0:
                    continue
                first, beyond = w * together, (w + 1) * together
            else:
                first = full + w - words.size
                beyond = first + 1
            for pixel in range(first, beyond):
                value = frame[pixel]
                if value == 0 or not keep[pixel]:
                    continue
                if value >= limit:
                    marks += 1
                    continue
                if found == pixels.shape[1]:
                    found = TOO_MANY
                    break
                pixels[n, found] = pixel
                counts[n, found] = value
                found += 1
            if found < 0:
                break
        events[n], marked[n] = found, marks


@compiled(parallel=True)
def gather(
    pixels: NDArray[np.uint32],
    counts: NDArray[np.uint32],
    starts: NDArray[np.int64],
    all_pixels: NDArray[np.uint32],
    all_counts: NDArray[Any],
) -> None:
    """Put the events of frames, a row each, one after the other."""
    for n in prange(starts.size - 1):
        size = starts[n + 1] - starts[n]
        all_pixels[starts[n] : starts[n + 1]] = pixels[n, :size]
        all_counts[starts[n] : starts[n + 1]] = counts[n, :size]
