"""The table of spots that a search gives and indexing takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.hedm.frames.source import Doubles
from kernels.hedm.frames.turns import Turn

FITTED = 32  # among the flags of `measure`: a Gaussian was fitted
# Second moments, in their order; also what a turn of the picture does to them.
MOMENTS = ("row row", "column column", "omega omega", "column omega", "row omega", "row column")


@dataclass(frozen=True)
class Spots:
    """Spots, one a row, ordered by panel, frame and place of their maxima.

    Attributes
    ----------
    panel : ndarray, shape (n,), int16
        Number of the panel.
    row, column, frame : ndarray, shape (n,), float64
        Centroid in the picture, in pixels and frames; centres are whole numbers.
    omega : ndarray, shape (n,), float64
        Centroid, radians, from -pi to pi.
    intensity, largest : ndarray, shape (n,), float64
        Sum and maximum of the counts above the dark.
    pixels, frames : ndarray, shape (n,), int32
        How many pixels above the threshold, over how many frames.
    moments : ndarray, shape (n, 6), float64
        Second moments of the pixels' centres about the centroid, in the order of `MOMENTS`; pixels and radians.
    flags : ndarray, shape (n,), uint8
        Sums of `EDGE`, `MASKED`, `CUT`, `SATURATED`, `OVERLAPPED` and `FITTED`.
    fit : ndarray, shape (n, 7), float64
        Of the Gaussian: intensity, row, column, omega, and its widths (standard deviations) in these three; NaN where
        none was fitted.
    errors : ndarray, shape (n, 7), float64
        Standard errors of `fit`.
    chi2 : ndarray, shape (n,), float64
        Reduced, of the fit.
    """

    panel: NDArray[np.int16]
    row: Doubles
    column: Doubles
    frame: Doubles
    omega: Doubles
    intensity: Doubles
    largest: Doubles
    pixels: NDArray[np.int32]
    frames: NDArray[np.int32]
    moments: Doubles
    flags: NDArray[np.uint8]
    fit: Doubles
    errors: Doubles
    chi2: Doubles

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, which: NDArray[np.bool_] | NDArray[np.integer] | slice) -> Spots:
        """The chosen rows."""
        return Spots(**{field.name: getattr(self, field.name)[which] for field in fields(self)})

    def best(self) -> Spots:
        """The same with the positions and intensities of the Gaussians where there are any."""
        good = (self.flags & FITTED) != 0
        intensity, row, column, omega = (np.where(good, self.fit[:, k], 0.0) for k in range(4))
        return replace(
            self,
            row=np.where(good, row, self.row),
            column=np.where(good, column, self.column),
            omega=np.where(good & np.isfinite(omega), omega, self.omega),
            intensity=np.where(good, intensity, self.intensity),
        )

    def turned(self, turn: Turn, *, rows: int, columns: int) -> Spots:
        """Spots in the picture, of those in frames of so many rows and columns as they are stored."""
        if not turn.codes:
            return self
        matrix, shift = turn.map(rows, columns)
        row, column = matrix @ np.stack([self.row, self.column]) + shift[:, None]
        fit, errors, moments = self.fit.copy(), self.errors.copy(), self.moments.copy()
        fit[:, 1:3] = fit[:, 1:3] @ matrix.T + shift
        swapped = np.abs(matrix)
        fit[:, 4:6] = fit[:, 4:6] @ swapped.T
        errors[:, 1:3], errors[:, 4:6] = errors[:, 1:3] @ swapped.T, errors[:, 4:6] @ swapped.T
        moments[:, :2] = moments[:, :2] @ swapped.T
        moments[:, 4:2:-1] = moments[:, 4:2:-1] @ matrix.T  # row omega, column omega
        moments[:, 5] *= matrix[0].sum() * matrix[1].sum()
        return replace(self, row=row, column=column, fit=fit, errors=errors, moments=moments)


def none() -> Spots:
    """A table without spots."""
    return Spots(
        panel=np.empty(0, np.int16),
        pixels=np.empty(0, np.int32),
        frames=np.empty(0, np.int32),
        flags=np.empty(0, np.uint8),
        moments=np.empty((0, 6)),
        fit=np.empty((0, 7)),
        errors=np.empty((0, 7)),
        **{name: np.empty(0) for name in ("row", "column", "frame", "omega", "intensity", "largest", "chi2")},
    )


def joined(tables: Sequence[Spots]) -> Spots:
    """All rows of several tables, such as those of the panels of a detector.

    Raises
    ------
    KernelError
        Exit 2 when there is no table.
    """
    if not tables:
        raise KernelError("There are no tables of spots to join.")
    return Spots(**{f.name: np.concatenate([getattr(one, f.name) for one in tables]) for f in fields(Spots)})
