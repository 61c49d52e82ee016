"""`xpcs.twotime`: the correlation of each two frames, of every dynamic bin that is asked for."""

from __future__ import annotations

import re
import shutil
from collections import deque
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels.cuda.device import Choice, agreed, choose, open_device
from kernels.errors import Exit, KernelError
from kernels.io.picture import check_picture
from kernels.job import Job
from kernels.ranks import Ranks
from kernels.xpcs import result
from kernels.xpcs.analysis.scattering import Tally
from kernels.xpcs.cuda.twotime import prepare
from kernels.xpcs.curves import bin_labels
from kernels.xpcs.exchange import Exchanged, sample
from kernels.xpcs.jobs.measurement import Measurement, longest_lag, open_measurement, suspicions
from kernels.xpcs.jobs.multitau import VERSION
from kernels.xpcs.partition import Partition
from kernels.xpcs.pictures import Thumbnail, draw_by_delay, draw_maps, shown_bins
from kernels.xpcs.twotime.correlate import TILE, Device
from kernels.xpcs.twotime.cost import expected, expected_by_delay
from kernels.xpcs.twotime.multitau import MultiTau, multitau_twotime
from kernels.xpcs.twotime.series import Series, chosen_bins, gather
from kernels.xpcs.twotime.slices import segments
from kernels.xpcs.twotime.together import Plan, planned, together, twotime_together


def twotime(
    job: Job,
    *,
    input: str,
    qmap: str,
    output: str,
    picture: str | None,
    metadata: str | None,
    frame_time: float | None,
    first_frame: int,
    last_frame: int | None,
    stride: int,
    average: int,
    bad_pixels: bool,
    bins: str | None,
    slices: int,
    scheme: str,
    lags_per_level: int,
    device: str,
) -> None:
    """Write the result file `output` of the frames `input`; arguments as in the schema.

    Reports `device` (what has computed, and `device_reason` where that was not a GPU it was given), `frames`,
    `dynamic_bins` (how many were correlated), `contrast` (largest of g2 - 1 at the first delay),
    `intensity` (counts per pixel and frame), `bad_frames` and `changing_bins`, and warns, as `xpcs.multitau`.

    Raises
    ------
    KernelError
        Exit 65, 66, 75 for the inputs; 2 for frames, bins or slices that cannot be; 3 when a g2 would not be finite;
        73, 74 for outputs, among them a disk that could not hold the correlations.
    """
    arguments = {name: value for name, value in locals().items() if name != "job"}
    if device == "gpu":
        if scheme != "full":
            raise KernelError(f"The scheme {scheme} does not run on a GPU: take scheme full, or device cpu.")
        open_device()  # or say so before all frames are read
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
    if frames.count < 2 * slices:
        raise KernelError(f"{frames.count} frames are too few for {slices} slices: each needs two.")
    if scheme == "multitau":
        longest_lag(frames.count, lags_per_level)
    numbers = chosen_bins(numbers_of(bins), partition.dynamic_bins)
    tally = Tally(
        frames,
        partition,
        average=average,
        watch=lambda done: job.progress(0.3 * done / frames.count, "read", f"{done}/{frames.count} frames"),
    )
    with job.phase("read"):
        plan = _shared_out(measured, numbers, scheme, job.ranks)
        series = _gathered(measured, tally, plan, job.ranks)
    choice = Choice("cpu")
    if scheme == "full":
        choice = choose(device, lambda: open_device() if series is None else prepare(series))
    choice = agreed(job, choice)
    gpu = choice.ready if series is not None else None
    if not job.ranks.first:
        with job.phase("correlate"):
            if scheme == "full":
                parts = segments(frames.count, slices)
                twotime_together(series, plan, lambda *_: None, job.ranks, slices=parts, gpu=gpu)
            else:
                _by_delay(series, lags_per_level, job.ranks)
        return
    scattering = tally.scattering()
    figures, doubts = suspicions(scattering, len(partition.pixels))
    for caution in (*measured.warnings, *doubts):
        job.warn(*caution)
    part = job.stage(output, check=result.check_result)
    config = {"begin_frame": first_frame, "end_frame": last_frame, "dq_selection": bins, "scheme": scheme}
    config["device"] = choice.kind
    with result.new_result(part, measured.qmap, measured.known, measured.metadata) as file:
        result.add_scattering(file, scattering)
        labels = _labels(partition)
        if scheme == "full":
            maps, g2 = _full(job, file, part, series, plan, slices, gpu)
        else:
            with job.phase("correlate"):
                found = _by_delay(series, lags_per_level, job.ranks)
            assert found is not None
            result.add_by_delay(file, found)
            g2 = found.g2
        result.add_config(file["xpcs/twotime"], stride, average, config)
        result.add_record(file, VERSION, arguments, measured.left_out, job.warnings)
    job.describe(part, shape=g2.shape, dtype="float32", finiteFraction=1.0)
    duration_s = frames.count * frames.frame_time_s
    if picture and scheme == "full":
        shown = [(labels[number - 1], values) for number, values in maps]
        draw_maps(job.stage(picture, check=check_picture), shown, duration_s)
    elif picture and found is not None:
        draw_by_delay(job.stage(picture, check=check_picture), found, labels, duration_s)
    for name, value in figures.items():
        job.metric(name, value)
    job.metric("frames", frames.count)
    job.metric("dynamic_bins", len(numbers))
    job.metric("contrast", float(g2[1 if scheme == "full" else 0].max() - 1))
    job.metric("intensity", float(scattering.intensity.mean()))


