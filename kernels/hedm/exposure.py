"""Frames as a detector would record them while a sample of known grains turns.

A spot is a Gaussian over rows, columns and omega, integrated over each pixel and each frame by differences of the
error function; what falls together adds up. Its counts go as |F|² · Lorentz factor · volume of the grain. Then come
Poisson noise of spots and background, the noise of reading, an offset, and saturation. Frames are made some at a time,
each with a random series of its own, so that they do not depend on how many are made together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled, threads
from kernels.errors import KernelError
from kernels.hedm.darkness import Darkness, darkness, fill, stir
from kernels.hedm.forward import MIN_ETA, Spots, predict
from kernels.hedm.geometry import Geometry

Vector = NDArray[np.float64]
Whole = NDArray[np.int64]

_REACH = 5.0
# Standard deviation of a ball's shadow along a line, over its diameter.
_BALL = 1.0 / (2.0 * math.sqrt(5.0))


@dataclass(frozen=True)
class Scan:
    """Frames one after the other: frame n from `start + n · step` to `start + (n + 1) · step`, radians."""

    start: float
    step: float
    frames: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.step)) or self.step == 0 or self.frames < 1:
            raise KernelError(
                f"A scan has at least one frame and steps that are not 0, not {self.frames} frames from {self.start} "
                f"by {self.step} radians."
            )

    @property
    def edges_deg(self) -> Vector:
        """Where each frame begins and ends in degrees, shape (frames, 2)."""
        edges = np.degrees(self.start + self.step * np.arange(self.frames + 1))
        return np.column_stack([edges[:-1], edges[1:]])

    def range(self, margin: float = 0.0) -> tuple[float, float]:
        """The least and the largest omega, `margin` radians further on each side."""
        ends = self.start, self.start + self.step * self.frames
        return min(ends) - margin, max(ends) + margin


@dataclass(frozen=True)
class Camera:
    """What a detector adds to the spots.

    Attributes
    ----------
    background : float
        Mean counts a pixel and frame of scattered light.
    offset : float
        What a dark frame reads.
    read_noise : float
        Standard deviation of the reading, counts.
    saturation : int
        The largest value a pixel holds, at most 65535.
    noise : bool
        Without it frames hold the expected values, rounded.
    """

    background: float = 0.0
    offset: float = 0.0
    read_noise: float = 0.0
    saturation: int = 65535
    noise: bool = True

    def __post_init__(self) -> None:
        for name in ("background", "offset", "read_noise"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise KernelError(f"The {name} of a camera is {value}: it must be 0 or more.")
        if not 0 < self.saturation <= 65535:
            raise KernelError(f"A camera of 16 bits saturates between 1 and 65535, not at {self.saturation}.")


@dataclass(frozen=True, eq=False)
class Exposure:
    """Spots and how they are recorded.

    Attributes
    ----------
    geometry : Geometry
    scan : Scan
    spots : Spots
        Those that lie just outside of the scan belong to it too: they reach into it.
    counts : ndarray of float64, shape (n,)
        Expected counts of each spot over all pixels and frames.
    widths : ndarray of float64, shape (n, 3)
        Standard deviations in rows, columns (pixels) and omega (radians).
    camera : Camera
    seed : int
    """

    geometry: Geometry
    scan: Scan
    spots: Spots
    counts: Vector
    widths: Vector
    camera: Camera = Camera()
    seed: int = 0

    def __post_init__(self) -> None:
        n = len(self.spots)
        if self.counts.shape != (n,) or self.widths.shape != (n, 3):
            raise KernelError(
                f"{n} spots have as many counts and widths (n, 3), not {self.counts.shape} and {self.widths.shape}."
            )
        if n and not (np.isfinite(self.counts).all() and self.counts.min() >= 0):
            raise KernelError("The counts of spots must be finite and 0 or more.")
        if n and not (np.isfinite(self.widths).all() and self.widths.min() > 0):
            raise KernelError("The widths of spots must be finite and above 0.")

    def frames(self, panel: int = 0, *, at_once: int | None = None) -> Iterator[tuple[int, NDArray[np.uint16]]]:
        """The frames of a panel in order: number of the first, and some, shape (k, rows, columns).

        Memory is that of `at_once` frames, in 16 bits and as float32: by default as many as there are threads.
        """
        rows, columns = self.geometry.panels[panel].shape
        shaped, starts, members = self._by_frame(panel)
        camera = self.camera
        dark = darkness(camera.background, camera.offset, camera.read_noise, camera.saturation, camera.noise)
        step = at_once or threads()
        for first in range(0, self.scan.frames, step):
            count = min(step, self.scan.frames - first)
            block = np.empty((count, rows, columns), np.uint16)
            _dense(shaped, starts, members, first, *self._noise(), dark, block)
            yield first, block

    def sparse(
        self, panel: int = 0, *, threshold: float = 0.0, at_once: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint16]]]:
        """Of each frame of a panel the pixels that spots reach and that hold more than `threshold` counts.

        Background and offset are taken off, so that between spots there is nothing; their noise is in the pixels.

        Yields
        ------
        frame : int
        row, column, value : ndarray of uint16
            In the order of rows, then columns.
        """
        rows, columns = self.geometry.panels[panel].shape
        shaped, starts, members = self._by_frame(panel)
        step = at_once or threads()
        for first in range(0, self.scan.frames, step):
            count = min(step, self.scan.frames - first)
            room = np.zeros(count + 1, np.int64)
            _measure(shaped, starts, members, first, rows, columns, room)
            places = np.cumsum(room)
            pixel, value = np.empty(int(places[-1]), np.int64), np.empty(int(places[-1]), np.uint16)
            found = np.zeros(count, np.int64)
            _picked(
                shaped, starts, members, first, *self._noise(), threshold, rows, columns, places, pixel, value, found
            )
            for k in range(count):
                here = slice(int(places[k]), int(places[k] + found[k]))
                order = np.argsort(pixel[here])
                at = pixel[here][order]
                yield (
                    first + k,
                    (at // columns).astype(np.uint16),
                    (at % columns).astype(np.uint16),
                    value[here][order],
                )

    def _noise(self) -> tuple[float, float, float, float, int]:
        camera = self.camera
        read_noise = camera.read_noise if camera.noise else -1.0
        return camera.background, camera.offset, read_noise, float(camera.saturation), self.seed

    def _by_frame(self, panel: int) -> tuple[Vector, Whole, Whole]:
        """Spots of a panel (row, column, frame, their widths, counts), and which of them each frame has."""
        mine = np.flatnonzero(self.spots.panel == panel)
        spots, scan = self.spots.take(mine), self.scan
        shaped = np.column_stack(
            [
                spots.row,
                spots.column,
                (spots.omega - scan.start) / scan.step,
                self.widths[mine] / (1.0, 1.0, abs(scan.step)),
                self.counts[mine],
            ]
        )
        starts = np.zeros(scan.frames + 1, np.int64)
        _count(shaped, starts)
        starts = np.cumsum(starts)
        members = np.empty(int(starts[-1]), np.int64)
        _sort(shaped, starts.copy(), members)
        return shaped, starts, members


def expose(
    geometry: Geometry,
    scan: Scan,
    g0: Vector,
    *,
    strength: Vector,
    orientation: Vector,
    position_um: Vector,
    strain: Vector,
    diameter_um: Vector,
    median_counts: float = 2e4,
    blur_px: float = 0.8,
    mosaic: float = math.radians(0.05),
    min_eta: float = MIN_ETA,
    camera: Camera = Camera(),
    seed: int = 0,
) -> Exposure:
    """The exposure of grains.

    Parameters
    ----------
    g0 : ndarray of float64, shape (reflections, 3)
        Reciprocal vectors in crystal cartesian, 1/Å.
    strength : ndarray of float64, shape (reflections,)
        |F|², in any unit.
    orientation, position_um, strain : ndarray
        Of the grains, as `predict` takes them.
    diameter_um : ndarray of float64, shape (grains,)
        Grains are balls.
    median_counts : float
        Counts of the median spot.
    blur_px : float
        Standard deviation that beam and detector give to a point, in pixels.
    mosaic : float
        Standard deviation of a grain's orientation in radians; in omega it is as wide again by 1 / |sin eta|.
    """
    diameter = np.asarray(diameter_um, np.float64)
    if diameter.shape != (len(orientation),) or not (np.isfinite(diameter).all() and (diameter > 0).all()):
        raise KernelError(f"Each of the {len(orientation)} grains has a diameter above 0 µm.")
    if np.shape(strength) != (len(g0),):
        raise KernelError(f"Each of the {len(g0)} reflections has a strength, not {np.shape(strength)}.")
    widest = _REACH * mosaic / max(math.sin(min_eta), 1e-3)
    spots = predict(
        geometry,
        g0,
        orientation=orientation,
        position_um=position_um,
        strain=strain,
        omega_ranges=(scan.range(widest),),
        min_eta=min_eta,
    )
    counts = np.asarray(strength, np.float64)[spots.reflection] * spots.lorentz * diameter[spots.grain] ** 3
    inside = counts[counts > 0]
    if inside.size:
        counts *= median_counts / float(np.median(inside))
    pixel_um = np.array([panel.pixel_um for panel in geometry.panels])[spots.panel]
    shadow = _BALL * diameter[spots.grain, None] / pixel_um
    widths = np.column_stack([np.hypot(blur_px, shadow), mosaic / np.maximum(np.abs(np.sin(spots.eta)), 1e-3)])
    return Exposure(geometry, scan, spots, counts, widths, camera, seed)


@compiled()
def _frames_of(shaped: Vector, s: int, frames: int) -> tuple[int, int]:
    reach = _REACH * shaped[s, 5]
    return max(0, math.floor(shaped[s, 2] - reach)), min(frames, math.floor(shaped[s, 2] + reach) + 1)


@compiled()
def _count(shaped: Vector, starts: Whole) -> None:
    for s in range(shaped.shape[0]):
        first, beyond = _frames_of(shaped, s, starts.size - 1)
        for f in range(first, beyond):
            starts[f + 1] += 1


@compiled()
def _sort(shaped: Vector, next_of: Whole, members: Whole) -> None:
    for s in range(shaped.shape[0]):
        first, beyond = _frames_of(shaped, s, next_of.size - 1)
        for f in range(first, beyond):
            members[next_of[f]] = s
            next_of[f] += 1


@compiled()
def _share(edge: float, middle: float, sigma: float) -> float:
    """How much of a Gaussian lies between `edge` and `edge + 1`."""
    scale = 1.0 / (sigma * math.sqrt(2.0))
    return 0.5 * (math.erf((edge + 1.0 - middle) * scale) - math.erf((edge - middle) * scale))


@compiled()
def _box(shaped: Vector, s: int, rows: int, columns: int) -> tuple[int, int, int, int]:
    reach_r, reach_c = _REACH * shaped[s, 3], _REACH * shaped[s, 4]
    return (
        max(0, math.floor(shaped[s, 0] - reach_r + 0.5)),
        min(rows, math.floor(shaped[s, 0] + reach_r + 0.5) + 1),
        max(0, math.floor(shaped[s, 1] - reach_c + 0.5)),
        min(columns, math.floor(shaped[s, 1] + reach_c + 0.5) + 1),
    )


@compiled()
def _draw(shaped: Vector, members: Whole, first: int, beyond: int, frame: int, expected: NDArray[np.float32]) -> None:
    """Add the spots `members[first:beyond]` of a frame to `expected` (rows, columns)."""
    for m in range(first, beyond):
        s = members[m]
        here = shaped[s, 6] * _share(frame, shaped[s, 2], shaped[s, 5])
        r0, r1, c0, c1 = _box(shaped, s, expected.shape[0], expected.shape[1])
        across = np.empty(max(0, c1 - c0))
        for c in range(c0, c1):
            across[c - c0] = _share(c - 0.5, shaped[s, 1], shaped[s, 4])
        for r in range(r0, r1):
            along = here * _share(r - 0.5, shaped[s, 0], shaped[s, 3])
            for c in range(c0, c1):
                expected[r, c] += along * across[c - c0]


@compiled()
def _seed(seed: int, frame: int) -> int:
    return (seed * 1_000_003 + frame) & 0x7FFFFFFF


@compiled()
def _read(mean: float, read_noise: float) -> float:
    """A reading of a pixel with so many expected counts; without noise where `read_noise` is below 0."""
    if read_noise < 0.0:
        return mean
    value = float(np.random.poisson(mean)) if mean > 0.0 else 0.0
    return value + read_noise * np.random.normal() if read_noise > 0.0 else value


@compiled(parallel=True)
def _dense(
    shaped: Vector,
    starts: Whole,
    members: Whole,
    first: int,
    background: float,
    offset: float,
    read_noise: float,
    saturation: float,
    seed: int,
    dark: Darkness,
    block: NDArray[np.uint16],
) -> None:
    for k in numba.prange(block.shape[0]):
        frame = first + k
        np.random.seed(_seed(seed, frame))
        fill(dark, stir(np.uint64(seed * 1_000_003 + frame)), block[k])
        expected = np.zeros((block.shape[1], block.shape[2]), np.float32)
        _draw(shaped, members, starts[frame], starts[frame + 1], frame, expected)
        for r in range(block.shape[1]):
            for c in range(block.shape[2]):
                if expected[r, c] > 0.0:
                    value = offset + _read(background + expected[r, c], read_noise)
                    block[k, r, c] = np.uint16(min(max(value + 0.5, 0.0), saturation))


@compiled(parallel=True)
def _measure(shaped: Vector, starts: Whole, members: Whole, first: int, rows: int, columns: int, room: Whole) -> None:
    for k in numba.prange(room.size - 1):
        total = 0
        for m in range(starts[first + k], starts[first + k + 1]):
            r0, r1, c0, c1 = _box(shaped, members[m], rows, columns)
            total += max(0, r1 - r0) * max(0, c1 - c0)
        room[k + 1] = total


@compiled(parallel=True)
def _picked(
    shaped: Vector,
    starts: Whole,
    members: Whole,
    first: int,
    background: float,
    offset: float,
    read_noise: float,
    saturation: float,
    seed: int,
    threshold: float,
    rows: int,
    columns: int,
    places: Whole,
    pixel: Whole,
    value: NDArray[np.uint16],
    found: Whole,
) -> None:
    for k in numba.prange(found.size):
        frame = first + k
        np.random.seed(_seed(seed, frame))
        expected = np.zeros((rows, columns), np.float32)
        _draw(shaped, members, starts[frame], starts[frame + 1], frame, expected)
        at = places[k]
        for m in range(starts[frame], starts[frame + 1]):
            r0, r1, c0, c1 = _box(shaped, members[m], rows, columns)
            for r in range(r0, r1):
                for c in range(c0, c1):
                    if expected[r, c] <= 0.0:
                        continue
                    read = offset + _read(background + expected[r, c], read_noise)
                    counts = math.floor(min(read, saturation) - offset - background + 0.5)
                    # What another spot covers too is not to be read again.
                    expected[r, c] = 0.0
                    if counts > threshold and counts > 0.0:
                        pixel[at] = r * columns + c
                        value[at] = np.uint16(counts)
                        at += 1
        found[k] = at - places[k]
