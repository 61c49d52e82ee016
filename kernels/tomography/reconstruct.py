"""`tomography.reconstruct`: from a scan to a volume, slab by slab."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import threads
from kernels.errors import KernelError
from kernels.io import nexus as nexus_io
from kernels.io import picture as picture_io
from kernels.io.dxchange import Scan
from kernels.io.omezarr import VolumeWriter, check_volume
from kernels.job import Job
from kernels.tomography.fbp import LANES, Reconstructor
from kernels.tomography.locate import search
from kernels.tomography.prepare import prepare_rows

Floats = NDArray[np.float32]

_AXIS_ROWS, _AXIS_WIDTH = 5, 0.2
_CHUNK_LAYERS = 16
_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class Slabs:
    """How the slices are cut up: `layers` slices at a time, in chunks of `chunk` layers; what that needs in bytes."""

    layers: int
    chunk: int
    bytes: int


def plan_slabs(*, slices: int, angles: int, columns: int, binning: int, itemsize: int, fixed: int, limit: int) -> Slabs:
    """The largest slabs that fit into `limit` bytes, in whole chunks where possible.

    Parameters
    ----------
    slices, angles, columns
        Of the volume and the binned scan.
    binning, itemsize
        Rows and columns of the detector per binned one; bytes of a stored count.
    fixed
        Bytes needed whatever the slab.

    Raises
    ------
    KernelError
        Exit 2 when not even one slice fits; the sentence says how much would.
    """
    stored = angles * columns * binning**2
    counts = stored * (itemsize + 4) if binning > 1 else stored * itemsize
    each = counts + angles * columns * 8 + columns * columns * 4
    group = min(LANES, slices) * columns * columns * 4
    fits = (limit - fixed - group) // each
    if fits < 1:
        need = (fixed + group + each) / 1e9
        raise KernelError(
            f"tomography.reconstruct: one slice of {columns} x {columns} from {angles} angles needs {need:.2f} GB; "
            f"memoryGB is {limit / 1e9:g}. Raise memoryGB or binning."
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

    Reports `rotation_axis`, `slices`, `size`, `bad_pixels`, `floored_fraction`, `minimum`, `maximum`.

    Raises
    ------
    KernelError
        Exit 65, 66, 75 for the scan; 2 when the axis is off the detector or a slice does not fit into memory; 3 when
        the volume would hold values that are not finite; 73, 74 for outputs.
    """
    with Scan(input, angles=angles) as scan:
        rows, columns, begun = scan.rows // binning, scan.columns // binning, 0.0
        if rows < 1 or columns < 8:
            raise KernelError(f"tomography.reconstruct: binning {binning} leaves {rows} rows and {columns} columns.")
        if rotation_axis is None:
            found = search(
                job,
                scan,
                rows=_AXIS_ROWS,
                width=_AXIS_WIDTH,
                floor=transmission_floor,
                air_columns=air_columns,
                end=0.1,
            )
            rotation_axis, begun = found.position, 0.1
        elif not 0 <= rotation_axis <= scan.columns - 1:
            raise KernelError(
                f"tomography.reconstruct: rotationAxis {rotation_axis:g} is off the detector of {scan.columns} columns."
            )
        else:
            job.metric("rotation_axis", rotation_axis)
        reconstructor = Reconstructor(
            scan.theta_deg,
            columns,
            axis=(rotation_axis + 0.5) / binning - 0.5,
            window=filter,
            padding=padding,
            circle=circle,
            scale=binning,
        )
        slabs = plan_slabs(
            slices=rows,
            angles=scan.angles,
            columns=columns,
            binning=binning,
            itemsize=scan.dtype.itemsize,
            fixed=reconstructor.bytes_per_group,
            limit=int(memory_gb * 1e9),
        )
        shape = (rows, columns, columns)
        part = job.stage(
            output,
            directory=True,
            check=partial(check_volume, shape=shape),
            description="reconstructed volume",
            shape=shape,
            dtype=dtype,
        )
        voxel_um = pixel_size * binning if pixel_size else None
        writer = VolumeWriter(part, shape, chunk_layers=slabs.chunk, name=Path(input).stem, pixel_size_um=voxel_um)
        middle = _Middle(shape)
        bad = floored = 0
        for start in range(0, rows, slabs.layers):
            stop = min(start + slabs.layers, rows)
            with job.phase("prepare"):
                prepared = prepare_rows(
                    scan,
                    start * binning,
                    stop * binning,
                    floor=transmission_floor,
                    binning=binning,
                    air_columns=air_columns,
                )
            bad, floored = bad + prepared.bad_pixels, floored + prepared.floored
            slab = np.empty((stop - start, columns, columns), np.float32)
            with job.phase("reconstruct"):
                for first in range(0, stop - start, LANES):
                    slab[first : first + LANES] = reconstructor.slices(prepared.sinograms[first : first + LANES])
                    done = min(start + first + LANES, stop)
                    job.progress(begun + (0.9 - begun) * done / rows, "reconstruct", f"{done}/{rows} slices")
            with job.phase("write"):
                writer.write(start, slab)
            middle.take(start, slab)
    job.metric("slices", rows)
    job.metric("size", columns)
    job.metric("bad_pixels", bad)
    job.metric("floored_fraction", floored / (rows * columns * scan.angles))
    job.metric("minimum", writer.minimum)
    job.metric("maximum", writer.maximum)
    shown = picture_io.window(middle.all)
    with job.phase("pyramid"):
        writer.finish(shown)
    job.describe(part, finiteFraction=writer.finite / float(np.prod(shape)))
    job.progress(0.95, "pyramid", "written")
    _write_views(job, middle, shown, picture, nexus, voxel_um, Path(input).stem, filter, padding)


class _Middle:
    """The three slices through the middle of a volume, gathered while it is made."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        rows, size, _ = shape
        self.layer, self.centre = rows // 2, size // 2
        self.horizontal = np.zeros((size, size), np.float32)
        self.front = np.zeros((rows, size), np.float32)
        self.side = np.zeros((rows, size), np.float32)

    def take(self, start: int, slab: Floats) -> None:
        if start <= self.layer < start + len(slab):
            self.horizontal = slab[self.layer - start].copy()
        self.front[start : start + len(slab)] = slab[:, self.centre, :]
        self.side[start : start + len(slab)] = slab[:, :, self.centre]

    @property
    def all(self) -> list[Floats]:
        return [self.horizontal, self.front, self.side]


def _write_views(
    job: Job,
    middle: _Middle,
    shown: tuple[float, float],
    picture_path: str | None,
    nexus_path: str | None,
    voxel_um: float | None,
    name: str,
    filter: str,
    padding: str,
) -> None:
    if picture_path:
        part = job.stage(picture_path, check=picture_io.check_picture, description="three slices through the middle")
        picture_io.write_slices(part, middle.all, *shown)
    if nexus_path:
        part = job.stage(nexus_path, check=nexus_io.check_nexus, description="three slices and parameters (NeXus)")
        step, unit = (voxel_um, "um") if voxel_um else (1.0, "pixel")
        titles = (("horizontal", ("y", "x")), ("front", ("z", "x")), ("side", ("z", "y")))
        with nexus_io.new_file(part) as file:
            entry = nexus_io.add_entry(file, name, "horizontal")
            for values, (title, axes) in zip(middle.all, titles, strict=True):
                nexus_io.add_image(entry, title, values, axes, f"{title} slice through the middle", step, unit)
            said = {**job.metrics, "filter": filter, "padding": padding, "threads": threads()}
            nexus_io.add_process(entry, "tomography.reconstruct", _VERSION, said)
