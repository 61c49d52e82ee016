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
_BYTES, _SUMS, _EIGHT = ir.VectorType(_I8, 64), ir.VectorType(_I32, 16), ir.VectorType(ir.DoubleType(), 8)
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
    """`multiply(rows, r, columns, c, across, cells, weights, row, column, totals, at, width)`: sums of products over
    `cells` cells of pixels, of the 8 frames that begin at byte r of `rows` with the 32 whose panels begin at bytes c
    and c + across of `columns`; each times the product of its two `weights`, of which those of rows begin at `row` and
    those of columns at `column`; added to 8 x 32 `totals` from `at` on, whose rows lie `width` apart."""

    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        arrays = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, values, strict=True)
        ]
        rows, r, columns, c, across, cells, weights, row, column, totals, at, width = arrays
        operand = _operand()
        kind = ir.FunctionType(_SUMS, [_SUMS, operand, operand])
        dot = _cgutils.get_or_insert_function(builder.module, kind, _NAME)

        def place(array: Any, offset: Any, kind: Any) -> Any:
            return builder.bitcast(builder.gep(array, [offset]), kind.as_pointer())

        def after(offset: Any, count: int) -> Any:
            return builder.add(offset, ir.Constant(_I64, count))

        def all_of(scalar: Any, kind: Any) -> Any:
            one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_I32, 0))
            return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, kind.count), [0] * kind.count))

        sums = [_cgutils.alloca_once_value(builder, ir.Constant(_SUMS, None)) for _ in range(ROWS * 2)]
        with _cgutils.for_range(builder, cells) as loop:
            here = builder.mul(loop.index, ir.Constant(_I64, FRAMES * PIXELS))
            left = builder.add(c, here)
            both = [builder.load(place(columns, o, operand), align=1) for o in (left, builder.add(left, across))]
            for n in range(ROWS):
                four = builder.load(place(rows, after(builder.add(r, here), n * PIXELS), _I32), align=1)
                counts = builder.bitcast(all_of(four, _SUMS), operand)
                for half in range(2):
                    total = sums[2 * n + half]
                    builder.store(builder.call(dot, [builder.load(total), both[half], counts]), total)
        of_columns = [builder.load(place(weights, after(column, 8 * q), _EIGHT), align=8) for q in range(4)]
        for n in range(ROWS):
            of_row = all_of(builder.load(builder.gep(weights, [after(row, n)])), _EIGHT)
            for q in range(4):
                which = ir.Constant(ir.VectorType(_I32, 8), list(range(q % 2 * 8, q % 2 * 8 + 8)))
                whole = builder.load(sums[2 * n + q // 2])
                eight = builder.sitofp(builder.shuffle_vector(whole, whole, which), _EIGHT)
                # The operations of `sums.weigh`, none of them merged, so that every way has the same bits.
                weighed = builder.fmul(eight, builder.fmul(of_row, of_columns[q]))
                target = place(totals, after(builder.add(at, builder.mul(ir.Constant(_I64, n), width)), 8 * q), _EIGHT)
                builder.store(builder.fadd(builder.load(target, align=8), weighed), target, align=8)
        return context.get_dummy_value()

    @intrinsic
    def instruction(
        typing: Any, rows: Any, r: Any, columns: Any, c: Any, across: Any, cells: Any, weights: Any, row: Any,
        column: Any, totals: Any, at: Any, width: Any,
    ) -> Any:  # fmt: skip
        given = (rows, r, columns, c, across, cells, weights, row, column, totals, at, width)
        return types.void(*given), write

    return instruction


multiply = _multiplying()
