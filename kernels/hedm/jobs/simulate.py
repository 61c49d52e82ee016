"""`hedm.simulate`: frames of a turning polycrystal as a detector would record them, of which all is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from kernels.hedm.conventions import hexrd
from kernels.hedm.crystals import HC_EV_A
from kernels.hedm.exposure import Camera, Scan, expose
from kernels.hedm.frame_files import write_stack
from kernels.hedm.geometry import Geometry, Panel
from kernels.hedm.grains import check_grains, new_grains, write_grains
from kernels.hedm.jobs.scene import open_crystal, open_reflections
from kernels.hedm.orientations import random_orientations
from kernels.job import Job

VERSION = "1.0"
_SCATTER = 0.5  # of the logarithm of volumes


def simulate(
    job: Job,
    *,
    output: str,
    cif: str | None,
    lattice: str | None,
    space_group: str | None,
    grains: int,
    diameter: float,
    sample_radius: float,
    sample_height: float,
    strain: float,
    rows: int,
    columns: int,
    pixel_size: float,
    distance: float,
    energy: float,
    tilt: float,
    wedge: float,
    frames: int,
    omega_start: float,
    omega_step: float,
    counts: float,
    background: float,
    offset: int,
    mosaicity: float,
    seed: int,
) -> None:
    """Write frames to `output`, and beside it the instrument and the grains; arguments as in the schema.

    Those are `<stem>_geometry.yml` and `<stem>_truth.h5`. Grains are balls anywhere in a cylinder, of any orientation.
    The file depends only on the arguments.

    Raises
    ------
    KernelError
        Exit 2 and 65 for what cannot be, 73 and 74 for outputs.
    """
    arguments = {name: value for name, value in locals().items() if name != "job"}
    crystal = open_crystal(cif, lattice, space_group)
    panel = Panel.tilted(
        "panel",
        shape=(rows, columns),
        pixel_um=(pixel_size, pixel_size),
        distance_um=1e3 * distance,
        beam_centre=((rows - 1) / 2, (columns - 1) / 2),
        tilts=(math.radians(tilt),) * 3,
    )
    geometry = Geometry(HC_EV_A / (1e3 * energy), (panel,), wedge=math.radians(wedge))
    reflections = open_reflections(crystal, geometry, None, None)
    random = np.random.default_rng([seed, 8])
    turn, radius = random.uniform(0, 2 * math.pi, grains), sample_radius * np.sqrt(random.random(grains))
    height = sample_height * (random.random(grains) - 0.5)
    diameters = diameter * np.exp(random.normal(0, _SCATTER, grains) / 3)
    truth = new_grains(
        crystal,
        random_orientations(grains, random),
        position_um=np.column_stack([radius * np.cos(turn), radius * np.sin(turn), height]),
        strain=random.normal(0, strain, (grains, 6)) if strain else np.zeros((grains, 6)),
        radius_um=diameters / 2,
    )
    exposure = expose(
        geometry,
        Scan(math.radians(omega_start), math.radians(omega_step), frames),
        reflections.g0,
        strength=reflections.strength,
        orientation=truth.orientation,
        position_um=truth.position_um,
        strain=truth.strain,
        diameter_um=diameters,
        median_counts=counts,
        mosaic=math.radians(mosaicity),
        camera=Camera(background=background, offset=offset),
        seed=seed,
    )
    beside, stem = Path(output), Path(output).stem
    part = job.stage(output, description="simulated frames", shape=(frames, rows, columns), dtype="uint16")
    told = job.stage(beside.with_name(f"{stem}_geometry.yml"), description="the instrument (HEXRD)")
    known = job.stage(beside.with_name(f"{stem}_truth.h5"), check=check_grains, description="the grains that are there")
    hexrd.write(told, geometry)
    write_grains(
        known, truth, title=f"simulated grains {seed}", program="hedm.simulate", version=VERSION, parameters=arguments
    )
    with job.phase("simulate"):
        write_stack(
            part,
            exposure,
            watch=lambda done: job.progress(0.99 * done / frames, "simulate", f"{done}/{frames} frames"),
        )
    job.metric("grains", grains)
    job.metric("rings", reflections.rings)
    job.metric("spots", len(exposure.spots))
