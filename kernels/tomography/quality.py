"""Warnings about the counts of a scan: so many had to be changed that it may show."""

from __future__ import annotations

from kernels.cautions import Code
from kernels.job import Job
from kernels.tomography.prepare import Changes

_MANY_BAD, _MANY_INVERTED = 0.02, 0.002  # of the pixels
_MANY_FLOORED = 0.01  # of the values


def warn_of_changes(job: Job, name: str, changes: Changes, *, floor: float = 0.0) -> None:
    """Say what of the scan called `name` was changed beyond the usual."""
    bad, inverted = changes.bad_pixels / changes.pixels, changes.inverted_pixels / changes.pixels
    floored = changes.floored_values / max(changes.values, 1)
    if bad > _MANY_BAD:
        job.warn(
            Code.BAD_PIXELS,
            f"{100 * bad:.2g} % of the pixels of {name!r} are dead, hot or without light, and were interpolated. Look "
            "at its flat fields.",
        )
    if inverted > _MANY_INVERTED:
        job.warn(
            Code.INVERTED,
            f"{100 * inverted:.2g} % of the pixels of {name!r} are brighter in the dark fields than in the flat "
            "fields, and were interpolated. See whether these belong to the scan.",
        )
    if changes.lost_values:
        job.warn(
            Code.NOT_FINITE,
            f"{changes.lost_values} counts of {name!r} are not finite, and were mended from those beside them.",
        )
    if floored > _MANY_FLOORED:
        job.warn(
            Code.FLOORED,
            f"{100 * floored:.2g} % of the transmissions of {name!r} lie below transmissionFloor, {floor:g}, and were "
            "set to it: what is so opaque comes out too thin. Look for frames without beam, or expose longer.",
        )


def warn_of_lost_frames(job: Job, name: str, lost: int, of: int) -> None:
    """Say that projections were left out."""
    if lost:
        job.warn(
            Code.FRAMES,
            f"{lost} of {of} projections of {name!r} are empty, dark or not finite, and were left out with their "
            "angles.",
        )
