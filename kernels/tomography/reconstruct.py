"""`tomography.reconstruct`: from a scan to a volume, slab by slab."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kernels.cautions import Code
from kernels.compiled import threads
from kernels.conveyor import convey
from kernels.cuda.device import agreed
from kernels.errors import KernelError, printable
from kernels.io.dxchange import Scan
from kernels.job import Job
from kernels.manifest import input_facts
from kernels.tomography.backends.packages import described
from kernels.tomography.corrections.hardening import curve_of
from kernels.tomography.cuda.choice import choose
from kernels.tomography.locate import axis_of
from kernels.tomography.methods import method
from kernels.tomography.prepare import Changes, Recipe, added
from kernels.tomography.quality import warn_of_changes
from kernels.tomography.slabs import plan_slabs
from kernels.tomography.stations import Sinograms
from kernels.tomography.volume import Volume

_VERSION = "2.2"  # of the arithmetic: another one does not go on with a volume that this has begun
_AXIS_ROWS = 5


def reconstruct(
    job: Job,
    *,
    input: str,
    output: str,
    picture: str | None,
    nexus: str | None,
    rotation_axis: float | None,
    backend: str,
    algorithm: str,
    device: str,
    iterations: int | None,
    non_negative: bool,
    stripes: str,
    hardening: str | None,
    filter: str,
    padding: str,
    circle: bool,
    dtype: str,
    compression: str,
    binning: int,
    pixel_size: float | None,
    angles: str | None,
    transmission_floor: float,
    air_columns: int,
    memory_gb: float,
) -> None:
    """Reconstruct the scan `input` into the OME-Zarr `output`; arguments as in the schema.

    A run that was killed goes on with the volume that it had begun, by whole slabs (`resumed_slices` tells how many
    slices it found). Several ranks take neighbouring slices each; the volume is the same, bit by bit, for any number of
    them. memoryGB is for all ranks of a node together.

    Reports `rotation_axis`, `device` (what has computed, and `device_reason` where that was not a GPU it was given),
    `backend` where another package has (its version, and its name of the algorithm), `slices`, `size`, `bad_pixels`,
    `floored_values`, `minimum`, `maximum`, and warns of what the scan, the search for the axis, or iterations that
    ended too early leave in doubt.

    Raises
    ------
    KernelError
        Exit 65, 66, 75 for the scan; 2 when the axis is off the detector or a slice does not fit into memory; 3 when
        the volume would hold values that are not finite; 73, 74 for outputs.
    """
    ranks, package = job.ranks, described(backend, algorithm)
    if package:
        job.metric("backend", package)
    curve = curve_of(hardening) if hardening else None
    recipe = Recipe(transmission_floor, air_columns, binning, "" if stripes == "none" else stripes, curve)
    name = printable(Path(input).stem)
    voxel_um = pixel_size * binning if pixel_size else None
    with Scan(input, angles=angles, warn=job.warn) as scan:
        rows, columns = scan.rows // binning, scan.columns // binning
        if rows < 1 or columns < 8:
            raise KernelError(
                f"tomography.reconstruct: binning {binning} is too much for {scan.rows} x {scan.columns}."
            )
        begun = 0.1 if rotation_axis is None else 0.0
        rotation_axis = ranks.told(
            axis_of(job, scan, rotation_axis, recipe, rows=_AXIS_ROWS, end=begun) if ranks.first else 0.0
        )
        device = agreed(job, choose(device, package or algorithm)).kind  # all parts of a volume are made by the same
        chosen = method(
            algorithm,
            scan.theta_deg,
            columns,
            backend=backend,
            axis=(rotation_axis + 0.5) / binning - 0.5,
            window=filter,
            padding=padding,
            circle=circle,
            scale=binning,
            iterations=iterations,
            nonnegative=non_negative,
            device=device,
        )
        shape = (rows, chosen.size, chosen.size)
        plan = partial(
            plan_slabs,
            slices=rows,
            angles=scan.angles,
            columns=columns,
            size=chosen.size,
            binning=binning,
            frames=scan.flats + scan.darks,
            itemsize=scan.dtype.itemsize,
            fixed=chosen.fixed_bytes,
            few=scan.by_frames,
            copies=3 if recipe.stripes else 2 if curve else 1,
        )
        limit = int(memory_gb * 1e9)
        chunk = plan(limit=limit).chunk  # the same for any number of ranks
        slabs = plan(limit=limit, ranks=ranks.local_size)
        if slabs.layers < chunk:
            raise KernelError(
                f"tomography.reconstruct: memoryGB {memory_gb:g} is too little for {ranks.local_size} ranks on a node, "
                f"each of which holds {chunk} slices at least. Raise memoryGB, or ask for fewer ranks."
            )
        mine = ranks.share(rows, chunk)
        layers = slabs.layers if slabs.layers >= len(mine) else slabs.layers // chunk * chunk
        volume = Volume(
            job,
            output,
            shape,
            chunk=chunk,
            name=name,
            voxel_um=voxel_um,
            compression=compression,
            facts={
                "version": _VERSION,
                "input": input_facts(input),
                "chosen": (
                    rotation_axis,
                    package,
                    algorithm,
                    iterations,
                    non_negative,
                    filter,
                    padding,
                    circle,
                    binning,
                    angles,
                ),
                "device": device,
                "recipe": recipe,
            },
        )
        writer, journal = volume.writer, volume.journal
        stations = Sinograms(job, scan, recipe, writer, journal, mine, method=chosen, shape=shape, begun=begun)
        convey(stations.parts(layers), read=stations.read, work=stations.work, write=stations.write)
    counted = [noted for of_rank in ranks.gathered(list(stations.counts.values())) for noted in of_rank]
    if ranks.first:
        changes = added(Changes(*(noted[name] for name in Changes._fields)) for noted in counted)
        job.metric("bad_pixels", changes.bad_pixels)
        job.metric("floored_values", changes.floored_values)
        warn_of_changes(job, input, changes, floor=transmission_floor)
        if unsettled := sum(noted["unsettled"] for noted in counted):
            job.warn(
                Code.ITERATIONS,
                f"{unsettled} of {rows} slices had not settled when {algorithm} ended after as many iterations as it "
                "may make. Give more `iterations`, or look whether the slices are good enough.",
            )
    said = {"algorithm": algorithm, "filter": filter, "padding": padding, "input": input, "threads": threads()}
    volume.finish(stations, mine, picture=picture, nexus=nexus, kernel="tomography.reconstruct", said=said)
