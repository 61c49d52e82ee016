"""`hedm.nearfield`: from the images of a layer at several distances to a map of its orientations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cautions import Code
from kernels.cuda.device import agreed, choose, open_device
from kernels.errors import Exit, KernelError
from kernels.hedm.colours import colour_orientations
from kernels.hedm.frames import Frames
from kernels.hedm.jobs.scans import open_distances, sweep
from kernels.hedm.jobs.scene import open_crystal, open_reflections, open_seeds
from kernels.hedm.nearfield.cuda.search import prepare
from kernels.hedm.nearfield.ideal import ideal_images
from kernels.hedm.nearfield.pictures import write_colours, write_confidence
from kernels.hedm.nearfield.reconstruct import reconstruct
from kernels.hedm.nearfield.reduction import reduce
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
    device: str,
) -> None:
    """Write the map of a layer; arguments as in the schema. Ranks share its voxels.

    Reports `voxels`, `accepted` (share of them with a confidence above chance), `grains`, `confidence` (median of the
    accepted), `chance` (what it is up to without any crystal), `threshold`, `explained` (the share of the spots' pixels
    that the map has hits on), `occupied` (the largest share of pixels that are lit at a distance), and `device` (what
    has computed, and `device_reason` where that was not a GPU it was given).

    Raises
    ------
    KernelError
        Exit 65 when no voxel has a confidence above chance, with what was found; 65, 66 for files; 2 for what does not
        fit, or for a GPU that is wanted and not there; 75 when it fails; 73, 74 for outputs.
    """
    arguments = {name: value for name, value in locals().items() if name != "job"}
    if device == "gpu":
        open_device()  # or say so before all frames are read
    crystal = open_crystal(cif, lattice, space_group)
    distances = open_distances(input, geometry, sweep(omega_start, omega_step))
    job.inputs += distances.read
    frames, instruments = distances.frames, distances.instruments
    setup = distances.setup(height=height, min_eta=min_eta)
    reflections = open_reflections(crystal, instruments[0], max_two_theta, rings)
    layer = GRIDS[voxels](width, voxel_size, pixel_um=setup.pixel_um)
    known = open_seeds(seeds)
    job.progress(0.0, "reduce", f"{len(frames)} distances of {setup.frames} frames")
    with job.phase("reduce"):
        spots = reduce(
            [Images(each) for each in frames],
            threshold=threshold,
            sigma=edge_width,
            least_pixels=least_pixels,
            ranks=job.ranks,
        )
        spots, setup = ideal_images(spots, setup, job.ranks)
    choice = agreed(job, choose(device, lambda: prepare(spots, setup, layer, reflections.g0)))
    arguments["device"] = choice.kind
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
            way=choice.ready,
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


def _check(path: Path) -> None:
    try:
        read_map(path)
    except KernelError as error:
        raise KernelError(f"The written map cannot be read again: {error}", Exit.BAD_OUTPUT) from error
