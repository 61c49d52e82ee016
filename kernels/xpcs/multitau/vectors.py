"""Writes vector instructions at the place of a call: LLVM's own vectors, of which Numba makes machine code.

What they are for, is in `lanes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config

LANES = 16

I16, I32, I64, F64 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.DoubleType()
ROW, LONG = ir.VectorType(I32, LANES), ir.VectorType(I64, LANES)
HALVES = ir.VectorType(I16, 2 * LANES)
EIGHT, REAL = ir.VectorType(I64, 8), ir.VectorType(F64, 8)

Value = Any  # of LLVM

# Instructions that multiply and add pairs of int16: what a processor needs for them, and how many lanes they have.
_MULTIPLIERS = (
    ("avx512bw", "llvm.x86.avx512.pmaddw.d.512", 16),
    ("avx2", "llvm.x86.avx2.pmadd.wd", 8),
    ("sse2", "llvm.x86.sse2.pmadd.wd", 4),
)


def _features() -> list[str]:
    """What Numba lets LLVM use of the processor."""
    given = config.CPU_FEATURES  # type: ignore[attr-defined]
    return (binding.get_host_cpu_features().flatten() if given is None else str(given)).split(",")


class Code:
    """Writes LLVM instructions at the place of a call."""

    def __init__(self, context: Any, builder: Any, signature: Any, values: Sequence[Value]) -> None:
        self.builder = builder
        self.values = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, values, strict=True)
        ]

    def load(self, array: Value, offset: Value, kind: ir.Type = ROW) -> Value:
        return self.builder.load(self._pointer(array, offset, kind), align=4)

    def store(self, value: Value, array: Value, offset: Value) -> None:
        self.builder.store(value, self._pointer(array, offset, value.type), align=4)

    def _pointer(self, array: Value, offset: Value, kind: ir.Type) -> Value:
        return self.builder.bitcast(self.builder.gep(array, [offset]), kind.as_pointer())

    def plus(self, offset: Value, rows: int) -> Value:
        """`rows` rows after an offset."""
        return self.builder.add(offset, I64(LANES * rows))

    def row(self, first: Value, index: Value, times: int = 1) -> Value:
        """The offset of row `times` * `index` from `first` on."""
        return self.builder.add(first, self.builder.mul(index, I64(LANES * times)))

    def all_of(self, scalar: Value, kind: ir.VectorType) -> Value:
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, I32(0))
        mask = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
        return self.builder.shuffle_vector(one, one, mask)

    def constant(self, value: float, kind: ir.VectorType) -> Value:
        return ir.Constant(kind, [value] * kind.count)

    def low(self, words: Value) -> Value:
        return self.builder.and_(words, self.constant(0xFFFF, ROW))

    def high(self, words: Value) -> Value:
        return self.builder.lshr(words, self.constant(16, ROW))

    def between(self, earlier: Value, later: Value) -> Value:
        """The word of the odd frame of one and the even frame of the next."""
        return self.builder.or_(self.high(earlier), self.builder.shl(later, self.constant(16, ROW)))

    def product(self, a: Value, b: Value, total: Value) -> Value:
        """`total` and the products of both halves."""
        for feature, name, lanes in _MULTIPLIERS:
            if f"+{feature}" in _features():
                return self.builder.add(self._multiplied(name, lanes, a, b), total)
        halves = []
        for part in (0, 1):
            order = ir.Constant(ir.VectorType(I32, LANES), list(range(part, 2 * LANES, 2)))
            factors = []
            for words in (a, b):
                both = self.builder.bitcast(words, HALVES)
                factors.append(self.builder.sext(self.builder.shuffle_vector(both, both, order), ROW))
            halves.append(self.builder.mul(*factors))
        return self.builder.add(self.builder.add(*halves), total)

    def _multiplied(self, name: str, lanes: int, a: Value, b: Value) -> Value:
        """By a processor's own instruction for so many lanes: LLVM knows the products as such only now and then."""
        result, halves = ir.VectorType(I32, lanes), ir.VectorType(I16, 2 * lanes)
        call = self.builder.module.declare_intrinsic(name, (), ir.FunctionType(result, [halves, halves]))
        parts = []
        for first in range(0, LANES, lanes):
            order = ir.Constant(ir.VectorType(I32, lanes), list(range(first, first + lanes)))
            factors = [self.builder.bitcast(self.builder.shuffle_vector(v, v, order), halves) for v in (a, b)]
            parts.append(self.builder.call(call, factors))
        while len(parts) > 1:
            order = ir.Constant(ir.VectorType(I32, 2 * parts[0].type.count), list(range(2 * parts[0].type.count)))
            parts = [self.builder.shuffle_vector(x, y, order) for x, y in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def larger(self, a: Value, b: Value) -> Value:
        return self.builder.select(self.builder.icmp_unsigned(">", a, b), a, b)

    def largest(self, rows: Value) -> Value:
        """The largest of a row, as int64."""
        values = [self.builder.extract_element(rows, I32(lane)) for lane in range(LANES)]
        while len(values) > 1:
            values = [self.larger(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
        return self.builder.zext(values[0], I64)

    def variable(self, kind: ir.Type, value: Value) -> Value:
        """A place whose value may change within a loop."""
        place: Value = cgutils.alloca_once(self.builder, kind)  # type: ignore[no-untyped-call]
        self.builder.store(value, place)
        return place

    def add_to(self, sums: Value, offset: Value, values: Value) -> None:
        self.store(self.builder.add(self.load(sums, offset, LONG), values), sums, offset)


def typed(write: Callable[[Code], Value | None], result: Any, *given: Any) -> Any:
    """What Numba wants to know of an instruction: its types, and how to write it."""

    def generate(context: Any, builder: Any, signature: Any, values: Sequence[Value]) -> Value:
        made = write(Code(context, builder, signature, values))
        return context.get_dummy_value() if made is None else made

    return result(*given), generate
