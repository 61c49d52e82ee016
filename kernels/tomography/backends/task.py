"""What is asked of a package, and what is done the same for each of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class Task(NamedTuple):
    """One geometry and one algorithm; all as `kernels.tomography.methods.method` has them.

    Attributes
    ----------
    theta_deg : ndarray, shape (angles,)
        Degrees.
    columns, axis, scale
        In (binned) detector pixels, the axis from the middle of pixel 0; detector pixels to one of them.
    algorithm
        By the package's own name.
    """

    algorithm: str
    theta_deg: Doubles
    columns: int
    axis: float
    circle: bool
    iterations: int | None
    nonnegative: bool
    window: str
    padding: str
    scale: float

    def finished(self, slices: Floats) -> Floats:
        """Slices per detector pixel, and 0 outside of the circle, in place."""
        slices /= np.float32(self.scale)
        if self.circle:
            slices[:, ~circle(self.columns)] = 0
        return slices


def circle(size: int) -> NDArray[np.bool_]:
    """The voxels whose middles lie no farther than size / 2 from that of a slice: (size, size)."""
    places = np.arange(size) - 0.5 * (size - 1)
    return np.asarray(places**2 + places[:, None] ** 2 <= 0.25 * size * size)
