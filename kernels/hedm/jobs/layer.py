"""`hedm.simulate-layer`: near-field images of a layer of which all grains are known."""

from __future__ import annotations

from pathlib import Path

import hdf5plugin
import numpy as np

from kernels.hedm.conventions import hexrd
from kernels.hedm.crystals import HC_EV_A
from kernels.hedm.geometry import Geometry, Panel
from kernels.hedm.grains import check_grains, new_grains, write_grains
from kernels.hedm.jobs.scene import open_crystal, open_reflections
from kernels.hedm.nearfield.setup import from_panels
from kernels.hedm.nearfield.simulate import simulate, voronoi
from kernels.hedm.nearfield.voxels import squares
from kernels.hedm.orientations import random_orientations
from kernels.io.nexus import add_entry, new_file
from kernels.job import Job

VERSION = "1.0"


def simulate_layer(
    job: Job,
    *,
    output: str,
    cif: str | None,
    lattice: str | None,
    space_group: str | None,
    grains: int,
    width: float,
    voxel_size: float,
    rows: int,
    columns: int,
    pixel_size: float,
    near: float,
    far: float,
    energy: float,
    frames: int,
    omega_start: float,
    omega_step: float,
    counts: float,
    background: float,
    max_two_theta: float | None,
    rings: int | None,
    seed: int,
) -> None:
    """Write the images of both distances; arguments as in the schema.

    Beside `output`, the grains with their middles, are `<stem>_near.h5` and `<stem>_far.h5`, and the instruments,
    `<stem>_near.yml` and `<stem>_far.yml`. The beam meets the detector near the middle of its first rows. Lit pixels
    have `counts` over the background, with Poisson noise.

    Raises
    ------
    KernelError
        Exit 2 and 65 for what cannot be, 73 and 74 for outputs.
    """
    arguments = {name: value for name, value in locals().items() if name != "job"}
    crystal = open_crystal(cif, lattice, space_group)
    instruments = []
    for name, distance in (("near", near), ("far", far)):
        panel = Panel.tilted(
            name,
            shape=(rows, columns),
            pixel_um=(pixel_size, pixel_size),
            distance_um=1e3 * distance,
            beam_centre=(0.05 * rows, (columns - 1) / 2),
        )
        instruments.append(Geometry(HC_EV_A / (1e3 * energy), (panel,)))
    setup = from_panels(
        instruments[0].wavelength_A,
        [instrument.panels[0] for instrument in instruments],
        omega_start_deg=omega_start,
        omega_step_deg=omega_step,
        frames=frames,
    )
    reflections = open_reflections(crystal, instruments[0], max_two_theta, rings)
    random = np.random.default_rng([seed, 9])
    voxels = squares(width, voxel_size, pixel_um=pixel_size)
    layer = voronoi(voxels, random_orientations(grains, random), seed=seed)
    there = np.unique(layer.grain)
    middles = np.array([voxels.places_um[layer.grain == n].mean(axis=0) for n in there])
    truth = new_grains(
        crystal,
        layer.orientations[there],
        position_um=np.column_stack([middles, np.zeros(len(there))]),
        radius_um=np.sqrt(np.bincount(layer.grain)[there] / np.pi) * voxel_size,
    )
    beside, stem = Path(output), Path(output).stem
    parts = []
    for (name,) in (instrument.names for instrument in instruments):
        frames_part = job.stage(
            beside.with_name(f"{stem}_{name}.h5"),
            description=f"simulated images, {name}",
            shape=(frames, rows, columns),
        )
        parts.append((frames_part, job.stage(beside.with_name(f"{stem}_{name}.yml"), description="the instrument")))
    known = job.stage(output, check=check_grains, description="the grains that are there")
    with job.phase("simulate"):
        spots = simulate(layer, setup, reflections.g0, seed=seed)
    write_grains(
        known,
        truth,
        title=f"simulated layer {seed}",
        program="hedm.simulate-layer",
        version=VERSION,
        parameters=arguments,
    )
    edges = omega_start + omega_step * np.arange(frames + 1)
    for d, ((frames_part, told), instrument) in enumerate(zip(parts, instruments, strict=True)):
        hexrd.write(told, instrument)
        with new_file(frames_part) as file:
            entry = add_entry(file, f"simulated near-field images, {instrument.names[0]}", "data")
            group = entry.create_group("data")
            group.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": ["omega", ".", "."]})
            data = group.create_dataset(
                "data",
                (frames, rows, columns),
                np.uint16,
                chunks=(1, rows, columns),
                **hdf5plugin.Bitshuffle(cname="lz4"),
            )
            for name, values in (("omega", edges[:-1]), ("omega_end", edges[1:])):
                group[name] = values
                group[name].attrs["units"] = "degrees"
            for n in range(frames):
                lit = np.unpackbits(spots.bits[d, n].view(np.uint8), axis=1, bitorder="little")[:, :columns]
                data[n] = random.poisson(background + counts * lit).astype(np.uint16)
                done = d * frames + n + 1
                job.progress(0.99 * done / (2 * frames), "write", f"{done}/{2 * frames} images")
    job.metric("grains", len(there))
    job.metric("voxels", len(voxels.places_um))
    job.metric("rings", reflections.rings)
