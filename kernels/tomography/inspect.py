"""`tomography.inspect`: is this a scan that can be reconstructed, and what is in it?"""

from __future__ import annotations

import numpy as np

from kernels.io.dxchange import Scan
from kernels.job import Job
from kernels.tomography.field import read_field
from kernels.tomography.prepare import Changes, prepare_rows
from kernels.tomography.quality import warn_of_changes


def inspect(job: Job, *, input: str, angles: str | None) -> None:
    """Open and check the scan, and report angles, rows, columns, flats, darks, range of angles and bad pixels.

    The flats of the top, middle and bottom row are looked at, so a scan that passes has light, and three projections,
    so that it can be read; of numbers that may not be finite, the middle row of all projections as well.

    Raises
    ------
    KernelError
        Exit 65, 66 or 75 as `kernels.io.dxchange.Scan` says.
    """
    with Scan(input, angles=angles, warn=job.warn) as scan:
        job.progress(0.1, "inspect", "opened")
        for name in ("angles", "rows", "columns", "flats", "darks"):
            job.metric(name, getattr(scan, name))
        job.metric("dtype", str(scan.dtype))
        job.metric("theta_first", float(scan.theta_deg[0]))
        job.metric("theta_last", float(scan.theta_deg[-1]))
        job.metric("stored_bytes", scan.stored_bytes)
        if scan.title:
            job.metric("title", scan.title)
        fields = [read_field(scan, row, row + 1) for row in sorted({0, scan.rows // 2, scan.rows - 1})]
        job.metric("open_beam_counts", float(np.median([field.response for field in fields])))
        changes = Changes(
            pixels=len(fields) * scan.columns,
            bad_pixels=sum(field.bad for field in fields),
            inverted_pixels=sum(field.inverted for field in fields),
            lost_values=sum(field.not_finite for field in fields),
        )
        job.metric("bad_pixel_fraction", changes.bad_pixels / changes.pixels)
        if scan.dtype.kind == "f":
            seen = prepare_rows(scan, scan.rows // 2, scan.rows // 2 + 1).changes
            changes = changes._replace(lost_values=changes.lost_values + seen.lost_values)
        scan.read_frames(np.unique([0, scan.angles // 2, scan.angles - 1]))
        warn_of_changes(job, input, changes)
