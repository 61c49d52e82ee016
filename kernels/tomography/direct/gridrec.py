"""Direct Fourier reconstruction by gridding: filtered back projection in the time of a few transforms.

The Fourier transform of a filtered projection is a line through the centre of that of the slice. All lines are spread
onto a square grid, which is transformed back; then the kernel they were spread with is divided out (O'Sullivan, IEEE
Trans. Med. Imaging 4 (1985) 200; Dowd et al., Proc. SPIE 3772 (1999) 224, who call it gridrec). Conventions, ramp,
padding and angle weights are those of `kernels.tomography.fbp`. The interpolation is exact to about 1e-4 with 5 taps
and a grid of 1.25 times the slice's length (4e-4 with 4 taps, 3e-5 with 6); voxels whose rays pass the detector's edge
get what the filter leaves there, which the back projection of `fbp` takes as 0.

Sixteen slices go together (`cells`). The lines are spread tile by tile: the sums of a tile's cells are built up in the
cache of one core, and each cell of the grid is written once, so that nearly all of the time goes into arithmetic and
into moving each number through memory once. Sums are formed in one order whatever the number of threads: the bits are
the same.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kernels.tomography.direct import steps
from kernels.tomography.direct.cells import DEGREE, LANES
from kernels.tomography.direct.fft import good_length, plan
from kernels.tomography.direct.spreading import Spreading
from kernels.tomography.fbp import angle_weights, filter_response

Floats = NDArray[np.float32]

_TAPS, _OVERSAMPLING = 5, 1.25


class Gridrec:
    """Direct reconstruction for one geometry; what it works in is kept for the next slices.

    Parameters
    ----------
    theta_deg : ndarray, shape (angles,)
        Projection angles, degrees, in any order and spacing.
    columns
        Detector width, pixels.
    axis
        Rotation axis, detector pixels from the middle of pixel 0; it may lie outside of the detector.
    window, padding, circle, scale
        As `fbp.Reconstructor` has them.
    size
        Slices are size x size, centred on the axis; `columns` when not given.
    column_weights : ndarray, shape (columns,)
        What each column counts, 1 when not given: see `kernels.tomography.direct.halves`.
    taps
        Width of the spreading kernel, grid cells: 4, 5 or 6.
    """

    def __init__(
        self,
        theta_deg: NDArray[np.float64],
        columns: int,
        *,
        axis: float,
        window: str = "ramp",
        padding: str = "zero",
        circle: bool = True,
        scale: float = 1.0,
        size: int | None = None,
        column_weights: Floats | None = None,
        taps: int = _TAPS,
    ) -> None:
        self.angles, self.columns, self.size = len(theta_deg), columns, size or columns
        self.group, self.unsettled = LANES, 0
        self._edge, self._taps = padding == "edge", taps
        theta = np.deg2rad(theta_deg)
        self._cosines, self._sines = np.cos(theta), np.sin(theta)
        self._weights = (angle_weights(theta_deg) / scale).astype(np.float32)
        ones = np.ones(columns, np.float32)
        self._column_weights = ones if column_weights is None else np.asarray(column_weights, np.float32)
        # A voxel's place on the detector and a column are at most this far apart; the filter must not wrap around.
        farthest = max(axis, columns - 1 - axis, 0.5 * columns) + 0.5 * self.size
        self._padded = good_length(math.ceil(2 * farthest))
        response = filter_response(self._padded, window) / self._padded
        both_sides = np.concatenate((response[:0:-1], response))
        both_sides[[0, -1]] *= 0.5
        self._response = both_sides.astype(np.float32)
        self._length = good_length(math.ceil(_OVERSAMPLING * self.size))
        kernel = Spreading(taps, self._length / self.size, DEGREE)
        self._kernel = kernel.table()
        self._across, self._along = plan(self._padded), plan(self._length)
        pixels = np.arange(self.size) - self.size // 2
        middle = 0.5 * (self.size - 1) - self.size // 2  # half a pixel off for even sizes
        self._shifts = axis - middle * (self._cosines + self._sines)
        self._shape = ((-1.0) ** pixels / kernel.transform(pixels / self._length)).astype(np.float32)
        self._radius = 0.5 * self.size if circle else math.inf
        self._row = (self._length + 1) * LANES  # never a power of two: a column's cells would share a few cache sets
        self._grid = self._lines = np.zeros(0, np.float32)

    @property
    def fixed_bytes(self) -> int:
        """Memory in work besides the sinograms and the slices."""
        return 4 * (self._length * self._row + self.angles * (self._padded + 1) * LANES)

    def slices(self, sinograms: Floats, out: Floats | None = None) -> Floats:
        """Reconstruct up to `LANES` slices.

        Parameters
        ----------
        sinograms : ndarray, shape (slices, angles, columns), float32
            Line integrals, in units of detector pixels.
        out : ndarray, shape (slices, size, size), float32
            Where to; a new array when not given.

        Returns
        -------
        ndarray, shape (slices, size, size), float32
            Attenuation per detector pixel.
        """
        count = sinograms.shape[0]
        if out is None:
            out = np.empty((count, self.size, self.size), np.float32)
        if not len(self._grid):
            self._grid = steps.room(self._length * self._row)
            self._lines = steps.room(self.angles * (self._padded + 1) * LANES)
        steps.filter_lines(
            _lanes(sinograms),
            (self.angles, self.columns),
            self._edge,
            self._column_weights,
            self._padded,
            *self._across,
            self._response,
            self._weights,
            self._shifts,
            self._lines,
        )
        steps.spread_lines(
            self._lines,
            self._padded,
            self._cosines,
            self._sines,
            self._taps,
            self._kernel,
            self._grid,
            self._length,
            self._row,
        )
        steps.transform_columns(self._grid, self._length, self._row, *self._along)
        whole = out if count == LANES and out.flags.c_contiguous else np.empty((LANES, *out.shape[1:]), np.float32)
        steps.finish_rows(self._grid, self._length, self._row, *self._along, self._shape, self._radius, whole.ravel())
        if whole is not out:
            out[:] = whole[:count]
        return out


def _lanes(sinograms: Floats) -> Floats:
    """Flat, with slices of 0 in the lanes that are left."""
    if sinograms.shape[0] == LANES:
        return np.ascontiguousarray(sinograms, np.float32).reshape(-1)
    whole = np.zeros((LANES, *sinograms.shape[1:]), np.float32)
    whole[: sinograms.shape[0]] = sinograms
    return whole.reshape(-1)
