"""`tomography.preview`: what is in a scan, within seconds: three slices through the middle, and a histogram.

Of the projections only so many are read as slices of the preview's width can show, and each is averaged down to that
width as it is read: a fraction of the file, and of the arithmetic a far smaller one.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels.conveyor import convey
from kernels.errors import Exit, KernelError, printable
from kernels.io import nexus as files
from kernels.io import picture as pictures
from kernels.io.dxchange import Scan
from kernels.job import Job
from kernels.tomography.direct.cells import LANES
from kernels.tomography.field import whole_field
from kernels.tomography.locate import axis_of
from kernels.tomography.logarithm import minus_log
from kernels.tomography.methods import Method, method
from kernels.tomography.prepare import Changes, Recipe, refuse_lost, transmission
from kernels.tomography.quality import warn_of_changes, warn_of_lost_frames
from kernels.tomography.views import Middle, write_nexus, write_picture

Floats = NDArray[np.float32]

_AXIS_ROWS = 2
_FRAMES_AT_ONCE = 16
_ANGLES_PER_COLUMN = 1.5  # about as many as a slice needs
_BINS = 256


def preview(
    job: Job,
    *,
    input: str,
    picture: str,
    nexus: str | None,
    rotation_axis: float | None,
    width: int,
    filter: str,
    padding: str,
    pixel_size: float | None,
    angles: str | None,
    transmission_floor: float,
    memory_gb: float,
) -> None:
    """Write a picture, and a NeXus file, of three slices of the scan `input`; arguments as in the schema.

    Reports `rotation_axis`, `binning`, `frames` (how many were read), `minimum` and `maximum`.

    Raises
    ------
    KernelError
        Exit 65, 66, 75 for the scan; 2 when the axis is off the detector or the work does not fit into memory; 3 when
        a slice would not be finite; 73, 74 for outputs.
    """
    name = printable(Path(input).stem)
    with Scan(input, angles=angles, warn=job.warn) as scan:
        binning = max(1, math.ceil(scan.columns / width))
        if scan.rows < binning:
            binning = scan.rows
        columns = scan.columns // binning
        step = max(1, int(scan.angles / max(1.0, _ANGLES_PER_COLUMN * columns)))
        numbers = np.arange(0, scan.angles, step)
        at_once = _frames_at_once(scan, len(numbers), binning, memory_gb)
        rotation_axis = axis_of(job, scan, rotation_axis, Recipe(transmission_floor), rows=_AXIS_ROWS, end=0.3)
        lines, kept = _line_integrals(job, scan, numbers, binning, transmission_floor, at_once)
        theta = scan.theta_deg[kept]
    job.metric("binning", binning)
    job.metric("frames", len(numbers))
    axis = (rotation_axis + 0.5) / binning - 0.5
    gridrec = method("gridrec", theta, columns, axis=axis, circle=True, window=filter, padding=padding, scale=binning)
    middle = Middle((len(lines), gridrec.size, gridrec.size))
    counts, edges = _slices(job, gridrec, lines, middle)
    voxel_um = pixel_size * binning if pixel_size else None
    write_picture(job, picture, middle, pictures.window(middle.slices))
    if nexus:
        said = {**job.metrics, "filter": filter, "padding": padding, "input": input}
        write_nexus(job, nexus, middle, title=name, voxel_um=voxel_um, parameters=said)
        with h5py.File(job.staged[-1].part, "r+", locking=False) as file:
            centres = 0.5 * (edges[1:] + edges[:-1])
            files.add_curve(file["entry"], "histogram", centres, counts, "attenuation", "histogram of all voxels")
            file["entry/histogram/attenuation"].attrs["units"] = "1/pixel"


def _frames_at_once(scan: Scan, frames: int, binning: int, memory_gb: float) -> int:
    """Beside the field and the line integrals, of which there are two copies where frames are left out."""
    frame = scan.rows * scan.columns
    columns = scan.columns // binning
    held = 32 * frame + 8 * (scan.rows // binning) * frames * columns + 4 * (2 * columns) ** 2 * LANES
    each = (2 * scan.dtype.itemsize + 12) * frame
    fits = int(memory_gb * 1e9 - held) // each
    if fits < 1:
        raise KernelError(
            f"tomography.preview: {columns} columns from {frames} projections of {scan.rows} x {scan.columns} need "
            f"{(held + each) / 1e9:.2g} GB; memoryGB is {memory_gb:g}. Raise memoryGB, or lower width."
        )
    return min(fits, _FRAMES_AT_ONCE)


def _line_integrals(
    job: Job, scan: Scan, numbers: NDArray[np.intp], binning: int, floor: float, at_once: int
) -> tuple[Floats, NDArray[np.intp]]:
    """Of these projections, averaged over binning x binning pixels: (rows, angles, columns), and the numbers of those
    that are not lost."""
    field = whole_field(scan)
    rows, columns = scan.rows // binning, scan.columns // binning
    lines = np.empty((rows, len(numbers), columns), np.float32)
    not_finite = 0

    def work(here: range, counts: NDArray[Any]) -> None:
        nonlocal not_finite
        frames, strange = transmission(counts, field)
        not_finite += strange
        frames = frames[:, : rows * binning, : columns * binning]
        small = frames.reshape(len(here), rows, binning, columns, binning).mean((2, 4), dtype=np.float32)
        lines[:, here.start : here.stop] = small.swapaxes(0, 1)
        job.progress(0.3 + 0.4 * here.stop / len(numbers), "read", f"{here.stop}/{len(numbers)} frames")

    parts = [range(n, min(n + at_once, len(numbers))) for n in range(0, len(numbers), at_once)]
    with job.phase("read"):
        convey(
            parts,
            read=lambda here: scan.read_frames(numbers[here.start : here.stop]),
            work=work,
            write=lambda here, _: None,
        )
    seen = np.isfinite(lines[0, :, 0])
    lost = int((~seen).sum())
    if 2 * lost > len(numbers):
        raise KernelError(
            f"The scan {scan.path!r} is not usable: {lost} of the {len(numbers)} projections looked at are not finite.",
            Exit.BAD_INPUT,
        )
    pixels = scan.rows * scan.columns
    not_finite -= lost * (pixels - field.bad)
    refuse_lost(scan, not_finite, len(numbers) * pixels, "the projections looked at")
    warn_of_lost_frames(job, scan.path, lost, len(numbers))
    if lost:
        lines = np.ascontiguousarray(lines[:, seen])
    floored = int(minus_log(lines, np.float32(floor)))
    changes = Changes(
        pixels=pixels,
        bad_pixels=field.bad,
        inverted_pixels=field.inverted,
        values=lines.size,
        floored_values=floored,
        lost_values=not_finite + field.not_finite,
    )
    warn_of_changes(job, scan.path, changes, floor=floor)
    return lines, numbers[seen]


def _slices(
    job: Job, gridrec: Method, lines: Floats, middle: Middle
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reconstruct them all, keep the middle ones, and count values: counts and the edges of their bins."""
    out = np.empty((gridrec.group, gridrec.size, gridrec.size), np.float32)
    least, most, counts = math.inf, -math.inf, np.zeros(_BINS)
    edges = np.zeros(_BINS + 1)
    with job.phase("reconstruct"):
        # From the middle outwards: its values say which bins there are.
        starts = sorted(range(0, len(lines), gridrec.group), key=lambda n: abs(n - len(lines) // 2))
        for done, start in enumerate(starts):
            slab = gridrec.slices(lines[start : start + gridrec.group], out[: len(lines) - start])
            if not np.isfinite(slab).all():
                raise KernelError("The preview would hold values that are not finite.", Exit.BAD_OUTPUT)
            if not done:
                edges = np.histogram_bin_edges(slab, _BINS)
            counts += np.histogram(np.clip(slab, edges[0], edges[-1]), edges)[0]
            least, most = min(least, float(slab.min())), max(most, float(slab.max()))
            middle.take(start, slab)
            job.progress(0.7 + 0.25 * (done + 1) / len(starts), "reconstruct", f"{done + 1}/{len(starts)} groups")
    job.metric("minimum", least)
    job.metric("maximum", most)
    return counts, edges
