"""`hedm.peaks`: from frames to a table of spots."""

from __future__ import annotations

import math
import re

from kernels.cautions import Code
from kernels.cuda.device import agreed
from kernels.errors import Exit, KernelError
from kernels.hedm.frames import (
    Dark,
    Frames,
    dark_of_first,
    dark_of_source,
    flat_dark,
    open_source,
)
from kernels.hedm.frames.cuda.scan import choose_for
from kernels.hedm.jobs.scans import open_scan, sweep
from kernels.hedm.jobs.tables import check_table, write_table
from kernels.hedm.peaks import EDGE, OVERLAPPED, SATURATED, find_spots, joined, limits
from kernels.job import Job

VERSION = "1.0"
_MANY = 0.01  # of the spots that are saturated, to be told
_SIGMAS = 8.0


def peaks(
    job: Job,
    *,
    input: str,
    output: str,
    geometry: str,
    dark: str,
    threshold: float | None,
    sigmas: float | None,
    least_pixels: int,
    saturation: float | None,
    gaussians: bool,
    omega_start: float | None,
    omega_step: float | None,
    first_frame: int,
    last_frame: int | None,
    device: str,
) -> None:
    """Write the spots of the frames `input` to `output`; arguments as in the schema. Ranks share the frames.

    Without `threshold` and `sigmas`, eight standard deviations of the dark.

    Reports `spots`, `frames`, `panels`, `saturated`, `overlapped`, `at_edge`, what was met with in the frames, and
    `device` (what compared them with their limits, and `device_reason` where that was not a GPU it was given); warns of
    what is strange about them.

    Raises
    ------
    KernelError
        Exit 65, 66 for frames, geometry and dark, and when there is no spot at all; 2 for numbers that do not fit;
        73, 74 for outputs.
    """
    arguments = {name: value for name, value in locals().items() if name != "job"}
    beyond = None if last_frame is None else last_frame + 1
    instrument, opened, read = open_scan(
        input, geometry, sweep(omega_start, omega_step), first=first_frame, beyond=beyond
    )
    job.inputs += read
    tables, met, total = [], dict[str, int](), sum(frames.count for frames in opened.values())
    done = 0
    for name, frames in opened.items():
        with job.phase("dark"):
            level = job.ranks.told(_dark(dark, frames) if job.ranks.first else None)
            assert level is not None
        wished = sigmas if sigmas is not None or threshold is not None else _SIGMAS
        if wished is not None and level.noise is None and sigmas is None:
            raise KernelError("A dark that is one number has no noise: give a threshold.")
        bounds = limits(frames, level, threshold=threshold, sigmas=wished, saturation=saturation)

        def watch(count: int, before: int = done) -> None:
            job.progress(0.98 * (before + count) / total, "search", f"{before + count}/{total} frames")

        with job.phase("search"):
            found = find_spots(
                frames,
                bounds,
                least_pixels=least_pixels,
                gaussians=gaussians,
                panel=instrument.index(name),
                watch=watch,
                ranks=job.ranks,
                scanner=agreed(job, choose_for(frames, device, job.ranks)).ready,
            )
        done += frames.count
        tables.append(found.spots)
        for what, count in found.met.items():
            met[what] = met.get(what, 0) + count
        for doubt in found.doubts:
            job.warn(Code.ANGLES, doubt)
    if not job.ranks.first:
        return
    spots = joined(tables)
    if not len(spots.row):
        raise KernelError(
            f"No spot was found in {total} frames of {input!r}: is the threshold too high, the shutter closed?",
            Exit.BAD_INPUT,
        )
    if not all(map(math.isfinite, (spots.row.sum(), spots.omega.sum()))):
        raise KernelError("Some spots have a place that is not finite.", Exit.BAD_OUTPUT)
    saturated = int(((spots.flags & SATURATED) > 0).sum())
    if saturated > _MANY * len(spots.row):
        job.warn(
            Code.SATURATED,
            f"{saturated} of {len(spots.row)} spots are saturated: their places and sizes are less sure. Attenuate the "
            "beam, or expose for a shorter time.",
        )
    part = job.stage(output, check=check_table, shape=(len(spots.row),))
    leader = next(iter(opened.values()))
    write_table(
        part,
        spots,
        instrument,
        leader.omegas,
        program="hedm.peaks",
        version=VERSION,
        parameters=arguments,
        warnings=job.warnings,
    )
    job.metric("spots", len(spots.row))
    job.metric("frames", leader.count)
    job.metric("panels", len(opened))
    job.metric("saturated", saturated)
    job.metric("overlapped", int(((spots.flags & OVERLAPPED) > 0).sum()))
    job.metric("at_edge", int(((spots.flags & EDGE) > 0).sum()))
    for what, count in met.items():
        job.metric(re.sub(r"\W+", "_", what), count)


def _dark(text: str, frames: Frames) -> Dark:
    if text == "first":
        return dark_of_first(frames, min(16, frames.count))
    try:
        value = float(text)
    except ValueError:
        return dark_of_source(open_source(text), frames)
    return flat_dark(value, frames)
