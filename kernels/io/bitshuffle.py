"""What HDF5's bitshuffle filter with LZ4 (32008) needs to be undone block by block, in compiled code.

Formats: https://github.com/kiyo-masui/bitshuffle and
https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md, whose limits are all checked here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from kernels.compiled import compiled

HEADER = 12  # bytes: how many all blocks hold, and how many each, before they were packed
LARGEST_BLOCK = 1 << 20  # bytes; the format's own default is 8 KiB
SPARE = 8  # bytes after a block that copies by eights may touch


def _unaligned(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    """Pointer to the eight bytes at an offset of an array."""
    data = context.make_array(signature.args[0])(context, builder, values[0]).data
    return builder.bitcast(builder.gep(data, [values[1]]), ir.IntType(64).as_pointer())


def _instructions() -> tuple[Any, Any, Any]:
    """`lowest(word)`: number of its lowest bit that is set. `load8(array, offset)` and `store8(array, offset, word)`:
    eight bytes from or to an offset, unchecked."""

    @intrinsic
    def lowest(_typing: Any, word: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

        return types.int64(types.uint64), code

    @intrinsic
    def load8(_typing: Any, array: Any, offset: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.load(_unaligned(context, builder, signature, values), align=1)

        return types.uint64(array, types.int64), code

    @intrinsic
    def store8(_typing: Any, array: Any, offset: Any, word: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            builder.store(values[2], _unaligned(context, builder, signature, values), align=1)
            return context.get_dummy_value()

        return types.none(array, types.int64, types.uint64), code

    return lowest, load8, store8


lowest_bit, load8, _store8 = _instructions()


@compiled()
def unpack_lz4(packed: NDArray[np.uint8], at: int, end: int, block: NDArray[np.uint8], size: int) -> bool:
    """Undo LZ4 from `packed[at:end]` into exactly `size` bytes of `block`; False when that cannot be.

    Copies go by eight bytes at a time, so that `SPARE` bytes after `size` have to be there in `block`, for nothing.
    """
    out = 0
    while at < end:
        token = int(packed[at])
        at += 1
        literals = token >> 4
        if literals == 15:
            while True:
                if at >= end:
                    return False
                more = int(packed[at])
                at += 1
                literals += more
                if more != 255:
                    break
        if literals > end - at or literals > size - out:
            return False
        if literals + SPARE <= packed.size - at:
            for k in range(0, literals, SPARE):
                _store8(block, out + k, load8(packed, at + k))
        else:
            for k in range(literals):
                block[out + k] = packed[at + k]
        at += literals
        out += literals
        if at == end:  # the last sequence has no match
            return out == size
        if end - at < 2:
            return False
        back = int(packed[at]) | int(packed[at + 1]) << 8
        at += 2
        length = (token & 15) + 4
        if length == 19:
            while True:
                if at >= end:
                    return False
                more = int(packed[at])
                at += 1
                length += more
                if more != 255:
                    break
        if back == 0 or back > out or length > size - out:
            return False
        zeros = back <= SPARE
        for k in range(1, back + 1 if zeros else 0):
            zeros &= block[out - k] == 0
        if zeros:  # most of what bit planes hold
            for k in range(0, length, SPARE):
                _store8(block, out + k, np.uint64(0))
        else:
            apart = back
            done = 0
            if back < SPARE:  # what repeats is first made long enough to be copied by eights
                apart = back * (SPARE // back + 1)
                done = min(apart, length)
                for k in range(done):
                    block[out + k] = block[out - back + k]
            for k in range(done, length, SPARE):
                _store8(block, out + k, load8(block, out - apart + k))
        out += length
    return False


@compiled()
def big_endian(packed: NDArray[np.uint8], at: int, size: int) -> int:
    """The number in `size` bytes from `at` on, highest byte first."""
    value = 0
    for k in range(size):
        value = value << 8 | int(packed[at + k])
    return value
