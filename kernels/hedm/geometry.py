"""Where the detector's panels stand, how the beam meets the rotation axis, and the way from pixels to the lab and back.

In the lab x goes along the beam, z up, y = z × x, and the origin lies on the rotation axis. The axis is z of the *axis
frame*; `v_lab = Ry(-wedge) Rx(chi) v_axis` and `v_axis = Rz(omega) v_sample`. Compiled code works in the axis frame,
where a wedge is a beam that comes from another direction: see `Flat`.

A pixel is (row, column), whole numbers at its centre. In the plane of a panel `a` and `b` are µm from the middle of
its pixels, along the directions in which rows and columns count up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import KernelError, nearest
from kernels.hedm.distortion import NONE, Distortion, distort, undistort
from kernels.hedm.rotations import about_x, about_y, from_tilts, to_tilts

Vector = NDArray[np.float64]
Whole = NDArray[np.int64]

# Places in a row of `Flat.panels`.
CENTRE, ROW, COLUMN, NORMAL = 0, 3, 6, 9
PIXEL_ROW, PIXEL_COLUMN, HALF_ROWS, HALF_COLUMNS, KIND, TABLE = 12, 13, 14, 15, 16, 17
_WIDTH = 18

# As ImageD11 writes it: (o11, o12, o21, o22), so that z = o11 · row + o12 · column and y = o21 · row + o22 · column.
Orientation = tuple[int, int, int, int]
_ORIENTATIONS: tuple[Orientation, ...] = tuple(
    (a, b, c, d)
    for a, b, c, d in (
        (p, 0, 0, q) if straight else (0, p, q, 0) for straight in (1, 0) for p in (1, -1) for q in (1, -1)
    )
)


class Flat(NamedTuple):
    """A geometry as compiled code takes it, in the axis frame.

    Attributes
    ----------
    source : ndarray of float64, shape (10,)
        The beam's direction in the axis frame (3), the wavelength in Å, and the lab's y (3) and z (3) in the axis
        frame, which eta is counted in.
    panels : ndarray of float64, shape (panels, 18)
        At `CENTRE`, `ROW`, `COLUMN`, `NORMAL` three numbers each: the middle of the pixels in µm and unit vectors;
        then pixel sizes in µm, half of rows - 1 and of columns - 1, the kind of the distortion and its table's begin.
    tables : ndarray of float64
        The tables of all distortions one after the other.
    """

    source: Vector
    panels: Vector
    tables: Vector


class Tilted(NamedTuple):
    """A panel as MIDAS and ImageD11 tell of it: turned about the point where the x axis of the lab meets it."""

    distance_um: float
    beam_centre: tuple[float, float]
    tilts: tuple[float, float, float]
    orientation: Orientation


@dataclass(frozen=True, eq=False)
class Panel:
    """A flat detector, or a part of one, anywhere in the lab.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Rows and columns.
    pixel_um : tuple of float
        From row to row, from column to column.
    centre_um : ndarray of float64, shape (3,)
        The middle of the pixels in the lab.
    row, column : ndarray of float64, shape (3,)
        Unit vectors in the lab in which rows and columns count up, at right angles.
    distortion : Distortion or None

    Raises
    ------
    KernelError
        For sizes that are not above zero, and directions that are not unit vectors at right angles.
    """

    name: str
    shape: tuple[int, int]
    pixel_um: tuple[float, float]
    centre_um: Vector
    row: Vector
    column: Vector
    distortion: Distortion | None = None

    def __post_init__(self) -> None:
        for name in ("centre_um", "row", "column"):
            vector = np.array(getattr(self, name), np.float64)
            if vector.shape != (3,) or not np.isfinite(vector).all():
                raise KernelError(f"The {name} of panel {self.name!r} is three finite numbers, not {vector.tolist()}.")
            vector.setflags(write=False)
            object.__setattr__(self, name, vector)
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise KernelError(f"Panel {self.name!r} has {self.shape} pixels: it needs a row and a column at least.")
        if len(self.pixel_um) != 2 or not all(math.isfinite(size) and size > 0 for size in self.pixel_um):
            raise KernelError(f"The pixels of panel {self.name!r} are {self.pixel_um} µm: both sizes must be above 0.")
        dots = [self.row @ self.row - 1.0, self.column @ self.column - 1.0, self.row @ self.column]
        if max(abs(value) for value in dots) > 1e-6:
            raise KernelError(f"Rows and columns of panel {self.name!r} must be unit vectors at right angles.")

    @classmethod
    def tilted(
        cls,
        name: str,
        *,
        shape: tuple[int, int],
        pixel_um: tuple[float, float],
        distance_um: float,
        beam_centre: tuple[float, float],
        tilts: tuple[float, float, float] = (0.0, 0.0, 0.0),
        orientation: Orientation = (1, 0, 0, -1),
        distortion: Distortion | None = None,
    ) -> Panel:
        """A panel turned by `tilts` (radians, `from_tilts`) about its pixel `beam_centre` (row, column).

        The x axis of the lab meets that pixel at `distance_um`. Untilted, rows go up and columns against y; other ways
        by `orientation` (o11, o12, o21, o22).
        """
        if not (math.isfinite(distance_um) and distance_um > 0):
            raise KernelError(f"The distance of panel {name!r} is {distance_um} µm: it must be above 0.")
        if orientation not in _ORIENTATIONS:
            raise KernelError(
                f"The orientation {orientation} of panel {name!r} is none: of o11, o12, o21, o22 either the first and "
                "the last or the two others are 1 or -1, the rest 0."
            )
        turn = from_tilts(*tilts)
        o11, o12, o21, o22 = orientation
        row, column = turn @ [0.0, o21, o11], turn @ [0.0, o22, o12]
        a, b = (
            ((length - 1) / 2 - middle) * size
            for length, middle, size in zip(shape, beam_centre, pixel_um, strict=True)
        )
        return cls(
            name, shape, pixel_um, np.array([distance_um, 0.0, 0.0]) + a * row + b * column, row, column, distortion
        )

    def as_tilted(self) -> Tilted:
        """Distance, beam centre, tilts and orientation: the inverse of `tilted`, with the smallest tilts there are."""
        along = float(self.normal[0])
        if abs(along) < 1e-9:
            raise KernelError(f"Panel {self.name!r} stands along the beam: it has no beam centre.")
        distance = float(self.normal @ self.centre_um) / along
        offset = np.array([distance, 0.0, 0.0]) - self.centre_um
        centre = (
            (self.shape[0] - 1) / 2 + float(self.row @ offset) / self.pixel_um[0],
            (self.shape[1] - 1) / 2 + float(self.column @ offset) / self.pixel_um[1],
        )
        best, turn = max(((o, self._turn(o)) for o in _ORIENTATIONS), key=lambda pair: float(np.trace(pair[1])))
        return Tilted(distance, centre, to_tilts(turn), best)

    def _turn(self, orientation: Orientation) -> Vector:
        """The rotation that brings an untilted panel of `orientation` to this one."""
        o11, o12, o21, o22 = orientation
        y, z = o21 * self.row + o22 * self.column, o11 * self.row + o12 * self.column
        return np.column_stack([np.cross(y, z), y, z])

    @property
    def normal(self) -> Vector:
        """Unit vector across the panel: row × column."""
        return np.cross(self.row, self.column)

    def corners_um(self) -> Vector:
        """The four outer corners in the lab, one after the other around the panel, shape (4, 3)."""
        a, b = (0.5 * length * size for length, size in zip(self.shape, self.pixel_um, strict=True))
        signs = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)])
        return self.centre_um + (signs[:, :1] * a) * self.row + (signs[:, 1:] * b) * self.column

    def moved(self, shift_um: Vector, turn: Vector) -> Panel:
        """The panel shifted in the lab and turned about its middle by the matrix `turn`."""
        return replace(self, centre_um=self.centre_um + shift_um, row=turn @ self.row, column=turn @ self.column)


@dataclass(frozen=True, eq=False)
class Geometry:
    """An instrument: beam, rotation axis and panels.

    Attributes
    ----------
    wavelength_A : float
    panels : tuple of Panel
    wedge, chi : float
        Radians; how the rotation axis leans, along the beam and across.
    beam : ndarray of float64, shape (3,)
        The direction of the beam in the lab: x, unless a file says otherwise.

    Raises
    ------
    KernelError
        For a wavelength that is not above zero, no panels, names that repeat, panels behind the sample, and panels that
        overlap as seen from it.
    """

    wavelength_A: float
    panels: tuple[Panel, ...]
    wedge: float = 0.0
    chi: float = 0.0
    beam: Vector = field(default_factory=lambda: np.array([1.0, 0.0, 0.0]))

    def __post_init__(self) -> None:
        if not (math.isfinite(self.wavelength_A) and self.wavelength_A > 0):
            raise KernelError(f"The wavelength is {self.wavelength_A} Å: it must be above 0.")
        if not all(math.isfinite(angle) and abs(angle) < math.pi / 4 for angle in (self.wedge, self.chi)):
            raise KernelError(f"Wedge {self.wedge} and chi {self.chi} (radians) must be below 45 degrees.")
        beam = np.array(self.beam, np.float64)
        if beam.shape != (3,) or not np.isfinite(beam).all() or beam[0] <= 0:
            raise KernelError(f"The beam goes along {beam.tolist()}: it must be a direction with x above 0.")
        beam /= np.linalg.norm(beam)
        beam.setflags(write=False)
        object.__setattr__(self, "beam", beam)
        object.__setattr__(self, "panels", tuple(self.panels))
        _check(self.panels)

    @property
    def names(self) -> tuple[str, ...]:
        """The panels' names in their order."""
        return tuple(panel.name for panel in self.panels)

    def index(self, name: str) -> int:
        """Which panel has this name."""
        if name not in self.names:
            raise KernelError(
                f"There is no panel {name!r}; the panels are {', '.join(self.names)}.{nearest(name, self.names)}"
            )
        return self.names.index(name)

    def arranged(self, names: Iterable[str]) -> Geometry:
        """The same instrument with its panels in the order of `names`, as the frames come.

        Raises
        ------
        KernelError
            When `names` are not just the panels' names, each once.
        """
        wanted = list(names)
        order = [self.index(name) for name in wanted]
        if sorted(order) != list(range(len(self.panels))):
            raise KernelError(f"Each of the panels {', '.join(self.names)} is wanted once, not {', '.join(wanted)}.")
        return replace(self, panels=tuple(self.panels[i] for i in order))

    @property
    def axis_to_lab(self) -> Vector:
        """The matrix (3, 3) that takes vectors of the axis frame to the lab."""
        return about_y(-self.wedge) @ about_x(self.chi)

    @cached_property
    def flat(self) -> Flat:
        """The arrays that compiled code takes."""
        turn = self.axis_to_lab.T
        source = np.concatenate([turn @ self.beam, [self.wavelength_A], turn[:, 1], turn[:, 2]])
        panels = np.zeros((len(self.panels), _WIDTH))
        tables: list[Vector] = []
        for row, panel in zip(panels, self.panels, strict=True):
            for place, vector in (
                (CENTRE, panel.centre_um),
                (ROW, panel.row),
                (COLUMN, panel.column),
                (NORMAL, panel.normal),
            ):
                row[place : place + 3] = turn @ vector
            row[PIXEL_ROW : PIXEL_COLUMN + 1] = panel.pixel_um
            row[HALF_ROWS], row[HALF_COLUMNS] = ((length - 1) / 2 for length in panel.shape)
            row[TABLE] = sum(table.size for table in tables)
            if panel.distortion is not None:
                row[KIND] = panel.distortion.kind
                tables.append(panel.distortion.table(panel))
        return Flat(source, panels, np.concatenate([*tables, np.zeros(1)]))

    def axis_points(self, panel: Whole, row: Vector, column: Vector) -> Vector:
        """Where pixels lie in the axis frame, distortion taken away.

        Parameters
        ----------
        panel : ndarray of int, shape (n,)
        row, column : ndarray of float, shape (n,)

        Returns
        -------
        ndarray of float64, shape (n, 3)
            µm.
        """
        panel, row, column = np.broadcast_arrays(panel, row, column)
        self._check_panels(panel)
        points = np.empty((panel.size, 3))
        _points(
            self.flat.panels,
            self.flat.tables,
            panel.astype(np.int64).ravel(),
            row.astype(np.float64).ravel(),
            column.astype(np.float64).ravel(),
            points,
        )
        return points

    def lab_points(self, panel: Whole, row: Vector, column: Vector) -> Vector:
        """Where pixels lie in the lab, distortion taken away: µm, shape (n, 3)."""
        return self.axis_points(panel, row, column) @ self.axis_to_lab.T

    def pixels(self, panel: Whole, lab_um: Vector) -> tuple[Vector, Vector]:
        """Row and column at which points of panels are measured: the inverse of `lab_points`.

        A point beside its panel's plane is taken straight down to it; rows and columns may lie outside the panel.
        """
        panel = np.broadcast_to(panel, (len(lab_um),)).astype(np.int64)
        self._check_panels(panel)
        row, column = np.empty(len(lab_um)), np.empty(len(lab_um))
        _pixels(self.flat.panels, self.flat.tables, panel, np.ascontiguousarray(lab_um @ self.axis_to_lab), row, column)
        return row, column

    def angles(self, panel: Whole, row: Vector, column: Vector) -> tuple[Vector, Vector]:
        """Two theta and eta of pixels in radians, for rays from the origin."""
        points = self.lab_points(panel, row, column)
        points /= np.linalg.norm(points, axis=1)[:, None]
        across = np.linalg.norm(np.cross(self.beam, points), axis=1)
        return np.arctan2(across, points @ self.beam), np.arctan2(-points[:, 1], points[:, 2])

    def reciprocal(
        self, panel: Whole, row: Vector, column: Vector, *, omega: Vector, position_um: Vector | None = None
    ) -> Vector:
        """Reciprocal vectors (1/Å, sample frame) of spots measured at pixels and `omega` (radians).

        `position_um`, shape (3,) or (n, 3), is where in the sample the rays begin; without it at the origin.
        """
        points = self.axis_points(panel, row, column)
        cos, sin = np.cos(omega), np.sin(omega)
        if position_um is not None:
            p = np.broadcast_to(np.asarray(position_um, np.float64), points.shape)
            points -= np.column_stack([cos * p[:, 0] - sin * p[:, 1], sin * p[:, 0] + cos * p[:, 1], p[:, 2]])
        points /= np.linalg.norm(points, axis=1)[:, None]
        g = (points - self.flat.source[:3]) / self.wavelength_A
        return np.column_stack([cos * g[:, 0] + sin * g[:, 1], -sin * g[:, 0] + cos * g[:, 1], g[:, 2]])

    def _check_panels(self, panel: Whole) -> None:
        if panel.size and not (panel.min() >= 0 and panel.max() < len(self.panels)):
            raise KernelError(f"Panels are numbered from 0 to {len(self.panels) - 1}.")


