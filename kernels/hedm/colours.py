"""Colours of orientations: which direction of the crystal points along a direction of the sample, for any Laue class.

Directions that symmetry makes equal have one colour, others have others, and colours do not jump: a key is the sphere
folded up as symmetry folds it, laid out flat (after the idea of Nolze and Hielscher, J. Appl. Cryst. 49, 1786, 2016).

* mmm, 4/mmm, 6/mmm, m-3m fold it to a triangle of mirrors, the usual one: red, green, blue corners, white within.
* 2/m, 4/m, 6/m fold it to a disc about the axis: white at the axis, all hues about it.
* -3m, m-3 fold it to a wedge between two mirrors, whose far side is closed like a zip: red at the axis, then all hues
  along both mirrors to cyan where they meet, white at the end of the zip.
* -1, -3 leave a half sphere whose edge meets itself, which no key can follow: hues about c*, white there and dark at
  right angles to it, where they jump.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.crystals import Crystal

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

_BLANK = 255  # white, where a key has no colour
_INDICES = 4  # up to which the corners of a key are named
_PART = 20_000  # directions at a time: each has up to 48 images


class Shape(Enum):
    """What the sphere is folded up to."""

    TRIANGLE = "triangle"
    DISC = "disc"
    WEDGE = "wedge"
    HALF = "half sphere"


_SHAPES = {"2/m": Shape.DISC, "4/m": Shape.DISC, "6/m": Shape.DISC, "-3m": Shape.WEDGE, "m-3": Shape.WEDGE}
_SHAPES |= {"-1": Shape.HALF, "-3": Shape.HALF}


@dataclass(frozen=True, eq=False)
class Key:
    """How directions of one Laue class are coloured.

    Attributes
    ----------
    rotations : (n, 3, 3) proper rotations of the class
    shape : of the folded sphere
    corners : (3, 3) unit vectors: the main axis; a second axis, or of a wedge the end of its zip; the third corner
    fold : order of the main axis
    cubic : whether the class is cubic
    """

    rotations: Floats
    shape: Shape
    corners: Floats
    fold: int
    cubic: bool

    def colours(self, directions: Floats) -> Bytes:
        """(…, 3): red, green and blue of crystal directions (…, 3) of any length but 0."""
        flat = _units(np.reshape(directions, (-1, 3)))
        paint = {Shape.TRIANGLE: self._on_triangle, Shape.WEDGE: self._on_wedge}.get(self.shape, self._on_disc)
        share = np.concatenate([paint(part) for part in np.array_split(flat, len(flat) // _PART + 1)])
        return np.asarray((share * 255).round().reshape(np.shape(directions)), np.uint8)

    def _on_triangle(self, directions: Floats) -> Floats:
        """By the distances from the sides, as shares of those of the corners; the strongest is 1."""
        weights = self._folded(directions, self.corners.mean(0)) @ np.linalg.inv(self.corners)
        weights = np.maximum(weights, 0)
        return np.asarray(weights / weights.max(1, keepdims=True))

    def _on_disc(self, directions: Floats) -> Floats:
        along, aside, up = (directions @ self._frame().T).T
        hue = np.arctan2(np.where(up < 0, -aside, aside), np.where(up < 0, -along, along)) * self.fold
        polar = np.arccos(np.clip(np.abs(up), 0, 1)) / (np.pi / 2)
        if self.shape is Shape.DISC:
            return _tinted(hue, polar)
        return np.asarray(np.where(polar < 0.5, 1, 1.5 - polar)[:, None] * _tinted(hue, np.minimum(2 * polar, 1)))

    def _on_wedge(self, directions: Floats) -> Floats:
        """With u from -1 to 1 across the wedge and t from 0 at the axis to 1 at the zip, where u and -u are the same,
        the point (4 u t (1 - t), t (1 + u²)): a lens |x| <= 1 - (y - 1)², of which no point is covered twice."""
        middle = self.corners[0] + self.corners[1]
        along, aside, up = (self._folded(directions, middle) @ self._frame().T).T
        azimuth, half = np.arctan2(aside, along), np.pi / 4 if self.cubic else np.pi / 6
        u = np.clip(azimuth / half, -1, 1)
        if self.cubic:
            t = np.hypot(along, aside) * np.cos(half - np.abs(azimuth)) / np.maximum(up, 1e-12)
        else:
            t = np.arctan2(np.hypot(along, aside), up) / (np.pi / 2)
        t = np.clip(t, 0, 1)
        x, y = 4 * u * t * (1 - t), t * (1 + u * u) - 1
        away, angle = np.hypot(x, y), np.arctan2(y, x)
        c, s = np.abs(np.cos(angle)), np.sin(angle)
        edge = 2 / (c + np.sqrt(c * c + 4 * s * s))
        return _tinted(angle + np.pi / 2, np.minimum(away / edge, 1))

    def _folded(self, directions: Floats, middle: Floats) -> Floats:
        """(n, 3): of all equivalents of each direction that which is nearest to `middle`."""
        images = np.einsum("sij,nj->nsi", self.rotations, directions)
        images = np.concatenate([images, -images], 1)
        return np.asarray(images[np.arange(len(images)), (images @ middle).argmax(1)])

    def _frame(self) -> Floats:
        """(3, 3): the directions across the main axis, the first towards the second corner, and that axis."""
        main = self.corners[0]
        first = _units(self.corners[1] - self.corners[1] @ main * main)
        return np.stack([first, np.cross(main, first), main])

    def image(self, size: int) -> Bytes:
        """(size, size, 3): all directions up to the main axis's equator in stereographic projection, white outside."""
        along = (np.arange(size) + 0.5) * 2 / size - 1
        x, y = np.meshgrid(along, -along)
        radius = x * x + y * y
        local = np.stack([2 * x, 2 * y, 1 - radius], -1) / (1 + radius)[..., None]
        return np.where((radius < 1)[..., None], self.colours(local @ self._frame()), np.uint8(_BLANK))

    def legend(self, crystal: Crystal) -> str:
        """What the colours mean, by the lattice planes across the corners as far as their indices are small."""
        first, second, third = (_plane(crystal, corner) for corner in self.corners)
        return {
            Shape.TRIANGLE: f"red {first}, green {second}, blue {third}",
            Shape.WEDGE: f"red {first}, white {second}, cyan {third}",
            Shape.DISC: f"white {first}, hues about it",
            Shape.HALF: f"white {first}, hues about it",
        }[self.shape]


