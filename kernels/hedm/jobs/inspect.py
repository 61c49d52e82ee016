"""`hedm.inspect` and `hedm.inspect-layer`: do frames, instrument and crystal belong together? Told within seconds."""

from __future__ import annotations

import math

from kernels.hedm.frames import Frames
from kernels.hedm.jobs.scans import open_distances, open_scan, sweep
from kernels.hedm.jobs.scene import open_crystal, open_reflections, open_seeds
from kernels.hedm.reflections import Reflections
from kernels.job import Job


def inspect(
    job: Job,
    *,
    input: str,
    geometry: str,
    cif: str | None,
    lattice: str | None,
    space_group: str | None,
    omega_start: float | None,
    omega_step: float | None,
    first_frame: int,
    last_frame: int | None,
    max_two_theta: float | None,
    rings: int | None,
) -> None:
    """Open frames, instrument and crystal as `hedm.peaks` and `hedm.farfield` do, and read the first frames.

    Reports `panels`, `frames`, `omega_from`, `omega_to` and `omega_step` (degrees), `rings` and `reflections` (that
    reach a panel) and `two_theta_max` (degrees).

    Raises
    ------
    KernelError
        Exit 65, 66 for files; 2 for what does not fit; 65 when no ring reaches a panel.
    """
    crystal = open_crystal(cif, lattice, space_group)
    beyond = None if last_frame is None else last_frame + 1
    scan = open_scan(input, geometry, sweep(omega_start, omega_step), first=first_frame, beyond=beyond)
    job.inputs += scan.read
    job.progress(0.5, "inspect", "first frames")
    for frames in scan.frames.values():
        frames.pictures(0, 1)
    job.metric("panels", len(scan.frames))
    _tell(job, next(iter(scan.frames.values())), open_reflections(crystal, scan.instrument, max_two_theta, rings))


def inspect_layer(
    job: Job,
    *,
    input: str,
    geometry: str,
    cif: str | None,
    lattice: str | None,
    space_group: str | None,
    seeds: str | None,
    height: float,
    omega_start: float | None,
    omega_step: float | None,
    max_two_theta: float | None,
    rings: int | None,
    min_eta: float,
) -> None:
    """Open images, instruments, crystal and seeds as `hedm.nearfield` does, and read the first images.

    Reports `distances`, `frames`, `omega_from`, `omega_to` and `omega_step` (degrees), `rings`, `reflections` and
    `two_theta_max` (degrees), and `seeds` where there are.

    Raises
    ------
    KernelError
        Exit 65, 66 for files; 2 for what does not fit; 65 when no ring reaches the detector.
    """
    crystal = open_crystal(cif, lattice, space_group)
    distances = open_distances(input, geometry, sweep(omega_start, omega_step))
    job.inputs += distances.read
    distances.setup(height=height, min_eta=min_eta)
    job.progress(0.5, "inspect", "first images")
    for frames in distances.frames:
        frames.pictures(0, 1)
    known = open_seeds(seeds)
    job.metric("distances", len(distances.frames))
    if known is not None:
        job.metric("seeds", len(known))
    reflections = open_reflections(crystal, distances.instruments[0], max_two_theta, rings)
    _tell(job, distances.frames[0], reflections)


def _tell(job: Job, frames: Frames, reflections: Reflections) -> None:
    edges = frames.omegas.edges_deg
    job.metric("frames", frames.count)
    job.metric("omega_from", float(edges.min()))
    job.metric("omega_to", float(edges.max()))
    job.metric("omega_step", frames.omegas.step_deg)
    job.metric("rings", len(reflections.two_theta))
    job.metric("reflections", len(reflections.hkl))
    job.metric("two_theta_max", math.degrees(float(reflections.two_theta.max())))
