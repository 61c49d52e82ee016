"""Sums of products of small counts with AVX-512 VNNI, as LLVM's own instruction: 64 products and sums at once, exact.

Counts of up to 127 lie in panels: of 16 neighbouring frames, four neighbouring pixels of the first, of the second, …;
then the next four pixels of all sixteen. One instruction multiplies the four pixels of one frame with those of 16
others and adds the products to 16 int32. Of 8 x 32 frames the sums stay in registers from the first pixel to the last,
which needs ten loads for every sixteen instructions: the multiplier is what limits, not the caches.

Only where `available()` says so: other processors do not know the instruction, and compiling it for them ends Python.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

FRAMES, PIXELS = 16, 4  # of a cell of a panel: 64 bytes
ROWS, COLUMNS = 8, 32  # frames whose sums are worked out together
LARGEST = 127

_cgutils: Any = cgutils  # whose functions have no types
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES, _SUMS = ir.VectorType(_I8, 64), ir.VectorType(_I32, 16)
_NAME = "llvm.x86.avx512.vpdpbusd.512"


def available() -> bool:
    """Whether code compiled here may use the instruction: the processor has it, and Numba compiles for this one."""
    config: Any = numba.config
    own = not config.CPU_NAME and not config.CPU_FEATURES
    return own and bool(llvm.get_host_cpu_features().get("avx512vnni", False))


def _operand() -> Any:
    """What the instruction takes its counts as: bytes since LLVM 22, before that 16 numbers of four each."""
    return _BYTES if llvm.llvm_version_info[0] >= 22 else _SUMS


def _multiplying() -> Any:
    """`multiply(rows, r, columns, c, across, cells, sums)`: sums of products over `cells` cells of pixels, of the 8
    frames that begin at byte r of `rows` with the 32 whose panels begin at bytes c and c + across of `columns`, into
    `sums`, 8 x 32 int32."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        arrays = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, values, strict=True)
        ]
        rows, r, columns, c, across, cells, sums = arrays
        operand = _operand()
        dot = _cgutils.get_or_insert_function(builder.module, ir.FunctionType(_SUMS, [_SUMS, operand, operand]), _NAME)

        def at(array: Any, offset: Any, kind: Any) -> Any:
            return builder.bitcast(builder.gep(array, [offset]), kind.as_pointer())

        totals = [_cgutils.alloca_once_value(builder, ir.Constant(_SUMS, None)) for _ in range(ROWS * 2)]
        with _cgutils.for_range(builder, cells) as loop:
            here = builder.mul(loop.index, ir.Constant(_I64, FRAMES * PIXELS))
            left, right = builder.add(c, here), builder.add(builder.add(c, across), here)
            halves = [builder.load(at(columns, side, operand), align=1) for side in (left, right)]
            for row in range(ROWS):
                place = builder.add(builder.add(r, here), ir.Constant(_I64, row * PIXELS))
                four = builder.load(at(rows, place, _I32), align=1)
                one = builder.insert_element(ir.Constant(_SUMS, ir.Undefined), four, ir.Constant(_I32, 0))
                spread = builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, 16), [0] * 16))
                spread = builder.bitcast(spread, operand)
                for half, counts in enumerate(halves):
                    total = totals[2 * row + half]
                    builder.store(builder.call(dot, [builder.load(total), counts, spread]), total)
        for n, total in enumerate(totals):
            builder.store(builder.load(total), at(sums, ir.Constant(_I64, 16 * n), _SUMS), align=4)
        return context.get_dummy_value()

    @intrinsic
    def instruction(typing: Any, rows: Any, r: Any, columns: Any, c: Any, across: Any, cells: Any, sums: Any) -> Any:
        return types.void(rows, r, columns, c, across, cells, sums), write

    return instruction


multiply = _multiplying()
