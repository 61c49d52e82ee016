"""From counts to line integrals: flat and dark fields, bad pixels, floor, logarithm.

    transmission = (counts - dark) / (flat - dark),   line integral = -ln(max(transmission, floor))

`dark` is the median over the dark frames; `flat` the mean over the flat frames, after frames with a cosmic ray were
left out of each pixel (values farther than 6 robust standard deviations from the pixel's median; at least 4 frames).
The mean of n frames has 1.57 times less variance than their median, and its noise is a ring in every slice.

A pixel is bad when its response (flat - dark) is not finite, below a fifth or above five times the median of the
pixels around it in its row (dead, hot, stuck: full scale in flat and dark has no response). Bad pixels get the
transmission interpolated between the nearest good columns of their row; single counts that are not finite get that
of the column before. A row without any light, such as one behind slits, gets transmission 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError
from kernels.io.dxchange import Scan
from kernels.tomography.corrections.hardening import Linearisation, linearise
from kernels.tomography.corrections.stripes import STRIPES
from kernels.tomography.logarithm import minus_log

Floats = NDArray[np.float32]

_NEIGHBOURHOOD = 51
_BAND = 64  # rows
_LEAST_RESPONSE, _MOST_RESPONSE = 0.2, 5.0
_MOST = np.float32(np.finfo(np.float32).max)
_LEAST_GOOD = 0.5  # fraction of pixels; fewer means that the flats are not flats


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


@dataclass(frozen=True, slots=True)
class Field:
    """What the flats and darks say about some detector rows.

    Attributes
    ----------
    dark, response : ndarray, shape (rows, columns), float32
        Counts without beam, and what the open beam adds.
    left, right : ndarray, shape (rows, columns), int32
        Nearest good columns at or beside each pixel; both are the pixel itself where it is good, -1 where there is
        none on that side.
    """

    dark: Floats
    response: Floats
    left: NDArray[np.int32]
    right: NDArray[np.int32]

    @property
    def bad(self) -> int:
        """Number of bad pixels."""
        here = np.arange(self.left.shape[1], dtype=np.int32)
        return int((self.left != here).sum())


@dataclass(frozen=True, slots=True)
class Prepared:
    """Line integrals, shape (rows, angles, columns) float32, with the counts of what had to be changed."""

    sinograms: Floats
    bad_pixels: int
    floored: int
    not_finite: int


def read_field(scan: Scan, start: int, stop: int) -> Field:
    """Flats and darks of detector rows start to stop.

    Raises
    ------
    KernelError
        Exit 65 when the flats are not brighter than the darks for at least half of the pixels.
    """
    dark = np.median(scan.read_darks(start, stop), axis=0).astype(np.float32)
    response = _robust_mean(scan.read_flats(start, stop)) - dark
    finite = np.isfinite(response)
    width = min(_NEIGHBOURHOOD, response.shape[1])
    # "mirror", since "nearest" would repeat a bad pixel at the edge until it looks typical
    typical = scipy.ndimage.median_filter(np.where(finite, response, 0), size=(1, width), mode="mirror")
    good = finite & (response > 0) & (response >= _LEAST_RESPONSE * typical)
    good &= response <= _MOST_RESPONSE * np.maximum(typical, 0)
    if good.mean() < _LEAST_GOOD:
        raise KernelError(
            f"The scan {scan.path!r} is not usable: in rows {start} to {stop - 1} the flat fields are brighter than "
            f"the dark fields in only {100 * good.mean():.0f} % of the pixels.",
            Exit.BAD_INPUT,
        )
    here = np.arange(response.shape[1], dtype=np.int32)
    left = np.maximum.accumulate(np.where(good, here, np.int32(-1)), axis=1)
    none = np.int32(response.shape[1])
    right = np.minimum.accumulate(np.where(good, here, none)[:, ::-1], axis=1)[:, ::-1]
    return Field(
        dark,
        np.where(good, response, 1).astype(np.float32),
        left,
        np.where(right == none, -1, right).astype(np.int32),
    )


class Raw(NamedTuple):
    """Detector rows `start` to `stop` as they were read: their field, and counts (angles, rows, columns)."""

    start: int
    stop: int
    field: Field
    counts: NDArray[Any]


def read_raw(scan: Scan, start: int, stop: int) -> Raw:
    """Detector rows start to stop; with binning, a multiple of it (a remainder at the end is left out).

    Raises
    ------
    KernelError
        Exit 65 for flats that are not flats or data that cannot be read.
    """
    counts = _native(scan.read_rows(start, stop))
    return Raw(start, stop, read_field(scan, start, stop), counts)


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
        Exit 65 for counts of which more than 1 % are not finite, and air columns that are dark.
    """
    field = raw.field
    values = np.empty((raw.stop - raw.start, scan.angles, scan.columns), np.float32)
    lost = _transmission(raw.counts, field.dark, field.response, field.left, field.right, values)
    if lost > 0.01 * values.size:
        raise KernelError(
            f"The scan {scan.path!r} is not usable: {lost} of {values.size} counts in rows {raw.start} to "
            f"{raw.stop - 1} are not finite.",
            Exit.BAD_INPUT,
        )
    if recipe.binning > 1:
        values = _binned(values, recipe.binning)
    if recipe.air_columns:
        values /= _air(values, recipe.air_columns, scan)
    floored = int(minus_log(values, np.float32(recipe.floor)))
    if recipe.stripes:
        values = STRIPES[recipe.stripes](values)
    if recipe.hardening:
        values = linearise(values, recipe.hardening)
    return Prepared(values, field.bad, floored, int(lost))


