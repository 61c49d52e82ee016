"""`xpcs.inspect`: can this be correlated? Says what is there, or in a sentence what is wrong, within seconds."""

from __future__ import annotations

from kernels.errors import Exit, KernelError
from kernels.job import Job
from kernels.xpcs.jobs.measurement import longest_lag, open_measurement


def inspect(
    job: Job,
    *,
    input: str,
    qmap: str,
    metadata: str | None,
    frame_time: float | None,
    first_frame: int,
    last_frame: int | None,
    stride: int,
    average: int,
    lags_per_level: int,
) -> None:
    """Open frames, bins and metadata as the other kernels do, and read the first frames.

    Reports `frames`, `rows`, `columns`, `static_bins`, `dynamic_bins`, `pixels` (in a bin), `frame_time` (seconds, of
    the frames as chosen), `longest_delay` (seconds) and `occupancy` (share of pixels that counted, of the first
    frames).

    Raises
    ------
    KernelError
        Exit 65, 66, 75 for the files; 2 for frames that are not there or too few.
    """
    measured = open_measurement(
        input=input,
        qmap=qmap,
        metadata=metadata,
        frame_time=frame_time,
        first_frame=first_frame,
        last_frame=last_frame,
        stride=stride,
        average=average,
    )
    frames, partition = measured.frames, measured.partition
    longest = longest_lag(frames.count, lags_per_level)
    job.progress(0.5, "inspect", "first frames")
    first = next(iter(frames.blocks()), None)
    if first is None:
        raise KernelError(f"No frame of {input!r} could be read.", Exit.BAD_INPUT)
    job.metric("frames", frames.count)
    job.metric("rows", frames.rows)
    job.metric("columns", frames.columns)
    job.metric("static_bins", partition.static_bins)
    job.metric("dynamic_bins", partition.dynamic_bins)
    job.metric("pixels", len(partition.pixels))
    job.metric("frame_time", frames.frame_time_s)
    job.metric("longest_delay", longest * frames.frame_time_s)
    job.metric("occupancy", len(first.pixels) / (first.frames * frames.rows * frames.columns))
