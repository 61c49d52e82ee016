r"""A matched pair of projectors for parallel-beam slices: A and its exact transpose.

Distance-driven (De Man & Basu, Phys. Med. Biol. 49 (2004) 2463): the shadow of a voxel is a box of width
w = max(|cos|, |sin|) and area 1 about the voxel's coordinate on the detector, shared among the (at most two) pixels
that it covers. So each voxel weighs the same at each angle, the shadow of an even slice is even, and a pixel holds the
mean over its width, as a detector does. At two values a voxel and angle it comes as near to the true projection as the
whole trapezium with three; conjugate gradients come nearer to the truth with it than with linear interpolation between
pixels or between voxels (Joseph) where there is noise.

Geometry and units are those of `kernels.tomography.fbp`. In work, a group of `LANES` slices lies innermost in memory:

* a sinogram is (angles, columns, LANES);
* a slice is (rows, N + 2 `MARGIN`, LANES), rows being N rounded up to whole strips. Voxel (y, x) is at
  [y, MARGIN + x]; what is beyond is 0 and stays so. Voxels outside the circle, if there is one, are 0 as well.

Both directions gather, so threads write to places of their own and results do not depend on how many there are.
Forward, a thread takes a few angles, and strips of `_STRIP` rows pass by in cache; rays that run along rows meet a
transposed copy. Back, a thread takes a tile of voxels and, for each angle, a copy of the few pixels that it meets.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled, threads
from kernels.errors import KernelError
from kernels.tomography.lanes import (
    FRACTION,
    LANES,
    ONE,
    at_least,
    load,
    minus,
    one_plus_fraction,
    plus,
    scaled,
    store,
    stretch,
    times,
    zeros,
)

MARGIN = 8  # a strip of steep rays reaches up to 7 voxels beyond the row
_STRIP = 4  # unrolled by hand in `_project_strip`
_ANGLES = 8  # of a thread at a time, so that a strip comes from memory once for all of them
_TILE = 16
_WINDOW = 28  # pixels that a tile can meet: 15 sqrt(2) and 3, and some

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


class Projector:
    """The pair (A, A^T) for one geometry.

    Parameters
    ----------
    theta_deg : ndarray, shape (angles,)
        Projection angles, degrees.
    columns
        Detector width N; slices are N x N.
    axis
        Rotation axis, detector pixels from the middle of pixel 0.
    circle
        Only voxels within N / 2 of the axis are there.

    Raises
    ------
    KernelError
        Exit 2 when there are no angles, one is not finite, or the axis is off the detector.
    """

    def __init__(self, theta_deg: Doubles, columns: int, *, axis: float, circle: bool = True) -> None:
        if len(theta_deg) == 0 or not np.isfinite(theta_deg).all():
            raise KernelError("Iterative reconstruction needs at least one angle, and finite ones. Check theta.")
        if columns < 2 or not 0 <= axis <= columns - 1:
            raise KernelError(
                f"The rotation axis {axis:g} is off the detector of {columns} columns. Check rotationAxis."
            )
        self.angles, self.columns, self.axis = len(theta_deg), columns, axis
        theta = np.deg2rad(theta_deg)
        self._cosines, self._sines = np.cos(theta), np.sin(theta)
        self._all = np.arange(self.angles)
        self.radius = 0.5 * columns if circle else math.inf
        self.bounds = _bounds(columns, self.radius)
        self._turned = self.image()

    @property
    def image_bytes(self) -> int:
        """Memory of one group of slices."""
        return self._turned.nbytes

    @property
    def sinogram_bytes(self) -> int:
        """Memory of one group of sinograms."""
        return self.angles * self.columns * LANES * 4

    def image(self) -> Floats:
        """An empty group of slices in the layout of this module."""
        rows = -(-self.columns // _STRIP) * _STRIP
        return np.zeros((rows, self.columns + 2 * MARGIN, LANES), np.float32)

    def ones(self) -> Floats:
        """A group of slices of 1."""
        image = self.image()
        for row, (first, beyond) in enumerate(self.bounds):
            image[row, first:beyond] = 1.0
        return image

    def sinogram(self) -> Floats:
        """An empty group of sinograms."""
        return np.zeros((self.angles, self.columns, LANES), np.float32)

    def lanes_of(self, slices: Floats) -> Floats:
        """Up to `LANES` slices (n, N, N) as a group; voxels outside the circle become 0."""
        image = self.image()
        image[: self.columns, MARGIN:-MARGIN, : len(slices)] = np.moveaxis(slices, 0, 2)
        for row, (first, beyond) in enumerate(self.bounds):
            image[row, :first] = 0
            image[row, beyond:] = 0
        return image

    def slices_of(self, image: Floats, count: int) -> Floats:
        """The first `count` slices of a group, (count, N, N)."""
        return np.ascontiguousarray(np.moveaxis(image[: self.columns, MARGIN:-MARGIN, :count], 2, 0))

    def forward(self, image: Floats, out: Floats, chosen: Integers | None = None) -> Floats:
        """Project a group of slices; only the rows `chosen` of `out` are written. Returns `out`."""
        _turn(image, self.columns, self._turned)
        chosen = self._all if chosen is None else chosen
        _forward(
            image,
            self._turned,
            chosen,
            max(1, min(_ANGLES, len(chosen) // threads())),
            self._cosines,
            self._sines,
            self.axis,
            self.columns,
            self.radius,
            out,
        )
        return out

    def back(
        self,
        sinogram: Floats,
        out: Floats,
        chosen: Integers | None = None,
        *,
        keep: float = 0.0,
        factor: Floats | None = None,
        scale: Floats | None = None,
        floor: float = -math.inf,
    ) -> Floats:
        """The transpose of `forward`, from the rows `chosen` of a sinogram; with it the step of an iteration.

        out = max(floor, keep out + factor scale A^T sinogram), `factor` (LANES,) and `scale` (N, N) being 1 if not
        given. Returns `out`.
        """
        _back(
            sinogram,
            self._all if chosen is None else chosen,
            self._cosines,
            self._sines,
            self.axis,
            self.columns,
            self.bounds,
            np.float32(keep),
            np.ones(LANES, np.float32) if factor is None else factor,
            np.ones((1, 1), np.float32) if scale is None else scale,
            np.float32(floor),
            out,
        )
        return out


def _bounds(size: int, radius: float) -> Integers:
    """First column and the one beyond the last, in the padded layout, of the voxels of each row within the circle."""
    middle = 0.5 * (size - 1)
    bounds = np.zeros((size, 2), np.int64)
    columns = np.arange(size)
    for row in range(size):
        inside = columns[(columns - middle) ** 2 + (row - middle) ** 2 <= radius * radius]
        if len(inside):
            bounds[row] = MARGIN + inside[0], MARGIN + inside[-1] + 1
    return bounds


@compiled(parallel=True)
def _turn(image: Floats, size: int, turned: Floats) -> None:
    """Swap rows and columns, in squares that stay in cache."""
    across = (size + _TILE - 1) // _TILE
    wide = image.shape[1]
    for tile in prange(across * across):
        top, left = tile // across * _TILE, tile % across * _TILE
        for row in range(top, min(top + _TILE, size)):
            for column in range(left, min(left + _TILE, size)):
                cell = load(image, (column * wide + MARGIN + row) * LANES)
                store(turned, (row * wide + MARGIN + column) * LANES, cell)


@compiled(parallel=True, fastmath=True)
def _forward(
    image: Floats,
    turned: Floats,
    chosen: Integers,
    block: int,
    cosines: Doubles,
    sines: Doubles,
    axis: float,
    size: int,
    radius: float,
    out: Floats,
) -> None:
    for job in prange((len(chosen) + block - 1) // block):
        begin, end = job * block, min((job + 1) * block, len(chosen))
        for at in range(begin, end):
            out[chosen[at]] = 0.0
        for top in range(0, size, _STRIP):
            for at in range(begin, end):
                k = chosen[at]
                c, s = cosines[k], sines[k]
                if abs(c) >= abs(s):
                    _project_strip(image, top, c, s, axis, size, radius, k, out)
                else:
                    _project_strip(turned, top, s, c, axis, size, radius, k, out)


@compiled(fastmath=True)
def _project_strip(
    image: Floats, top: int, c: float, s: float, axis: float, size: int, radius: float, k: int, out: Floats
) -> None:
    """Add what `_STRIP` rows cast onto projection k. |c| >= |s|: along a row a pixel sees 1 / |c| voxels."""
    columns, wide = out.shape[1], image.shape[1]
    y = top - 0.5 * (size - 1)
    nearest = max(0.0, max(y, -y - (_STRIP - 1)))
    if nearest > radius:
        return
    chord = min(0.5 * size, math.sqrt(max(0.0, radius * radius - nearest * nearest)) + 0.5)
    reach = chord * abs(c) + 0.5
    ends = axis + y * s, axis + (y + _STRIP - 1) * s
    first = max(0, math.ceil(min(ends) - reach))
    beyond = min(columns, math.floor(max(ends) + reach) + 1)
    width = np.float32(1.0 / abs(c))
    left = (first - axis - y * s) / c - 0.5 / abs(c) + 0.5 * size + MARGIN
    along, down = np.int64(ONE / c), np.int64(-s / c * ONE)
    x0 = np.int64(left * ONE)
    x1 = x0 + down
    x2 = x1 + down
    x3 = x2 + down
    row0 = top * wide
    row1, row2, row3 = row0 + wide, row0 + 2 * wide, row0 + 3 * wide
    two = np.float32(2.0)
    for i in range(first, beyond):
        place = (k * columns + i) * LANES
        total = load(out, place)
        total = plus(total, stretch(image, (row0 + (x0 >> FRACTION)) * LANES, two - one_plus_fraction(x0), width))
        total = plus(total, stretch(image, (row1 + (x1 >> FRACTION)) * LANES, two - one_plus_fraction(x1), width))
        total = plus(total, stretch(image, (row2 + (x2 >> FRACTION)) * LANES, two - one_plus_fraction(x2), width))
        total = plus(total, stretch(image, (row3 + (x3 >> FRACTION)) * LANES, two - one_plus_fraction(x3), width))
        store(out, place, total)
        x0 += along
        x1 += along
        x2 += along
        x3 += along


@compiled(parallel=True, fastmath=True)
def _back(
    sinogram: Floats,
    chosen: Integers,
    cosines: Doubles,
    sines: Doubles,
    axis: float,
    size: int,
    bounds: Integers,
    keep: np.float32,
    factor: Floats,
    scale: Floats,
    floor: np.float32,
    out: Floats,
) -> None:
    across = (size + _TILE - 1) // _TILE
    wide = out.shape[1]
    for tile in prange(across * across):
        top, left = tile // across * _TILE, tile % across * _TILE
        first, beyond = size + MARGIN, 0
        for row in range(top, min(top + _TILE, size)):
            first, beyond = min(first, bounds[row, 0]), max(beyond, bounds[row, 1])
        if max(first, left + MARGIN) < min(beyond, left + _TILE + MARGIN):
            sums = np.zeros((_TILE * _TILE, LANES), np.float32)
            _gather(sinogram, chosen, cosines, sines, axis, size, top, left, sums)
            factors = load(factor, 0)
            for row in range(top, min(top + _TILE, size)):
                begin, end = max(bounds[row, 0], left + MARGIN), min(bounds[row, 1], left + _TILE + MARGIN)
                for column in range(begin, end):
                    total = load(sums, ((row - top) * _TILE + column - MARGIN - left) * LANES)
                    weight = scale[row, column - MARGIN] if len(scale) > 1 else np.float32(1.0)
                    step = scaled(weight, times(factors, total))
                    place = (row * wide + column) * LANES
                    if keep != 0:
                        step = plus(scaled(keep, load(out, place)), step)
                    store(out, place, at_least(step, floor))


@compiled(fastmath=True)
def _gather(
    sinogram: Floats,
    chosen: Integers,
    cosines: Doubles,
    sines: Doubles,
    axis: float,
    size: int,
    top: int,
    left: int,
    sums: Floats,
) -> None:
    """Sum for the voxels of a tile what their shadows take from the projections `chosen`."""
    columns, middle = sinogram.shape[1], 0.5 * (size - 1)
    window = np.zeros((_WINDOW, LANES), np.float32)
    for at in range(len(chosen)):
        k = chosen[at]
        c, s = cosines[k], sines[k]
        width = max(abs(c), abs(s))
        # Where the shadow of the tile's first voxel begins, pixels counted from their edges.
        begin = axis + (left - middle) * c + (top - middle) * s - 0.5 * width + 0.5
        lowest = math.floor(begin + (min(c, 0.0) + min(s, 0.0)) * (_TILE - 1))
        for i in range(_WINDOW):
            pixel = lowest + i
            store(window, i * LANES, load(sinogram, (k * columns + pixel) * LANES) if 0 <= pixel < columns else zeros())
        start, along, down = np.int64((begin - lowest) * ONE), np.int64(c * ONE), np.int64(s * ONE)
        # The part of the shadow beyond the first pixel is (fraction + width - 1) / width, if positive.
        slope = np.float32(1.0 / width)
        offset = np.float32(1.0) - slope - slope
        for row in range(_TILE):
            position = start + row * down
            for column in range(_TILE):
                part = max(np.float32(0.0), one_plus_fraction(position) * slope + offset)
                pixel = (position >> FRACTION) * LANES
                here = load(window, pixel)
                share = plus(here, scaled(part, minus(load(window, pixel + LANES), here)))
                place = (row * _TILE + column) * LANES
                store(sums, place, plus(load(sums, place), share))
                position += along
