"""`hedm.nearfield`: from the images of a layer at several distances to a map of its orientations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cautions import Code
from kernels.errors import Exit, KernelError
from kernels.hedm.colours import colour_orientations
from kernels.hedm.frames import Frames, Sweep, open_frames
from kernels.hedm.geometry import Geometry
from kernels.hedm.grains import read_grains
from kernels.hedm.jobs.scene import open_crystal, open_geometry, open_reflections
from kernels.hedm.nearfield.pictures import write_colours, write_confidence
from kernels.hedm.nearfield.reconstruct import reconstruct
from kernels.hedm.nearfield.reduction import reduce
from kernels.hedm.nearfield.setup import Setup, from_panels
from kernels.hedm.nearfield.voxels import GRIDS
from kernels.hedm.nearfield.writers import read_map, write_map, write_mic
from kernels.io.picture import check_picture
from kernels.job import Job

_READ = 64  # frames at once, of which some rows are wanted


class Images:
    """Frames as an array that is read where it is asked for: `[first:beyond]`, or `[:, top:bottom]`."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self.shape = (frames.count, frames.rows, frames.columns)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        some, rows = key if isinstance(key, tuple) else (key, slice(None))
        first, beyond, _ = some.indices(self.shape[0])
        parts = [
            self._frames.pictures(start, min(start + _READ, beyond))[:, rows] for start in range(first, beyond, _READ)
        ]
        return np.concatenate(parts) if len(parts) != 1 else parts[0]


def nearfield(
    job: Job,
    *,
    input: str,
    output: str,
    mic: str | None,
    picture: str | None,
    confidence_picture: str | None,
    geometry: str,
    cif: str | None,
    lattice: str | None,
    space_group: str | None,
    seeds: str | None,
    seed_radius: float,
    width: float,
    voxel_size: float,
    voxels: str,
    height: float,
    threshold: float,
    edge_width: float,
    least_pixels: int,
    omega_start: float | None,
    omega_step: float | None,
    max_two_theta: float | None,
    rings: int | None,
    min_eta: float,
    grain_angle: float,
) -> None:
    """Write the map of a layer; arguments as in the schema. Ranks share its voxels.

    Reports `voxels`, `accepted` (share of them with a confidence above chance), `grains`, `confidence` (median of the
    accepted), `chance` (what it is up to without any crystal), `threshold`, `explained` (the share of the spots' pixels
    that the map has hits on) and `occupied` (the largest share of pixels that are lit at a distance).

    Raises
    ------
    KernelError
        Exit 65 when no voxel has a confidence above chance, with what was found; 65, 66 for files; 2 for what does not
        fit; 73, 74 for outputs.
    """
    arguments = {name: value for name, value in locals().items() if name != "job"}
    crystal = open_crystal(cif, lattice, space_group)
    if (omega_start is None) != (omega_step is None):
        raise KernelError("Give omegaStart and omegaStep together, or neither.")
    omegas = None if omega_start is None or omega_step is None else Sweep(omega_start, omega_step)
    images, told = _listed("input", input), _listed("geometry", geometry)
    frames = [open_frames(path, omegas=omegas) for path in images]
    instruments = [open_geometry(path, frames[0].shape) for path in told]
    job.inputs += [*images, *told]
    setup = _setup(frames, instruments, height=height, min_eta=min_eta)
    reflections = open_reflections(crystal, instruments[0], max_two_theta, rings)
    layer = GRIDS[voxels](width, voxel_size, pixel_um=setup.pixel_um)
    known = None
    if seeds is not None:
        table = read_grains(seeds)
        if not len(table):
            raise KernelError(f"The grains {seeds!r} are none: leave seeds out to search all orientations.")
        known = table.orientation
    job.progress(0.0, "reduce", f"{len(frames)} distances of {setup.frames} frames")
    with job.phase("reduce"):
        spots = reduce(
            [Images(each) for each in frames],
            threshold=threshold,
            sigma=edge_width,
            least_pixels=least_pixels,
            ranks=job.ranks,
        )
    with job.phase("search"):
        made = reconstruct(
            spots,
            setup,
            layer,
            reflections.g0,
            crystal.rotations,
            seeds=known,
            radius_deg=seed_radius,
            grain_deg=grain_angle,
            ranks=job.ranks,
            say=lambda share, text: job.progress(0.3 + 0.65 * share, "search", text),
        )
    if not job.ranks.first:
        return
    if made.doubtful:
        job.warn(
            Code.UNINDEXED,
            f"Half of the reflections are unseen, and the map explains {100 * made.explained:.0f} % of the spots: "
            "see whether the lattice is right, and whether the map covers the sample.",
        )
    colours = colour_orientations(made.orientations, crystal, (0.0, 0.0, 1.0))
    part = job.stage(output, check=_check, shape=(len(layer.places_um),), finiteFraction=1.0)
    write_map(part, made, colours=colours, parameters=arguments, warnings=job.warnings)
    if mic:
        write_mic(job.stage(mic), made, axes=crystal.busing_levy_rotation, z_um=height)
    if picture:
        write_colours(job.stage(picture, check=check_picture), made, colours)
    if confidence_picture:
        write_confidence(job.stage(confidence_picture, check=check_picture), made)
    accepted = made.accepted
    job.metric("voxels", len(accepted))
    job.metric("accepted", float(accepted.mean()))
    job.metric("grains", len(made.segments.voxels))
    job.metric("confidence", float(np.median(made.confidence[accepted])))
    job.metric("chance", made.chance)
    job.metric("threshold", made.threshold)
    job.metric("explained", made.explained)
    job.metric("occupied", float(spots.occupied().max()))


