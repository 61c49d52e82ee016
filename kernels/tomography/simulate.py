"""`tomography.simulate`: a scan as a detector would write it, of an object that is known exactly."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import threads
from kernels.errors import KernelError
from kernels.io.nexus import new_file
from kernels.job import Job
from kernels.tomography import phantom
from kernels.tomography.direct.halves import halves, is_half_acquisition
from kernels.tomography.oblique import rays
from kernels.tomography.oblique.geometry import Geometry, distance_of

_SLAB = 8
_TALL = 0.35  # half the height of an object that is to be seen whole, in detector heights
_DARK_LEVEL, _READ_NOISE, _FULL = 100.0, 2.0, 65535


def simulate(
    job: Job,
    *,
    output: str,
    columns: int,
    rows: int,
    angles: int,
    turn: float,
    axis_offset: float,
    source_distance: float | None,
    detector_distance: float | None,
    pixel_size: float | None,
    tilt: float,
    rotation: str,
    photons: float,
    absorption: float,
    noise: bool,
    stripes: float,
    dead_pixels: float,
    beam_drift: float,
    flats: int,
    seed: int,
) -> None:
    """Write a DXchange scan to `output` and its truth to `<stem>_truth.h5`.

    The counts of pixel p in projection k are Poisson(I_p d_k g_p exp(-L)) + dark, where I_p is a beam profile with a
    fixed pattern, d_k the drift, g_p = 1 + `stripes` * normal the change of the pixel's gain since the flats, and L
    the exact line integral. Memory is bounded by `_SLAB` detector rows. Each row draws from its own random stream, so
    the file depends only on the arguments.

    The truth holds /truth/volume (rows, size, size) float32, density per pixel, centred on the axis, as wide as the
    slices that `tomography.reconstruct` makes; /truth/objects (parts, 8), and the attribute `rotation_axis` of /truth.

    With a cone beam or a tilted axis the object is no taller than what is in view, and L the mean of exact line
    integrals over the pixel; density and truth are per pixel as it is seen at the axis.

    Raises
    ------
    KernelError
        Exit 2 when the axis leaves less than a quarter of the detector's width at a side, or, over a full turn, none,
        and for a geometry that cannot be; 73 and 74 for outputs.
    """
    axis = 0.5 * (columns - 1) + axis_offset
    theta = np.arange(angles, dtype=np.float64) * (turn / angles)
    distance, _ = distance_of(source_distance, detector_distance, pixel_size)
    geometry = Geometry(axis, 0.5 * (rows - 1), distance, tilt, clockwise=rotation == "clockwise")
    oblique = geometry.cone or not geometry.upright
    joined = not oblique and is_half_acquisition(theta, columns, axis)
    size = halves(columns, axis).size if joined else columns
    margin = (max if joined else min)(axis, columns - 1 - axis) + 0.5
    if not 0 <= axis <= columns - 1 or margin < 0.25 * columns:
        raise KernelError(
            f"tomography.simulate: axisOffset {axis_offset:g} is too far out for {columns} columns over {turn:g} "
            "degrees."
        )
    if oblique:
        geometry.rows_seen(0, 0, margin)
        margin *= 0.9  # the near side of the object is magnified
    tall = _TALL * rows if oblique else None
    parts = phantom.sample_object(size, rows, margin=margin, absorption=absorption, seed=seed, tall=tall)
    drift = 1.0 + beam_drift * np.sin(2.3 * np.linspace(0, math.pi, angles) + 0.5)

    scan = job.stage(output, description="simulated scan (DXchange)", shape=(angles, rows, columns), dtype="uint16")
    truth_path = Path(output).with_name(f"{Path(output).stem}_truth.h5")
    truth = job.stage(truth_path, description="true volume", shape=(rows, size, size), dtype="float32")

    def expose(row: int, lines: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Counts of one detector row: projections, flats and darks."""
        random = np.random.default_rng([seed, 1, row])
        beam = _beam(row, rows, columns, random) * photons
        gain = 1.0 + stripes * random.standard_normal(columns)
        broken = random.random(columns) < dead_pixels
        stuck = np.where(random.random(columns) < 0.5, 0, _FULL)
        frames = []
        for light in (
            beam * drift[:, None] * gain * np.exp(-lines),
            np.tile(beam, (flats, 1)),
            np.zeros((flats, columns)),
        ):
            counts = _counts(light, random, noise=noise)
            counts[:, broken] = stuck[broken]
            frames.append(counts)
        return frames[0], frames[1], frames[2]

    with new_file(scan) as file, new_file(truth) as known, ThreadPoolExecutor(threads()) as pool:
        exchange = _lay_out(file, theta, angles, rows, columns, flats, seed)
        volume = _lay_out_truth(known, parts, axis, (rows, size, size))
        for start in range(0, rows, _SLAB):
            stop = min(start + _SLAB, rows)
            with job.phase("project"):
                if oblique:
                    lines = rays.project(parts, geometry, theta, columns, start, stop)
                else:
                    lines = phantom.project_rows(parts, theta, columns, rows, axis, start, stop)
            with job.phase("truth"):
                volume[start:stop] = phantom.truth_rows(parts, size, rows, start, stop)
            with job.phase("expose"):
                exposed = list(pool.map(expose, range(start, stop), lines))
            with job.phase("write"):
                for name, frames in zip(("data", "data_white", "data_dark"), zip(*exposed, strict=True), strict=True):
                    exchange[name][:, start:stop, :] = np.stack(frames, axis=1)
            job.progress(0.97 * stop / rows, "simulate", f"{stop}/{rows} rows")
    job.metric("rotation_axis_true", axis)


