"""Which of many orientations explains most reflections at each voxel: an exact search that leaves out what cannot win.

The confidence of an orientation at a voxel is the fraction of its reflections that fall on a spot at every distance, of
all that fall on the detector at every distance (Li and Suter, J. Appl. Cryst. 46, 512, 2013, and MIDAS count so); each
of the voxel's sample points counts by itself, so that a reflection of which one edge lies on the spot counts in part.

Voxels are searched in tiles. A tile's image of a reflection is a small box, and a coarse map of the spots tells at once
whether anything is in it; most reflections of a wrong orientation end there for all voxels together. What remains
bounds the confidence from above, orientations are taken in the order of that bound, and neither an orientation nor a
voxel is followed further than it can still beat what is known. So nothing better is ever lost: the result is that of
trying everything, and of several equals the first. It does not depend on tiles, batches or threads.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled, threads
from kernels.errors import KernelError
from kernels.hedm.nearfield.rays import MARGIN, limit, trace
from kernels.hedm.nearfield.setup import Optics, Setup
from kernels.hedm.nearfield.spots import Spots, Words
from kernels.hedm.nearfield.voxels import Voxels

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Whole = NDArray[np.int64]
Frames = NDArray[np.int32]
Flags = NDArray[np.bool_]

_BATCH = 512
_EVERY = 8  # reflections between two looks at which voxels can still win
FLOOR = 10_000  # of a confidence: that of no orientation is `least`, as a fraction


class Found(NamedTuple):
    """The best orientations of each voxel, best first.

    Attributes
    ----------
    best : ndarray of int64, shape (voxels, keep)
        Which of the orientations; -1 where none is above `least`.
    hits, counted : ndarray of int64, shape (voxels, keep)
        Sample points of reflections on spots, and all that fall on the detector.
    """

    best: Whole
    hits: Whole
    counted: Whole

    @property
    def confidence(self) -> Floats:
        return np.where(self.best >= 0, self.hits / np.maximum(self.counted, 1), 0.0)


class Images(NamedTuple):
    """`Spots` as compiled code takes them."""

    bits: Words
    shift: int
    blocks: Words
    block_shift: int
    present: Flags


def images(spots: Spots) -> Images:
    return Images(spots.bits, spots.shift, spots.blocks, spots.block_shift, spots.present)


def check_together(spots: Spots, setup: Setup) -> None:
    """Raise `KernelError` where images and geometry do not belong together."""
    distances = len(setup.origin_um)
    if spots.distances != distances:
        raise KernelError(f"There are images at {spots.distances} distances, but a geometry for {distances}.")
    if spots.frames != setup.frames:
        raise KernelError(f"There are {spots.frames} frames at each distance, but the scan has {setup.frames}.")
    if (spots.rows, spots.columns) != (setup.rows, setup.columns):
        raise KernelError(
            f"Frames of {spots.rows} x {spots.columns} pixels do not fit a detector of {setup.rows} x {setup.columns}."
        )
    if setup.distortion:
        raise KernelError("The detector's distortion is still in the images: search in `ideal_images` of them.")


def screen(
    spots: Spots,
    setup: Setup,
    voxels: Voxels,
    orientations: Floats,
    g0: Floats,
    *,
    keep: int = 1,
    least: float = 0.0,
) -> Found:
    """The `keep` best of the orientations at each voxel.

    Parameters
    ----------
    orientations : ndarray, shape (n, 3, 3)
        Crystal to sample.
    g0 : ndarray, shape (m, 3)
        Reciprocal vectors in the crystal in 1/Å, all signs of each; those of low order first end soonest.
    least : float
        Only what is above this confidence is looked for.

    Returns
    -------
    Found
        The same as of a search that tries everything, for any number of threads; of equals the first.
    """
    check_together(spots, setup)
    orientations = np.ascontiguousarray(orientations, np.float64)
    g0 = np.ascontiguousarray(g0, np.float64)
    count = len(voxels.places_um)
    index = np.full((count, keep), -1, np.int64)
    hits = np.full((count, keep), math.floor(least * FLOOR), np.int64)
    counted = np.full((count, keep), FLOOR, np.int64)
    most, distances = limit(len(g0)), len(setup.origin_um)
    batch = max(1, min(_BATCH, len(orientations)))
    frames = np.empty((batch, most), np.int32)
    traced = np.empty((batch, most, distances, 6), np.float32)
    whole = np.empty((batch, most), np.bool_)
    counts, dead = np.empty(batch, np.int64), np.empty(batch, np.int64)
    x, y = voxels.points
    for first in range(0, len(orientations), batch):
        part = orientations[first : first + batch]
        _trace_all(
            part, g0, setup.optics, images(spots), voxels.corners, frames, traced, whole, counts, dead
        )  # fmt: skip
        _search(
            frames, traced, whole, counts[: len(part)], dead, setup.optics, images(spots), x, y, voxels.starts, first,
            index, hits, counted,
        )  # fmt: skip
    back = np.argsort(voxels.order)
    nothing = index < 0
    hits[nothing] = counted[nothing] = 0
    return Found(index[back], hits[back], counted[back])


@compiled(parallel=True)
def _trace_all(
    orientations: Floats, g0: Floats, optics: Optics, images: Images, corners: Floats, frames: Frames, traced: Singles,
    whole: Flags, counts: Whole, dead: Whole,
) -> None:  # fmt: skip
    """The spots of each orientation that some voxel may hit, and how many that all voxels miss."""
    low_x, low_y, high_x, high_y = corners[0, 0], corners[0, 1], corners[3, 0], corners[3, 1]
    box = (0.5 * (low_x + high_x), 0.5 * (high_x - low_x), 0.5 * (low_y + high_y), 0.5 * (high_y - low_y))
    for n in numba.prange(orientations.shape[0]):
        count = trace(orientations[n], g0, optics, corners, frames[n], traced[n], whole[n])
        todo = np.empty(count, np.int64)
        counts[n], dead[n] = _possible(frames[n], traced[n], whole[n], count, optics, images, box, todo)
        for k in range(counts[n]):
            frames[n, k], whole[n, k] = frames[n, todo[k]], whole[n, todo[k]]
            traced[n, k] = traced[n, todo[k]]


@compiled(parallel=True)
def _search(
    frames: Frames, traced: Singles, whole: Flags, counts: Whole, dead: Whole, optics: Optics, images: Images,
    x: Singles, y: Singles, starts: Whole, first: int, index: Whole, hits: Whole, counted: Whole,
) -> None:  # fmt: skip
    points = x.shape[1]
    for tile in numba.prange(starts.shape[0] - 1):
        begin, end = starts[tile], starts[tile + 1]
        box = _box(x[begin:end], y[begin:end])
        todo = np.empty(traced.shape[1], np.int64)
        possible = np.empty(counts.shape[0], np.int64)
        missed = np.empty(counts.shape[0], np.int64)
        bound = np.empty(counts.shape[0], np.float64)
        for n in range(counts.shape[0]):
            possible[n], lost = _possible(frames[n], traced[n], whole[n], counts[n], optics, images, box, todo)
            missed[n] = lost + dead[n]
            bound[n] = -possible[n] / max(1, possible[n] + missed[n])
        scratch = np.empty((3, end - begin), np.int64)
        for n in np.argsort(bound, kind="mergesort"):
            if possible[n] == 0:
                break
            if not _can_win(possible[n], missed[n], hits[begin:end], counted[begin:end]):
                continue
            _possible(frames[n], traced[n], whole[n], counts[n], optics, images, box, todo)
            left = _score(
                frames[n], traced[n], whole[n], todo, possible[n], missed[n] * points, optics, images,
                x[begin:end], y[begin:end], hits[begin:end], counted[begin:end], scratch,
            )  # fmt: skip
            for m in range(left):
                voxel = begin + scratch[0, m]
                _enter(index[voxel], hits[voxel], counted[voxel], first + n, scratch[1, m], scratch[2, m])


@compiled()
def _box(x: Singles, y: Singles) -> tuple[float, float, float, float]:
    """Middle and half width of all points, in x and y."""
    low_x, high_x, low_y, high_y = np.float64(x.min()), np.float64(x.max()), np.float64(y.min()), np.float64(y.max())
    return 0.5 * (low_x + high_x), 0.5 * (high_x - low_x), 0.5 * (low_y + high_y), 0.5 * (high_y - low_y)


@compiled()
def _possible(
    frames: Frames, traced: Singles, whole: Flags, count: int, optics: Optics, images: Images,
    box: tuple[float, float, float, float], todo: Whole,
) -> tuple[int, int]:  # fmt: skip
    """Fill `todo` with the spots that a voxel of a tile may hit; how many there are, and how many all of them miss."""
    found = missed = 0
    middle_x, half_x, middle_y, half_y = box
    for k in range(count):
        off, inside, lit = False, True, True
        for d in range(traced.shape[1]):
            a = traced[k, d]
            row = a[0] + a[1] * middle_x + a[2] * middle_y
            column = a[3] + a[4] * middle_x + a[5] * middle_y
            rows = abs(a[1]) * half_x + abs(a[2]) * half_y + MARGIN
            columns = abs(a[4]) * half_x + abs(a[5]) * half_y + MARGIN
            top, bottom = math.floor(row - rows), math.floor(row + rows)
            left, right = math.floor(column - columns), math.floor(column + columns)
            if bottom < 0 or top >= optics.rows or right < 0 or left >= optics.columns:
                off = True
                break
            if top < 0 or bottom >= optics.rows or left < 0 or right >= optics.columns:
                inside = False
            frame = frames[k]
            if lit and images.present[d, frame]:
                top, bottom = max(top, 0), min(bottom, optics.rows - 1)
                left, right = max(left, 0), min(right, optics.columns - 1)
                lit = _any(images.blocks[d, frame], images.block_shift, top, bottom, left, right)
        if off:
            continue
        if lit or not inside:
            todo[found] = k
            found += 1
        else:
            missed += 1
    return found, missed


@compiled()
def _any(blocks: Words, shift: int, top: int, bottom: int, left: int, right: int) -> bool:
    first, last = left >> shift, right >> shift
    for row in range(top >> shift, (bottom >> shift) + 1):
        for word in range(first >> 5, (last >> 5) + 1):
            value = blocks[row, word]
            if value == 0:
                continue
            low = max(first - word * 32, 0)
            high = min(last - word * 32, 31)
            mask = (np.uint32(0xFFFFFFFF) >> np.uint32(31 - (high - low))) << np.uint32(low)
            if value & mask:
                return True
    return False


@compiled()
def _can_win(possible: int, missed: int, hits: Whole, counted: Whole) -> bool:
    """Whether the last of what some voxel keeps is not better than the most that is possible."""
    last = hits.shape[1] - 1
    total = possible + missed
    for n in range(hits.shape[0]):  # noqa: SIM110 - the compiler knows no any()
        if possible * counted[n, last] >= hits[n, last] * total:
            return True
    return False


@compiled()
def _score(
    frames: Frames, traced: Singles, whole: Flags, todo: Whole, possible: int, missed: int, optics: Optics,
    images: Images, x: Singles, y: Singles, hits: Whole, counted: Whole, scratch: Whole,
) -> int:  # fmt: skip
    """Fill `scratch` with (voxel, hits, counted) of the voxels that may take this orientation; how many these are."""
    points, last = x.shape[1], hits.shape[1] - 1
    active: int = x.shape[0]
    for n in range(active):
        scratch[0, n], scratch[1, n], scratch[2, n] = n, 0, missed
    for step in range(possible):
        k = todo[step]
        if whole[k]:
            for n in range(active):
                voxel = scratch[0, n]
                for p in range(points):
                    scratch[1, n] += _lit(traced[k], frames[k], x[voxel, p], y[voxel, p], images)
                scratch[2, n] += points
        else:
            for n in range(active):
                voxel = scratch[0, n]
                for p in range(points):
                    if _on(traced[k], x[voxel, p], y[voxel, p], optics):
                        scratch[1, n] += _lit(traced[k], frames[k], x[voxel, p], y[voxel, p], images)
                        scratch[2, n] += 1
        remain = (possible - 1 - step) * points
        if step % _EVERY == _EVERY - 1 or remain == 0:
            stay = 0
            for n in range(active):
                voxel = scratch[0, n]
                best, of = hits[voxel, last], counted[voxel, last]
                if (scratch[1, n] + remain) * of >= best * (scratch[2, n] + remain):
                    for m in range(3):
                        scratch[m, stay] = scratch[m, n]
                    stay += 1
            active = stay
            if active == 0:
                break
    return active


@compiled()
def _lit(images_of: Singles, frame: int, x: np.float32, y: np.float32, images: Images) -> int:
    """1 when the point's image lies on a spot at every distance that has the frame; it has to lie on the detector."""
    for d in range(images_of.shape[0]):
        if not images.present[d, frame]:
            continue
        row = int(images_of[d, 0] + images_of[d, 1] * x + images_of[d, 2] * y) >> images.shift
        column = int(images_of[d, 3] + images_of[d, 4] * x + images_of[d, 5] * y) >> images.shift
        if not (images.bits[d, frame, row, column >> 5] >> np.uint32(column & 31)) & np.uint32(1):
            return 0
    return 1


