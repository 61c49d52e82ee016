"""The voxels of a layer: squares, or triangles as MIDAS has them, with sample points no further apart than pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from kernels.errors import KernelError

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Whole = NDArray[np.int64]

SQUARES, TRIANGLES = "squares", "triangles"
_TILE = 8  # voxels a side: their image is not much larger than a block of pixels
_MOST_POINTS = 64


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxels of one layer.

    Attributes
    ----------
    places_um : ndarray, shape (voxels, 2)
        Their middles (x, y) in the sample frame.
    size_um : float
        A square's side, or a triangle's edge.
    shape : str
        `SQUARES` or `TRIANGLES`.
    up : ndarray of bool, shape (voxels,)
        Triangles that point towards +y; of squares all.
    samples : int
        Sample points are `samples**2` in each voxel.
    margin_um : float
        How far sample points reach beyond the voxel's edge.
    around : ndarray, shape (4, 2), optional
        Corners of a rectangle around all voxels, of which these are a part.
    """

    places_um: Floats
    size_um: float
    shape: str
    up: NDArray[np.bool_]
    samples: int = 1
    margin_um: float = 0.0
    around: Floats | None = None

    def __post_init__(self) -> None:
        if not len(self.places_um):
            raise KernelError("There are no voxels: the grid is smaller than one of them, or the mask leaves none.")

    @cached_property
    def order(self) -> Whole:
        """The voxels tile by tile."""
        low = self.places_um.min(axis=0)
        tile = np.floor((self.places_um - low) / (_TILE * self.size_um) + 1e-9).astype(np.int64)
        return np.asarray(np.lexsort((self.places_um[:, 0], self.places_um[:, 1], tile[:, 0], tile[:, 1])))

    @cached_property
    def starts(self) -> Whole:
        """Where in `order` each tile begins, and the end."""
        low = self.places_um.min(axis=0)
        tile = np.floor((self.places_um[self.order] - low) / (_TILE * self.size_um) + 1e-9).astype(np.int64)
        new = np.flatnonzero((np.diff(tile, axis=0) != 0).any(axis=1)) + 1
        return np.concatenate([[0], new, [len(tile)]]).astype(np.int64)

    @cached_property
    def points(self) -> tuple[Singles, Singles]:
        """x and y of all sample points, in the order of tiles, shape (voxels, points)."""
        offsets = sample_points(self.shape, self.size_um, self.samples, self.margin_um)
        sense = np.where(self.up, 1.0, -1.0)[self.order, None]
        x = self.places_um[self.order, :1] + offsets[:, 0]
        y = self.places_um[self.order, 1:] + sense * offsets[:, 1]
        return x.astype(np.float32), y.astype(np.float32)

    @cached_property
    def corners(self) -> Floats:
        """Corners of a rectangle around all voxels, shape (4, 2)."""
        if self.around is not None:
            return self.around
        margin = self.size_um + 2 * self.margin_um
        (x0, y0), (x1, y1) = self.places_um.min(axis=0) - margin, self.places_um.max(axis=0) + margin
        return np.array([(x0, y0), (x1, y0), (x0, y1), (x1, y1)])

    @cached_property
    def neighbours(self) -> Whole:
        """The voxels that share an edge or a corner, nearest first, shape (voxels, most); -1 where there are less."""
        reach = self.size_um * (1.5 if self.shape == SQUARES else 1.2)
        count = 8 if self.shape == SQUARES else 12
        distance, index = cKDTree(self.places_um).query(
            self.places_um, k=count + 1, distance_upper_bound=reach, workers=1
        )
        return np.where(np.isfinite(distance), index, -1)[:, 1:].astype(np.int64)

    def chosen(self, which: NDArray[np.bool_] | Whole) -> Voxels:
        """Some of them, in the order given; confidences are those that they have among all."""
        return replace(self, places_um=self.places_um[which], up=self.up[which], around=self.corners)


def sample_points(shape: str, size_um: float, samples: int, margin_um: float = 0.0) -> Floats:
    """Sample points of a voxel (pointing up) around its middle, shape (samples**2, 2): the middles of equal parts of
    it, grown on all sides by a margin."""
    size_um += margin_um * (2 if shape == SQUARES else 2 * math.sqrt(3))
    if shape == SQUARES:
        steps = ((np.arange(samples) + 0.5) / samples - 0.5) * size_um
        return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    edge = size_um / samples
    height = edge * math.sqrt(3) / 2
    made = []
    for row in range(samples):
        for n in range(samples - row):
            made.append(((n + 0.5 * row + 0.5) * edge, (row + 1 / 3) * height))
            if n < samples - row - 1:
                made.append(((n + 0.5 * row + 1) * edge, (row + 2 / 3) * height))
    return np.array(made) - (0.5 * size_um, size_um * math.sqrt(3) / 6)


