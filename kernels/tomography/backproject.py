"""`tomography.backproject`: from a scan with a cone beam or a tilted axis to a volume, slab by slab."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from kernels.compiled import threads
from kernels.conveyor import convey
from kernels.errors import KernelError, printable
from kernels.io.dxchange import Scan
from kernels.job import Job
from kernels.manifest import input_facts
from kernels.tomography.field import whole_field
from kernels.tomography.locate import axis_of
from kernels.tomography.oblique.axis import search
from kernels.tomography.oblique.geometry import Geometry, distance_of
from kernels.tomography.oblique.passes import COUNTED, BackProjector, Passes
from kernels.tomography.oblique.plan import Extent, plan_passes
from kernels.tomography.oblique.weights import joined
from kernels.tomography.prepare import Changes, Recipe
from kernels.tomography.quality import warn_of_changes
from kernels.tomography.volume import Volume

_VERSION = "1.0"  # of the arithmetic: another one does not go on with a volume that this has begun
_AXIS_ROWS = 5


def backproject(
    job: Job,
    *,
    input: str,
    output: str,
    picture: str | None,
    nexus: str | None,
    rotation_axis: float | None,
    source_distance: float | None,
    detector_distance: float | None,
    pixel_size: float | None,
    middle_column: float | None,
    middle_row: float | None,
    tilt: float,
    rotation: str,
    height: int | None,
    height_offset: float,
    filter: str,
    padding: str,
    circle: bool,
    compression: str,
    binning: int,
    angles: str | None,
    transmission_floor: float,
    air_columns: int,
    memory_gb: float,
) -> None:
    """Reconstruct the scan `input` into the OME-Zarr `output`; arguments as in the schema.

    Cone beams by the method of Feldkamp, Davis & Kress (J. Opt. Soc. Am. A 1 (1984) 612), tilted axes by filtered back
    projection (see `oblique.weights`). Exact in the plane of the middle row, and everywhere for parallel beams that are
    upright to the axis. Resumes by slabs and shares them among ranks as `tomography.reconstruct`.

    Reports `rotation_axis`, `slices`, `size`, `magnification`, `bad_pixels`, `floored_fraction`, `minimum`, `maximum`.

    Raises
    ------
    KernelError
        Exit 65, 66, 75 for the scan, or one that covers too few angles; 2 for a geometry that cannot be, or a slab that
        does not fit into memory; 3 when the volume would hold values that are not finite; 73, 74 for outputs.
    """
    ranks = job.ranks
    recipe = Recipe(transmission_floor, air_columns, binning)
    name = printable(Path(input).stem)
    distance, magnification = distance_of(source_distance, detector_distance, pixel_size)
    voxel_um = pixel_size * binning / magnification if pixel_size else None
    with Scan(input, angles=angles, warn=job.warn) as scan:
        rows, columns = scan.rows // binning, scan.columns // binning
        if rows < 1 or columns < 8:
            raise KernelError(
                f"tomography.backproject: binning {binning} is too much for {scan.rows} x {scan.columns}."
            )
        geometry = Geometry(
            0.5 * (scan.columns - 1),
            0.5 * (scan.rows - 1) if middle_row is None else middle_row,
            distance,
            tilt,
            middle_column,
            rotation == "clockwise",
        )
        begun = 0.1 if rotation_axis is None else 0.0
        if ranks.first and rotation_axis is None and (geometry.cone or not geometry.upright):
            rotation_axis = search(job, scan, geometry, recipe, end=begun)
        elif ranks.first:
            rotation_axis = axis_of(job, scan, rotation_axis, recipe, rows=_AXIS_ROWS, end=begun)
        geometry = replace(geometry, axis=ranks.told(rotation_axis or 0.0)).binned(binning)
        wide = joined(geometry, scan.theta_deg, columns)
        slices, size = height or rows, wide.size if wide else columns
        reach = 0.5 * size if circle else math.sqrt(0.5) * size
        extent = Extent(slices, size, height_offset - 0.5 * (slices - 1), reach)
        projector = BackProjector(
            geometry,
            extent,
            scan.theta_deg,
            rows=rows,
            columns=columns,
            window=filter,
            padding=padding,
            scale=binning,
        )
        plan = plan_passes(
            geometry,
            extent,
            rows=rows,
            columns=projector.columns,
            angles=scan.angles,
            padded=projector.padded,
            binning=binning,
            dark_and_flat=scan.darks + scan.flats,
            itemsize=scan.dtype.itemsize,
            threads=threads(),
            limit=int(memory_gb * 1e9),
            ranks=ranks.local_size,
        )
        mine = ranks.share(slices, plan.chunk)
        shape = (slices, size, size)
        volume = Volume(
            job,
            output,
            shape,
            chunk=plan.chunk,
            name=name,
            voxel_um=voxel_um,
            compression=compression,
            facts={
                "version": _VERSION,
                "input": input_facts(input),
                "chosen": (geometry, extent, filter, padding, angles),
                "recipe": recipe,
            },
        )
        with job.phase("read"):
            field = whole_field(scan)
        passes = Passes(
            job,
            scan,
            recipe,
            volume.writer,
            volume.journal,
            mine,
            projector=projector,
            field=field,
            frames=plan.frames,
            shape=shape,
            begun=begun,
        )
        convey(passes.parts(plan.layers), read=passes.read, work=passes.work, write=passes.write)
    counted = [sum(noted[word] for noted in passes.counts.values()) for word in COUNTED]
    if of_ranks := ranks.gathered(counted):
        values, floored, lost = (sum(part) for part in zip(*of_ranks, strict=True))
        changes = Changes(field.dark.size, field.bad, field.inverted, values, floored, lost + field.not_finite)
        job.metric("bad_pixels", changes.bad_pixels)
        job.metric("floored_fraction", floored / values)
        warn_of_changes(job, input, changes, floor=transmission_floor)
    job.metric("magnification", magnification)
    said = {"filter": filter, "padding": padding, "tilt": tilt, "input": input, "threads": threads()}
    volume.finish(passes, mine, picture=picture, nexus=nexus, kernel="tomography.backproject", said=said)