@compiled()
def to_plane(panels: Vector, tables: Vector, i: int, row: float, column: float) -> tuple[float, float]:
    """The ideal point (a, b) in µm of a measured pixel of panel `i`."""
    a = (row - panels[i, HALF_ROWS]) * panels[i, PIXEL_ROW]
    b = (column - panels[i, HALF_COLUMNS]) * panels[i, PIXEL_COLUMN]
    return undistort(int(panels[i, KIND]), tables, int(panels[i, TABLE]), a, b)


@compiled()
def to_pixel(panels: Vector, tables: Vector, i: int, a: float, b: float) -> tuple[float, float]:
    """The pixel (row, column) at which the ideal point (a, b) of panel `i` is measured."""
    if panels[i, KIND] != NONE:
        a, b = distort(int(panels[i, KIND]), tables, int(panels[i, TABLE]), a, b)
    return a / panels[i, PIXEL_ROW] + panels[i, HALF_ROWS], b / panels[i, PIXEL_COLUMN] + panels[i, HALF_COLUMNS]


@compiled(parallel=True)
def _points(panels: Vector, tables: Vector, panel: Whole, row: Vector, column: Vector, points: Vector) -> None:
    for n in numba.prange(panel.size):
        i = panel[n]
        a, b = to_plane(panels, tables, i, row[n], column[n])
        for k in range(3):
            points[n, k] = panels[i, CENTRE + k] + a * panels[i, ROW + k] + b * panels[i, COLUMN + k]