def colour_key(crystal: Crystal) -> Key:
    """The key of a crystal's Laue class, however its axes lie."""
    turns, laue = crystal.rotations, crystal.laue_class
    shape = _SHAPES.get(laue, Shape.TRIANGLE)
    axes, folds = _axes(turns)
    if laue in ("m-3m", "m-3"):
        across = axes[folds == (4 if laue == "m-3m" else 2)]
        z, x = across[np.abs(across[:, 2]).argmax()], across[np.abs(across[:, 0]).argmax()]
        edge, corner = z + x, z + x + np.cross(z, x)
        order = [z, edge, corner] if shape is Shape.TRIANGLE else [z, corner, edge]
        return Key(turns, shape, _units(np.stack(order)), 2, True)
    main, fold = _main(axes, folds)
    flat = axes[(folds == 2) & (np.abs(axes @ main) < 1e-6)]
    first = flat[np.abs(flat[:, 0]).argmax()] if len(flat) else _across(main)
    step = np.pi / 6 if laue == "-3m" else np.pi / max(fold, 2)
    second = np.cos(step) * first + np.sin(step) * np.cross(main, first)
    return Key(turns, shape, np.stack([main, first, second]), fold, False)


def colour_orientations(orientations: Floats, crystal: Crystal, along: tuple[float, float, float]) -> Bytes:
    """(…, 3): colours of `orientations` (…, 3, 3) by the crystal direction that points along the sample's `along`."""
    return colour_key(crystal).colours(np.einsum("...ij,i->...j", orientations, np.array(along, np.float64)))


def _tinted(hue: Floats, saturation: Floats) -> Floats:
    """(n, 3): red, green and blue of hues in radians, from white at saturation 0 on."""
    sixths = np.asarray(hue)[:, None] * (3 / np.pi) + np.array([0.0, 4.0, 2.0])
    pure = np.clip(np.abs(sixths % 6 - 3) - 1, 0, 1)
    return np.asarray(1 - np.asarray(saturation)[:, None] * (1 - pure))


def _plane(crystal: Crystal, direction: Floats) -> str:
    along = np.arange(-_INDICES, _INDICES + 1)
    hkl = np.stack(np.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3)
    hkl = hkl[np.abs(hkl).sum(1).argsort(kind="stable")][1:]
    fits = np.flatnonzero(_units(hkl @ crystal.b0.T) @ direction > np.cos(np.radians(0.1)))
    return "(" + "".join(str(index) for index in hkl[fits[0]]) + ")" if len(fits) else "an axis"


def _axes(turns: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """(m, 3) axes of rotation, each once and with its first coordinate that is not 0 above 0; (m,) their orders."""
    found: list[tuple[Floats, int]] = []
    for turn in turns[1:]:
        angle = np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))
        values, vectors = np.linalg.eigh(turn + turn.T)
        axis = vectors[:, values.argmax()]
        axis = axis * np.sign(axis[np.flatnonzero(np.abs(axis) > 1e-6)[0]])
        fold = round(2 * np.pi / angle)
        same = [n for n, (other, _) in enumerate(found) if other @ axis > 1 - 1e-9]
        if not same:
            found.append((axis, fold))
        elif fold > found[same[0]][1]:
            found[same[0]] = axis, fold
    axes = np.array([axis for axis, _ in found]).reshape(-1, 3)
    return axes, np.array([fold for _, fold in found], np.int64)


def _main(axes: Floats, folds: NDArray[np.int64]) -> tuple[Floats, int]:
    """The axis of highest order and this; of several the one nearest to z, and c* where there is none."""
    if not len(axes):
        return np.array([0.0, 0.0, 1.0]), 1
    highest = axes[folds == folds.max()]
    axis = highest[np.abs(highest[:, 2]).argmax()]
    return np.asarray(axis * np.sign(axis[np.abs(axis).argmax()])), int(folds.max())


def _across(main: Floats) -> Floats:
    """A direction at right angles to `main`: the part of x, or of y where x is along it."""
    one = np.array([1.0, 0, 0]) if abs(main[0]) < 0.9 else np.array([0, 1.0, 0])
    return _units(one - one @ main * main)


def _units(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
