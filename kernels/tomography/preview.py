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
from kernels.tomography.direct.gridrec import Gridrec
from kernels.tomography.locate import axis_of
from kernels.tomography.logarithm import minus_log
from kernels.tomography.prepare import Recipe, transmission_by_rows, whole_field
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
) -> None:
    """Write a picture, and a NeXus file, of three slices of the scan `input`; arguments as in the schema.

    Reports `rotation_axis`, `binning`, `frames` (how many were read), `minimum` and `maximum`.

    Raises
    ------
    KernelError
        Exit 65, 66, 75 for the scan; 2 when the axis is off the detector; 3 when a slice would not be finite; 73, 74
        for outputs.
    """
    name = printable(Path(input).stem)
    with Scan(input, angles=angles) as scan:
        binning = max(1, math.ceil(scan.columns / width))
        if scan.rows < binning:
            binning = scan.rows
        rotation_axis = axis_of(job, scan, rotation_axis, Recipe(transmission_floor), rows=_AXIS_ROWS, end=0.3)
        columns = scan.columns // binning
        step = max(1, int(scan.angles / max(1.0, _ANGLES_PER_COLUMN * columns)))
        numbers = np.arange(0, scan.angles, step)
        lines = _line_integrals(job, scan, numbers, binning, transmission_floor)
        theta = scan.theta_deg[numbers]
    job.metric("binning", binning)
    job.metric("frames", len(numbers))
    axis = (rotation_axis + 0.5) / binning - 0.5
    gridrec = Gridrec(theta, columns, axis=axis, window=filter, padding=padding, scale=binning)
    middle = Middle((len(lines), columns, columns))
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


def _line_integrals(job: Job, scan: Scan, numbers: NDArray[np.intp], binning: int, floor: float) -> Floats:
    """Of these projections, averaged over binning x binning pixels: (rows, angles, columns)."""
    field = whole_field(scan)
    rows, columns = scan.rows // binning, scan.columns // binning
    lines = np.empty((rows, len(numbers), columns), np.float32)

    def work(here: range, counts: NDArray[Any]) -> None:
        whole = transmission_by_rows(counts, field)[: rows * binning, :, : columns * binning]
        small = whole.reshape(rows, binning, len(here), columns, binning).mean((1, 4), dtype=np.float32)
        lines[:, here.start : here.stop] = small
        job.progress(0.3 + 0.4 * here.stop / len(numbers), "read", f"{here.stop}/{len(numbers)} frames")

    parts = [range(n, min(n + _FRAMES_AT_ONCE, len(numbers))) for n in range(0, len(numbers), _FRAMES_AT_ONCE)]
    with job.phase("read"):
        convey(
            parts,
            read=lambda here: scan.read_frames(numbers[here.start : here.stop]),
            work=work,
            write=lambda here, _: None,
        )
    minus_log(lines, np.float32(floor))
    return lines


def _slices(
    job: Job, gridrec: Gridrec, lines: Floats, middle: Middle
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
