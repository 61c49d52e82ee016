"""Frames that are laid out, compared with their limits 64 pixels at a time.

A comparison of 64 pixels is one vector operation of whatever width the processor has, and gives one word of 64 bits;
where none is set, which is nearly everywhere, nothing more is done. So the speed is that of reading memory. Bands of
the detector are worked on one after the other through all frames of a block, so that their limits stay in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.frames.source import CROWDED, Floats, Limits, Seen
from kernels.io.bitshuffle import lowest_bit

TOGETHER = 64
BAND = 1 << 15  # pixels; their limits fit into the second-level cache
_FIRST_ROOM = 1 << 10
_MARKER = np.uint32(0xFFFFFFFF)  # of a pixel that does not count, in words of 32 bits


def _vector(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """64 elements of an array from `at` on."""
    data = context.make_array(array_type)(context, builder, array).data
    element = context.get_data_type(array_type.dtype)
    pointer = builder.bitcast(builder.gep(data, [at]), ir.VectorType(element, TOGETHER).as_pointer())
    return builder.load(pointer, align=array_type.dtype.bitwidth // 8)


def _instructions() -> tuple[Any, Any]:
    """`above(array, limits, at)`: which of the 64 elements from
    `at` on are greater than their limits, a bit each; `unordered(array, at)`: which are NaN. Unchecked."""

    @intrinsic
    def above(_typing: Any, array: Any, limits: Any, at: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            left = _vector(context, builder, signature.args[0], values[0], values[2])
            right = _vector(context, builder, signature.args[1], values[1], values[2])
            element = signature.args[0].dtype
            if isinstance(element, types.Float):
                greater = builder.fcmp_ordered(">", left, right)
            elif element.signed:
                greater = builder.icmp_signed(">", left, right)
            else:
                greater = builder.icmp_unsigned(">", left, right)
            return builder.bitcast(greater, ir.IntType(TOGETHER))

        return types.uint64(array, limits, types.int64), code

    @intrinsic
    def unordered(_typing: Any, array: Any, at: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            if not isinstance(signature.args[0].dtype, types.Float):
                return ir.Constant(ir.IntType(TOGETHER), 0)
            these = _vector(context, builder, signature.args[0], values[0], values[1])
            return builder.bitcast(builder.fcmp_unordered("uno", these, these), ir.IntType(TOGETHER))

        return types.uint64(array, types.int64), code

    return above, unordered


_above, _unordered = _instructions()


@compiled()
def is_marker(value: Any) -> bool:
    """Whether a number of this kind stands for a pixel that does not count."""
    return bool(value == _MARKER)


@compiled(parallel=True)
def _scan(
    frames: NDArray[Any],
    limits: NDArray[Any],
    dark: Floats,
    saturation: float,
    room: int,
    pixels: NDArray[np.int32],
    values: Floats,
    found: NDArray[np.int64],
    saturated: NDArray[np.int64],
    not_numbers: NDArray[np.int64],
) -> None:
    """Pixels above their limits in `frames` (frames, pixels), by band and frame, as far as there is `room`.

    `pixels` and `values` are (bands, frames, room); the three counts are (bands, frames) and always complete.
    """
    count, size = frames.shape
    for band in prange(found.shape[0]):
        start = band * BAND
        stop = min(size, start + BAND)
        whole = start + (stop - start) // TOGETHER * TOGETHER
        for n in range(count):
            frame = frames[n]
            here = 0
            full = 0
            odd = 0
            at = start
            while at < stop:
                if at < whole:
                    bits = _above(frame, limits, at)
                    unordered = _unordered(frame, at)
                    while unordered:
                        unordered &= unordered - np.uint64(1)
                        odd += 1
                else:
                    bits = np.uint64(0)
                    for k in range(at, stop):
                        if frame[k] > limits[k]:
                            bits |= np.uint64(1) << np.uint64(k - at)
                        odd += frame[k] != frame[k]
                while bits:
                    pixel = at + lowest_bit(bits)
                    bits &= bits - np.uint64(1)
                    value = frame[pixel]
                    if is_marker(value):
                        continue
                    full += value >= saturation
                    if here < room:
                        pixels[band, n, here] = pixel
                        values[band, n, here] = np.float32(value) - dark[pixel]
                    here += 1
                at += TOGETHER
            found[band, n] = here
            saturated[band, n] = full
            not_numbers[band, n] = odd


@compiled(parallel=True)
def gather(
    pixels: NDArray[np.int32],
    values: Floats,
    found: NDArray[np.int64],
    starts: NDArray[np.int64],
    all_pixels: NDArray[np.int32],
    all_values: Floats,
) -> None:
    """Put what was found by band and frame one after the other, frame by frame."""
    for n in prange(found.shape[1]):
        out = starts[n]
        for band in range(found.shape[0]):
            for k in range(found[band, n]):
                all_pixels[out] = pixels[band, n, k]
                all_values[out] = values[band, n, k]
                out += 1


@compiled(parallel=True)
def _blank(frames: NDArray[Any], empty: NDArray[np.bool_], blank: NDArray[np.bool_]) -> None:
    """Of the `empty` frames whether they hold nothing but zeros; a frame with counts says so by its first pixels."""
    for n in prange(frames.shape[0]):
        if empty[n]:
            zero = True
            for k in range(frames.shape[1]):
                if frames[n, k] != 0:
                    zero = False
                    break
            blank[n] = zero


class Room:
    """Room for what is found by band and frame, made larger when it was too small, and kept for the next block."""

    def __init__(self) -> None:
        self.each = _FIRST_ROOM
        self.pixels = np.empty((0, 0, 0), np.int32)
        self.values = np.empty((0, 0, 0), np.float32)

    def fit(self, bands: int, frames: int) -> None:
        """Be of this shape, with what lies in it lost."""
        shape = (bands, frames, self.each)
        if self.pixels.shape != shape:
            self.pixels, self.values = np.empty(shape, np.int32), np.empty(shape, np.float32)

    def held(self, found: NDArray[np.int64], size: int) -> NDArray[np.bool_] | None:
        """Which frames, of `size` pixels, are crowded, when there was room for all that was found in the others; None
        when there was not, and now there will be."""
        crowded = found.sum(axis=0) > size // CROWDED
        most = int(found[:, ~crowded].max(initial=0))
        if most > self.each:
            self.each = most + most // 4
            return None
        return np.asarray(crowded)


def bands_of(size: int) -> int:
    return -(-size // BAND)


def gathered(
    room: Room,
    found: NDArray[np.int64],
    saturated: NDArray[np.int64],
    not_numbers: NDArray[np.int64],
    blank: NDArray[np.bool_],
    crowded: NDArray[np.bool_],
) -> Seen:
    """What lies in `room`, frame by frame."""
    kept = np.where(crowded, 0, found)
    starts = np.concatenate([[0], np.cumsum(kept.sum(axis=0))]).astype(np.int64)
    pixels, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
    gather(room.pixels, room.values, kept, starts, pixels, values)
    return Seen(starts, pixels, values, saturated.sum(axis=0), not_numbers.sum(axis=0), blank, crowded)


def look(frames: NDArray[Any], limits: Limits, above: NDArray[Any], room: Room) -> Seen:
    """What is above its limit in frames that are laid out, shape (frames, rows, columns).

    All ones in words of 32 bits stand for pixels that do not count (as DECTRIS writes them) and are passed over.
    """
    count = len(frames)
    flat = frames.reshape(count, -1)
    dark = limits.dark.reshape(-1)
    bands = bands_of(flat.shape[1])
    found, full, odd = (np.zeros((bands, count), np.int64) for _ in range(3))
    crowded = None
    while crowded is None:
        room.fit(bands, count)
        _scan(flat, above, dark, limits.saturation, room.each, room.pixels, room.values, found, full, odd)
        crowded = room.held(found, flat.shape[1])
    blank = np.zeros(count, np.bool_)
    _blank(flat, found.sum(axis=0) == 0, blank)
    return gathered(room, found, full, odd, blank, crowded)
