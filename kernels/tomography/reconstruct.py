"""`tomography.reconstruct`: from a scan to a volume, slab by slab."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kernels.compiled import threads
from kernels.errors import KernelError, printable
from kernels.io.dxchange import Scan
from kernels.io.omezarr import VolumeWriter, check_volume
from kernels.io.picture import window
from kernels.job import Job
from kernels.tomography.fbp import LANES, Reconstructor
from kernels.tomography.locate import search
from kernels.tomography.prepare import Recipe, prepare_rows
from kernels.tomography.views import Middle, write_nexus, write_picture

_AXIS_ROWS, _AXIS_WIDTH = 5, 0.3
_CHUNK_LAYERS = 16


class Slabs(NamedTuple):
    """How the slices are cut up: `layers` slices at a time, in chunks of `chunk` layers; what that needs in bytes."""

    layers: int
    chunk: int
    bytes: int


def plan_slabs(
    *,
    slices: int,
    angles: int,
    columns: int,
    binning: int,
    frames: int,
    itemsize: int,
    fixed: int,
    limit: int,
    ranks: int = 1,
) -> Slabs:
    """The largest slabs that fit into `limit` bytes, in whole chunks where possible.

    Parameters
    ----------
    slices, angles, columns
        Of the volume and the binned scan.
    binning, frames, itemsize
        Rows and columns of the detector per binned one; flat and dark fields; bytes of a stored count.
    fixed
        Bytes needed whatever the slab.
    limit, ranks
        Bytes of a node, and the ranks there that share them.

    Raises
    ------
    KernelError
        Exit 2 when not even one slice fits; the sentence says how much would.
    """
    stored = angles * columns * binning**2
    counts = stored * (itemsize + 4) if binning > 1 else stored * itemsize
    each = counts + frames * columns * binning**2 * 16 + angles * columns * 8 + columns * columns * 4
    group = min(LANES, slices) * columns * columns * 4
    fits = (limit // ranks - fixed - group) // each
    if fits < 1:
        need = (fixed + group + each) / 1e9
        raise KernelError(
            f"tomography.reconstruct: one slice of {columns} x {columns} from {angles} angles needs {need:.2f} GB; "
            f"memoryGB is {limit / 1e9:g}{f' for {ranks} ranks' if ranks > 1 else ''}. Raise memoryGB or binning."
        )
    layers = int(min(fits, slices))
    chunk = min(_CHUNK_LAYERS, layers)
    layers = layers if layers == slices else layers // chunk * chunk
    return Slabs(layers, chunk, int(fixed + group + layers * each))


def reconstruct(
    job: Job,
    *,
    input: str,
    output: str,
    picture: str | None,
    nexus: str | None,
    rotation_axis: float | None,
    filter: str,
    padding: str,
    circle: bool,
    dtype: str,
    binning: int,
    pixel_size: float | None,
    angles: str | None,
    transmission_floor: float,
    air_columns: int,
    memory_gb: float,
) -> None:
    """Reconstruct the scan `input` into the OME-Zarr `output`; arguments as in the schema.

    Several ranks take neighbouring slices each; the volume is the same, bit by bit, for any number of them. memoryGB is
    for all ranks of a node together.

    Reports `rotation_axis`, `slices`, `size`, `bad_pixels`, `floored_fraction`, `minimum`, `maximum`.

    Raises
    ------
    KernelError
        Exit 65, 66, 75 for the scan; 2 when the axis is off the detector or a slice does not fit into memory; 3 when
        the volume would hold values that are not finite; 73, 74 for outputs.
    """
    ranks = job.ranks
    recipe = Recipe(transmission_floor, air_columns, binning)
    name = printable(Path(input).stem)
    voxel_um = pixel_size * binning if pixel_size else None
    with Scan(input, angles=angles) as scan:
        shape = (scan.rows // binning, scan.columns // binning, scan.columns // binning)
        if shape[0] < 1 or shape[1] < 8:
            raise KernelError(
                f"tomography.reconstruct: binning {binning} is too much for {scan.rows} x {scan.columns}."
            )
        begun = 0.1 if rotation_axis is None else 0.0
        rotation_axis = ranks.told(_axis(job, scan, rotation_axis, recipe, end=begun) if ranks.first else 0.0)
        reconstructor = Reconstructor(
            scan.theta_deg,
            shape[1],
            axis=(rotation_axis + 0.5) / binning - 0.5,
            window=filter,
            padding=padding,
            circle=circle,
            scale=binning,
        )
        plan = partial(
            plan_slabs,
            slices=shape[0],
            angles=scan.angles,
            columns=shape[1],
            binning=binning,
            frames=scan.flats + scan.darks,
            itemsize=scan.dtype.itemsize,
            fixed=reconstructor.bytes_per_group,
        )
        limit = int(memory_gb * 1e9)
        chunk = plan(limit=limit).chunk  # the same for any number of ranks
        slabs = plan(limit=limit, ranks=ranks.local_size)
        if slabs.layers < chunk:
            raise KernelError(
                f"tomography.reconstruct: memoryGB {memory_gb:g} is too little for {ranks.local_size} ranks on a node, "
                f"each of which holds {chunk} slices at least. Raise memoryGB, or ask for fewer ranks."
            )
        mine = ranks.share(shape[0], chunk)
        layers = slabs.layers if slabs.layers >= len(mine) else slabs.layers // chunk * chunk
        part = job.stage_together(output, directory=True, check=partial(check_volume, shape=shape))
        writer = VolumeWriter(part, shape, chunk_layers=chunk, name=name, pixel_size_um=voxel_um, ranks=ranks)
        middle = Middle(shape)
        for start in range(mine.start, mine.stop, layers):
            stop = min(start + layers, mine.stop)
            with job.phase("prepare"):
                prepared = prepare_rows(scan, start * binning, stop * binning, recipe)
            job.count("bad_pixels", prepared.bad_pixels)
            job.count("floored_values", prepared.floored)
            slab = np.empty((stop - start, *shape[1:]), np.float32)
            with job.phase("reconstruct"):
                for first in range(0, stop - start, LANES):
                    slab[first : first + LANES] = reconstructor.slices(prepared.sinograms[first : first + LANES])
                    done = (min(start + first + LANES, stop) - mine.start) * shape[0] // len(mine)
                    job.progress(begun + (0.9 - begun) * done / shape[0], "reconstruct", f"{done}/{shape[0]} slices")
            with job.phase("write"):
                writer.write(start, slab)
            middle.take(start, slab)
    for name_of_count in ("bad_pixels", "floored_values"):
        if counts := ranks.gathered(int(job.metrics.get(name_of_count, 0))):
            job.metric(name_of_count, sum(counts))
    writer.gather()
    middle.gather(ranks, mine)
    for metric, value in zip(("slices", "size"), shape, strict=False):
        job.metric(metric, value)
    job.metric("minimum", writer.minimum)
    job.metric("maximum", writer.maximum)
    shown = window(middle.slices) if ranks.first else (0.0, 1.0)
    with job.phase("pyramid"):
        writer.finish(shown)
    if not ranks.first:
        return
    finite = writer.finite / float(np.prod(shape))
    job.describe(part, description="reconstructed volume", shape=shape, dtype=dtype, finiteFraction=finite)
    job.progress(0.95, "pyramid", "written")
    if picture:
        write_picture(job, picture, middle, shown)
    if nexus:
        said = {**job.metrics, "filter": filter, "padding": padding, "input": input, "threads": threads()}
        write_nexus(job, nexus, middle, title=name, voxel_um=voxel_um, parameters=said)


def _axis(job: Job, scan: Scan, given: float | None, recipe: Recipe, *, end: float) -> float:
    if given is None:
        return search(job, scan, recipe, rows=_AXIS_ROWS, width=_AXIS_WIDTH, end=end).position
    if not 0 <= given <= scan.columns - 1:
        raise KernelError(
            f"tomography.reconstruct: rotationAxis {given:g} is off the detector of {scan.columns} columns."
        )
    job.metric("rotation_axis", given)
    return given
