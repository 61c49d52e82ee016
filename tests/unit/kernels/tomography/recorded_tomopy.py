"""A stand-in for TomoPy 1.15: its signature, refusals and conventions, with plain sums in the place of its loops.

Conventions as in libtomo: `gridrec` has the axis at column `center` and in voxel ceil(N / 2), the iterative methods
half a column before `center` and in the middle of the slice; rows go up; all angles count alike; `fbp` does not filter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

Floats = NDArray[np.float64]

__version__ = "1.15 (stand-in)"

_GRID = ["num_gridx", "num_gridy"]
_SUBSETS = ["num_block", "ind_block"]
ALLOWED = {
    "art": [*_GRID, "num_iter"],
    "bart": [*_GRID, "num_iter", *_SUBSETS],
    "fbp": [*_GRID, "filter_name", "filter_par"],
    "gridrec": [*_GRID, "filter_name", "filter_par"],
    "mlem": [*_GRID, "num_iter"],
    "osem": [*_GRID, "num_iter", *_SUBSETS],
    "ospml_hybrid": [*_GRID, "num_iter", "reg_par", *_SUBSETS],
    "ospml_quad": [*_GRID, "num_iter", "reg_par", *_SUBSETS],
    "pml_hybrid": [*_GRID, "num_iter", "reg_par"],
    "pml_quad": [*_GRID, "num_iter", "reg_par"],
    "sirt": [*_GRID, "num_iter"],
    "tv": [*_GRID, "num_iter", "reg_par"],
    "grad": [*_GRID, "num_iter", "reg_par"],
    "tikh": [*_GRID, "num_iter", "reg_data", "reg_par"],
}
calls: list[dict[str, Any]] = []


def recon(
    tomo: NDArray[np.float32],
    theta: NDArray[np.float32],
    center: float | None = None,
    sinogram_order: bool = False,
    algorithm: str | None = None,
    init_recon: NDArray[np.float32] | None = None,
    ncore: int | None = None,
    nchunk: int | None = None,
    **kwargs: Any,
) -> NDArray[np.float32]:
    if algorithm not in ALLOWED:
        raise ValueError(f'Keyword "algorithm" must be one of {list(ALLOWED)}, or a Python method.')
    for key in kwargs:
        if key not in ALLOWED[algorithm]:
            raise ValueError(f"{key} keyword not in allowed keywords {ALLOWED[algorithm]}")
    if not sinogram_order:
        tomo = tomo.swapaxes(0, 1)
    slices, angles, columns = tomo.shape
    assert theta.shape == (angles,)
    assert np.abs(theta).max() < 10, "radians"
    size = int(kwargs.get("num_gridx", columns))
    start = np.full((slices, size, size), 1e-6, np.float32) if init_recon is None else init_recon
    assert start.shape == (slices, size, size)
    calls.append({"algorithm": algorithm, "center": center, "shape": tomo.shape, "ncore": ncore, **kwargs})
    axis = columns / 2.0 if center is None else float(center)
    if algorithm == "gridrec":
        return np.stack([_gridrec(s, theta, axis, size, kwargs) for s in tomo.astype(float)]).astype(np.float32)
    system = _system(theta, columns, size, axis)
    made = start.reshape(slices, -1).astype(float)
    for image, sinogram in zip(made, tomo.astype(float), strict=True):
        if algorithm == "fbp":
            image += system.T @ sinogram.ravel()
        else:
            within = math.isqrt(angles) if algorithm == "art" else int(kwargs.get("num_block", 1))
            _sirt(system, sinogram.ravel(), image, within * int(kwargs.get("num_iter", 1)))
    return made.reshape(slices, size, size).astype(np.float32)


def _gridrec(sinogram: Floats, theta: Floats, center: float, size: int, how: dict[str, Any]) -> Floats:
    """Filtered, without its mean, wrapped around the next power of two; gain and roll-off of the interpolation."""
    angles, columns = sinogram.shape
    padded = 1 << max(4, math.ceil(math.log2(columns)))
    assert how["filter_name"] == "custom"
    assert how["filter_par"].shape == (padded // 2,)
    response = np.append(how["filter_par"].astype(float), 0.0)
    response[0] = 0.0
    filtered = np.fft.irfft(np.fft.rfft(sinogram, padded, axis=1) * response, padded, axis=1) * np.pi / angles
    x = np.arange(size) - math.ceil(size / 2)
    y = (size - 1 - np.arange(size)) - math.ceil(size / 2)
    made = np.zeros((size, size))
    for line, t in zip(filtered, theta, strict=True):
        at = center + x * np.cos(t) + y[:, None] * np.sin(t)
        made += np.interp(at, np.arange(padded), line, period=padded)
    roll = 1.06 * (1 + 0.3 * (x / padded) ** 2)
    return 0.5 * made * roll * (1.06 * (1 + 0.3 * (y / padded) ** 2))[:, None]


def _system(theta: Floats, columns: int, size: int, center: float) -> Any:
    """What each voxel adds to each ray, by linear interpolation: sparse, (angles * columns, size * size)."""
    places = np.arange(size) - 0.5 * (size - 1)
    voxels, parts = np.arange(size * size), []
    for n, t in enumerate(theta):
        at = (center - 0.5 + places * np.cos(t) - places[:, None] * np.sin(t)).ravel()
        for column in (np.floor(at), np.floor(at) + 1):
            here = (column >= 0) & (column < columns)
            parts.append(((1 - np.abs(at - column))[here], column[here] + n * columns, voxels[here]))
    weights, rays, met = (np.concatenate(part) for part in zip(*parts, strict=True))
    return scipy.sparse.csr_array((weights, (rays.astype(int), met)), shape=(len(theta) * columns, size * size))


def _sirt(system: Any, measured: Floats, image: Floats, rounds: int) -> None:
    rows, columns = np.maximum(system.sum(1), 1e-9), np.maximum(system.sum(0), 1e-9)
    back = system.T.tocsr()
    for _ in range(rounds):
        image += back @ ((measured - system @ image) / rows) / columns
