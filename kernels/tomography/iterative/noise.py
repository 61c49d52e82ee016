"""How noisy line integrals are, from themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def noise_level(sinogram: NDArray[np.float32], weights: NDArray[np.float32] | None = None) -> float:
    """Standard deviation of the noise of a sinogram (angles, columns), where weights are positive if given.

    From the second difference of neighbouring columns, in which smooth projections cancel: its median absolute value,
    over that of a unit normal variate, over sqrt(6). Edges of the object are few and do not move a median. It is too
    low where the detector blurs the noise, and never below what the curvature of the projections leaves.
    """
    if sinogram.shape[1] < 3:
        return 0.0
    second = sinogram[:, :-2] - 2.0 * sinogram[:, 1:-1] + sinogram[:, 2:]
    if weights is not None:
        second = second[(weights[:, :-2] > 0) & (weights[:, 1:-1] > 0) & (weights[:, 2:] > 0)]
    if second.size == 0:
        return 0.0
    return float(np.median(np.abs(second))) / 0.6745 / float(np.sqrt(6.0))
