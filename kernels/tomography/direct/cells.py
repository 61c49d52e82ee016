"""Vector instructions on cells: sixteen slices side by side, as LLVM's own vectors.

A cell is 16 float32 (64 bytes): one number of each of sixteen slices, or, read as complex numbers, the real parts of
eight (the first eight slices) and their imaginary parts (the others). So every step of a slice's arithmetic is one
instruction for all, weights are worked out once for sixteen slices, and a pair of real slices goes through complex
transforms as one.

Numba does not turn such loops into vector instructions by itself, since it cannot know that arrays do not overlap; so
the innermost steps are given to LLVM here, which finds the best instructions of any processor for them (AVX-512, AVX2,
SSE, NEON). Offsets count float32 within flat arrays and are not checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.tomography.direct.spreading import DEGREE

LANES = 16
_HALF = LANES // 2
_FAST = ("fast",)
_FLOAT, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_EIGHT, _SIXTEEN = ir.VectorType(_FLOAT, 8), ir.VectorType(_FLOAT, 16)

Value = Any  # of LLVM


class _Code:
    """Writes LLVM instructions at the place of a call."""

    def __init__(self, context: Any, builder: Any, signature: Any, values: Sequence[Value]) -> None:
        self.builder = builder
        self.values = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, values, strict=True)
        ]

    def add(self, a: Value, b: Value) -> Value:
        return self.builder.fadd(a, b, flags=_FAST)

    def subtract(self, a: Value, b: Value) -> Value:
        return self.builder.fsub(a, b, flags=_FAST)

    def multiply(self, a: Value, b: Value) -> Value:
        return self.builder.fmul(a, b, flags=_FAST)

    def after(self, offset: Value, count: int | Value) -> Value:
        return self.builder.add(offset, ir.Constant(_I64, count) if isinstance(count, int) else count)

    def times(self, offset: Value, count: int) -> Value:
        return self.builder.mul(offset, ir.Constant(_I64, count))

    def load(self, array: Value, offset: Value, kind: ir.Type = _EIGHT) -> Value:
        return self.builder.load(self._pointer(array, offset, kind), align=4)

    def store(self, value: Value, array: Value, offset: Value) -> None:
        self.builder.store(value, self._pointer(array, offset, value.type), align=4)

    def stream(self, value: Value, array: Value, offset: Value) -> None:
        """Store a whole cell past the caches, which need not read then what it replaces."""
        store = self.builder.store(value, self._pointer(array, offset, value.type), align=4 * LANES)
        store.set_metadata("nontemporal", self.builder.module.add_metadata([_I32(1)]))

    def _pointer(self, array: Value, offset: Value, kind: ir.Type) -> Value:
        return self.builder.bitcast(self.builder.gep(array, [offset]), kind.as_pointer())

    def all_of(self, scalar: Value, kind: ir.VectorType = _EIGHT) -> Value:
        """A vector of one value."""
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, _I32(0))
        return self.shuffled(one, one, [0] * kind.count)

    def every(self, array: Value, offset: Value, kind: ir.VectorType = _EIGHT) -> Value:
        """A vector of the one number at an offset."""
        return self.all_of(self.builder.load(self.builder.gep(array, [offset]), align=4), kind)

    def constant(self, value: float) -> Value:
        return ir.Constant(_EIGHT, [value] * 8)

    def shuffled(self, a: Value, b: Value, order: Sequence[int]) -> Value:
        mask = ir.Constant(ir.VectorType(_I32, len(order)), list(order))
        return self.builder.shuffle_vector(a, b, mask)


class _Complex:
    """Eight complex numbers while code for them is written."""

    def __init__(self, code: _Code, real: Value, imaginary: Value) -> None:
        self.code, self.real, self.imaginary = code, real, imaginary

    def __add__(self, other: _Complex) -> _Complex:
        add = self.code.add
        return _Complex(self.code, add(self.real, other.real), add(self.imaginary, other.imaginary))

    def __sub__(self, other: _Complex) -> _Complex:
        subtract = self.code.subtract
        return _Complex(self.code, subtract(self.real, other.real), subtract(self.imaginary, other.imaginary))

    def scaled(self, factor: float) -> _Complex:
        by = self.code.constant(factor)
        return _Complex(self.code, self.code.multiply(self.real, by), self.code.multiply(self.imaginary, by))

    def over_i(self) -> _Complex:
        """Times -i."""
        zero = self.code.constant(-0.0)
        return _Complex(self.code, self.imaginary, self.code.subtract(zero, self.real))

    def times(self, real: Value, imaginary: Value) -> _Complex:
        code = self.code
        return _Complex(
            code,
            code.subtract(code.multiply(self.real, real), code.multiply(self.imaginary, imaginary)),
            code.add(code.multiply(self.real, imaginary), code.multiply(self.imaginary, real)),
        )


def _dft(x: list[_Complex]) -> list[_Complex]:
    """The discrete Fourier transform (exponent -) of 2, 3, 4, 5 or 8 numbers."""
    if len(x) == 2:
        return [x[0] + x[1], x[0] - x[1]]
    if len(x) == 4:
        (a, b), (c, d) = _dft([x[0], x[2]]), _dft([x[1], x[3]])
        d = d.over_i()
        return [a + c, b + d, a - c, b - d]
    if len(x) == 8:
        even, odd = _dft(x[0::2]), _dft(x[1::2])
        root = math.sqrt(0.5)
        odd[1] = (odd[1] + odd[1].over_i()).scaled(root)
        odd[2] = odd[2].over_i()
        odd[3] = (odd[3].over_i() - odd[3]).scaled(root)
        return [a + b for a, b in zip(even, odd, strict=True)] + [a - b for a, b in zip(even, odd, strict=True)]
    # Odd lengths: the sums of x[j] and x[n - j] meet the cosines, their differences the sines.
    n = len(x)
    pairs = [(x[j] + x[n - j], x[j] - x[n - j]) for j in range(1, (n + 1) // 2)]
    result = [sum((both for both, _ in pairs), start=x[0])] * n
    for k in range(1, (n + 1) // 2):
        angles = [2 * math.pi * j * k / n for j in range(1, (n + 1) // 2)]
        plain = x[0]
        for (both, _), angle in zip(pairs, angles, strict=True):
            plain = plain + both.scaled(math.cos(angle))
        parts = [apart.scaled(math.sin(angle)) for (_, apart), angle in zip(pairs, angles, strict=True)]
        across = sum(parts[1:], start=parts[0]).over_i()
        result[k], result[n - k] = plain + across, plain - across
    return result


def _butterfly(radix: int, *, turned: bool) -> Any:
    """`butterfly(source, i, i_step, target, o, o_step, factors, t, swap)`: transform the `radix` cells at i,
    i + i_step, …, multiply all but the first by the factors (real, imaginary) that begin at t, if turned; store at o,
    o + o_step, …. `swap` 8 exchanges real and imaginary parts, which makes the inverse transform of it; else 0."""

    def write(code: _Code) -> None:
        source, i, i_step, target, o, o_step, factors, t, swap = code.values
        beside = code.builder.sub(_I64(_HALF), swap)
        cells = []
        for j in range(radix):
            at = code.after(i, code.times(i_step, j))
            real, imaginary = code.load(source, code.after(at, swap)), code.load(source, code.after(at, beside))
            cells.append(_Complex(code, real, imaginary))
        for j, cell in enumerate(_dft(cells)):
            if turned and j:
                cell = cell.times(*(code.every(factors, code.after(t, 2 * (j - 1) + part)) for part in (0, 1)))
            at = code.after(o, code.times(o_step, j))
            code.store(cell.real, target, code.after(at, swap))
            code.store(cell.imaginary, target, code.after(at, beside))

    @intrinsic
    def instruction(
        typing: Any, source: Any, i: Any, i_step: Any, target: Any, o: Any, o_step: Any, factors: Any, t: Any, swap: Any
    ) -> Any:
        return _typed(write, source, i, i_step, target, o, o_step, factors, t, swap)

    return instruction


def _weighing(degree: int) -> Any:
    """`weigh(shape, x, weights, w)`: polynomials of `degree` at x, whose coefficients `shape` holds from the highest
    down, 8 (one per tap) each; into the 8 weights from w on."""

    def write(code: _Code) -> None:
        shape, x, weights, w = code.values
        place = code.all_of(x)
        value = code.load(shape, _I64(0))
        for n in range(1, degree + 1):
            value = code.add(code.multiply(value, place), code.load(shape, _I64(8 * n)))
        code.store(value, weights, w)

    @intrinsic
    def instruction(typing: Any, shape: Any, x: Any, weights: Any, w: Any) -> Any:
        return _typed(write, shape, x, weights, w)

    return instruction


def _spreading(taps: int) -> Any:
    """`spread(grid, at, row, source, s, weights, across, down)`: add the cell of `source` at s to `taps` x `taps` cells
    of `grid` from `at` on, whose rows lie `row` apart, times the weights that begin at `across` and at `down`."""

    def write(code: _Code) -> None:
        grid, at, row, source, s, weights, across, down = code.values
        columns = [code.every(weights, code.after(across, tap), _SIXTEEN) for tap in range(taps)]
        cell = code.load(source, s, _SIXTEEN)
        for n in range(taps):
            part = code.multiply(cell, code.every(weights, code.after(down, n), _SIXTEEN))
            for tap in range(taps):
                here = code.after(at, LANES * tap)
                code.store(code.add(code.load(grid, here, _SIXTEEN), code.multiply(part, columns[tap])), grid, here)
            at = code.after(at, row)

    @intrinsic
    def instruction(
        typing: Any, grid: Any, at: Any, row: Any, source: Any, s: Any, weights: Any, across: Any, down: Any
    ) -> Any:
        return _typed(write, grid, at, row, source, s, weights, across, down)

    return instruction


def _turning(*, after: bool) -> Any:
    """`turn(source, s, s_step, target, o, o_step, weights, w)`: transpose 8 rows of 8 numbers and multiply each row,
    before or after that, by the 8 weights from w on."""

    def write(code: _Code) -> None:
        source, s, s_step, target, o, o_step, weights, w = code.values
        weight = code.load(weights, w)
        rows = [code.load(source, code.after(s, code.times(s_step, n))) for n in range(8)]
        if not after:
            rows = [code.multiply(row, weight) for row in rows]
        for apart in (1, 2, 4):  # exchange blocks of 1, 2, 4 across the diagonal
            low = [n - apart + 8 if n & apart else n for n in range(8)]
            high = [n + 8 if n & apart else n + apart for n in range(8)]
            for n in range(8):
                if not n & apart:
                    a, b = rows[n], rows[n + apart]
                    rows[n], rows[n + apart] = code.shuffled(a, b, low), code.shuffled(a, b, high)
        for n, row in enumerate(rows):
            code.store(code.multiply(row, weight) if after else row, target, code.after(o, code.times(o_step, n)))

    @intrinsic
    def instruction(
        typing: Any, source: Any, s: Any, s_step: Any, target: Any, o: Any, o_step: Any, weights: Any, w: Any
    ) -> Any:
        return _typed(write, source, s, s_step, target, o, o_step, weights, w)

    return instruction


def _rotating() -> Any:
    """`rotate(source, s, target, o, real, imaginary)`: multiply a cell by a complex number."""

    def write(code: _Code) -> None:
        source, s, target, o, real, imaginary = code.values
        cell = _Complex(code, code.load(source, s), code.load(source, code.after(s, _HALF)))
        cell = cell.times(code.all_of(real), code.all_of(imaginary))
        code.stream(code.shuffled(cell.real, cell.imaginary, range(LANES)), target, o)

    @intrinsic
    def instruction(typing: Any, source: Any, s: Any, target: Any, o: Any, real: Any, imaginary: Any) -> Any:
        return _typed(write, source, s, target, o, real, imaginary)

    return instruction


def _putting() -> Any:
    """`put(source, s, target, o)`: copy a cell, past the caches."""

    def write(code: _Code) -> None:
        source, s, target, o = code.values
        code.stream(code.load(source, s, _SIXTEEN), target, o)

    @intrinsic
    def instruction(typing: Any, source: Any, s: Any, target: Any, o: Any) -> Any:
        return _typed(write, source, s, target, o)

    return instruction


def _settling() -> Any:
    """`settle()`: what went past the caches is seen by the other threads from here on."""

    @intrinsic
    def instruction(typing: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Sequence[Value]) -> Value:
            builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.void(), generate

    return instruction


def _typed(write: Callable[[_Code], None], *given: Any) -> Any:
    """What Numba wants to know of an instruction: its types, and how to write it."""

    def generate(context: Any, builder: Any, signature: Any, values: Sequence[Value]) -> Value:
        write(_Code(context, builder, signature, values))
        return context.get_dummy_value()

    return types.void(*given), generate


butterfly2, butterfly3, butterfly4, butterfly5, butterfly8 = (_butterfly(n, turned=True) for n in (2, 3, 4, 5, 8))
last2, last3, last4, last5, last8 = (_butterfly(n, turned=False) for n in (2, 3, 4, 5, 8))
spread4, spread5, spread6 = (_spreading(n) for n in (4, 5, 6))
turn, turn_back = _turning(after=False), _turning(after=True)
weigh, rotate, put, settle = _weighing(DEGREE), _rotating(), _putting(), _settling()
