"""Vector instructions on lanes: sixteen pixels side by side, as LLVM's own vectors of 32-bit words.

A row is 16 such words, one of each pixel. While values fit into 16 bits a word holds those of two frames that follow
each other (the earlier in the lower half), an even and an odd one counted from the start of the series: one instruction
multiplies both with those of another word and adds the two products, which is what processors have instructions for
(VPDPWSSD, VPMADDWD). Beyond that a row is the values of one frame.

Numba does not turn such loops into vector instructions by itself, since it cannot know that arrays do not overlap.
Offsets count elements of flat arrays and are not checked. All is integers, so that no order matters; `tally` has the
only floating-point numbers, and they are rounded in the same way wherever a pixel is worked out.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.xpcs.multitau import vectors
from kernels.xpcs.multitau.vectors import EIGHT, I32, I64, LONG, REAL, ROW, Code, Value, typed

LANES = vectors.LANES
WORDS = 8  # of a tally
FRACTION_BITS = 38  # of each of the two words of a moment


def _correlating(lags: int, *, odd: bool) -> Any:
    """`correlate(words, first, count, back, mask, sums, s)`: for each of `count` words from `first` on, the products
    with those `lags` lags in a row earlier; added to `lags` rows of int64 from s on.

    The first lag is 2·back, plus one if `odd`. Of the first word only what `mask` leaves is taken.
    """

    def write(code: Code) -> None:
        words, first, count, back, mask, sums, s = code.values
        builder = code.builder
        start = builder.sub(first, builder.mul(back, I64(LANES)))
        totals = [code.variable(ROW, ir.Constant(ROW, None)) for _ in range(lags)]

        def newest(index: Value, n: int) -> list[Value]:
            """What the two least lags meet, n words before."""
            late, early = (code.load(words, code.plus(code.row(start, index), -n - k)) for k in (0, 1))
            return [code.between(early, late), early] if odd else [late, code.between(early, late)]

        # What a lag meets is what the lag two less has met one word before.
        met = [code.variable(ROW, value) for n in range(1, lags // 2) for value in newest(I64(0), n)]

        def step(index: Value, taken: Value | None) -> None:
            now = code.load(words, code.row(first, index))
            if taken is not None:
                now = builder.and_(now, code.all_of(taken, ROW))
            meets = newest(index, 0) + [builder.load(place) for place in met]
            for earlier, total in zip(meets, totals, strict=True):
                builder.store(code.product(now, earlier, builder.load(total)), total)
            for place, value in zip(met, meets, strict=False):
                builder.store(value, place)

        step(I64(0), builder.trunc(mask, I32))
        with cgutils.for_range(builder, count, start=I64(1)) as loop:
            step(loop.index, None)
        for lag, total in enumerate(totals):
            code.add_to(sums, code.plus(s, lag), builder.sext(builder.load(total), LONG))

    @intrinsic
    def instruction(typing: Any, words: Any, first: Any, count: Any, back: Any, mask: Any, sums: Any, s: Any) -> Any:
        return typed(write, types.void, words, first, count, back, mask, sums, s)

    return instruction


def _correlating_wide() -> Any:
    """`correlate_wide(values, first, count, lag, sums, s)`: for each of `count` rows of values from `first` on, the
    product with the row `lag` earlier; added to the row of int64 at s."""

    def write(code: Code) -> None:
        values, first, count, lag, sums, s = code.values
        builder = code.builder
        start = builder.sub(first, builder.mul(lag, I64(LANES)))
        total = code.variable(LONG, ir.Constant(LONG, None))
        with cgutils.for_range(builder, count) as loop:
            now, earlier = (builder.zext(code.load(values, code.row(at, loop.index)), LONG) for at in (first, start))
            builder.store(builder.add(builder.load(total), builder.mul(now, earlier)), total)
        code.add_to(sums, s, builder.load(total))

    @intrinsic
    def instruction(typing: Any, values: Any, first: Any, count: Any, lag: Any, sums: Any, s: Any) -> Any:
        return typed(write, types.void, values, first, count, lag, sums, s)

    return instruction


def _halving() -> Any:
    """`halve(words, source, target, count)`: of each two words from `source` on the sums of their frames, as one word,
    from `target` on, which may be the same array as long as it is not ahead; gives the largest sum."""

    def write(code: Code) -> Value:
        words, source, target, count = code.values
        builder = code.builder
        largest = code.variable(ROW, ir.Constant(ROW, None))
        with cgutils.for_range(builder, count) as loop:
            pair = [code.load(words, code.plus(code.row(source, loop.index, 2), n)) for n in (0, 1)]
            a, b = (builder.add(code.low(word), code.high(word)) for word in pair)
            builder.store(code.larger(builder.load(largest), code.larger(a, b)), largest)
            both = builder.or_(a, builder.shl(b, code.constant(16, ROW)))
            code.store(both, words, code.row(target, loop.index))
        return code.largest(builder.load(largest))

    @intrinsic
    def instruction(typing: Any, words: Any, source: Any, target: Any, count: Any) -> Any:
        return typed(write, types.int64, words, source, target, count)

    return instruction


def _widening() -> Any:
    """`widen(words, source, values, target, count)`: the sum of the two frames of each word, as a row of values."""

    def write(code: Code) -> None:
        words, source, values, target, count = code.values
        with cgutils.for_range(code.builder, count) as loop:
            word = code.load(words, code.row(source, loop.index))
            code.store(code.builder.add(code.low(word), code.high(word)), values, code.row(target, loop.index))

    @intrinsic
    def instruction(typing: Any, words: Any, source: Any, values: Any, target: Any, count: Any) -> Any:
        return typed(write, types.void, words, source, values, target, count)

    return instruction


def _halving_wide() -> Any:
    """`halve_wide(values, source, target, count)`: as `halve`, of rows of values."""

    def write(code: Code) -> None:
        values, source, target, count = code.values
        with cgutils.for_range(code.builder, count) as loop:
            pair = [code.load(values, code.plus(code.row(source, loop.index, 2), n)) for n in (0, 1)]
            code.store(code.builder.add(*pair), values, code.row(target, loop.index))

    @intrinsic
    def instruction(typing: Any, values: Any, source: Any, target: Any, count: Any) -> Any:
        return typed(write, types.void, values, source, target, count)

    return instruction


def _packing() -> Any:
    """`pack(values, v, words, w, count)`: `count` words of two rows of values each; gives the largest value."""

    def write(code: Code) -> Value:
        values, v, words, w, count = code.values
        builder = code.builder
        largest = code.variable(ROW, ir.Constant(ROW, None))
        with cgutils.for_range(builder, count) as loop:
            a, b = (code.load(values, code.plus(code.row(v, loop.index, 2), n)) for n in (0, 1))
            builder.store(code.larger(builder.load(largest), code.larger(a, b)), largest)
            code.store(builder.or_(a, builder.shl(b, code.constant(16, ROW))), words, code.row(w, loop.index))
        return code.largest(builder.load(largest))

    @intrinsic
    def instruction(typing: Any, values: Any, v: Any, words: Any, w: Any, count: Any) -> Any:
        return typed(write, types.int64, values, v, words, w, count)

    return instruction


def _clearing() -> Any:
    """`clear(words, w, count)`: `count` rows of zeros."""

    def write(code: Code) -> None:
        words, w, count = code.values
        with cgutils.for_range(code.builder, count) as loop:
            code.store(ir.Constant(ROW, None), words, code.row(w, loop.index))

    @intrinsic
    def instruction(typing: Any, words: Any, w: Any, count: Any) -> Any:
        return typed(write, types.void, words, w, count)

    return instruction


def _unpacking() -> Any:
    """`unpack(words, w, values, v, count)`: two rows of values of each word."""

    def write(code: Code) -> None:
        words, w, values, v, count = code.values
        with cgutils.for_range(code.builder, count) as loop:
            word, at = code.load(words, code.row(w, loop.index)), code.row(v, loop.index, 2)
            code.store(code.low(word), values, at)
            code.store(code.high(word), values, code.plus(at, 1))

    @intrinsic
    def instruction(typing: Any, words: Any, w: Any, values: Any, v: Any, count: Any) -> Any:
        return typed(write, types.void, words, w, values, v, count)

    return instruction


def _taking() -> Any:
    """`take(values, v, totals, t)`: subtract a row of values from the row of int64 at t."""

    def write(code: Code) -> None:
        values, v, totals, t = code.values
        row = code.builder.zext(code.load(values, v), LONG)
        code.store(code.builder.sub(code.load(totals, t, LONG), row), totals, t)

    @intrinsic
    def instruction(typing: Any, values: Any, v: Any, totals: Any, t: Any) -> Any:
        return typed(write, types.void, values, v, totals, t)

    return instruction


def _fetching() -> Any:
    """`fetch(address)`: have that place of memory in the cache soon."""

    def write(code: Code) -> None:
        (address,) = code.values
        place = code.builder.inttoptr(address, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, I32, I32, I32])
        call = code.builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        code.builder.call(call, [place, I32(0), I32(3), I32(1)])

    @intrinsic
    def instruction(typing: Any, address: Any) -> Any:
        return typed(write, types.void, address)

    return instruction


def _reading(bits: int) -> Any:
    """`read(address, index)`: the unsigned number of so many bits at that place of memory."""

    def write(code: Code) -> Value:
        address, index = code.values
        numbers = code.builder.inttoptr(address, ir.IntType(bits).as_pointer())
        return code.builder.zext(code.builder.load(code.builder.gep(numbers, [index])), I64)

    @intrinsic
    def instruction(typing: Any, address: Any, index: Any) -> Any:
        return typed(write, types.int64, address, index)

    return instruction


def _tallying() -> Any:
    """`tally(sums, g, ends, terms, scale, table, places, shift)`: what a lag of sixteen pixels adds to their bins.

    sums[g] is a row of correlations, the two rows of `ends` the sums of the earlier and of the later frames, `terms`
    how many products there are of each. `shift` after places[lane] a bin's words of this lag begin in `table`: the
    correlation (lower 32 bits, the rest), both sums, and the first and second moment of the pixel's own g2 times
    `scale` (a power of two that makes it less than 1) as fractions (upper and lower `FRACTION_BITS`).
    """

    def write(code: Code) -> None:
        sums, g, ends, terms, scale, table, places, shift = code.values
        builder = code.builder
        unit = code.constant(2.0**FRACTION_BITS, REAL)

        def fraction(value: Value) -> list[Value]:
            large = builder.fmul(value, unit)
            whole = builder.fptosi(large, EIGHT)
            rest = builder.fmul(builder.fsub(large, builder.sitofp(whole, REAL)), unit)
            return [whole, builder.fptosi(rest, EIGHT)]

        for half in (0, LANES // 2):
            raw = code.load(sums, builder.add(g, I64(half)), EIGHT)
            earlier = code.load(ends, I64(half), EIGHT)
            later = code.load(ends, I64(LANES + half), EIGHT)
            below = builder.fmul(builder.sitofp(earlier, REAL), builder.sitofp(later, REAL))
            lit = builder.fcmp_ordered(">", below, ir.Constant(REAL, None))
            above = builder.fmul(builder.sitofp(raw, REAL), code.all_of(builder.fmul(terms, scale), REAL))
            own = builder.fdiv(above, builder.select(lit, below, code.constant(1.0, REAL)))
            rows = [
                builder.and_(raw, code.constant(0xFFFFFFFF, EIGHT)),
                builder.lshr(raw, code.constant(32, EIGHT)),
                earlier,
                later,
                *fraction(own),
                *fraction(builder.fmul(own, own)),
            ]
            for apart in (1, 2, 4):  # exchange blocks of 1, 2, 4 across the diagonal
                low = [n - apart + 8 if n & apart else n for n in range(8)]
                high = [n + 8 if n & apart else n + apart for n in range(8)]
                for n in range(8):
                    if not n & apart:
                        pair = rows[n], rows[n + apart]
                        rows[n], rows[n + apart] = (
                            builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(I32, 8), order))
                            for order in (low, high)
                        )
            for lane, words in enumerate(rows):
                place = builder.add(builder.load(builder.gep(places, [I64(half + lane)])), shift)
                code.store(builder.add(code.load(table, place, EIGHT), words), table, place)

    @intrinsic
    def instruction(
        typing: Any, sums: Any, g: Any, ends: Any, terms: Any, scale: Any, table: Any, places: Any, shift: Any
    ) -> Any:
        return typed(write, types.void, sums, g, ends, terms, scale, table, places, shift)

    return instruction


correlate4_odd, correlate4_even, correlate8_odd = (
    _correlating(4, odd=True),
    _correlating(4, odd=False),
    _correlating(8, odd=True),
)
correlate_wide, halve, halve_wide, widen = _correlating_wide(), _halving(), _halving_wide(), _widening()
pack, unpack, clear, take, tally = _packing(), _unpacking(), _clearing(), _taking(), _tallying()
read8, read16, read32, fetch = _reading(8), _reading(16), _reading(32), _fetching()