def _robust_mean(frames: NDArray[Any]) -> Floats:
    if frames.shape[0] < 4:
        return np.asarray(np.mean(frames, axis=0, dtype=np.float64), np.float32)
    values = frames.astype(np.float32)
    middle = np.median(values, axis=0)
    distance = np.abs(values - middle)
    spread = 1.4826 * np.median(distance, axis=0)
    keep = distance <= 6 * spread + 1e-6 * np.abs(middle)
    return np.asarray(np.where(keep, values, 0).sum(0) / np.maximum(keep.sum(0), 1), np.float32)


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
    """Fill `values` (rows, angles, columns) from `counts` (angles, rows, columns); return the non-finite counts."""
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


def whole_field(scan: Scan) -> Field:
    """Flats and darks of all rows, worked out some rows at a time: that takes several copies of the flats."""
    bands = [read_field(scan, row, min(row + _BAND, scan.rows)) for row in range(0, scan.rows, _BAND)]
    names = ("dark", "response", "left", "right")
    return Field(*(np.concatenate([getattr(band, name) for band in bands]) for name in names))


def transmission(counts: NDArray[Any], field: Field) -> Floats:
    """Of projections (frames, rows, columns), bad pixels mended."""
    frames = np.asarray((counts - field.dark) / field.response, np.float32)
    mend(frames, field)
    return frames


def transmission_by_rows(counts: NDArray[Any], field: Field) -> Floats:
    """The same as (rows, frames, columns)."""
    values = np.empty((counts.shape[1], counts.shape[0], counts.shape[2]), np.float32)
    _transmission(_native(counts), field.dark, field.response, field.left, field.right, values)
    return values


def mend(frames: Floats, field: Field) -> None:
    """Put between its good neighbours in the row what is at a bad pixel, or not finite, of transmissions (frames, rows,
    columns), in their place."""
    _mend_frames(frames, field.left, field.right)


@compiled(parallel=True)
def _mend_frames(frames: Floats, left: NDArray[np.int32], right: NDArray[np.int32]) -> None:
    here = np.arange(frames.shape[2], dtype=np.int32)
    for row in prange(frames.shape[1]):
        bad = np.nonzero(left[row] != here)[0]
        for k in range(frames.shape[0]):
            line, strange = frames[k, row], 0
            for c in range(len(line)):
                strange += not abs(line[c]) <= _MOST
            if strange:
                _mend_lost(line, left[row])
            for column in bad:
                _mend_bad(line, column, left[row, column], right[row, column])


@compiled()
def _mend_lost(line: Floats, left: NDArray[np.int32]) -> int:
    """Values that are not finite get that of the column before; how many of good pixels there were."""
    lost, before = 0, np.float32(1.0)
    for c in range(len(line)):
        if np.isfinite(line[c]):
            before = line[c]
        else:
            lost += int(left[c] == c)
            line[c] = before
    return lost


@compiled()
def _mend_bad(line: Floats, c: np.signedinteger[Any], a: np.int32, b: np.int32) -> None:
    """Between the good columns a and b; -1 where there is none."""
    if a < 0 and b < 0:
        line[c] = 1.0
    elif a < 0:
        line[c] = line[b]
    elif b < 0:
        line[c] = line[a]
    else:
        line[c] = line[a] + (line[b] - line[a]) * np.float32((c - a) / (b - a))