@compiled()
def _on(images_of: Singles, x: np.float32, y: np.float32, optics: Optics) -> bool:
    """Whether the point's image lies on the detector at every distance."""
    for d in range(images_of.shape[0]):
        row = images_of[d, 0] + images_of[d, 1] * x + images_of[d, 2] * y
        column = images_of[d, 3] + images_of[d, 4] * x + images_of[d, 5] * y
        if row < 0 or row >= optics.rows or column < 0 or column >= optics.columns:
            return False
    return True


@compiled()
def _enter(index: Whole, hits: Whole, counted: Whole, which: int, hit: int, of: int) -> None:
    """Take an orientation among the best of a voxel where it belongs; one that hits nothing belongs nowhere."""
    if hit == 0:
        return
    last = index.shape[0] - 1
    place = last + 1
    while place > 0:
        better = hit * counted[place - 1] - hits[place - 1] * of
        if better < 0 or (better == 0 and not which < index[place - 1]):
            break
        place -= 1
    if place > last:
        return
    for n in range(last, place, -1):
        index[n], hits[n], counted[n] = index[n - 1], hits[n - 1], counted[n - 1]
    index[place], hits[place], counted[place] = which, hit, of


@compiled()
def score(
    u: Floats, g0: Floats, optics: Optics, images: Images, x: Singles, y: Singles, corners: Floats, frames: Frames,
    traced: Singles, whole: Flags,
) -> tuple[int, int]:  # fmt: skip
    """Hits and all that count, of one orientation at the points of one voxel; the last three are scratch."""
    count = trace(u, g0, optics, corners, frames, traced, whole)
    hits = counted = 0
    for k in range(count):
        for p in range(x.shape[0]):
            if whole[k] or _on(traced[k], x[p], y[p], optics):
                counted += 1
                hits += _lit(traced[k], frames[k], x[p], y[p], images)
    return hits, counted


