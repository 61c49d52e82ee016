"""`xpcs.simulate`: a series of speckle frames as a detector would write it, of which g2 is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.io.nexus import new_file
from kernels.job import Job
from kernels.xpcs.events import Events
from kernels.xpcs.metadata import ENDING, Metadata, write_metadata
from kernels.xpcs.qmap import GROUP, write_qmap
from kernels.xpcs.readers.rigaku import COLUMNS, GAPS, ROWS, SHAPE_3M
from kernels.xpcs.rings import Geometry, make_qmap
from kernels.xpcs.speckle import Speckle
from kernels.xpcs.speckle import simulate as speckle_of
from kernels.xpcs.writers import FORMATS, check_shape, files_of, write_frames

_START = "2026-01-01T00:00:00+00:00"


def simulate(
    job: Job,
    *,
    output: str,
    form: str,
    rows: int,
    columns: int,
    frames: int,
    photons: float,
    tau: float,
    tau_power: float,
    contrast: float,
    speckle_size: float,
    drift: float,
    ageing: float,
    dead_pixels: float,
    hot_pixels: float,
    static_q: int,
    dynamic_q: int,
    frame_time: float,
    seed: int,
) -> None:
    """Write frames to `output`, and beside it their qmap, metadata and truth.

    Those are `<stem>_qmap.hdf`, `<stem>_metadata.hdf` and `<stem>_truth.h5`. The beam meets the detector in a corner's
    neighbourhood, so that rings are long; the intensity falls with q from one static ring to the next and is `photons`
    per pixel and frame on average. In dynamic bin b, g2 = 1 + contrast · exp(-2 t / tau_b), where
    tau_b = tau · (q_b / q_middle)^-tau_power.

    The truth holds /truth/tau_s (dynamic bins), /truth/dead and /truth/hot (numbers of pixels), and the attributes
    `contrast`, `drift` and `ageing` of /truth. Memory is bounded by some tens of frames; the file depends only on the
    arguments.

    Raises
    ------
    KernelError
        Exit 2 for a format that has not such a detector or numbers that do not fit, 73 and 74 for outputs.
    """
    check_shape(form, rows, columns)
    ending = FORMATS[form]
    if not output.endswith(ending) and form != "hdf5":
        raise KernelError(f"xpcs.simulate: the output of {form} ends in {ending}, not as {Path(output).name!r}.")
    stem = Path(output).name.removesuffix(ending) if output.endswith(ending) else Path(output).stem
    geometry = Geometry((0.129 * columns, 0.5006 * rows), 7.6e-5, 4.0, 10.9)
    random = np.random.default_rng([seed, 2])
    blemish = random.random((rows, columns)) >= dead_pixels + hot_pixels
    hot_too = random.random((rows, columns)) * (dead_pixels + hot_pixels) < hot_pixels
    stop = 0.013 * max(rows, columns)
    qmap = make_qmap(
        (rows, columns), geometry, static_q=static_q, dynamic_q=dynamic_q, mask=_covered(form), beam_stop=stop
    )
    dead, hot = np.flatnonzero(~blemish & ~hot_too), np.flatnonzero(~blemish & hot_too)
    partition = qmap.partition
    used = partition.dynamic > 0
    q = partition.axes[0].dynamic[partition.dynamic_index]
    tau_s = tau * (q / q[len(q) // 2]) ** -tau_power
    rings = partition.axes[0].static[partition.static_index] ** -1.0
    rate = np.where(used, np.append(rings[:1], rings)[partition.static], 0)
    rate *= photons / rate[used].mean()
    rate.ravel()[~blemish.ravel()] = 0
    per_pixel = np.append(tau_s[:1], tau_s)[partition.dynamic] / frame_time
    speckle = Speckle(rate, per_pixel, contrast, speckle_size, drift, ageing, hot)

    parts = [
        job.stage(file, description=f"simulated frames ({form})", shape=(frames, rows, columns))
        for file in files_of(output, form)
    ]
    beside = Path(output)
    qmap_part = job.stage(beside.with_name(f"{stem}_qmap.hdf"), description="static and dynamic bins (qmap)")
    metadata_part = job.stage(beside.with_name(f"{stem}{ENDING}"), description="metadata (NeXus)")
    truth_part = job.stage(beside.with_name(f"{stem}_truth.h5"), description="what is true of the frames")
    with new_file(qmap_part) as file:
        write_qmap(file.create_group(GROUP), qmap, source=beside.name)
    with new_file(metadata_part) as file:
        known = Metadata(
            frame_time,
            frame_time,
            geometry.energy_kev,
            (geometry.pixel_size_m, geometry.pixel_size_m),
            geometry.distance_m,
            geometry.beam_center,
            _START,
        )
        write_metadata(file, known, title=f"simulated speckle {seed}")
    with new_file(truth_part) as file:
        truth = file.create_group("truth")
        truth.attrs.update({"contrast": contrast, "drift": drift, "ageing": ageing, "seed": seed})
        truth["tau_s"], truth["dead"], truth["hot"] = tau_s, dead, hot

    counted = 0

    def told() -> Iterator[Events]:
        nonlocal counted
        for events in speckle_of(speckle, frames, seed):
            counted += len(events.pixels)
            done = events.first + events.frames
            job.progress(0.99 * done / frames, "simulate", f"{done}/{frames} frames")
            yield events

    with job.phase("simulate"):
        write_frames(parts, form, told(), rows=rows, columns=columns, frames=frames, frame_time_s=frame_time)
    job.metric("events", counted)
    job.metric("occupancy", counted / (frames * int(used.sum())))
    job.metric("static_bins", partition.static_bins)
    job.metric("dynamic_bins", partition.dynamic_bins)


def _covered(form: str) -> NDArray[np.bool_] | None:
    """Where the detector of a format has pixels, or None for everywhere."""
    if form != "rigaku-3m":
        return None
    covered = np.zeros(SHAPE_3M, bool)
    for row in range(3):
        for column in range(2):
            top, left = row * (ROWS + GAPS[0]), column * (COLUMNS + GAPS[1])
            covered[top : top + ROWS, left : left + COLUMNS] = True
    return covered