@compiled(parallel=True)
def _pixels(panels: Vector, tables: Vector, panel: Whole, points: Vector, row: Vector, column: Vector) -> None:
    for n in numba.prange(panel.size):
        i = panel[n]
        a, b = 0.0, 0.0
        for k in range(3):
            d = points[n, k] - panels[i, CENTRE + k]
            a += d * panels[i, ROW + k]
            b += d * panels[i, COLUMN + k]
        row[n], column[n] = to_pixel(panels, tables, i, a, b)


def _check(panels: tuple[Panel, ...]) -> None:
    if not panels:
        raise KernelError("An instrument has at least one panel.")
    names = [panel.name for panel in panels]
    for name in names:
        if names.count(name) > 1:
            raise KernelError(f"Two panels are named {name!r}: each needs a name of its own.")
    outlines = []
    for panel in panels:
        corners = panel.corners_um()
        if corners[:, 0].min() <= 0:
            raise KernelError(
                f"Panel {panel.name!r} reaches behind the sample: a corner lies at x = {corners[:, 0].min():.6g} µm, "
                "and x goes along the beam from the sample. Check its distance and tilts."
            )
        if abs(panel.normal @ panel.centre_um) < 1e-3 * float(np.linalg.norm(panel.centre_um)):
            raise KernelError(f"Panel {panel.name!r} is seen edge-on from the sample. Check its tilts.")
        # Half a pixel less on each side, so that panels may touch.
        shrunk = panel.centre_um + (corners - panel.centre_um) * (1.0 - 1.0 / min(panel.shape))
        outlines.append(shrunk[:, 1:] / shrunk[:, :1])
    for i, first in enumerate(outlines):
        for j in range(i):
            if _overlap(first, outlines[j]):
                raise KernelError(
                    f"Panels {names[j]!r} and {names[i]!r} overlap as seen from the sample: a spot would be on both. "
                    "Check their positions, or use them as two instruments."
                )


def _overlap(first: Vector, second: Vector) -> bool:
    """Whether two convex outlines (n, 2) have an area in common: no edge of either parts them."""
    for outline in (first, second):
        edges = np.roll(outline, -1, axis=0) - outline
        for across in np.column_stack([-edges[:, 1], edges[:, 0]]):
            p, q = first @ across, second @ across
            if p.max() <= q.min() or q.max() <= p.min():
                return False
    return True
