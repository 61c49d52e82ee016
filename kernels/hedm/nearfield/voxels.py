"""The voxels of a layer: squares, hexagons, or triangles as MIDAS has them, with sample points no further apart than
pixels.

Hexagons have two of their corners along x. Each is then six triangles of MIDAS's kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from kernels.errors import KernelError, nearest

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Whole = NDArray[np.int64]

SQUARES, TRIANGLES, HEXAGONS = "squares", "triangles", "hexagons"
_TILE = 8  # voxels a side: their image is not much larger than a block of pixels
_MOST_POINTS = 64


class _Shape(NamedTuple):
    """What a shape's voxels of size 1 have."""

    area: float
    neighbours: int
    reach: float  # further than their middles, and less far than those of others
    growth: float  # by how much the size grows with a margin of 1


_SHAPES = {
    SQUARES: _Shape(1.0, 8, 1.5, 2.0),
    TRIANGLES: _Shape(math.sqrt(3) / 4, 12, 1.2, 2 * math.sqrt(3)),
    HEXAGONS: _Shape(math.sqrt(3) / 2, 6, 1.2, 2.0),
}


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxels of one layer.

    Attributes
    ----------
    places_um : ndarray, shape (voxels, 2)
        Their middles (x, y) in the sample frame.
    size_um : float
        A square's side, a triangle's edge, or how far the opposite edges of a hexagon are apart, as neighbours are.
    shape : str
        `SQUARES`, `TRIANGLES` or `HEXAGONS`.
    up : ndarray of bool, shape (voxels,)
        Triangles that point towards +y; of other shapes all.
    samples : int
        How many sample points are beside each other: `samples**2` in a voxel, of hexagons the points of so many rings
        around each other, the first being the middle.
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
        if self.shape not in _SHAPES:
            meant = nearest(self.shape, _SHAPES)
            raise KernelError(f"There are no voxels of the shape {self.shape!r}, but {', '.join(_SHAPES)}.{meant}")
        if not len(self.places_um):
            raise KernelError("There are no voxels: the grid is smaller than one of them, or the mask leaves none.")

    @property
    def area_um2(self) -> float:
        """Of one voxel."""
        return self.size_um**2 * _SHAPES[self.shape].area

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
        shape = _SHAPES[self.shape]
        distance, index = cKDTree(self.places_um).query(
            self.places_um, k=shape.neighbours + 1, distance_upper_bound=self.size_um * shape.reach, workers=1
        )
        return np.where(np.isfinite(distance), index, -1)[:, 1:].astype(np.int64)

    def chosen(self, which: NDArray[np.bool_] | Whole) -> Voxels:
        """Some of them, in the order given; confidences are those that they have among all."""
        return replace(self, places_um=self.places_um[which], up=self.up[which], around=self.corners)


def sample_points(shape: str, size_um: float, samples: int, margin_um: float = 0.0) -> Floats:
    """Sample points of a voxel (pointing up) around its middle, shape (points, 2): the middles of equal parts of it,
    grown on all sides by a margin. A hexagon's are those of smaller ones that have its area together."""
    size_um += margin_um * _SHAPES[shape].growth
    if shape == SQUARES:
        steps = ((np.arange(samples) + 0.5) / samples - 0.5) * size_um
        return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    if shape == HEXAGONS:
        i, j = (values.ravel() for values in np.meshgrid(*[np.arange(1 - samples, samples)] * 2))
        inside = abs(i + j) < samples
        step = size_um / math.sqrt(np.count_nonzero(inside))
        return np.stack([i + 0.5 * j, 0.5 * math.sqrt(3) * j], axis=1)[inside] * step
    edge = size_um / samples
    height = edge * math.sqrt(3) / 2
    made = []
    for row in range(samples):
        for n in range(samples - row):
            made.append(((n + 0.5 * row + 0.5) * edge, (row + 1 / 3) * height))
            if n < samples - row - 1:
                made.append(((n + 0.5 * row + 1) * edge, (row + 2 / 3) * height))
    return np.array(made) - (0.5 * size_um, size_um * math.sqrt(3) / 6)


def samples_within(size_um: float, spacing_um: float, shape: str = SQUARES) -> int:
    """The least `samples` of a voxel that lie no further apart than a spacing."""
    wanted = size_um / spacing_um
    if shape == HEXAGONS:  # n rings have 3 n (n - 1) + 1 points
        wanted = 0.5 + math.sqrt(max(0.0, (wanted * wanted - 1) / 3) + 0.25)
    return max(1, math.ceil(wanted - 1e-9))


def enough_samples(size_um: float, pixel_um: float, shape: str = SQUARES) -> int:
    """As many as pixels fit beside each other, so that no pixel of a voxel's image goes unseen, up to 64 points."""
    most = 5 if shape == HEXAGONS else math.isqrt(_MOST_POINTS)
    return min(most, samples_within(size_um, pixel_um, shape))


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
    up = np.ones(len(places), np.bool_)
    return _made(places, width_um, size_um, SQUARES, up, pixel_um, disc, centre_um, samples, margin_um)


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


def hexagons(
    width_um: float,
    size_um: float,
    *,
    pixel_um: float,
    disc: bool = True,
    centre_um: tuple[float, float] = (0.0, 0.0),
    samples: int | None = None,
    margin_um: float | None = None,
) -> Voxels:
    """Regular hexagons, the middle of one in the middle, that fill a square of `width_um` or the disc in it; neighbours
    are `size_um` apart, all six."""
    _check(width_um, size_um)
    column = size_um * math.sqrt(3) / 2
    wide, high = math.floor(0.5 * width_um / column + 1e-9), math.ceil(0.5 * width_um / size_um)
    i, j = (values.ravel() for values in np.meshgrid(np.arange(-wide, wide + 1), np.arange(-high, high + 1)))
    places = np.stack([i * column, (j + 0.5 * (i % 2)) * size_um], axis=1)
    places = places[np.abs(places[:, 1]) <= 0.5 * width_um + 1e-9]
    up = np.ones(len(places), np.bool_)
    return _made(places, width_um, size_um, HEXAGONS, up, pixel_um, disc, centre_um, samples, margin_um)


GRIDS = {SQUARES: squares, TRIANGLES: triangles, HEXAGONS: hexagons}


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
    count = samples or enough_samples(size_um + 2 * margin, pixel_um, shape)
    return Voxels(places + np.asarray(centre_um), size_um, shape, up, count, margin)


def _check(width_um: float, size_um: float) -> None:
    if not 0 < size_um <= width_um:
        raise KernelError(f"Voxels of {size_um:g} µm do not fill a grid of {width_um:g} µm.")
