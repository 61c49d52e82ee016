"""How noisy line integrals are, from themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_DIFFERENCE = (1.0, -4.0, 6.0, -4.0, 1.0)


def noise_level(sinogram: NDArray[np.float32], weights: NDArray[np.float32] | None = None) -> float:
    """Standard deviation of the noise of a sinogram (angles, columns), where weights are positive if given.

    From the fourth difference of neighbouring columns, in which smooth projections cancel: its median absolute value,
    over that of a unit normal variate, over the root of the sum of its squared coefficients. Edges of the object are
    few and do not move a median. It is too low where the detector blurs the noise.
    """
    if sinogram.shape[1] < len(_DIFFERENCE):
        return 0.0
    width = sinogram.shape[1] - len(_DIFFERENCE) + 1
    fourth = np.zeros((len(sinogram), width), np.float32)
    for i, factor in enumerate(_DIFFERENCE):
        fourth += np.float32(factor) * sinogram[:, i : i + width]
    if weights is not None:
        fourth = fourth[np.min([weights[:, i : i + width] for i in range(len(_DIFFERENCE))], 0) > 0]
    if fourth.size == 0:
        return 0.0
    return float(np.median(np.abs(fourth))) / 0.6745 / float(np.linalg.norm(_DIFFERENCE))
