"""`xpcs.multitau`: g2 of every dynamic bin, and the scattering, in one reading of the frames."""

from __future__ import annotations

from kernels.cautions import Code
from kernels.cuda.device import Choice, agreed, choose
from kernels.errors import KernelError
from kernels.io.nexus import check_nexus
from kernels.io.picture import check_picture
from kernels.job import Job
from kernels.xpcs import boost, result
from kernels.xpcs.analysis.scattering import Tally
from kernels.xpcs.cuda.multitau import multitau as correlate_on_gpu
from kernels.xpcs.cuda.multitau import prepare
from kernels.xpcs.events import Frames
from kernels.xpcs.exchange import Exchanged
from kernels.xpcs.jobs.measurement import longest_lag, open_measurement, suspicions
from kernels.xpcs.multitau import multitau as correlate
from kernels.xpcs.multitau import takers
from kernels.xpcs.partial import About, Partial, write_partial
from kernels.xpcs.pictures import draw_scattering

VERSION = "1.0"


def multitau(
    job: Job,
    *,
    input: str,
    qmap: str,
    output: str,
    picture: str | None,
    preview: str | None,
    preview_every: float,
    metadata: str | None,
    frame_time: float | None,
    first_frame: int,
    last_frame: int | None,
    stride: int,
    average: int,
    bad_pixels: bool,
    lags_per_level: int,
    memory_gb: float,
    backend: str,
    device: str,
) -> None:
    """Write the result file `output` of the frames `input`; arguments as in the schema.

    Reports `frames`, `delays`, `dynamic_bins`, `contrast` (largest of g2 - 1 at the first delay), `intensity` (counts
    per pixel and frame), `bad_frames` and `changing_bins` (see `kernels.xpcs.analysis.flags`), and `device` (what has
    computed, and `device_reason` where that was not a GPU it was given); warns of bad frames and changing bins, and of
    metadata that are missing or other than what was given.

    Raises
    ------
    KernelError
        Exit 65, 66, 75 for the inputs; 2 for frames that are not there or too few; 3 when a g2 would not be finite;
        73, 74 for outputs.
    """
    arguments = {name: value for name, value in locals().items() if name != "job"}
    measured = open_measurement(
        input=input,
        qmap=qmap,
        metadata=metadata,
        frame_time=frame_time,
        first_frame=first_frame,
        last_frame=last_frame,
        stride=stride,
        average=average,
        bad_pixels=bad_pixels,
        ranks=job.ranks,
    )
    frames, partition = measured.frames, measured.partition
    longest_lag(frames.count, lags_per_level)
    memory = int(memory_gb * 1e9 / job.ranks.local_size)
    if backend == "boost-corr" and (job.ranks.size > 1 or lags_per_level != 4 or device == "gpu"):
        raise KernelError("boost-corr has 4 lagsPerLevel, is one process, and takes a GPU by itself (device auto).")
    tally = Tally(
        frames,
        partition,
        average=average,
        watch=lambda done: job.progress(0.9 * done / frames.count, "correlate", f"{done}/{frames.count} frames"),
    )
    choice = Choice("cpu")
    if backend == "native":
        choice = choose(device, lambda: prepare(tally, partition, per_level=lags_per_level, ranks=job.ranks))
        choice = agreed(job, choice)
    reading: Frames = tally
    if job.ranks.size > 1:
        reading = Exchanged(frames, job.ranks, takers(partition, job.ranks), tally.add)
    about = About(partition, frames.count, measured.known.frame_time_s, stride, average)
    watcher = Partial(preview, preview_every, about) if preview else None
    with job.phase("correlate"):
        if backend == "boost-corr":
            found = boost.multitau(tally, partition, memory_bytes=memory, gpu=device != "cpu")
        elif choice.kind == "gpu":
            found = correlate_on_gpu(reading, partition, choice.ready, job.ranks)
        else:
            found = correlate(
                reading, partition, per_level=lags_per_level, memory_bytes=memory, ranks=job.ranks, watcher=watcher
            )
        if job.ranks.size > 1:
            tally.together(job.ranks)
    if not job.ranks.first:
        return
    scattering = tally.scattering()
    figures, doubts = suspicions(scattering, len(partition.pixels))
    if watcher and watcher.failed:
        job.warn(Code.PREVIEW, f"g2 could not be shown before the end: {watcher.failed}")
    for caution in (*measured.warnings, *doubts):
        job.warn(*caution)
    config = {"begin_frame": first_frame, "end_frame": last_frame, "dpl": lags_per_level, "backend": backend}
    if backend == "native":
        config["device"] = choice.kind
    with job.phase("write"):
        part = job.stage(output, check=result.check_result, shape=found.g2.shape, dtype="float64", finiteFraction=1.0)
        with result.new_result(part, measured.qmap, measured.known, measured.metadata) as file:
            result.add_scattering(file, scattering)
            result.add_multitau(file, found, stride=stride, average=average, config=config)
            result.add_record(file, VERSION, arguments, measured.left_out, job.warnings)
        if preview:
            write_partial(job.stage(preview, check=check_nexus, shape=found.g2.shape, dtype="float64"), found, about)
        if picture:
            draw_scattering(job.stage(picture, check=check_picture), scattering, partition, frames.frame_time_s)
    for name, value in figures.items():
        job.metric(name, value)
    job.metric("frames", frames.count)
    job.metric("delays", len(found.lags.frames))
    job.metric("dynamic_bins", partition.dynamic_bins)
    job.metric("contrast", float(found.g2[0].max() - 1))
    job.metric("intensity", float(scattering.intensity.mean()))
