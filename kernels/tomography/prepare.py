"""From counts to line integrals: flat and dark fields, bad pixels, floor, logarithm.

    transmission = (counts - dark) / (flat - dark),   line integral = -ln(max(transmission, floor))

Bad pixels (`kernels.tomography.field`) get the transmission interpolated between the nearest good columns of their row;
single counts that are not finite get that of the column before. Where half of a row is not finite, it is lost: in
slices it gets what the projections nearest in angle have there, in frames what the rows beside it have. A row without
any light, such as one behind slits, gets transmission 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError
from kernels.io.dxchange import Scan
from kernels.tomography.corrections.hardening import Linearisation, linearise
from kernels.tomography.corrections.stripes import STRIPES
from kernels.tomography.field import Field, read_field
from kernels.tomography.logarithm import minus_log

Floats = NDArray[np.float32]

_MOST = np.float32(np.finfo(np.float32).max)
_MOST_LOST = 0.05  # of the counts; more are not mended


class Recipe(NamedTuple):
    """What is done to the counts.

    Attributes
    ----------
    floor
        Least transmission.
    air_columns
        Columns at each side whose mean transmission is made 1, for each row and projection: takes away beam drift.
    binning
        Rows and columns averaged together, as transmission, before the logarithm; what is left over at the end of a
        row or of the slab is left out.
    stripes
        Which way of `corrections.stripes.STRIPES` takes them from the line integrals; empty: none.
    hardening
        By which line integrals become proportional to thickness, after that; None: they are.
    """

    floor: float = 1e-4
    air_columns: int = 0
    binning: int = 1
    stripes: str = ""
    hardening: Linearisation | None = None

    @property
    def plain(self) -> bool:
        """Whether nothing is done but transmission and logarithm."""
        return not (self.air_columns or self.binning > 1 or self.stripes or self.hardening)


PLAIN = Recipe()


class Changes(NamedTuple):
    """What had to be changed, counted: pixels of the detector, and values of the scan."""

    pixels: int = 0
    bad_pixels: int = 0
    inverted_pixels: int = 0
    values: int = 0
    floored_values: int = 0
    lost_values: int = 0


def changed(field: Field, values: int, floored: int, lost: int = 0) -> Changes:
    """Of so many values with this field: how many were floored, and how many were lost besides those of the field."""
    return Changes(field.dark.size, field.bad, field.inverted, values, floored, lost + field.not_finite)


def added(parts: Iterable[Changes]) -> Changes:
    """Those of all parts together."""
    return Changes(*map(sum, zip(*parts, strict=True)))


@dataclass(frozen=True, slots=True)
class Prepared:
    """Line integrals, shape (rows, angles, columns) float32, with what had to be changed."""

    sinograms: Floats
    changes: Changes


class Raw(NamedTuple):
    """Detector rows `start` to `stop` as they were read: their field, and counts (angles, rows, columns) of `frames` or
    of all."""

    start: int
    stop: int
    field: Field
    counts: NDArray[Any]
    frames: range | None = None


def read_raw(scan: Scan, start: int, stop: int) -> Raw:
    """Detector rows start to stop; with binning, a multiple of it (a remainder at the end is left out).

    Raises
    ------
    KernelError
        Exit 65 for flats that are not flats or data that cannot be read.
    """
    return Raw(start, stop, read_field(scan, start, stop), _native(scan.read_rows(start, stop)))


def read_frames(scan: Scan, start: int, stop: int, frames: range, field: Field) -> Raw:
    """Detector rows start to stop of neighbouring frames alone; `field` is that of all rows."""
    return Raw(start, stop, field.rows(start, stop), _native(scan.read_rows(start, stop, frames)), frames)


def _native(counts: NDArray[Any]) -> NDArray[Any]:
    """Counts of a type that is compiled for."""
    if counts.dtype.byteorder not in "=|":
        counts = counts.astype(counts.dtype.newbyteorder("="))
    return counts.astype(np.float32) if counts.dtype == np.float16 else counts


def prepare_rows(scan: Scan, start: int, stop: int, recipe: Recipe = PLAIN) -> Prepared:
    """Read and prepare detector rows start to stop."""
    return prepare(scan, read_raw(scan, start, stop), recipe)


def prepare(scan: Scan, raw: Raw, recipe: Recipe = PLAIN) -> Prepared:
    """Line integrals of the rows of `raw`, which `scan` has given.

    Returns
    -------
    Prepared
        `sinograms` of shape (rows // binning, angles, columns // binning).

    Raises
    ------
    KernelError
        Exit 65 for counts of which more than 5 % are not finite, and air columns that are dark.
    """
    field = raw.field
    values = np.empty((raw.stop - raw.start, len(raw.counts), scan.columns), np.float32)
    lost = _transmission(raw.counts, field.dark, field.response, field.left, field.right, values)
    if lost:
        refuse_lost(scan, int(lost), values.size, f"rows {raw.start} to {raw.stop - 1}")
        frames = raw.frames or range(scan.angles)
        _bridge(values, scan.theta_deg[frames.start : frames.stop])
    if recipe.binning > 1:
        values = _binned(values, recipe.binning)
    if recipe.air_columns:
        values /= _air(values, recipe.air_columns, scan)
    floored = int(minus_log(values, np.float32(recipe.floor)))
    if recipe.stripes:
        values = STRIPES[recipe.stripes](values)
    if recipe.hardening:
        values = linearise(values, recipe.hardening)
    return Prepared(values, changed(field, values.size, floored, int(lost)))


def refuse_lost(scan: Scan, lost: int, of: int, where: str) -> None:
    """Raise `KernelError` (exit 65) when more counts are not finite than can be mended."""
    if lost > _MOST_LOST * of:
        raise KernelError(
            f"The scan {scan.path!r} is not usable: {lost} of {of} counts in {where} are not finite. If whole "
            "projections are lost, tomography.correct leaves them out.",
            Exit.BAD_INPUT,
        )


def _bridge(values: Floats, theta_deg: NDArray[np.float64]) -> None:
    """Put in the place of lost rows of projections (rows, angles, columns) what lies between those nearest in angle."""
    lost = np.isnan(values[:, :, 0])
    order = np.argsort(theta_deg, kind="stable")
    for row in np.flatnonzero(lost.any(1)):
        kept, gone = order[~lost[row, order]], np.flatnonzero(lost[row])
        if not len(kept):
            values[row] = 1.0
            continue
        at = theta_deg[kept]
        right = np.clip(np.searchsorted(at, theta_deg[gone]), 0, len(kept) - 1)
        left = np.maximum(right - 1, 0)
        share = (theta_deg[gone] - at[left]) / np.maximum(at[right] - at[left], 1e-9)
        share = np.clip(share, 0, 1).astype(np.float32)[:, None]
        values[row, gone] = (1 - share) * values[row, kept[left]] + share * values[row, kept[right]]


def _binned(values: Floats, binning: int) -> Floats:
    rows, angles, columns = (values.shape[0] // binning, values.shape[1], values.shape[2] // binning)
    cut = values[: rows * binning, :, : columns * binning]
    return np.ascontiguousarray(cut.reshape(rows, binning, angles, columns, binning).mean((1, 4), dtype=np.float32))


def _air(values: Floats, columns: int, scan: Scan) -> Floats:
    if 2 * columns >= values.shape[2]:
        raise KernelError(f"airColumns {columns} at each side leave nothing of {values.shape[2]} columns.")
    both = np.concatenate((values[:, :, :columns], values[:, :, -columns:]), axis=2)
    level = np.mean(both, axis=2, keepdims=True)
    if not (level > 0.05).all():
        raise KernelError(f"The air columns of {scan.path!r} are dark; give fewer `airColumns`.", Exit.BAD_INPUT)
    return np.asarray(level, np.float32)


@compiled(parallel=True)
def _transmission(
    counts: NDArray[Any],
    dark: Floats,
    response: Floats,
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    values: Floats,
) -> int:
    """Fill `values` (rows, angles, columns) from `counts` (angles, rows, columns), rows that are lost with NaN; return
    the non-finite counts."""
    angles, rows, columns = counts.shape
    lost = 0
    for row in prange(rows):
        below, scale = dark[row], np.float32(1.0) / response[row]
        bad = np.nonzero(left[row] != np.arange(columns, dtype=np.int32))[0]
        for k in range(angles):
            line, seen = values[row, k], counts[k, row]
            strange = 0
            for c in range(columns):
                value = (np.float32(seen[c]) - below[c]) * scale[c]
                line[c] = value
                strange += not abs(value) <= _MOST
            if strange:
                lost += _mend_lost(line, left[row])
            for column in bad:
                _mend_bad(line, column, left[row, column], right[row, column])
    return lost


def transmission(counts: NDArray[Any], field: Field) -> tuple[Floats, int]:
    """Of projections (frames, rows, columns), mended; and how many of their counts were not finite."""
    frames = np.asarray((counts - field.dark) / field.response, np.float32)
    return frames, mend(frames, field)


def mend(frames: Floats, field: Field) -> int:
    """Put between its good neighbours in the row what is at a bad pixel, or not finite, of transmissions (frames, rows,
    columns), in their place; rows that are lost, between those beside them. How many values of good pixels were not
    finite. Frames that are lost become NaN."""
    lost = int(_mend_frames(frames, field.left, field.right))
    if lost:
        heights = np.arange(frames.shape[1])
        for k in range(len(frames)):
            gone = np.isnan(frames[k, :, 0])
            if gone.any() and not gone.all():
                for column in range(frames.shape[2]):
                    line = frames[k, :, column]
                    line[gone] = np.interp(heights[gone], heights[~gone], line[~gone])
    return lost


@compiled(parallel=True)
def _mend_frames(frames: Floats, left: NDArray[np.int32], right: NDArray[np.int32]) -> int:
    here = np.arange(frames.shape[2], dtype=np.int32)
    lost = 0
    for row in prange(frames.shape[1]):
        bad = np.nonzero(left[row] != here)[0]
        for k in range(frames.shape[0]):
            line, strange = frames[k, row], 0
            for c in range(len(line)):
                strange += not abs(line[c]) <= _MOST
            if strange:
                lost += _mend_lost(line, left[row])
            for column in bad:
                _mend_bad(line, column, left[row, column], right[row, column])
    return lost


@compiled()
def _mend_lost(line: Floats, left: NDArray[np.int32]) -> int:
    """Values that are not finite get that of the column before, and where half are not, all become NaN; how many of
    good pixels there were."""
    lost, finite, before = 0, 0, np.float32(1.0)
    for c in range(len(line) - 1, -1, -1):
        if np.isfinite(line[c]):
            before = line[c]
            finite += 1
        else:
            lost += int(left[c] == c)
    if 2 * finite <= len(line):
        line[:] = np.nan
        return lost
    for c in range(len(line)):
        if np.isfinite(line[c]):
            before = line[c]
        else:
            line[c] = before
    return lost


@compiled()
def _mend_bad(line: Floats, c: np.signedinteger[Any], a: np.int32, b: np.int32) -> None:
    """Between the good columns a and b; -1 where there is none."""
    if a < 0 and b < 0:
        line[c] = 1.0  # a row without light
    elif a < 0:
        line[c] = line[b]
    elif b < 0:
        line[c] = line[a]
    else:
        line[c] = line[a] + (line[b] - line[a]) * np.float32((c - a) / (b - a))