def _shared_out(measured: Measurement, bins: NDArray[np.int64], scheme: str, ranks: Ranks) -> Plan:
    """What each rank correlates; of a multi-tau scheme whole bins."""
    frames, partition = measured.frames, measured.partition
    costs = np.ones(partition.dynamic_bins)
    if ranks.size > 1:
        of_bins = expected if scheme == "full" else expected_by_delay
        costs = ranks.told(of_bins(sample(frames), partition, frames.count) if ranks.first else costs)
    tile = TILE if scheme == "full" else frames.count
    return planned(bins, costs[bins - 1], frames.count, ranks.size, tile)


def _gathered(measured: Measurement, tally: Tally, plan: Plan, ranks: Ranks) -> Series | None:
    """The counts that this rank needs, if any; those of all are summed up."""
    mine, partition = plan.bins_of(ranks.rank), measured.partition
    if ranks.size == 1:
        return gather(tally, partition, mine)
    frames = Exchanged(measured.frames, ranks, plan.takers(partition), tally.add)
    series = gather(frames, partition, mine) if mine else None
    if not mine:
        deque(frames.blocks(), maxlen=0)
    tally.together(ranks)
    return series


def _full(
    job: Job, file: h5py.File, part: Path, series: Series | None, plan: Plan, slices: int, gpu: Device | None
) -> tuple[list[tuple[int, NDArray[np.float64]]], NDArray[np.float64]]:
    """Write the correlations of all pairs of frames; what is to be shown of them, by bin, and g2."""
    bins, frames = plan.bins, plan.frames
    _check_room(part, frames, len(bins))
    maps = result.Maps(file, bins, frames)
    thumbnails = {number: Thumbnail(frames) for number in shown_bins(bins)}
    done, whole = 0, len(bins) * frames * (frames + 1) // 2

    def write(number: int, row: int, column: int, tile: NDArray[np.float32]) -> None:
        nonlocal done
        maps.write(number, row, column, tile)
        if number in thumbnails:
            thumbnails[number].add(row, column, tile)
        done += tile.size if row != column else len(tile) * (len(tile) + 1) // 2
        job.progress(0.3 + 0.65 * done / whole, "correlate", f"{100 * done // whole} % of {len(bins)} bins")

    with job.phase("correlate"):
        found = twotime_together(series, plan, write, job.ranks, slices=segments(frames, slices), gpu=gpu)
    assert found is not None
    maps.finish(found, segment=frames // slices)
    return [(number, thumbnail.values) for number, thumbnail in thumbnails.items()], found.g2


def _by_delay(series: Series | None, lags_per_level: int, ranks: Ranks) -> MultiTau | None:
    return together(multitau_twotime(series, lags_per_level) if series is not None else None, ranks)


def numbers_of(text: str | None) -> list[int] | None:
    """`1,3,5-7` as numbers, ascending; None for nothing.

    Raises
    ------
    KernelError
        Exit 2 for what is not such a list.
    """
    if text is None:
        return None
    numbers: set[int] = set()
    for word in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 <= last - first < 100_000:
            raise KernelError(f"bins is {text!r}; say numbers of dynamic bins, such as 1,3,5-7.")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def _labels(partition: Partition) -> list[str]:
    if partition.axes and len(partition.dynamic_index) == partition.dynamic_bins:
        return bin_labels(partition.axes, partition.dynamic_index)
    return [f"bin {n + 1}" for n in range(partition.dynamic_bins)]


def _check_room(part: Path, frames: int, bins: int) -> None:
    needed, free = 2 * frames**2 * bins, shutil.disk_usage(part.parent).free
    if needed > free:
        raise KernelError(
            f"The correlations of {frames} frames and {bins} bins take {needed / 1e9:.3g} GB, and the disk has "
            f"{free / 1e9:.3g} GB free. Take fewer bins, or average frames.",
            Exit.IO,
        )
