"""Fast Fourier transforms of rows of cells: mixed radix, not in place (Stockham), an instruction for all slices.

The steps are those of FFTPACK (Swarztrauber, Vectorizing the FFTs, in Parallel Computations, 1982): before a step of
radix r the length n is split into `done` x r x `rest`; after it the r is part of `done`, and no step has to reorder.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.tomography.direct.cells import (
    LANES,
    butterfly2,
    butterfly3,
    butterfly4,
    butterfly5,
    butterfly8,
    last2,
    last3,
    last4,
    last5,
    last8,
)

Floats = NDArray[np.float32]
_RADICES = (8, 4, 2, 3, 5)


class Plan(NamedTuple):
    """A transform of one length: its steps' radices, and the factors of each but the last, (rest, r - 1) complex."""

    radices: NDArray[np.int64]
    factors: Floats


def good_length(least: int) -> int:
    """The shortest length from `least` on that has no factors but 2, 3 and 5, and is a multiple of 16."""
    length = -(-least // 16) * 16
    while True:
        left = length
        for prime in (2, 3, 5):
            while left % prime == 0:
                left //= prime
        if left == 1:
            return length
        length += 16


def plan(length: int) -> Plan:
    """Of a length without factors but 2, 3 and 5."""
    radices, left = [], length
    for radix in _RADICES:
        while left % radix == 0:
            radices.append(radix)
            left //= radix
    if left != 1:
        raise ValueError(f"{length} has another factor than 2, 3 and 5")
    factors, done = [], 1
    for radix in radices:
        rest = length // (done * radix)
        power = np.outer(np.arange(rest), np.arange(1, radix)) * done
        turns = np.exp(-2j * np.pi * power / length).astype(np.complex64)
        factors.append(turns.ravel().view(np.float32))
        done *= radix
    return Plan(np.array(radices, np.int64), np.concatenate(factors))


@compiled()
def transform(
    length: int,
    radices: NDArray[np.int64],
    factors: Floats,
    source: Floats,
    start: int,
    step: int,
    target: Floats,
    first: int,
    stride: int,
    spare: Floats,
    inverse: bool,
) -> None:
    """Transform the cells of `source` at start, start + step, … into those of `target` at first, first + stride, ….

    `spare` holds 2 x length cells. Source and target may be the same cells when there are two steps or more. Neither
    direction divides by the length. All offsets count float32.
    """
    swap = LANES // 2 if inverse else 0
    done, t = 1, 0
    for n in range(len(radices)):
        radix = radices[n]
        rest = length // (done * radix)
        begin, end = n == 0, n == len(radices) - 1
        here, beyond = (n + 1) % 2 * length * LANES, n % 2 * length * LANES
        i0, i_unit = (start, step) if begin else (here, LANES)
        o0, o_unit = (first, stride) if end else (beyond, LANES)
        if begin and end:
            _step(radix, done, rest, source, i0, i_unit, target, o0, o_unit, factors, t, swap)
        elif begin:
            _step(radix, done, rest, source, i0, i_unit, spare, o0, o_unit, factors, t, swap)
        elif end:
            _step(radix, done, rest, spare, i0, i_unit, target, o0, o_unit, factors, t, swap)
        else:
            _step(radix, done, rest, spare, i0, i_unit, spare, o0, o_unit, factors, t, swap)
        t += rest * (radix - 1) * 2
        done *= radix


@compiled()
def _step(
    radix: int,
    done: int,
    rest: int,
    source: Floats,
    i0: int,
    i_unit: int,
    target: Floats,
    o0: int,
    o_unit: int,
    factors: Floats,
    t: int,
    swap: int,
) -> None:
    """One step: element (d, j, q) of (done, radix, rest) goes to (j, d, q) of (radix, done, rest)."""
    i_step, o_step, turns = rest * i_unit, done * rest * o_unit, 2 * (radix - 1)
    for d in range(done):
        i, o = i0 + d * radix * rest * i_unit, o0 + d * rest * o_unit
        if rest == 1:
            if radix == 8:
                last8(source, i, i_step, target, o, o_step, factors, t, swap)
            elif radix == 4:
                last4(source, i, i_step, target, o, o_step, factors, t, swap)
            elif radix == 5:
                last5(source, i, i_step, target, o, o_step, factors, t, swap)
            elif radix == 3:
                last3(source, i, i_step, target, o, o_step, factors, t, swap)
            else:
                last2(source, i, i_step, target, o, o_step, factors, t, swap)
        elif radix == 8:
            for q in range(rest):
                butterfly8(source, i + q * i_unit, i_step, target, o + q * o_unit, o_step, factors, t + q * turns, swap)
        elif radix == 4:
            for q in range(rest):
                butterfly4(source, i + q * i_unit, i_step, target, o + q * o_unit, o_step, factors, t + q * turns, swap)
        elif radix == 5:
            for q in range(rest):
                butterfly5(source, i + q * i_unit, i_step, target, o + q * o_unit, o_step, factors, t + q * turns, swap)
        elif radix == 3:
            for q in range(rest):
                butterfly3(source, i + q * i_unit, i_step, target, o + q * o_unit, o_step, factors, t + q * turns, swap)
        else:
            for q in range(rest):
                butterfly2(source, i + q * i_unit, i_step, target, o + q * o_unit, o_step, factors, t + q * turns, swap)