def scores(spots: Spots, setup: Setup, voxels: Voxels, orientations: Floats, g0: Floats) -> tuple[Whole, Whole]:
    """Hits and all that count, of orientation n at voxel n."""
    check_together(spots, setup)
    x, y = voxels.points
    back = np.argsort(voxels.order)
    hits, counted = np.empty((2, len(orientations)), np.int64)
    _scores(
        np.ascontiguousarray(orientations, np.float64), np.ascontiguousarray(g0), setup.optics, images(spots),
        x[back], y[back], voxels.corners, hits, counted, threads(),
    )  # fmt: skip
    return hits, counted


@compiled(parallel=True)
def _scores(
    orientations: Floats, g0: Floats, optics: Optics, images: Images, x: Singles, y: Singles, corners: Floats,
    hits: Whole, counted: Whole, parts: int,
) -> None:  # fmt: skip
    most, distances = 2 * g0.shape[0], optics.panels.shape[0]
    for part in numba.prange(parts):
        frames, whole = np.empty(most, np.int32), np.empty(most, np.bool_)
        traced = np.empty((most, distances, 6), np.float32)
        for n in range(part, orientations.shape[0], parts):
            hits[n], counted[n] = score(
                orientations[n], g0, optics, images, x[n], y[n], corners, frames, traced, whole
            )  # fmt: skip