def _beam(row: int, rows: int, columns: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Relative intensity of the open beam in one detector row: a broad peak with a fixed pattern of 3 %."""
    across = (np.arange(columns) - 0.5 * columns) / columns
    along = (row - 0.5 * rows) / max(rows, columns)
    return np.asarray(
        (0.75 + 0.25 * np.exp(-4 * (across**2 + along**2))) * (1 + 0.03 * random.standard_normal(columns))
    )


def _counts(light: NDArray[np.float64], random: np.random.Generator, *, noise: bool) -> NDArray[np.uint16]:
    if noise:
        counts = random.poisson(np.maximum(light, 0)) + random.normal(_DARK_LEVEL, _READ_NOISE, light.shape)
    else:
        counts = light + _DARK_LEVEL
    return np.clip(np.rint(counts), 0, _FULL).astype(np.uint16)


def _lay_out(
    file: h5py.File, theta: NDArray[np.float64], angles: int, rows: int, columns: int, flats: int, seed: int
) -> h5py.Group:
    file["implements"] = "exchange"
    exchange = file.create_group("exchange")
    exchange["title"] = f"simulated object {seed}"
    for name, frames, axes in (
        ("data", angles, "theta:y:x"),
        ("data_white", flats, "theta_white:y:x"),
        ("data_dark", flats, "theta_dark:y:x"),
    ):
        dataset = exchange.create_dataset(name, (frames, rows, columns), np.uint16)
        dataset.attrs.update({"units": "counts", "axes": axes})
    exchange.create_dataset("theta", data=theta).attrs["units"] = "degrees"
    return exchange


def _lay_out_truth(
    file: h5py.File, parts: NDArray[np.float64], axis: float, shape: tuple[int, int, int]
) -> h5py.Dataset:
    file.attrs["default"] = "truth"
    group = file.create_group("truth")
    group.attrs.update({"NX_class": "NXdata", "signal": "volume", "rotation_axis": axis})
    objects = group.create_dataset("objects", data=parts)
    objects.attrs["columns"] = "density x y z a b c phi"
    volume = group.create_dataset("volume", shape, np.float32)
    volume.attrs["units"] = "1/pixel"
    return volume
