"""`hedm.farfield`: from spots to a table of grains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.cautions import Code
from kernels.cuda.device import Choice, agreed, choose
from kernels.errors import Exit, KernelError
from kernels.hedm.backends.choose import find_with
from kernels.hedm.backends.packages import OWN
from kernels.hedm.backends.task import Task
from kernels.hedm.conventions.midas_grains import write_midas_grains
from kernels.hedm.crystals import Crystal
from kernels.hedm.farfield import doubts
from kernels.hedm.farfield.cuda.search import prepare
from kernels.hedm.farfield.find import Found, find_grains
from kernels.hedm.farfield.volumes import radii, relative_volumes
from kernels.hedm.grains import Grains, check_grains, new_grains, write_grains
from kernels.hedm.jobs.scene import open_crystal, open_lattice, open_limits, open_reflections, open_volume
from kernels.hedm.jobs.tables import read_table
from kernels.hedm.pictures import draw_grains
from kernels.io.picture import check_picture
from kernels.job import Job

VERSION = "1.0"
_FEW = 0.5  # of the spots that a grain owns, below which it is told


def farfield(
    job: Job,
    *,
    input: str,
    output: str,
    csv: str | None,
    picture: str | None,
    geometry: str,
    cif: str | None,
    lattice: str | None,
    space_group: str | None,
    sample_radius: float,
    sample_height: float,
    illuminated_volume: str | None,
    max_two_theta: float | None,
    rings: int | None,
    min_eta: float,
    max_strain: float,
    min_completeness: float,
    spot_noise: float,
    omega_noise: float | None,
    backend: str,
    device: str,
) -> None:
    """Write the grains that made the spots `input`; arguments as in the schema. Ranks share seeds and refinement.

    The intensity of a grain goes as its volume; radii are those of balls that fill `illuminated_volume` together, and
    not known without it.

    Reports `grains`, `outside` (good grains that were left out since they lie outside of the sample's limits, up to
    three times these), `indexed` (share of the spots that a grain owns), `completeness` (median), `spot_error_um` and
    `omega_error_deg` (medians of how far spots lie from where they should), `position_error_um` (median standard
    deviation) and, with `illuminated_volume`, `radius_um` (median); warns of grains outside, of a strain that all
    share, and when most spots belong to no grain. With another backend `backend` is its version, and there is no
    covariance; with our own `device` is what has computed, and `device_reason` why that was not a GPU it was given.

    Raises
    ------
    KernelError
        Exit 65 when no grain is found, with what the spots say; 65, 66 for files; 2 for what does not fit, and a GPU
        that is not there; 73, 74 for outputs; 75 when a GPU fails.
    """
    arguments = {name: value for name, value in locals().items() if name != "job"}
    crystal = open_crystal(cif, lattice, space_group)
    together = open_volume(illuminated_volume, sample_radius, sample_height)
    scanned = read_table(input, geometry)
    reflections = open_reflections(crystal, scanned.geometry, max_two_theta, rings)
    limits = open_limits(
        scanned.geometry,
        scanned.omega_ranges,
        scanned.omega_step,
        sample_radius=sample_radius,
        sample_height=sample_height,
        max_strain=max_strain,
        min_completeness=min_completeness,
        spot_noise=spot_noise,
        omega_noise=omega_noise,
        min_eta=min_eta,
    )
    fractions = {"pairs": 0.3, "fibres": 0.5, "refine": 0.8, "outside": 0.9}

    def tell(phase: str, grains: int) -> None:
        job.progress(fractions.get(phase, 0.2), phase, f"{grains} grains")

    if backend != OWN and job.ranks.size > 1:
        raise KernelError(f"{backend} is one process here: take one rank, or backend {OWN}.")
    if backend != OWN and device == "gpu":
        raise KernelError(f"{backend} does not run on a GPU here: take backend {OWN}, or device cpu.")
    spots, planes, choice = scanned.placed(), open_lattice(reflections), Choice("cpu")
    if backend == OWN:
        choice = agreed(job, choose(device, lambda: prepare(len(spots), scanned.geometry, planes)))
        arguments["device"] = choice.kind
    part = job.stage(output, check=check_grains) if job.ranks.first else Path(output)
    with job.phase("index"):
        if backend == OWN:
            found = find_grains(
                spots,
                scanned.geometry,
                planes,
                limits=limits,
                progress=tell,
                ranks=job.ranks,
                gpu=choice.ready if choice.kind == "gpu" else None,
            )
        else:
            folder = part.with_name(f"{part.name}.{backend}")
            task = Task(spots, scanned.geometry, reflections, limits, folder, tell)
            found, arguments["found_by"] = find_with(backend, task)
            job.metric("backend", str(arguments["found_by"]))
    if not job.ranks.first:
        return
    outside = doubts.outside(found.outside_um, limits)
    if not len(found):
        raise KernelError(f"No grain was found. {outside or found.verdict.sentence}", Exit.BAD_INPUT)
    if outside:
        job.warn(Code.OUTSIDE, outside)
    if strained := doubts.strained(found.strain, limits):
        job.warn(Code.STRAINED, strained)
    if found.indexed < _FEW:
        verdict = found.verdict
        job.warn(
            Code.UNINDEXED,
            f"{1 - found.indexed:.0%} of the {verdict.spots} spots belong to no grain; {verdict.on_rings} lie on rings "
            "of this crystal. Is the sample larger than was said, is there another crystal in it, or noise in the "
            f"frames? {verdict.shifted}".rstrip(),
        )
    strength = reflections.strength if crystal.atoms else None
    grains = table_of(
        found, crystal, relative_volumes(found, spots, scanned.geometry, planes, strength=strength), together
    )
    job.describe(part, shape=(len(grains),), finiteFraction=1.0)
    write_grains(
        part,
        grains,
        title="Grains of the far field",
        program="hedm.farfield",
        version=VERSION,
        parameters=arguments,
        warnings=job.warnings,
    )
    if csv:
        write_midas_grains(job.stage(csv), grains)
    if picture:
        draw_grains(job.stage(picture, check=check_picture), grains)
    job.metric("grains", len(grains))
    job.metric("outside", len(found.outside_um))
    job.metric("indexed", found.indexed)
    job.metric("completeness", float(np.median(found.completeness)))
    job.metric("spot_error_um", float(np.median(found.spot_um)))
    job.metric("omega_error_deg", float(np.degrees(np.median(found.omega))))
    if together is not None:
        job.metric("radius_um", float(np.nanmedian(grains.radius_um)))
    if backend == OWN:
        variance = np.abs(found.covariance[:, range(3, 6), range(3, 6)]).sum(axis=1)
        job.metric("position_error_um", float(np.median(np.sqrt(variance))))


def table_of(found: Found, crystal: Crystal, volumes: NDArray[np.float64], together_um3: float | None = None) -> Grains:
    """What was found as a table, the most complete grains first, with relative volumes (n,); with radii where it is
    known what all grains fill together."""
    grains = new_grains(
        crystal,
        found.orientation,
        position_um=found.position_um,
        strain=found.strain,
        completeness=found.completeness,
        spots=found.matched,
        expected=found.expected,
        unique=found.unique,
        log_false=found.log_false,
        intensity=volumes,
        radius_um=np.full(len(found), np.nan) if together_um3 is None else radii(volumes, together_um3),
        residual_um=found.spot_um,
        residual_omega=found.omega,
        covariance=found.covariance if np.isfinite(found.covariance).any() else None,
    )
    return grains.take(np.argsort(-found.completeness, kind="stable"))
