"""`tomography.reconstruct`: from a scan to a volume, slab by slab."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels import resume
from kernels.compiled import threads
from kernels.conveyor import convey
from kernels.errors import KernelError, printable
from kernels.io.dxchange import Scan
from kernels.io.omezarr import VolumeWriter, check_volume
from kernels.io.picture import window
from kernels.job import Job
from kernels.manifest import input_facts
from kernels.tomography.locate import search
from kernels.tomography.methods import method
from kernels.tomography.prepare import Raw, Recipe, prepare, read_raw
from kernels.tomography.slabs import plan_slabs
from kernels.tomography.views import Middle, write_nexus, write_picture

Floats = NDArray[np.float32]

_VERSION = "2.0"  # of the arithmetic: another one does not go on with a volume that this has begun
_AXIS_ROWS, _AXIS_WIDTH = 5, 0.2


def reconstruct(
    job: Job,
    *,
    input: str,
    output: str,
    picture: str | None,
    nexus: str | None,
    rotation_axis: float | None,
    algorithm: str,
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
        rows, columns = scan.rows // binning, scan.columns // binning
        if rows < 1 or columns < 8:
            raise KernelError(
                f"tomography.reconstruct: binning {binning} is too much for {scan.rows} x {scan.columns}."
            )
        begun = 0.1 if rotation_axis is None else 0.0
        rotation_axis = ranks.told(_axis(job, scan, rotation_axis, recipe, end=begun) if ranks.first else 0.0)
        chosen = method(
            algorithm,
            scan.theta_deg,
            columns,
            axis=(rotation_axis + 0.5) / binning - 0.5,
            window=filter,
            padding=padding,
            circle=circle,
            scale=binning,
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
        run = resume.fingerprint(
            version=_VERSION,
            input=input_facts(input),
            chosen=(rotation_axis, algorithm, filter, padding, circle, binning, voxel_um, angles, compression),
            recipe=recipe,
            layout=(shape, chunk, name),
        )
        part = job.stage_together(output, directory=True, check=partial(check_volume, shape=shape), run=run)
        writer = VolumeWriter(
            part,
            shape,
            chunk_layers=chunk,
            name=name,
            pixel_size_um=voxel_um,
            compression=compression,
            ranks=ranks,
        )
        journal = resume.Journal(part, run) if ranks.first else None
        ranks.meet()
        journal = journal or resume.Journal(part, run)
        middle = Middle(shape)
        counts: dict[int, dict[str, int]] = {}
        done = {
            start: counted
            for start, counted in journal.done().items()
            if start in mine and start + counted["layers"] <= mine.stop
        }

        def read(here: range) -> Raw | Floats:
            with job.phase("read"):
                if here.start in done:
                    return writer.read(here.start, here.stop)
                return read_raw(scan, here.start * binning, here.stop * binning)

        def work(here: range, raw: Raw | Floats) -> Floats:
            if not isinstance(raw, Raw):
                counts[here.start] = done[here.start]
                return raw
            with job.phase("prepare"):
                prepared = prepare(scan, raw, recipe)
            counts[here.start] = {"bad_pixels": prepared.bad_pixels, "floored_values": prepared.floored}
            slab = np.empty((len(here), *shape[1:]), np.float32)
            with job.phase("reconstruct"):
                for first in range(0, len(slab), chosen.group):
                    group = slice(first, first + chosen.group)
                    chosen.slices(prepared.sinograms[group], slab[group])
                    ended = (min(here.start + group.stop, here.stop) - mine.start) * rows // len(mine)
                    job.progress(begun + (0.9 - begun) * ended / rows, "reconstruct", f"{ended}/{rows} slices")
            return slab

        def write(here: range, slab: Floats) -> None:
            with job.phase("write"):
                if here.start in done:
                    writer.count(here.start, slab)
                else:
                    writer.write(here.start, slab)
                    journal.note(here.start, layers=len(here), **counts[here.start])
            middle.take(here.start, slab)

        convey(_parts(mine, layers, done), read=read, work=work, write=write)
    job.metric("resumed_slices", sum(counted["layers"] for counted in done.values()))
    for name_of_count in ("bad_pixels", "floored_values"):
        if of_ranks := ranks.gathered(sum(counted[name_of_count] for counted in counts.values())):
            job.metric(name_of_count, sum(of_ranks))
    writer.gather()
    middle.gather(ranks, mine)
    for metric, value in zip(("slices", "size"), shape, strict=False):
        job.metric(metric, value)
    job.metric("minimum", writer.minimum)
    job.metric("maximum", writer.maximum)
    shown = window(middle.slices) if ranks.first else (0.0, 1.0)
    with job.phase("pyramid"):
        writer.finish(shown)
        ranks.meet()
        if ranks.first:
            journal.forget()
    if not ranks.first:
        return
    finite = writer.finite / float(np.prod(shape))
    job.describe(part, description="reconstructed volume", shape=shape, dtype=dtype, finiteFraction=finite)
    job.progress(0.95, "pyramid", "written")
    if picture:
        write_picture(job, picture, middle, shown)
    if nexus:
        said = {
            **job.metrics,
            "algorithm": algorithm,
            "filter": filter,
            "padding": padding,
            "input": input,
            "threads": threads(),
        }
        write_nexus(job, nexus, middle, title=name, voxel_um=voxel_um, parameters=said)


def _parts(mine: range, layers: int, done: Mapping[int, Mapping[str, int]]) -> Iterator[range]:
    """The slabs of `mine`: those that are done, as they were noted; between them, new ones of up to `layers`."""
    start = mine.start
    while start < mine.stop:
        if start in done:
            stop = start + done[start]["layers"]
        else:
            ends = [mine.stop, start + layers, *(other for other in done if other > start)]
            stop = min(ends)
        yield range(start, stop)
        start = stop


def _axis(job: Job, scan: Scan, given: float | None, recipe: Recipe, *, end: float) -> float:
    if given is None:
        return search(job, scan, recipe, rows=_AXIS_ROWS, width=_AXIS_WIDTH, end=end).position
    if not 0 <= given <= scan.columns - 1:
        raise KernelError(
            f"tomography.reconstruct: rotationAxis {given:g} is off the detector of {scan.columns} columns."
        )
    job.metric("rotation_axis", given)
    return given