def _listed(name: str, text: str) -> list[str]:
    """Files with commas between them, one for each distance."""
    paths = [word.strip() for word in text.split(",")]
    if not all(paths):
        raise KernelError(f"{name} is a file for each distance, with commas between them, not {text!r}.")
    return paths


def _setup(frames: list[Frames], instruments: list[Geometry], *, height: float, min_eta: float) -> Setup:
    if len(frames) != len(instruments):
        raise KernelError(
            f"Frames are given for {len(frames)} distances, and geometries for {len(instruments)}: give as many."
        )
    leader = instruments[0]
    for number, (each, instrument) in enumerate(zip(frames, instruments, strict=True), 1):
        if len(instrument.panels) != 1:
            raise KernelError(
                f"The geometry of distance {number} has {len(instrument.panels)} panels, and one is wanted."
            )
        if each.shape != instrument.panels[0].shape:
            raise KernelError(
                f"The frames {each.name!r} have {each.shape[0]} x {each.shape[1]} pixels, and the detector of distance "
                f"{number} {instrument.panels[0].shape[0]} x {instrument.panels[0].shape[1]}.",
                Exit.BAD_INPUT,
            )
        if instrument.wedge or instrument.chi or not np.array_equal(instrument.beam, leader.beam):
            raise KernelError(f"The rotation axis of distance {number} leans: near field takes no wedge and no chi.")
        if not math.isclose(instrument.wavelength_A, leader.wavelength_A, rel_tol=1e-6):
            raise KernelError(
                f"The wavelengths of the distances differ: {leader.wavelength_A:.6g} and "
                f"{instrument.wavelength_A:.6g} angstrom.",
                Exit.BAD_INPUT,
            )
        if each.omegas.breaks:
            raise KernelError(f"The omegas of {each.name!r} have gaps: near field takes one sweep.", Exit.BAD_INPUT)
        if each.count != frames[0].count or np.abs(each.omegas.edges_deg - frames[0].omegas.edges_deg).max() > 1e-3:
            raise KernelError(
                f"The frames of distance {number} are not of the same omegas as those of distance 1.", Exit.BAD_INPUT
            )
    edges = frames[0].omegas.edges_deg
    return from_panels(
        leader.wavelength_A,
        [instrument.panels[0] for instrument in instruments],
        omega_start_deg=float(edges[0, 0]),
        omega_step_deg=float(edges[-1, 1] - edges[0, 0]) / len(edges),
        frames=len(edges),
        beam=leader.beam,
        z_um=height,
        eta_deg=(min_eta, 90.0),
    )


def _check(path: Path) -> None:
    try:
        read_map(path)
    except KernelError as error:
        raise KernelError(f"The written map cannot be read again: {error}", Exit.BAD_OUTPUT) from error
