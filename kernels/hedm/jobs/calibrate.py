"""`hedm.calibrate`: the instrument's geometry from the spots of grains."""

from __future__ import annotations

import numpy as np

from kernels.errors import Exit, KernelError
from kernels.hedm import calibration
from kernels.hedm.calibration import Measured
from kernels.hedm.conventions import hexrd
from kernels.hedm.farfield.find import find_grains
from kernels.hedm.jobs.scene import open_crystal, open_lattice, open_limits, open_reflections
from kernels.hedm.jobs.tables import read_table
from kernels.job import Job

_USUAL = ("distance", "shift_y", "tilt_x", "tilt_y", "tilt_z", "wedge")
_CYCLES = 2


def calibrate(
    job: Job,
    *,
    input: str,
    output: str,
    geometry: str,
    cif: str | None,
    lattice: str | None,
    space_group: str | None,
    refine: str | None,
    sample_radius: float,
    sample_height: float,
    max_two_theta: float | None,
    rings: int | None,
    min_eta: float,
    max_strain: float,
    min_completeness: float,
    spot_noise: float,
    omega_noise: float | None,
) -> None:
    """Find grains, refine the instrument from their spots, find them again with it, and write it; arguments as in the
    schema. The height of the sample and of the detector cannot both be known: grains keep theirs on average.

    Reports `grains`, `spots`, `rms_px` and `rms_omega_deg` before and after, and of each parameter by how much it
    changed and its standard deviation (`<name>` and `<name>_sigma`, µm and radians).

    Raises
    ------
    KernelError
        Exit 65 when no grain is found, with what the spots say; 2 for parameters that are not there or not determined;
        65, 66 for files; 73, 74 for outputs.
    """
    crystal = open_crystal(cif, lattice, space_group)
    scanned = read_table(input, geometry)
    wanted = _USUAL if refine is None else tuple(word.strip() for word in refine.split(","))
    reflections = open_reflections(crystal, scanned.geometry, max_two_theta, rings)
    first: calibration.Calibration | None = None
    for cycle in range(_CYCLES):
        job.progress(cycle / _CYCLES, "index", f"round {cycle + 1} of {_CYCLES}")
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
        found = find_grains(scanned.placed(), scanned.geometry, open_lattice(reflections), limits=limits)
        if not len(found):
            raise KernelError(f"No grain was found. {found.verdict.sentence}", Exit.BAD_INPUT)
        owned = np.flatnonzero(found.owner >= 0)
        spots, pixel_um = scanned.spots, float(np.mean([panel.pixel_um for panel in scanned.geometry.panels]))
        grain, reflection, panel = (
            each[owned].astype(np.int64) for each in (found.owner, found.reflection, spots.panel)
        )
        measured = Measured(
            grain, reflection, panel, spots.row[owned], spots.column[owned], spots.omega[owned],
            found.limits.spot_um / pixel_um, found.limits.omega,
        )  # fmt: skip
        job.progress((cycle + 0.5) / _CYCLES, "refine", f"{len(found)} grains, {len(owned)} spots")
        made = calibration.calibrate(
            scanned.geometry,
            measured,
            g0=reflections.g0,
            orientation=found.orientation,
            position_um=found.position_um,
            strain=found.strain,
            refine=wanted,
            strain_sigma=max_strain,
        )
        first = first or made
        scanned = scanned._replace(geometry=made.geometry)
    assert first is not None
    part = job.stage(output, check=lambda path: _check(str(path)))
    hexrd.write(part, made.geometry)
    job.metric("grains", len(found))
    job.metric("spots", made.spots)
    job.metric("rms_px", made.rms_px)
    job.metric("rms_omega_deg", float(np.degrees(made.rms_omega)))
    job.metric("rms_px_before", first.rms_before_px)
    job.metric("rms_omega_deg_before", float(np.degrees(first.rms_before_omega)))
    total = first.values + made.values
    for name, value, sigma in zip(made.names, total.tolist(), made.sigmas.tolist(), strict=True):
        job.metric(name, value)
        job.metric(f"{name}_sigma", sigma)


def _check(path: str) -> None:
    try:
        hexrd.read(path)
    except KernelError as error:
        raise KernelError(f"The written geometry cannot be read again: {error}", Exit.BAD_OUTPUT) from error
