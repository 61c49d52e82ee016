"""The four passes of gridding over all of the data, each shared by all threads."""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.tomography.direct.cells import (
    LANES,
    put,
    rotate,
    settle,
    spread4,
    spread5,
    spread6,
    turn,
    turn_back,
    weigh,
)
from kernels.tomography.direct.fft import transform

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

TILE = 64  # with what its taps reach it fits into the cache of a core
_BLOCK = 16  # projections, columns or rows that a thread takes at once
_TABLE = 64


@compiled()
def room(count: int) -> Floats:
    """Room for `count` float32 numbers that begins with a cache line: cells that lay across two would cost twice."""
    whole = np.empty(count + LANES, np.float32)
    first = -(whole.ctypes.data // 4) % LANES
    return whole[first : first + count]


@compiled(parallel=True)
def filter_lines(
    sinograms: Floats,
    shape: tuple[int, int],
    edge: bool,
    columns_weights: Floats,
    padded: int,
    radices: Integers,
    factors: Floats,
    response: Floats,
    weights: Floats,
    shifts: Doubles,
    lines: Floats,
) -> None:
    """Fill `lines`, cells (angles, padded + 1), with the transforms of the filtered projections.

    `sinograms` is (LANES, *shape), flat, shape (angles, columns). Frequencies go from -padded / 2 to padded / 2;
    `response` is that of the filter there, `weights` and `shifts` are one per angle, the latter where the axis is.
    """
    angles, columns = shape
    half = padded // 2
    for block in prange((angles + _BLOCK - 1) // _BLOCK):
        cells, spare = room(padded * LANES), room(2 * padded * LANES)
        reals, imaginaries = np.empty(padded + 1, np.float32), np.empty(padded + 1, np.float32)
        for k in range(block * _BLOCK, min((block + 1) * _BLOCK, angles)):
            _take(sinograms, angles, columns, k, columns_weights, cells)
            cells[columns * LANES :] = 0
            if edge:
                _continue(cells, columns, padded)
            transform(padded, radices, factors, cells, 0, LANES, cells, 0, LANES, spare, False)
            _phases(shifts[k] / padded, padded, weights[k], response, reals, imaginaries)
            o = k * (padded + 1) * LANES
            for n in range(half):
                rotate(cells, (n + half) * LANES, lines, o + n * LANES, reals[n], imaginaries[n])
            for n in range(half, padded + 1):
                # the last is the first again: the highest frequency counts half on either side
                rotate(cells, (n - half) * LANES, lines, o + n * LANES, reals[n], imaginaries[n])
        settle()


@compiled()
def _take(sinograms: Floats, angles: int, columns: int, k: int, weights: Floats, cells: Floats) -> None:
    """Projection k of all slices as cells."""
    step, whole = angles * columns, columns // 8 * 8
    for lanes in range(0, LANES, 8):
        for c in range(0, whole, 8):
            turn(sinograms, lanes * step + k * columns + c, step, cells, c * LANES + lanes, LANES, weights, c)
    for c in range(whole, columns):
        for lane in range(LANES):
            cells[c * LANES + lane] = sinograms[lane * step + k * columns + c] * weights[c]


@compiled()
def _continue(cells: Floats, columns: int, padded: int) -> None:
    """Go on beyond both ends with the mean of the outermost 4 columns, tapering to 0 over the padding."""
    width, extra = min(4, columns), padded - columns
    for lane in range(LANES):
        left, right = np.float32(0.0), np.float32(0.0)
        for c in range(width):
            left += cells[c * LANES + lane] / width
            right += cells[(columns - 1 - c) * LANES + lane] / width
        for c in range(extra):
            taper = np.float32(0.5 + 0.5 * math.cos(math.pi * (c + 1) / (extra + 1)))
            cells[(columns + c) * LANES + lane] = right * taper + left * (np.float32(1) - taper)


@compiled()
def _phases(turns: float, padded: int, weight: float, response: Floats, reals: Floats, imaginaries: Floats) -> None:
    """exp(2 pi i turns k) x weight x response, k from -padded / 2 to padded / 2."""
    fine_real, fine_imaginary = np.empty(_TABLE, np.float32), np.empty(_TABLE, np.float32)
    for n in range(_TABLE):
        fine_real[n] = math.cos(2 * math.pi * turns * n)
        fine_imaginary[n] = math.sin(2 * math.pi * turns * n)
    for start in range(0, padded + 1, _TABLE):
        angle = 2 * math.pi * turns * (start - padded // 2)
        real, imaginary = np.float32(math.cos(angle) * weight), np.float32(math.sin(angle) * weight)
        for n in range(min(_TABLE, padded + 1 - start)):
            r = response[start + n]
            reals[start + n] = r * (real * fine_real[n] - imaginary * fine_imaginary[n])
            imaginaries[start + n] = r * (real * fine_imaginary[n] + imaginary * fine_real[n])


@compiled(parallel=True)
def spread_lines(
    lines: Floats,
    padded: int,
    cosines: Doubles,
    sines: Doubles,
    taps: int,
    kernel: Floats,
    grid: Floats,
    length: int,
    row: int,
) -> None:
    """Fill `grid`, length x length cells whose rows lie `row` apart, frequency 0 in its middle."""
    across = (length + TILE - 1) // TILE
    for tile in prange(across * across):
        down, right = tile // across * TILE, tile % across * TILE
        width = TILE + 2 * (taps - 1)
        buffer = room(width * width * LANES)
        buffer[:] = 0
        most = int(1.5 * width * padded / length) + 8
        places, weights = np.empty(most, np.int64), room(most * 16)
        # The grid is a period of what it stands for: what lies beyond an end belongs to the other.
        for wrap in range(9):
            top = down - length // 2 + (wrap // 3 - 1) * length - taps + 1
            left = right - length // 2 + (wrap % 3 - 1) * length - taps + 1
            _spread_tile(lines, padded, cosines, sines, taps, kernel, length, top, left, width, places, weights, buffer)
        for r in range(min(TILE, length - down)):
            s, o = ((r + taps - 1) * width + taps - 1) * LANES, (down + r) * row + right * LANES
            for n in range(min(TILE, length - right)):
                put(buffer, s + n * LANES, grid, o + n * LANES)
        settle()


@compiled()
def _spread_tile(
    lines: Floats,
    padded: int,
    cosines: Doubles,
    sines: Doubles,
    taps: int,
    kernel: Floats,
    length: int,
    top: int,
    left: int,
    width: int,
    places: Integers,
    weights: Floats,
    buffer: Floats,
) -> None:
    """Add to `buffer`, width x width cells, all samples whose first tap lies in it, `taps` - 1 off its far edges."""
    half, ratio, reach = padded // 2, length / padded, 0.5 * taps
    beyond, edge = width - taps + 1, 0.5 * length + taps
    if top > edge or left > edge or top + beyond < -edge or left + beyond < -edge:
        return
    for k in range(len(cosines)):
        du, dv = ratio * cosines[k], ratio * sines[k]
        first, last = _within(du, left + reach - 1, left + beyond + reach, -half, half)
        first, last = _within(dv, top + reach - 1, top + beyond + reach, first, last)
        while first <= last and not _meets(first, du, dv, reach, left, top, beyond):
            first += 1
        while first <= last and not _meets(last, du, dv, reach, left, top, beyond):
            last -= 1
        count = last - first + 1
        for n in range(count):
            u, v = (first + n) * du - reach, (first + n) * dv - reach
            column, line = math.ceil(u), math.ceil(v)
            places[n] = ((int(line) - top) * width + int(column) - left) * LANES
            weigh(kernel, np.float32(2 * (column - u) - 1), weights, n * 16)
            weigh(kernel, np.float32(2 * (line - v) - 1), weights, n * 16 + 8)
        s = (k * (padded + 1) + half + first) * LANES
        if taps == 4:
            for n in range(count):
                spread4(buffer, places[n], width * LANES, lines, s + n * LANES, weights, n * 16, n * 16 + 8)
        elif taps == 5:
            for n in range(count):
                spread5(buffer, places[n], width * LANES, lines, s + n * LANES, weights, n * 16, n * 16 + 8)
        else:
            for n in range(count):
                spread6(buffer, places[n], width * LANES, lines, s + n * LANES, weights, n * 16, n * 16 + 8)


@compiled()
def _within(step: float, low: float, high: float, first: int, last: int) -> tuple[int, int]:
    """The whole n from first to last with low <= n step <= high, and perhaps one more on either side."""
    if abs(step) < 1e-9:  # n step is 0 to all purposes
        return (first, last) if low <= 0.0 <= high else (1, 0)
    a, b = low / step, high / step
    if a > b:
        a, b = b, a
    return max(first, math.floor(max(a, -1e9))), min(last, math.ceil(min(b, 1e9)))


@compiled()
def _meets(n: int, du: float, dv: float, reach: float, left: int, top: int, beyond: int) -> bool:
    column, line = math.ceil(n * du - reach), math.ceil(n * dv - reach)
    return left <= column < left + beyond and top <= line < top + beyond


@compiled(parallel=True)
def transform_columns(grid: Floats, length: int, row: int, radices: Integers, factors: Floats) -> None:
    """Each column's inverse transform, in its place."""
    for block in prange((length + _BLOCK - 1) // _BLOCK):
        spare = room(2 * length * LANES)
        for c in range(block * _BLOCK, min((block + 1) * _BLOCK, length)):
            transform(length, radices, factors, grid, c * LANES, row, grid, c * LANES, row, spare, True)


@compiled(parallel=True)
def finish_rows(
    grid: Floats, length: int, row: int, radices: Integers, factors: Floats, shape: Floats, radius: float, out: Floats
) -> None:
    """Each row's inverse transform, times `shape` in both directions, into `out`, (LANES, size, size) and flat.

    What lies farther than `radius` from the middle is 0.
    """
    size = len(shape)
    before, middle = size // 2, 0.5 * (size - 1)
    for block in prange((size + _BLOCK - 1) // _BLOCK):
        spare, cells = room(2 * length * LANES), room(length * LANES)
        weights = np.empty(size, np.float32)
        for y in range(block * _BLOCK, min((block + 1) * _BLOCK, size)):
            at = (y - before + length) % length
            transform(length, radices, factors, grid, at * row, LANES, cells, 0, LANES, spare, True)
            for x in range(size):
                inside = (x - middle) ** 2 + (y - middle) ** 2 <= radius * radius
                weights[x] = shape[y] * shape[x] if inside else np.float32(0.0)
            _give(cells, length - before, 0, before, weights, out, y * size, size * size)
            _give(cells, -before, before, size, weights, out, y * size, size * size)


@compiled()
def _give(cells: Floats, shift: int, start: int, stop: int, weights: Floats, out: Floats, o: int, plane: int) -> None:
    """Cells start + shift to stop + shift, times the weights, to columns start to stop of a row of each slice."""
    whole = start + (stop - start) // 8 * 8
    for lanes in range(0, LANES, 8):
        for x in range(start, whole, 8):
            turn_back(cells, (x + shift) * LANES + lanes, LANES, out, o + lanes * plane + x, plane, weights, x)
    for x in range(whole, stop):
        for lane in range(LANES):
            out[o + lane * plane + x] = cells[(x + shift) * LANES + lane] * weights[x]
