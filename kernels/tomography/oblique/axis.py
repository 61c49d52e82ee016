r"""The axis of scans with a cone beam or a tilted axis: sought in sinograms that a parallel, upright beam would give.

* The sum along a column of a frame is that over the plane of axis and beam, whatever the tilt: as if the object were
  pressed flat along the axis. What enters or leaves at top and bottom during a turn disturbs it.
* Rays of a cone beam near its middle plane are those of parallel beams in another order: the ray at an angle g to the
  one through the axis belongs to the view that is turned by g, at the distance sin(g) times that of the source. The
  axis must be known for that, so it is done again with the one that was found, until they agree.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.io.dxchange import Scan
from kernels.job import Job
from kernels.tomography.axis import Axis, find_axis
from kernels.tomography.field import whole_field
from kernels.tomography.locate import report, visible
from kernels.tomography.oblique.geometry import Geometry
from kernels.tomography.oblique.weights import angles_turned
from kernels.tomography.prepare import Recipe, prepare, prepare_rows, read_frames

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_WIDTH = 0.3  # of the search, to both sides of the middle, as a fraction of the columns
_BAND = 4  # rows about the middle plane
_FRAMES = 8  # read at once
_AGAIN, _AGREE = 4, 0.05  # times at most, and pixels


def search(job: Job, scan: Scan, geometry: Geometry, recipe: Recipe, *, end: float) -> float:
    """Find the axis of an open scan and report it, as `tomography.axis` does; `end` is the progress reached with it.

    Parameters
    ----------
    geometry
        Of the scan, with any axis.

    Raises
    ------
    KernelError
        Exit 65 when the scan shows no object, or no way to find its axis has a result.
    """
    with job.phase("axis"):
        plain = recipe._replace(binning=1)
        if geometry.cone:
            found = _of_cone(scan, geometry, plain)
        else:
            found = find_axis(visible(scan, _pressed(job, scan, plain, end)), scan.theta_deg, width=_WIDTH)
    return report(job, found, end)


def _pressed(job: Job, scan: Scan, recipe: Recipe, end: float) -> Floats:
    """Means along the columns of all frames: (1, angles, columns)."""
    field, lines = whole_field(scan), np.empty((1, scan.angles, scan.columns), np.float32)
    for start in range(0, scan.angles, _FRAMES):
        frames = range(start, min(start + _FRAMES, scan.angles))
        raw = read_frames(scan, 0, scan.rows, frames, field)
        lines[0, frames.start : frames.stop] = prepare(scan, raw, recipe).sinograms.mean(0)
        job.progress(0.9 * end * frames.stop / scan.angles, "axis", f"{frames.stop}/{scan.angles} frames")
    return lines


def _of_cone(scan: Scan, geometry: Geometry, recipe: Recipe) -> Axis:
    row = int(np.clip(round(geometry.middle_row) - _BAND // 2, 0, max(scan.rows - _BAND, 0)))
    fan = prepare_rows(scan, row, min(row + _BAND, scan.rows), recipe).sinograms.mean(0)
    geometry = replace(geometry, axis=0.5 * (scan.columns - 1))
    for _ in range(_AGAIN):
        lines, theta_deg = parallel(geometry, fan, scan.theta_deg)
        found = find_axis(visible(scan, lines[None]), theta_deg, width=_WIDTH)
        if abs(found.position - geometry.axis) < _AGREE:
            break
        geometry = replace(geometry, axis=float(np.clip(found.position, 0, scan.columns - 1)))
    return found


def parallel(geometry: Geometry, fan: Floats, theta_deg: Doubles) -> tuple[Floats, Doubles]:
    """The sinogram of a parallel beam, from that of the middle plane of a cone beam.

    Parameters
    ----------
    fan : ndarray, shape (angles, columns), float32

    Returns
    -------
    (ndarray, ndarray)
        Shapes (views, columns) float32 and (views,) degrees. The axis is where it is in `geometry`, if that is right.

    Raises
    ------
    KernelError
        Exit 65 when no view is seen by all columns.
    """
    angles, columns = fan.shape
    turned, _, covered = angles_turned(theta_deg)
    order = np.argsort(turned)
    whole = covered >= 360.0
    # Where the ray at each distance from the axis meets the detector, and its angle to the one through the axis.
    mapping, passed = geometry.mapping, np.arange(columns) - geometry.axis
    slope = np.arcsin(passed / np.hypot(geometry.distance, mapping.shift))
    at = mapping.perpendicular + geometry.distance * np.tan(slope + np.arctan(mapping.shift * mapping.curve))
    later = np.rad2deg(slope) * mapping.side
    step = covered / angles
    margin = 0.0 if whole else float(np.abs(later).max())
    views = np.arange(turned.min() + margin, turned.max() - margin + 1e-6, step)
    if len(views) < 2:
        raise KernelError("The angles are too few to find the axis; give rotationAxis.", Exit.BAD_INPUT)
    left = np.clip(np.floor(at).astype(np.intp), 0, columns - 2)
    part = np.clip(at - left, 0, 1)
    lines = np.empty((len(views), columns), np.float32)
    for c in range(columns):
        seen = (1 - part[c]) * fan[order, left[c]] + part[c] * fan[order, left[c] + 1]
        lines[:, c] = np.interp(views - later[c], turned[order], seen, period=360.0 if whole else None)
    return lines, views
