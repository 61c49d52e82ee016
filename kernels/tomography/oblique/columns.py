r"""Back projection by columns of voxels: each along the axis, seen along one detector column.

Numbers of a detector column lie side by side in memory, and so do the sums of a column of voxels while it is in work.
`LANES` voxels at a time meet a stretch of the detector column in even steps. Rather than to gather two rows for each
voxel, all rows of the stretch pass, one shift at a time, each with the weight that linear interpolation gives it (a hat
about the voxel's row, 0 nearly everywhere): loads are of neighbours, and nothing depends on the vector instructions
that a processor has. A step of 1 takes two shifts, one within a seventh of it three.

Each sum has one order, that of the angles, also when they come block by block; a group of lanes begins at the same
voxels whatever the slab. So the volume is the same bit by bit for any number of threads, slabs and blocks.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.tomography.lanes import (
    FRACTION,
    LANES,
    ONE,
    hat,
    load,
    minus,
    one_plus_fraction,
    plus,
    ramp,
    scaled,
    store,
    times,
)
from kernels.tomography.oblique.geometry import Mapping, look

_TILE = 8  # columns of voxels: with their sums and the detector columns they meet, they fit into the nearest cache
_TALL = 128  # voxels of a column at a time: what is worked out once for each costs as much as thirty of them

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class Window(NamedTuple):
    """The detector rows `start` to `stop` that are held, with `margin` zeros before and after them, of `rows`."""

    start: int
    stop: int
    margin: int
    rows: int

    @property
    def length(self) -> int:
        return self.stop - self.start + 2 * self.margin


def margin_of(most_step: float) -> int:
    """Rows beyond the window that the lanes of a group which only touches it may meet, at up to this step."""
    return 4 + math.ceil(LANES * max(1.0, most_step))


def by_columns(frames: Floats, window: Window) -> Floats:
    """Filtered values (rows, angles, columns) of a window's rows, laid out for `back_project`: flat, of the shape
    (angles, columns + 2, window.length), with zeros about them."""
    _, angles, columns = frames.shape
    turned = np.zeros((angles, columns + 2, window.length), np.float32)
    _turn(frames, window.margin, turned)
    return turned


@compiled(parallel=True)
def _turn(frames: Floats, margin: int, turned: Floats) -> None:
    rows, angles, columns = frames.shape
    for k in prange(angles):
        for first in range(0, columns, 16):
            for row in range(rows):
                for c in range(first, min(first + 16, columns)):
                    turned[k, c + 1, margin + row] = frames[row, k, c]


@compiled(parallel=True)
def back_project(
    turned: Floats,
    window: Window,
    cosines: Doubles,
    sines: Doubles,
    mapping: Mapping,
    radius: float,
    first: float,
    begun: int,
    volume: Floats,
) -> None:
    """Add to `volume` (layers, size, size) what voxels up to `radius` from the axis see in some projections.

    Parameters
    ----------
    turned
        As `by_columns` gives them.
    first
        Z of the first layer. Layers begin a group of lanes every `LANES` from here.
    """
    layers, size, _ = volume.shape
    middle = 0.5 * (size - 1)
    across = (size + _TILE - 1) // _TILE
    tall = (layers + _TALL - 1) // _TALL
    flat = turned.reshape(-1)
    held = turned.shape[1], turned.shape[2]
    for job in prange(tall * across * across):
        low, tile = job // (across * across) * _TALL, job % (across * across)
        top, left = tile // across * _TILE, tile % across * _TILE
        high = min(low + _TALL, layers)
        groups = (begun + low) // LANES, (begun + high + LANES - 1) // LANES
        sums = np.zeros(_TILE * _TILE * _TALL, np.float32)
        _fetch(volume, low, high, top, left, sums)
        for k in range(len(cosines)):
            for cell in range(_TILE * _TILE):
                x, y = left + cell % _TILE - middle, top + cell // _TILE - middle
                if x * x + y * y > radius * radius:
                    continue
                sight = look(mapping, x, y, cosines[k], sines[k])
                _add_column(flat, k, held, window, sight, first, groups, sums, cell * _TALL)
        _keep(volume, low, high, top, left, sums)


@compiled()
def _add_column(
    flat: Floats,
    k: int,
    held: tuple[int, int],
    window: Window,
    sight: tuple[float, float, float, float],
    first: float,
    groups: tuple[int, int],
    sums: Floats,
    place: int,
) -> None:
    """Add to the sums from `place` on what these groups of lanes see in projection k; group 0 begins at Z = `first`."""
    column, row, step, magnified = sight
    columns, length = held
    if not -1.0 < column < columns - 2.0:
        return
    left = int(column + 1.0)
    beside = np.float32(column + 1.0 - left)
    weight = np.float32(magnified * magnified)
    origin = (k * columns + left) * length + window.margin - window.start
    slope = np.float32(step - 1.0)
    stretch = (LANES - 1) * (step - 1.0)
    least = math.floor(min(0.0, stretch))
    shifts = math.ceil(1.0 + max(0.0, stretch)) - least + 1
    nearest, ones = np.float32(1.0 + least), ramp(np.float32(1.0), np.float32(0.0))
    lowest = -2 - math.ceil((LANES - 1) * step)  # the last lane just reaches the first row
    stride = int(LANES * step * ONE)
    at = math.floor((row + first * step) * ONE) + groups[0] * stride
    o = place
    for _ in range(groups[0], groups[1]):
        whole = at >> FRACTION
        if lowest <= whole < window.rows:
            where = ramp(one_plus_fraction(at) - nearest, slope)
            here = origin + whole + least
            share = hat(where)
            one, other = times(share, load(flat, here)), times(share, load(flat, here + length))
            where = minus(where, ones)
            share = hat(where)
            one = plus(one, times(share, load(flat, here + 1)))
            other = plus(other, times(share, load(flat, here + length + 1)))
            for shift in range(2, shifts):
                where = minus(where, ones)
                share = hat(where)
                one = plus(one, times(share, load(flat, here + shift)))
                other = plus(other, times(share, load(flat, here + length + shift)))
            seen = plus(one, scaled(beside, minus(other, one)))
            store(sums, o, plus(load(sums, o), scaled(weight, seen)))
        at += stride
        o += LANES


@compiled()
def _fetch(volume: Floats, low: int, high: int, top: int, left: int, sums: Floats) -> None:
    size = volume.shape[1]
    for z in range(low, high):
        for row in range(top, min(top + _TILE, size)):
            for column in range(left, min(left + _TILE, size)):
                sums[((row - top) * _TILE + column - left) * _TALL + z - low] = volume[z, row, column]


@compiled()
def _keep(volume: Floats, low: int, high: int, top: int, left: int, sums: Floats) -> None:
    size = volume.shape[1]
    for z in range(low, high):
        for row in range(top, min(top + _TILE, size)):
            for column in range(left, min(left + _TILE, size)):
                volume[z, row, column] = sums[((row - top) * _TILE + column - left) * _TALL + z - low]
