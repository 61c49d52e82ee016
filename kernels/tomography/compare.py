"""`tomography.compare`: how far a volume is from the known truth."""

from __future__ import annotations

import json
import math
from typing import Any

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.io.omezarr import open_level
from kernels.job import Job

Doubles = NDArray[np.float64]

_REACH, _BLOCK = 0.95, 8


def compare(
    job: Job,
    *,
    input: str,
    truth: str,
    output: str | None,
    rotation_axis: float | None,
    max_error: float | None,
    max_gain_error: float | None,
    max_axis_error: float | None,
) -> None:
    """Compare the volume `input` with `truth` inside 0.95 of the inscribed circle, slice by slice.

    With v the volume and t the truth there, the metrics are

    * relative_rmse: sqrt(mean((v - t)^2) / mean(t^2))
    * gain, offset: of the best straight line v = gain t + offset through the means of blocks of 8 x 8 voxels, so
      that what an edge is blurred does not count as gain
    * relative_rmse_fitted: the same error with that line taken out
    * axis_error: found minus true axis, detector pixels, when `rotation_axis` is given

    Raises
    ------
    KernelError
        Exit 3 when a figure is above its bar or the volume is not finite; 65 when shapes differ; 66 when a file is
        missing.
    """
    volume = open_level(input, "0")
    with _truth(truth) as file:
        true = file["truth/volume"]
        if tuple(volume.shape) != tuple(true.shape):
            raise KernelError(
                f"The volume has shape {tuple(volume.shape)}, the truth {tuple(true.shape)}; compare without binning.",
                Exit.BAD_INPUT,
            )
        _measure(job, volume, true)
        if rotation_axis is not None:
            job.metric("axis_error", rotation_axis - float(file["truth"].attrs["rotation_axis"]))
    if output:
        part = job.stage(output, description="error against the truth")
        part.write_text(json.dumps(job.metrics, indent=2) + "\n", encoding="ascii")
    figures = {name: float(value) for name, value in job.metrics.items()}
    for name, bar, figure in (
        ("relative RMSE", max_error, figures["relative_rmse"]),
        ("gain error", max_gain_error, abs(figures["gain"] - 1)),
        ("axis error", max_axis_error, abs(figures.get("axis_error", 0.0))),
    ):
        if bar is not None and not figure <= bar:
            raise KernelError(f"The {name} is {figure:.4g}, above the bar of {bar:g}.", Exit.BAD_OUTPUT)


def _truth(path: str) -> h5py.File:
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except FileNotFoundError as error:
        raise KernelError(f"The truth {path!r} is missing.", Exit.NO_INPUT) from error
    except OSError as error:
        raise KernelError(f"The truth {path!r} is not a readable HDF5 file.", Exit.BAD_INPUT) from error
    if not isinstance(file.get("truth/volume"), h5py.Dataset) or "rotation_axis" not in file["truth"].attrs:
        file.close()
        raise KernelError(f"The truth {path!r} has no /truth/volume with a rotation_axis.", Exit.BAD_INPUT)
    return file


def _measure(job: Job, volume: zarr.Array[Any], true: h5py.Dataset) -> None:
    layers, size = volume.shape[0], volume.shape[2]
    from_axis = np.arange(size) - 0.5 * (size - 1)
    inside = from_axis**2 + from_axis[:, None] ** 2 <= (_REACH * 0.5 * size) ** 2
    whole = _blocks(inside) == 1
    voxels, blocks = np.zeros(6), np.zeros(6)
    step = volume.chunks[0]
    for start in range(0, layers, step):
        slab = np.asarray(volume[start : start + step], np.float64)
        for layer, found in enumerate(slab, start):
            known = true[layer].astype(np.float64)
            voxels += _sums(found[inside], known[inside])
            blocks += _sums(_blocks(found)[whole], _blocks(known)[whole])
        done = start + len(slab)
        job.progress(0.95 * done / layers, "compare", f"{done}/{layers} slices")
    if not np.isfinite(voxels).all():
        raise KernelError("The volume holds values that are not finite.", Exit.BAD_OUTPUT)
    n, v1, t1, vv, vt, tt = blocks
    if n == 0 or tt - t1 * t1 / n <= 0:
        raise KernelError("The truth holds only one value, or is too small to compare.", Exit.BAD_INPUT)
    gain = (vt - v1 * t1 / n) / (tt - t1 * t1 / n)
    offset = (v1 - gain * t1) / n
    n, v1, t1, vv, vt, tt = voxels
    error = vv - 2 * vt + tt
    fitted = vv - 2 * gain * vt - 2 * offset * v1 + gain**2 * tt + 2 * gain * offset * t1 + n * offset**2
    job.metric("relative_rmse", math.sqrt(max(error, 0.0) / tt))
    job.metric("relative_rmse_fitted", math.sqrt(max(fitted, 0.0) / tt))
    job.metric("gain", float(gain))
    job.metric("offset", float(offset))


def _sums(v: Doubles, t: Doubles) -> Doubles:
    return np.array([v.size, v.sum(), t.sum(), v @ v, v @ t, t @ t])


def _blocks(values: NDArray[Any]) -> Doubles:
    """Means of blocks of `_BLOCK` x `_BLOCK`; what is left over at the end is left out."""
    count = values.shape[0] // _BLOCK
    cut = values[: count * _BLOCK, : count * _BLOCK]
    return np.asarray(cut.reshape(count, _BLOCK, count, _BLOCK).mean((1, 3)), np.float64)
