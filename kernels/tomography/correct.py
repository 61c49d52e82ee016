"""`tomography.correct`: from the scan that a detector wrote to one of clean transmissions, projection by projection.

What looks at whole frames, or at the scan's course in time, is done here, before the scan is cut into slices:

    dropped frames left out -> zingers -> dark and flat -> beam made steady -> distortion -> phase

The result is a DXchange scan again, of transmissions (flats of 1, darks of 0), which `tomography.axis`,
`tomography.reconstruct` and any other program read like one from a detector. So the scan is turned from projections
into rows by way of the disk: no memory and no exchange between ranks is needed that would grow with the scan, and it is
written once, in one piece, however many ranks fill it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels.conveyor import convey
from kernels.errors import Exit, KernelError
from kernels.io import nexus
from kernels.io.dxchange import DARK, DATA, THETA, WARNINGS, WHITE, Scan
from kernels.job import Job
from kernels.tomography.corrections import flats as drift
from kernels.tomography.corrections.distortion import Lens, undistort
from kernels.tomography.corrections.intensity import (
    dropped_frames,
    frame_levels,
    intensity_from_air,
    intensity_from_mass,
    intensity_steps,
    steady,
)
from kernels.tomography.corrections.outliers import remove_zingers
from kernels.tomography.corrections.phase import blur_px, paganin
from kernels.tomography.field import Field, read_field, whole_field
from kernels.tomography.logarithm import minus_log
from kernels.tomography.prepare import Changes, mend, refuse_lost, transmission
from kernels.tomography.quality import warn_of_changes, warn_of_lost_frames

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Division = Callable[[Floats, NDArray[np.intp]], Floats]

_SURVEYED_ROWS = 16  # by which the course of the beam is told
_FRAMES_AT_ONCE = 32
_FLOOR = np.float32(1e-4)
_HEADROOM = 6  # frames of float32 in work for each that is read: counts, copies of the corrections, what is written


class Phase(NamedTuple):
    """As `paganin` takes it."""

    energy_kev: float
    distance_mm: float
    pixel_um: float
    delta_beta: float


class Survey(NamedTuple):
    """What a few rows of all frames say: which frames are kept, and the beam in each of those, 1 as in the flats."""

    kept: NDArray[np.intp]
    beam: Doubles | None


def correct(
    job: Job,
    *,
    input: str,
    output: str,
    zingers: float | None,
    flat_fields: str,
    beam: str,
    air_columns: int,
    lens: str | None,
    energy: float | None,
    distance: float | None,
    pixel_size: float | None,
    delta_beta: float | None,
    angles: str | None,
    memory_gb: float,
) -> None:
    """Write the corrected transmissions of the scan `input` as the scan `output`; arguments as in the schema.

    Several ranks take neighbouring frames each.

    Reports `frames`, `dropped_frames`, `zingers`, and with a phase `phase_blur_px`. What it warns of stands in the scan
    that it writes, too, so that it goes on to what is made of that.

    Raises
    ------
    KernelError
        Exit 65, 66, 75 for the scan; 2 for arguments that do not go together or frames that do not fit into memory; 3
        when a transmission would not be finite; 73, 74 for outputs.
    """
    phase = _phase(energy, distance, pixel_size, delta_beta)
    ranks = job.ranks
    with Scan(input, angles=angles, warn=job.warn) as scan:
        shape = (scan.rows, scan.columns)
        optics = _lens(lens, shape)
        at_once = _frames_at_once(shape, 0 if flat_fields == "mean" else scan.flats, memory_gb, ranks.local_size)
        field = whole_field(scan)
        try:
            survey = _survey(scan, beam, air_columns)
        except KernelError as error:
            raise KernelError(f"The scan {input!r} cannot be corrected: {error}", error.exit_code) from error
        lost = scan.angles - len(survey.kept)
        job.metric("frames", len(survey.kept))
        job.metric("dropped_frames", lost)
        warn_of_lost_frames(job, input, lost, scan.angles)
        if phase is not None:
            job.metric("phase_blur_px", round(blur_px(**phase._asdict()), 3))
        divide = _division(scan, field, flat_fields)
        title = scan.title
        whole = (len(survey.kept), *shape)
        part = job.stage_together(output, check=partial(_check, shape=whole), needs=4 * math.prod(whole))
        offset = int(ranks.told(_lay_out(part, whole, scan.theta_deg[survey.kept], title) if ranks.first else 0))
        mine = ranks.share(whole[0], 1)
        replaced = lost_values = 0
        descriptor = os.open(part, os.O_WRONLY | os.O_CLOEXEC)

        def read(here: range) -> NDArray[Any]:
            with job.phase("read"):
                return scan.read_frames(survey.kept[here.start : here.stop])

        def work(here: range, counts: NDArray[Any]) -> Floats:
            nonlocal replaced, lost_values
            with job.phase("correct"):
                frames, not_finite = _finite(counts, field)
                lost_values += not_finite
                if zingers is not None:
                    light, found = remove_zingers(frames - field.dark, threshold=zingers)
                    frames, replaced = light + field.dark, replaced + found
                frames = divide(frames, survey.kept[here.start : here.stop])
                if survey.beam is not None:
                    frames = steady(frames, survey.beam[here.start : here.stop])
                if optics is not None:
                    frames = undistort(frames, optics)
                if phase is not None:
                    frames = paganin(frames, **phase._asdict())
            job.progress(0.95 * (here.stop - mine.start) / len(mine), "correct", f"{here.stop}/{whole[0]} frames")
            return frames

        def write(here: range, frames: Floats) -> None:
            with job.phase("write"):
                if not np.isfinite(frames).all():
                    raise KernelError(
                        f"Transmissions of frames {here.start} to {here.stop - 1} are not finite.", Exit.BAD_OUTPUT
                    )
                _pwrite(descriptor, np.ascontiguousarray(frames, "<f4"), offset + 4 * here.start * shape[0] * shape[1])

        try:
            parts = [range(n, min(n + at_once, mine.stop)) for n in range(mine.start, mine.stop, at_once)]
            convey(parts, read=read, work=work, write=write)
        finally:
            os.close(descriptor)
    if totals := ranks.gathered((replaced, lost_values)):
        zingers_of, lost_of = zip(*totals, strict=True)
        job.metric("zingers", sum(zingers_of))
        refuse_lost(scan, sum(lost_of), math.prod(whole), "its projections")
        changes = Changes(
            pixels=math.prod(shape),
            bad_pixels=field.bad,
            inverted_pixels=field.inverted,
            lost_values=sum(lost_of) + field.not_finite,
        )
        warn_of_changes(job, input, changes)
        if job.warnings:
            with h5py.File(part, "r+", locking=False) as file:
                file[DATA].attrs[WARNINGS] = [str(caution) for caution in job.warnings]


def _phase(
    energy: float | None, distance: float | None, pixel_size: float | None, delta_beta: float | None
) -> Phase | None:
    if delta_beta is None and energy is None and distance is None:
        return None
    if energy is None or distance is None or pixel_size is None or delta_beta is None:
        values = {"energy": energy, "distance": distance, "pixelSize": pixel_size, "deltaBeta": delta_beta}
        missing = ", ".join(name for name, value in values.items() if value is None)
        raise KernelError(f"tomography.correct: phase retrieval needs {missing} as well.")
    return Phase(energy, distance, pixel_size, delta_beta)


def _lens(words: str | None, shape: tuple[int, int]) -> Lens | None:
    """From `ROW,COLUMN,K0,K1,…`."""
    if not words:
        return None
    try:
        row, column, *coefficients = (float(word) for word in words.split(","))
    except ValueError:
        coefficients = []
    if not coefficients or not np.isfinite([row, column, *coefficients]).all():
        raise KernelError(
            f"tomography.correct: lens is {words!r}; it has to be ROW,COLUMN,K0,K1,… of the centre of distortion, in "
            f"pixels of {shape[0]} x {shape[1]}, and the coefficients of its radius."
        )
    return Lens(row, column, tuple(coefficients))


def _frames_at_once(shape: tuple[int, int], flats: int, memory_gb: float, ranks: int) -> int:
    """Beside the field and, where they are needed one by one, the flats in work."""
    frame = 4 * shape[0] * shape[1]
    fields = (4 + 3 * flats) * frame
    fits = int(memory_gb * 1e9 / ranks - fields) // (_HEADROOM * frame)
    if fits < 1:
        need = ranks * (fields + _HEADROOM * frame) / 1e9
        raise KernelError(
            f"tomography.correct: one frame of {shape[0]} x {shape[1]} with its flat fields needs {need:.2f} GB; "
            f"memoryGB is {memory_gb:g}. Raise memoryGB."
        )
    return min(fits, _FRAMES_AT_ONCE)


def _survey(scan: Scan, beam: str, air_columns: int) -> Survey:
    """From a few rows, over the height of the detector."""
    rows = np.unique(np.linspace(0, scan.rows - 1, _SURVEYED_ROWS).round().astype(int))
    seen = []
    for row in rows:
        field = read_field(scan, int(row), int(row) + 1)
        seen.append(transmission(scan.read_rows(int(row), int(row) + 1), field)[0])
    frames = np.concatenate(seen, axis=1)
    kept = np.flatnonzero(~dropped_frames(frame_levels(frames)))
    frames = frames[kept]
    if beam == "none":
        return Survey(kept, None)
    if beam == "air":
        return Survey(kept, intensity_from_air(frames, air_columns, air_columns))
    if beam == "mass":
        lines = frames.copy()
        minus_log(lines, _FLOOR)
        return Survey(kept, intensity_from_mass(lines))
    return Survey(kept, intensity_steps(frame_levels(frames)))


def _division(scan: Scan, field: Field, flat_fields: str) -> Division:
    """What makes transmissions of counts (frames, rows, columns) and the numbers of their frames."""
    if flat_fields == "mean":
        return lambda counts, numbers: transmission(counts, field)[0]
    flats = scan.read_flats(0, scan.rows).astype(np.float32)
    if field.not_finite:
        flats = np.where(np.isfinite(flats), flats, field.dark + field.response)
    if flat_fields == "drifting":
        half = len(flats) // 2
        if not half:
            raise KernelError(
                f"The scan {scan.path!r} has one flat field; drifting ones need some before and some after it.",
                Exit.BAD_INPUT,
            )
        before, after = flats[:half].mean(0), flats[half:].mean(0)
        progress = np.arange(scan.angles) / max(1, scan.angles - 1)
        return lambda counts, numbers: _mended(
            drift.drifting_transmission(counts, field.dark, before, after, progress[numbers]), field
        )
    ways = drift.eigen_flats(flats, field.dark)
    return lambda counts, numbers: _mended(drift.dynamic_transmission(counts, field.dark, ways)[0], field)


def _mended(frames: Floats, field: Field) -> Floats:
    mend(frames, field)
    return frames


def _finite(counts: NDArray[Any], field: Field) -> tuple[Floats, int]:
    """Counts as float32, those that are not finite mended, and how many there were: no correction can do with them."""
    frames = counts.astype(np.float32)
    if np.isfinite(frames).all():
        return frames, 0
    light, lost = transmission(frames, field)
    return np.where(np.isfinite(frames), frames, light * field.response + field.dark), lost


def _lay_out(part: Path, shape: tuple[int, int, int], theta_deg: Doubles, title: str) -> int:
    """Make the file with room for the frames, and say where in it that begins."""
    with nexus.new_file(part) as file:
        file["implements"] = "exchange"
        group = file.create_group("exchange")
        group["title"] = f"{title}, corrected" if title else "corrected"
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_layout(h5py.h5d.CONTIGUOUS)
        how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        kind = h5py.h5t.IEEE_F32LE
        made = h5py.h5d.create(file.id, DATA.encode(), kind, h5py.h5s.create_simple(shape), how)
        data = file[DATA]
        data.attrs.update({"units": "transmission", "axes": "theta:y:x"})
        group.create_dataset(WHITE.rsplit("/", 1)[1], data=np.ones((1, *shape[1:]), np.float32))
        group.create_dataset(DARK.rsplit("/", 1)[1], data=np.zeros((1, *shape[1:]), np.float32))
        group.create_dataset(THETA.rsplit("/", 1)[1], data=theta_deg).attrs["units"] = "degrees"
        return int(made.get_offset())


def _pwrite(descriptor: int, frames: Floats, offset: int) -> None:
    piece = frames.data.cast("B")
    while piece:
        done = os.pwrite(descriptor, piece, offset)
        piece, offset = piece[done:], offset + done


def _check(path: Path, shape: tuple[int, int, int]) -> None:
    with h5py.File(path, "r", locking=False) as file:
        data = file[DATA]
        if data.shape != shape or data.dtype != np.float32 or file[THETA].shape != shape[:1]:
            raise KernelError(f"The written scan {str(path)!r} is not what was meant.", Exit.BAD_OUTPUT)
