"""Frames packed by bitshuffle and LZ4, compared with their limits without ever being laid out.

Bitshuffle writes a block of n elements as bit planes: first bit 0 of all of them, then bit 1, and so on; LZ4 packs the
result (https://github.com/kiyo-masui/bitshuffle, HDF5 filter 32008). With the limits laid down as bit planes too, all
elements of a block are compared at once, from the highest plane to the lowest: an element is greater where it has the
first bit in which the two differ. That is six logical operations a plane for as many elements as a vector has bits.
Only of the elements that are greater, which are few, is the value put together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.frames.scan import Room, gathered, is_marker
from kernels.hedm.frames.source import Floats, Limits, Seen
from kernels.io.bitshuffle import HEADER, LARGEST_BLOCK, big_endian, lowest_bit, unpack_lz4

_SPARE = 64  # bytes after a block that copies by eights, and words of planes, may touch
_BAND_BYTES = 1 << 16


class Damaged(Exception):
    """A packed frame is not what it should be. `frame` counts from the first of its block."""

    def __init__(self, frame: int) -> None:
        super().__init__(frame)
        self.frame = frame


@compiled(parallel=True)
def _find_blocks(
    packed: NDArray[np.uint8],
    starts: NDArray[np.int64],
    size: int,
    width: int,
    each: int,
    at: NDArray[np.int64],
    good: NDArray[np.bool_],
) -> None:
    """Where the packed blocks of `each` elements of frames of `size` elements begin, at (frames, blocks + 1).

    The last is where the elements lie that are too few to be shuffled.
    """
    for n in prange(good.size):
        where, end = starts[n], starts[n + 1]
        right = end - where >= HEADER
        if right:
            right = big_endian(packed, where, 8) == size * width and big_endian(packed, where + 8, 4) == each * width
        where += HEADER
        for block in range(at.shape[1] - 1):
            if not right or end - where < 4:
                right = False
                break
            at[n, block] = where
            where += 4 + big_endian(packed, where, 4)
            right &= where <= end
        at[n, at.shape[1] - 1] = where
        good[n] = right and end - where == size % 8 * width


@compiled()
def planes_of(elements: NDArray[np.uint8], width: int, planes: NDArray[np.uint8]) -> None:
    """Bit planes of a block of elements, given as bytes, little-endian; their number is a multiple of 8."""
    count = elements.size // width
    row = count // 8
    for byte in range(width):
        for bit in range(8):
            for k in range(row):
                word = np.uint8(0)
                for e in range(8):
                    word |= np.uint8((elements[(8 * k + e) * width + byte] >> bit & 1) << e)
                planes[(8 * byte + bit) * row + k] = word


@compiled(parallel=True)
def _limit_planes(above: NDArray[np.uint8], width: int, each: int, planes: NDArray[np.uint8]) -> None:
    """Bit planes of all limits, block after block as in a packed frame."""
    size = above.size // width
    whole = size - size % 8
    for block in prange(-(-whole // each)):
        first, beyond = block * each * width, min((block + 1) * each, whole) * width
        planes_of(above[first:beyond], width, planes[first:beyond])


@compiled()
def _compare(
    block: NDArray[np.uint8],
    limits: NDArray[np.uint8],
    row: int,
    planes: int,
    greater: NDArray[np.uint8],
    equal: NDArray[np.uint8],
    some: NDArray[np.uint8],
) -> None:
    """Set the bits of `greater` for elements above their limits and those of `some` for elements that are not 0."""
    for k in range(row):
        greater[k] = 0
        equal[k] = 255
        some[k] = 0
    for plane in range(planes - 1, -1, -1):
        bits = block[plane * row : (plane + 1) * row]
        bounds = limits[plane * row : (plane + 1) * row]
        for k in range(row):
            greater[k] |= equal[k] & bits[k] & ~bounds[k]
            equal[k] &= ~(bits[k] ^ bounds[k])
            some[k] |= bits[k]


@compiled(parallel=True)
def _scan(
    packed: NDArray[np.uint8],
    at: NDArray[np.int64],
    size: int,
    width: int,
    each: int,
    limits: NDArray[np.uint8],
    above: NDArray[Any],
    dark: Floats,
    saturation: float,
    room: int,
    pixels: NDArray[np.int32],
    values: Floats,
    found: NDArray[np.int64],
    saturated: NDArray[np.int64],
    blank: NDArray[np.bool_],
    good: NDArray[np.bool_],
) -> None:
    """As `scan`, for packed frames; `blank` and `good` are by band and frame too."""
    count = at.shape[0]
    blocks = at.shape[1] - 1
    whole = size - size % 8
    together = max(1, _BAND_BYTES // (each * width))
    for band in prange(found.shape[0]):
        block_bytes = np.zeros(each * width + _SPARE, np.uint8)
        greater = np.zeros(each // 8 + _SPARE, np.uint8)
        equal, some = np.zeros_like(greater), np.zeros_like(greater)
        words = greater[: (each // 64 + 1) * 8].view(np.uint64)
        for n in range(count):
            here = 0
            full = 0
            zero = True
            right = True
            for block in range(band * together, min(blocks, (band + 1) * together)):
                first = block * each
                elements = min(each, whole - first)
                row = elements // 8
                begin, end = at[n, block] + 4, at[n, block + 1]
                if not unpack_lz4(packed, begin, end, block_bytes, elements * width):
                    right = False
                    break
                bounds = limits[first * width : (first + elements) * width]
                _compare(block_bytes, bounds, row, 8 * width, greater, equal, some)
                for k in range(row):
                    zero &= some[k] == 0
                for k in range(row, (row + 7) // 8 * 8):
                    greater[k] = 0
                for w in range((row + 7) // 8):
                    left = words[w]
                    while left:
                        element = w * 64 + lowest_bit(left)
                        left &= left - np.uint64(1)
                        value = np.uint64(0)
                        shift = np.uint64(element & 7)
                        for plane in range(8 * width):
                            bit = np.uint64(block_bytes[plane * row + (element >> 3)]) >> shift & np.uint64(1)
                            value |= bit << np.uint64(plane)
                        if is_marker(value):
                            continue
                        full += int(value >= saturation)
                        if here < room:
                            pixels[band, n, here] = first + element
                            values[band, n, here] = np.float32(value) - dark[first + element]
                        here += 1
            if right and band == found.shape[0] - 1:
                for pixel in range(whole, size):  # fewer than eight are left as they are
                    value = np.uint64(0)
                    for k in range(width):
                        value |= np.uint64(packed[at[n, blocks] + (pixel - whole) * width + k]) << np.uint64(8 * k)
                    zero &= value == 0
                    if value <= np.uint64(above[pixel]) or is_marker(value):
                        continue
                    full += int(value >= saturation)
                    if here < room:
                        pixels[band, n, here] = pixel
                        values[band, n, here] = np.float32(value) - dark[pixel]
                    here += 1
            found[band, n] = here
            saturated[band, n] = full
            blank[band, n] = zero
            good[band, n] = right


class PackedScan:
    """Looks at packed frames of one shape and kind (unsigned), which have `each` elements in a block.

    The limits are laid down as bit planes when they are first used.
    """

    def __init__(self, size: int, width: int, each: int) -> None:
        self._size, self._width, self._each = size, width, each
        self._room = Room()
        self._of: NDArray[Any] | None = None
        self._planes = np.empty(0, np.uint8)

    def look(self, packed: NDArray[np.uint8], starts: NDArray[np.int64], limits: Limits, above: NDArray[Any]) -> Seen:
        """What is above its limit in frames; frame n is `packed[starts[n]:starts[n + 1]]`, a chunk as it was written.

        Raises
        ------
        Damaged
            For a frame that cannot be unpacked.
        """
        count, whole = len(starts) - 1, self._size - self._size % 8
        if self._of is not above:
            self._planes = np.empty(whole * self._width, np.uint8)
            _limit_planes(above.view(np.uint8), self._width, self._each, self._planes)
            self._of = above
        blocks = -(-whole // self._each)
        at, good = np.zeros((count, blocks + 1), np.int64), np.zeros(count, np.bool_)
        _find_blocks(packed, starts, self._size, self._width, self._each, at, good)
        _refuse(good)
        bands = max(1, -(-blocks // max(1, _BAND_BYTES // (self._each * self._width))))
        found, saturated = np.zeros((bands, count), np.int64), np.zeros((bands, count), np.int64)
        blank, right = np.zeros((bands, count), np.bool_), np.zeros((bands, count), np.bool_)
        crowded = None
        while crowded is None:
            self._room.fit(bands, count)
            _scan(
                packed,
                at,
                self._size,
                self._width,
                self._each,
                self._planes,
                above,
                limits.dark.reshape(-1),
                limits.saturation,
                self._room.each,
                self._room.pixels,
                self._room.values,
                found,
                saturated,
                blank,
                right,
            )
            _refuse(np.asarray(right.all(axis=0)))
            crowded = self._room.held(found, self._size)
        return gathered(self._room, found, saturated, np.zeros_like(found), np.asarray(blank.all(axis=0)), crowded)


def elements_of_block(header: bytes, width: int) -> int:
    """How many elements a block has, by the first 12 bytes of a packed frame; 0 when that cannot be."""
    size = int.from_bytes(header[8:12], "big")
    usable = len(header) == HEADER and 8 * width <= size <= LARGEST_BLOCK and size % (8 * width) == 0
    return size // width if usable else 0


def _refuse(good: NDArray[np.bool_]) -> None:
    if not good.all():
        raise Damaged(int(np.flatnonzero(~good)[0]))
