"""The logarithm of transmissions, in vector instructions.

A library's `log` is called number by number, which would take longer than all of a direct reconstruction. Here the
exponent is taken off a float32's bits, so that what is left lies between sqrt(1/2) and sqrt(2), and its logarithm is a
polynomial (Cephes, Moshier 1989, `logf`), good to one or two units of the last place.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled

Floats = NDArray[np.float32]

_BLOCK = 1024  # numbers that stay in the nearest cache between the loops
_ROOT_HALF_BITS = 0x3F3504F3
_ONE, _HALF = np.float32(1.0), np.float32(0.5)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_P0, _P1, _P2 = np.float32(7.0376836292e-2), np.float32(-1.1514610310e-1), np.float32(1.1676998740e-1)
_P3, _P4, _P5 = np.float32(-1.2420140846e-1), np.float32(1.4249322787e-1), np.float32(-1.6668057665e-1)
_P6, _P7, _P8 = np.float32(2.0000714765e-1), np.float32(-2.4999993993e-1), np.float32(3.3333331174e-1)


@compiled(parallel=True)
def minus_log(values: Floats, floor: np.float32) -> int:
    """-ln(max(value, floor)) in the place of each value; how many lay below the floor.

    Parameters
    ----------
    values : ndarray, float32, contiguous
        Transmissions, all finite.
    floor
        Above 0, and no subnormal number.
    """
    flat = values.reshape(-1)
    count = len(flat)
    floored = 0
    for block in prange((count + _BLOCK - 1) // _BLOCK):
        line = flat[block * _BLOCK : min((block + 1) * _BLOCK, count)]
        floored += _line(line, floor)
    return floored


@compiled()
def _line(line: Floats, floor: np.float32) -> int:
    floored = 0
    for n in range(len(line)):
        floored += line[n] < floor
        line[n] = max(line[n], floor)
    bits = line.view(np.int32)
    exponents = np.empty(len(line), np.float32)
    for n in range(len(line)):
        exponent = np.int32(bits[n] - np.int32(_ROOT_HALF_BITS)) >> np.int32(23)
        exponents[n] = np.float32(exponent)
        bits[n] = bits[n] - np.int32(exponent << np.int32(23))
    for n in range(len(line)):
        x, e = line[n] - _ONE, exponents[n]
        y = _P0 * x + _P1
        y = y * x + _P2
        y = y * x + _P3
        y = y * x + _P4
        y = y * x + _P5
        y = y * x + _P6
        y = y * x + _P7
        y = y * x + _P8
        square = x * x
        y = y * x * square + e * _LN2_LOW - _HALF * square
        line[n] = -(x + y + e * _LN2_HIGH)
    return floored
