"""`LANES` float32 values as one vector in compiled code, and positions in fixed point.

Numba does not turn a loop over the lanes of two array views into vector code by itself: it cannot see that they do not
overlap. These few operations say it in LLVM's own vector type, which LLVM lowers to what the machine has (AVX, SSE,
NEON), so no other path is needed. They work only within functions that are compiled; offsets count elements of a
C-contiguous float32 array, and nothing checks them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numba.extending
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel

LANES = 8
FRACTION = 40  # bits after the point of a position in fixed point: 23 are left for detectors up to 8 million pixels
ONE = float(1 << FRACTION)

_FAST = ("fast",)
_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Lanes{LANES}")


_LANES: Any = _Lanes()


@numba.extending.register_model(_Lanes)
class _Model(PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)  # type: ignore[no-untyped-call]


def _intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    return cast(Callable[..., Any], numba.extending.intrinsic(function))


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES))


def _place(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), _VECTOR.as_pointer())


@_intrinsic
def zeros(typing: Any) -> Any:
    """All lanes 0."""
    return _LANES(), lambda context, builder, signature, args: ir.Constant(_VECTOR, [0.0] * LANES)


@_intrinsic
def load(typing: Any, array: Any, offset: Any) -> Any:
    """The lanes that begin at element `offset` of the array."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_place(context, builder, array, *args), align=4)

    return _LANES(array, types.intp), make


@_intrinsic
def store(typing: Any, array: Any, offset: Any, lanes: Any) -> Any:
    """Write the lanes to element `offset` of the array and on."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _place(context, builder, array, *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _LANES), make


def _binary(operation: str) -> Any:
    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, operation)(*args, flags=_FAST)

    return _LANES(_LANES, _LANES), make


@_intrinsic
def plus(typing: Any, lanes: Any, others: Any) -> Any:
    """`lanes + others`."""
    return _binary("fadd")


@_intrinsic
def minus(typing: Any, lanes: Any, others: Any) -> Any:
    """`lanes - others`."""
    return _binary("fsub")


@_intrinsic
def times(typing: Any, lanes: Any, others: Any) -> Any:
    """`lanes * others`."""
    return _binary("fmul")


@_intrinsic
def scaled(typing: Any, factor: Any, lanes: Any) -> Any:
    """`factor * lanes`, the factor one float32 for all."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(_splat(builder, args[0]), args[1], flags=_FAST)

    return _LANES(types.float32, _LANES), make


@_intrinsic
def at_least(typing: Any, lanes: Any, floor: Any) -> Any:
    """Lanes below `floor`, one float32 for all, raised to it."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        least = _splat(builder, args[1])
        return builder.select(builder.fcmp_ordered(">", args[0], least), args[0], least)

    return _LANES(_LANES, types.float32), make


@_intrinsic
def ramp(typing: Any, first: Any, step: Any) -> Any:
    """`first`, `first + step`, `first + 2 step`, …"""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        numbers = ir.Constant(_VECTOR, [float(n) for n in range(LANES)])
        rise = builder.fmul(numbers, _splat(builder, args[1]), flags=_FAST)
        return builder.fadd(_splat(builder, args[0]), rise, flags=_FAST)

    return _LANES(types.float32, types.float32), make


@_intrinsic
def hat(typing: Any, lanes: Any) -> Any:
    """What a sample at 0 weighs in a linear interpolation at the lanes: 1 at 0, nothing from a distance of 1 on."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one, zero = (ir.Constant(_VECTOR, [value] * LANES) for value in (1.0, 0.0))
        name = f"llvm.fabs.v{LANES}f32"
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        size = cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
        weight = builder.fsub(one, builder.call(size, args), flags=_FAST)
        return builder.select(builder.fcmp_ordered(">", weight, zero, flags=_FAST), weight, zero)

    return _LANES(_LANES), make


@_intrinsic
def one_plus_fraction(typing: Any, position: Any) -> Any:
    """1 and the fraction of a position in fixed point, float32: its bits become the mantissa, with no conversion."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.trunc(builder.lshr(args[0], ir.Constant(_LONG, FRACTION - 23)), _INT)
        mantissa = builder.and_(bits, ir.Constant(_INT, 0x7FFFFF))
        return builder.bitcast(builder.or_(mantissa, ir.Constant(_INT, 0x3F800000)), _FLOAT)

    return types.float32(types.int64), make


@_intrinsic
def stretch(typing: Any, array: Any, offset: Any, first: Any, width: Any) -> Any:
    """The sum over a stretch of cells `width` (1 to 2) long; `first` is the part of it in the cell at `offset`."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        part, one = _splat(builder, args[2]), ir.Constant(_VECTOR, [1.0] * LANES)
        rest = builder.fsub(_splat(builder, args[3]), part, flags=_FAST)
        second = builder.select(builder.fcmp_ordered("<", rest, one, flags=_FAST), rest, one)
        third = builder.fsub(rest, second, flags=_FAST)
        offset, total = args[1], ir.Constant(_VECTOR, [0.0] * LANES)
        for share in (part, second, third):
            cell = builder.load(_place(context, builder, array, args[0], offset), align=4)
            total = builder.fadd(total, builder.fmul(share, cell, flags=_FAST), flags=_FAST)
            offset = builder.add(offset, ir.Constant(_LONG, LANES))
        return total

    return _LANES(array, types.intp, types.float32, types.float32), make


@_intrinsic
def into_disc(typing: Any, x: Any, y: Any) -> Any:
    """The factor, at most 1, that brings (x, y) into the unit disc."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one = ir.Constant(_VECTOR, [1.0] * LANES)
        squares = [builder.fmul(part, part, flags=_FAST) for part in args]
        square = builder.fadd(*squares, flags=_FAST)
        square = builder.select(builder.fcmp_ordered(">", square, one), square, one)
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        name = f"llvm.sqrt.v{LANES}f32"
        root = cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
        return builder.fdiv(one, builder.call(root, [square]), flags=_FAST)

    return _LANES(_LANES, _LANES), make
