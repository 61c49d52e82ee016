"""`prefetch(array, place)`: ask for a cache line that will be read soon. A place outside the array does no harm."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_cgutils: Any = cgutils  # whose functions have no types
_I8, _I32 = ir.IntType(8), ir.IntType(32)


def _fetching() -> Any:
    def write(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        pointer = builder.bitcast(builder.gep(data, [values[1]]), _I8.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        function = _cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, _I32(0), _I32(3), _I32(1)])  # to read, into all caches, data
        return context.get_dummy_value()

    @intrinsic
    def instruction(typing: Any, array: Any, place: Any) -> Any:
        return types.void(array, place), write

    return instruction


prefetch = _fetching()