def enough_samples(size_um: float, pixel_um: float) -> int:
    """As many a side as pixels fit beside each other, so that no pixel of a voxel's image goes unseen."""
    return min(math.isqrt(_MOST_POINTS), max(1, math.ceil(size_um / pixel_um - 1e-9)))


def squares(
    width_um: float,
    size_um: float,
    *,
    pixel_um: float,
    disc: bool = True,
    centre_um: tuple[float, float] = (0.0, 0.0),
    samples: int | None = None,
    margin_um: float | None = None,
) -> Voxels:
    """Squares that fill a square of `width_um`, or the disc in it.

    Parameters
    ----------
    pixel_um : float
        A pixel's size: sample points lie no further apart.
    samples : int, optional
        Sample points a side, in place of what `pixel_um` asks for.
    margin_um : float, optional
        How far sample points reach beyond a voxel's edge, in place of a pixel: spots are blurred by about that, so that
        at a boundary the grains on both sides explain a voxel alike, and only what lies beyond tells them apart.
    """
    _check(width_um, size_um)
    count = max(1, round(width_um / size_um))
    steps = (np.arange(count) - 0.5 * (count - 1)) * size_um
    places = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    return _made(
        places,
        width_um,
        size_um,
        SQUARES,
        np.ones(len(places), np.bool_),
        pixel_um,
        disc,
        centre_um,
        samples,
        margin_um,
    )


def triangles(
    width_um: float,
    edge_um: float,
    *,
    pixel_um: float,
    disc: bool = True,
    centre_um: tuple[float, float] = (0.0, 0.0),
    samples: int | None = None,
    margin_um: float | None = None,
) -> Voxels:
    """Equal-sided triangles, every other one upside down, that fill a square of `width_um` or the disc in it."""
    _check(width_um, edge_um)
    height = edge_um * math.sqrt(3) / 2
    rows = max(1, round(0.5 * width_um / height))
    wide = math.ceil(0.5 * width_um / edge_um) + rows
    i, j = np.meshgrid(np.arange(-wide, wide), np.arange(-rows, rows))
    x, y = (i + 0.5 * j).ravel() * edge_um, j.ravel() * height
    upward = np.stack([x + 0.5 * edge_um, y + height / 3], axis=1)
    downward = np.stack([x + edge_um, y + 2 * height / 3], axis=1)
    places = np.concatenate([upward, downward])
    up = np.arange(len(places)) < len(upward)
    inside = (np.abs(places) <= 0.5 * width_um).all(axis=1)
    return _made(
        places[inside], width_um, edge_um, TRIANGLES, up[inside], pixel_um, disc, centre_um, samples, margin_um
    )


def at(
    places_um: Floats, size_um: float, *, pixel_um: float, samples: int | None = None, margin_um: float | None = None
) -> Voxels:
    """Squares with given middles, shape (n, 2), as those of a map made elsewhere."""
    places = np.asarray(places_um, np.float64).reshape(-1, 2)
    margin = pixel_um if margin_um is None else margin_um
    count = samples or enough_samples(size_um + 2 * margin, pixel_um)
    return Voxels(places, size_um, SQUARES, np.ones(len(places), np.bool_), count, margin)


def _made(
    places: Floats,
    width_um: float,
    size_um: float,
    shape: str,
    up: NDArray[np.bool_],
    pixel_um: float,
    disc: bool,
    centre_um: tuple[float, float],
    samples: int | None,
    margin_um: float | None,
) -> Voxels:
    margin = pixel_um if margin_um is None else margin_um
    if disc:
        inside = np.hypot(*places.T) <= 0.5 * width_um + 1e-9
        places, up = places[inside], up[inside]
    count = samples or enough_samples(size_um + 2 * margin, pixel_um)
    return Voxels(places + np.asarray(centre_um), size_um, shape, up, count, margin)


def _check(width_um: float, size_um: float) -> None:
    if not 0 < size_um <= width_um:
        raise KernelError(f"Voxels of {size_um:g} µm do not fill a grid of {width_um:g} µm.")
