"""`xpcs.qmap`: bins of a detector from its geometry, written as a qmap file."""

from __future__ import annotations

import os
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.io import hdf5
from kernels.io.nexus import new_file
from kernels.job import Job
from kernels.xpcs.badpixels import find_bad
from kernels.xpcs.metadata import Metadata, find_metadata, read_metadata
from kernels.xpcs.qmap import GROUP, Qmap, read_flags, write_qmap
from kernels.xpcs.readers import open_frames, open_source
from kernels.xpcs.rings import Geometry, make_qmap

Flags = NDArray[np.bool_]


def qmap(
    job: Job,
    *,
    output: str,
    input: str | None,
    rows: int | None,
    columns: int | None,
    metadata: str | None,
    mask: str | None,
    static_q: int,
    dynamic_q: int,
    static_phi: int,
    dynamic_phi: int,
    scale: str,
    q_min: float | None,
    q_max: float | None,
    beam_stop: float,
    beam_center_x: float | None,
    beam_center_y: float | None,
    pixel_size: float | None,
    distance: float | None,
    energy: float | None,
    find_bad_pixels: bool,
) -> None:
    """Write the qmap file `output` for the detector of the frames `input`, or of `rows` x `columns`.

    What of the geometry is not given is read from the metadata file, which is looked for beside `input`. With
    `find_bad_pixels`, all frames are read once, and dead and hot pixels are marked in the blemish.

    Raises
    ------
    KernelError
        Exit 2 for what is missing or does not fit, 65 and 66 for unusable inputs, 73 and 74 for the output.
    """
    known = _known(input, metadata, need=None in (beam_center_x, beam_center_y, pixel_size, distance, energy))
    shape = _shape(input, rows, columns)
    center = known.beam_center or (None, None)
    size = known.pixel_size_m[0] if known.pixel_size_m else None
    geometry = Geometry(
        (_given("beamCenterX", beam_center_x, center[0]), _given("beamCenterY", beam_center_y, center[1])),
        _given("pixelSize", pixel_size, size),
        _given("distance", distance, known.distance_m),
        _given("energy", energy, known.energy_kev),
    )
    flags, blemish = _masks(mask, shape)

    def made() -> Qmap:
        return make_qmap(
            shape,
            geometry,
            static_q=static_q,
            dynamic_q=dynamic_q,
            static_phi=static_phi,
            dynamic_phi=dynamic_phi,
            q_range=(q_min, q_max),
            scale=cast(Literal["linear", "log"], scale),
            mask=flags,
            blemish=blemish,
            beam_stop=beam_stop,
        )

    part = job.stage(output, description="static and dynamic bins (qmap)", shape=shape)
    bins = made()
    if find_bad_pixels:
        if input is None:
            raise KernelError("xpcs.qmap: findBadPixels needs the frames: give input.")
        job.progress(0.1, "bad pixels")
        with job.phase("bad pixels"):
            bad = find_bad(open_frames(input, frame_time_s=known.frame_time_s), bins.partition)
        blemish = np.ones(shape, bool) if blemish is None else blemish
        blemish.ravel()[bad.all] = False
        bins = made()
        job.metric("dead_pixels", len(bad.dead))
        job.metric("hot_pixels", len(bad.hot))
    with job.phase("write"), new_file(part) as file:
        write_qmap(file.create_group(GROUP), bins, source=os.path.basename(input or ""))
    job.metric("static_bins", bins.partition.static_bins)
    job.metric("dynamic_bins", bins.partition.dynamic_bins)
    job.metric("pixels", int((bins.partition.static > 0).sum()))
    for name, count in bins.left_out.items():
        job.metric(name.replace(" ", "_"), count)


def _known(input: str | None, metadata: str | None, *, need: bool) -> Metadata:
    """The metadata, which are looked for only where something is needed of them."""
    if metadata is None and input is not None:
        try:
            metadata = find_metadata(input)
        except KernelError as error:
            if need:
                raise error.with_hint(" Or give the whole geometry.") from error
    return Metadata(1.0) if metadata is None else read_metadata(metadata)


def _shape(input: str | None, rows: int | None, columns: int | None) -> tuple[int, int]:
    if input is not None:
        source = open_source(input, 1.0)
        if (rows or source.rows, columns or source.columns) != (source.rows, source.columns):
            raise KernelError(
                f"The detector of {input!r} is of {source.rows} x {source.columns} pixels, not {rows} x {columns}.",
                Exit.BAD_INPUT,
            )
        return source.rows, source.columns
    if rows is None or columns is None:
        raise KernelError("xpcs.qmap: give input, or rows and columns of the detector.")
    return rows, columns


def _given(name: str, value: float | None, otherwise: float | None) -> float:
    if value is not None:
        return value
    if otherwise is None:
        raise KernelError(f"xpcs.qmap: {name} is neither given nor in the metadata.")
    return otherwise


def _masks(path: str | None, shape: tuple[int, int]) -> tuple[Flags | None, Flags | None]:
    if path is None:
        return None, None
    with hdf5.open_file(path) as file:
        mask, blemish = (read_flags(file, path, f"{GROUP}/{name}", shape) for name in ("mask", "blemish"))
    if mask is None and blemish is None:
        raise KernelError(f"The mask {path!r} has neither {GROUP}/mask nor {GROUP}/blemish.", Exit.BAD_INPUT)
    return mask, blemish
