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
from kernels.tomography.direct.cells import LANES
from kernels.tomography.direct.fft import plan
from kernels.tomography.direct.tables import TAPS, tables

Floats = NDArray[np.float32]


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
        taps: int = TAPS,
    ) -> None:
        self._tables = made = tables(
            theta_deg,
            columns,
            axis=axis,
            window=window,
            padding=padding,
            circle=circle,
            scale=scale,
            size=size,
            column_weights=column_weights,
            taps=taps,
        )
        self.angles, self.columns, self.size = made.angles, made.columns, made.size
        self.group, self.unsettled = LANES, 0
        self._across, self._along = plan(made.padded), plan(made.length)
        self._radius = 0.5 * self.size if circle else math.inf
        self._row = (made.length + 1) * LANES  # never a power of two: a column's cells would share a few cache sets
        self._grid = self._lines = np.zeros(0, np.float32)

    @property
    def fixed_bytes(self) -> int:
        """Memory in work besides the sinograms and the slices."""
        return 4 * (self._tables.length * self._row + self.angles * (self._tables.padded + 1) * LANES)

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
        count, of = sinograms.shape[0], self._tables
        if out is None:
            out = np.empty((count, self.size, self.size), np.float32)
        if not len(self._grid):
            self._grid = steps.room(of.length * self._row)
            self._lines = steps.room(self.angles * (of.padded + 1) * LANES)
        steps.filter_lines(
            _lanes(sinograms),
            (self.angles, self.columns),
            of.edge,
            of.column_weights,
            of.padded,
            *self._across,
            of.response,
            of.weights,
            of.shifts,
            self._lines,
        )
        steps.spread_lines(
            self._lines,
            of.padded,
            of.cosines,
            of.sines,
            of.taps,
            of.kernel,
            self._grid,
            of.length,
            self._row,
        )
        steps.transform_columns(self._grid, of.length, self._row, *self._along)
        whole = out if count == LANES and out.flags.c_contiguous else np.empty((LANES, *out.shape[1:]), np.float32)
        steps.finish_rows(self._grid, of.length, self._row, *self._along, of.shape, self._radius, whole.ravel())
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
