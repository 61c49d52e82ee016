"""`tomography.axis`: find the rotation axis of a scan from a few of its rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.io import nexus
from kernels.io.dxchange import Scan
from kernels.job import Job
from kernels.tomography.axis import Axis, find_axis
from kernels.tomography.prepare import Recipe, prepare_rows

_BAND = 2  # detector rows averaged into one: less noise, same axis
_LEAST_CONTRAST = 1e-3  # standard deviation of a row's line integrals, below which there is nothing to see


def locate(
    job: Job,
    *,
    input: str,
    output: str | None,
    rows: int,
    search_width: float,
    angles: str | None,
    transmission_floor: float,
    air_columns: int,
) -> None:
    """Find the axis and report `rotation_axis`, `axis_spread`, `axis_mirror` (pixels) and `axis_method`.

    With `output`, the search curve is written as NeXus.

    Raises
    ------
    KernelError
        Exit 65 when the scan is not usable or shows no object in the rows looked at.
    """
    with Scan(input, angles=angles) as scan:
        recipe = Recipe(transmission_floor, air_columns)
        found = search(job, scan, recipe, rows=rows, width=search_width, end=0.95)
    if output:
        curve = len(found.candidates) > 0
        part = job.stage(output, check=nexus.check_nexus, description="rotation axis search")
        with nexus.new_file(part) as file:
            entry = nexus.add_entry(file, f"rotation axis {found.position:.3f}", "axis_metric")
            x, y = (found.candidates, found.metric) if curve else (np.array([found.position]), np.zeros(1))
            nexus.add_curve(entry, "axis_metric", x, y, "axis", "energy in the wedge: lowest at the axis")
            nexus.add_process(entry, "tomography.axis", "1.0", {"input": input, **job.metrics})


def search(job: Job, scan: Scan, recipe: Recipe, *, rows: int, width: float, end: float) -> Axis:
    """Find the axis of an open scan in `rows` of its rows and report it; `end` is the progress reached with it."""
    with job.phase("axis"):
        chosen = []
        for n, row in enumerate(_spread(scan.rows, rows)):
            band = min(_BAND, scan.rows - row)
            prepared = prepare_rows(scan, row, row + band, recipe._replace(binning=1))
            chosen.append(prepared.sinograms.mean(0))
            job.progress(end * 0.5 * (n + 1) / rows, "axis", f"row {row}")
        sinograms = np.stack(chosen)
        seen = sinograms[sinograms.std((1, 2)) > _LEAST_CONTRAST]
        if not len(seen):
            raise KernelError(f"The scan {scan.path!r} shows no object: every row is flat.", Exit.BAD_INPUT)
        found = find_axis(seen, scan.theta_deg, width=width)
    job.metric("rotation_axis", round(found.position, 4))
    job.metric("axis_spread", round(found.spread, 4))
    job.metric("axis_mirror", round(found.mirror, 4))
    job.metric("axis_method", found.method)
    job.progress(end, "axis", f"{found.position:.2f} by {found.method}")
    return found


def _spread(rows: int, count: int) -> NDArray[np.intp]:
    """Up to `count` rows, evenly over the detector's height, the ends left out where there are enough."""
    return np.unique(np.round((np.arange(count) + 0.5) * rows / count - 0.5).astype(np.intp).clip(0, rows - 1))
