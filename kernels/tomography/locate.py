"""`tomography.axis`: find the rotation axis of a scan from a few of its rows."""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels.cautions import Code
from kernels.errors import Exit, KernelError
from kernels.io import nexus
from kernels.io.dxchange import Scan
from kernels.job import Job
from kernels.tomography.axis import Axis, find_axis
from kernels.tomography.prepare import Changes, Recipe, added, prepare_rows
from kernels.tomography.quality import warn_of_changes

_BAND = 2  # detector rows averaged into one: less noise, same axis
_CURVES = {
    "wedge": "energy in the wedge",
    "sharpness": "score of trial reconstructions",
    "pairs": "1 - correlation of opposite projections",
}
_WIDTH = 0.3  # of the search, to both sides of the middle, as a fraction of the columns
_DECIMALS = 4  # of a position, pixels
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
    """Find the axis and report it.

    Metrics: `rotation_axis`, `axis_spread`, `axis_mirror` (pixels; the last where opposite projections were compared),
    `axis_method`, `axis_confidence` (0 to 1) and `axis_reason`; a low confidence is a warning. With `output`, what each
    way said and its search curve are written as NeXus.

    Raises
    ------
    KernelError
        Exit 65 when the scan is not usable or shows no object in the rows looked at.
    """
    with Scan(input, angles=angles, warn=job.warn) as scan:
        recipe = Recipe(transmission_floor, air_columns)
        found, changes = search(job, scan, recipe, rows=rows, width=search_width, end=0.95)
    warn_of_changes(job, input, changes, floor=transmission_floor)
    if output:
        part = job.stage(output, check=nexus.check_nexus, description="rotation axis search")
        with nexus.new_file(part) as file:
            entry = nexus.add_entry(file, f"rotation axis {found.position:.3f}", "axis_metric")
            _write_curves(entry, found)
            nexus.add_process(entry, "tomography.axis", "1.1", {"input": input, **job.metrics}, job.warnings)


def _write_curves(entry: h5py.Group, found: Axis) -> None:
    """The curve shown first, `axis_metric`, and for each way a group with its curve, where it has one, and result."""
    curves = [way for method in _CURVES if (way := found.by(method))]
    for name, way in (*(("axis_metric", way) for way in curves[:1]), *((way.method, way) for way in curves)):
        nexus.add_curve(entry, name, way.candidates, way.curve, "axis", f"{_CURVES[way.method]}: lowest at the axis")
    if not curves:
        nexus.add_curve(entry, "axis_metric", np.array([found.position]), np.zeros(1), "axis", "no curve was searched")
    for way in found.evidence:
        group = entry.require_group(way.method)
        group.attrs.setdefault("NX_class", "NXcollection")
        group.attrs.update({"result": way.position, "uncertainty": way.uncertainty, "quality": way.quality})
        group.attrs["reason"] = way.reason


def axis_of(job: Job, scan: Scan, given: float | None, recipe: Recipe, *, rows: int, end: float) -> float:
    """The axis that is given, or else is found in `rows` rows; reported.

    Raises
    ------
    KernelError
        Exit 2 when the axis given is off the detector, else as `search`.
    """
    if given is None:
        found, _ = search(job, scan, recipe, rows=rows, width=_WIDTH, end=end)
        return round(found.position, _DECIMALS)  # as it is told: whoever gives that back gets the same volume
    if not 0 <= given <= scan.columns - 1:
        raise KernelError(f"rotationAxis {given:g} is off the detector of {scan.columns} columns.")
    job.metric("rotation_axis", given)
    return given


def search(job: Job, scan: Scan, recipe: Recipe, *, rows: int, width: float, end: float) -> tuple[Axis, Changes]:
    """Find the axis of an open scan in `rows` of its rows and report it; `end` is the progress reached with it. Beside
    it, what had to be changed in these rows."""
    with job.phase("axis"):
        chosen, changes = [], []
        for n, row in enumerate(_spread(scan.rows, rows)):
            band = min(_BAND, scan.rows - row)
            prepared = prepare_rows(scan, row, row + band, recipe._replace(binning=1))
            chosen.append(prepared.sinograms.mean(0))
            changes.append(prepared.changes)
            job.progress(end * 0.5 * (n + 1) / rows, "axis", f"row {row}")
        found = find_axis(visible(scan, np.stack(chosen)), scan.theta_deg, width=width)
    report(job, found, end)
    return found, added(changes)


def visible(scan: Scan, sinograms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Those of the sinograms (rows, angles, columns) that show something.

    Raises
    ------
    KernelError
        Exit 65 when none does.
    """
    seen = np.asarray(sinograms[sinograms.std((1, 2)) > _LEAST_CONTRAST], np.float32)
    if not len(seen):
        raise KernelError(
            f"The scan {scan.path!r} shows no object: every row looked at is flat. Look at its projections, or "
            "give rotationAxis.",
            Exit.BAD_INPUT,
        )
    return seen


def report(job: Job, found: Axis, end: float) -> float:
    """Metrics, warnings and progress of an axis that was found; its position as it is told: whoever gives that back
    gets the same volume."""
    job.metric("rotation_axis", round(found.position, _DECIMALS))
    job.metric("axis_spread", round(found.spread, _DECIMALS))
    if mirror := found.by("pairs"):
        job.metric("axis_mirror", round(mirror.position, _DECIMALS))
    job.metric("axis_method", found.method)
    job.metric("axis_confidence", found.confidence)
    job.metric("axis_reason", found.reason)
    if found.warning:
        job.warn(Code.AXIS, found.warning)
    job.progress(end, "axis", f"{found.position:.2f} by {found.method}, confidence {found.level}")
    return round(found.position, _DECIMALS)


def _spread(rows: int, count: int) -> NDArray[np.intp]:
    """Up to `count` rows, evenly over the detector's height, the ends left out where there are enough."""
    return np.unique(np.round((np.arange(count) + 0.5) * rows / count - 0.5).astype(np.intp).clip(0, rows - 1))
