"""How a detector bends space: from where a spot is measured to where it would be on an ideal panel.

A model works in the plane of its panel, in µm from the middle of the pixels: `a` in the direction in which rows count
up, `b` in that of columns. `undistort` takes measured to ideal, `distort` back. Each model is a frozen record whose
`coefficients` a calibration may refine and whose `table` is what compiled code reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import KernelError

Vector = NDArray[np.float64]

NONE, GE, DEXELA, MIDAS, MAP = 0, 1, 2, 3, 4

_GE_RADIUS_UM = 204_800.0
_STEPS = 30
_CLOSE_UM = 1e-9


class Placed(Protocol):
    """What a model may need to know of its panel."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def pixel_um(self) -> tuple[float, float]: ...
    @property
    def centre_um(self) -> Vector: ...
    @property
    def row(self) -> Vector: ...
    @property
    def column(self) -> Vector: ...


class Distortion(Protocol):
    """A model of distortion."""

    @property
    def kind(self) -> int: ...
    @property
    def coefficients(self) -> tuple[float, ...]: ...
    def table(self, panel: Placed) -> Vector:
        """What `undistort` reads: as float64, beginning where the panel says."""
        ...

    def with_coefficients(self, coefficients: tuple[float, ...]) -> Distortion: ...


def _finite(name: str, values: tuple[float, ...], count: int) -> tuple[float, ...]:
    kept = tuple(float(value) for value in values)
    if len(kept) != count or not all(math.isfinite(value) for value in kept):
        raise KernelError(f"The distortion {name} takes {count} finite coefficients, not {list(values)}.")
    return kept


@dataclass(frozen=True)
class GeDistortion:
    """HEXRD's GE_41RT: the radius r about the panel's middle becomes r · f.

    f = 1 + p0 (r/R)^n0 cos 2t + p1 (r/R)^n1 cos 4t + p2 (r/R)^n2, where t is the angle from the direction of columns
    towards that against the rows, and R = 204.8 mm.

    Attributes
    ----------
    coefficients : tuple of 6 floats
        p0, p1, p2, n0, n1, n2.
    """

    coefficients: tuple[float, ...]
    kind: int = field(default=GE, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficients", _finite("GE_41RT", self.coefficients, 6))

    def table(self, panel: Placed) -> Vector:
        """The coefficients."""
        return np.array(self.coefficients)

    def with_coefficients(self, coefficients: tuple[float, ...]) -> GeDistortion:
        """The same model with other numbers."""
        return replace(self, coefficients=coefficients)


@dataclass(frozen=True)
class DexelaDistortion:
    """HEXRD's Dexela_2923: each of the four tiles of a panel has a shift of its own.

    Attributes
    ----------
    coefficients : tuple of 8 floats
        Shifts in mm along columns and against rows, of the quadrants right and up, left and up, left and down, right
        and down (as the image is seen with row 0 on top).
    """

    coefficients: tuple[float, ...]
    kind: int = field(default=DEXELA, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficients", _finite("Dexela_2923", self.coefficients, 8))

    def table(self, panel: Placed) -> Vector:
        """The shifts in µm."""
        return np.array(self.coefficients) * 1e3

    def with_coefficients(self, coefficients: tuple[float, ...]) -> DexelaDistortion:
        """The same model with other numbers."""
        return replace(self, coefficients=coefficients)


@dataclass(frozen=True)
class MidasDistortion:
    """The polynomial of MIDAS: the radius about the beam becomes r · f, seen on a plane across the beam.

    f = 1 + p0 q² cos(2t + p6) + p1 q⁴ cos(4t + p3) + p2 q² + p4 q⁶ + p5 q⁴ with q = r / radius_um and t = 90° - eta.
    The plane is at the distance of the panel, so that r = distance · hypot(y, z) / x for a point of the tilted panel;
    the ideal point lies where the ray through the changed (y, z) meets the panel again.

    Attributes
    ----------
    coefficients : tuple of 7 floats
        p0 … p6; p3 and p6 in degrees, as in the files of MIDAS.
    radius_um : float
        RhoD.
    """

    coefficients: tuple[float, ...]
    radius_um: float
    kind: int = field(default=MIDAS, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficients", _finite("of MIDAS", self.coefficients, 7))
        if not (math.isfinite(self.radius_um) and self.radius_um > 0):
            raise KernelError(f"The distortion of MIDAS needs a radius (RhoD) above 0 µm, not {self.radius_um}.")

    def table(self, panel: Placed) -> Vector:
        """p0 … p6 (radians), the distance over the radius, and how the panel stands in the lab."""
        p = np.array(self.coefficients)
        p[3], p[6] = math.radians(p[3]), math.radians(p[6])
        normal = np.cross(panel.row, panel.column)
        distance = float(normal @ panel.centre_um / normal[0])
        return np.concatenate([p, [distance / self.radius_um], panel.centre_um, panel.row, panel.column, normal])

    def with_coefficients(self, coefficients: tuple[float, ...]) -> MidasDistortion:
        """The same model with other numbers."""
        return replace(self, coefficients=coefficients)


@dataclass(frozen=True, eq=False)
class MapDistortion:
    """Shifts in pixels at nodes, linear in between: ImageD11's `dxfile` and `dyfile`, or a spline at nodes.

    Attributes
    ----------
    row_shift, column_shift : ndarray of float64, shape (nodes, nodes)
        Ideal minus measured, in pixels, at the rows and columns 0, step, 2 step, …
    step : int
        Pixels from node to node.
    """

    row_shift: Vector
    column_shift: Vector
    step: int = 1
    coefficients: tuple[float, ...] = field(default=(), init=False)
    kind: int = field(default=MAP, init=False)

    def __post_init__(self) -> None:
        for name in ("row_shift", "column_shift"):
            values = np.ascontiguousarray(getattr(self, name), np.float64)
            if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
                raise KernelError(f"The {name} of a distortion is a finite map of 2 × 2 nodes or more.")
            object.__setattr__(self, name, values)
        if self.row_shift.shape != self.column_shift.shape:
            raise KernelError(
                f"The maps of a distortion differ: {self.row_shift.shape} nodes for rows and "
                f"{self.column_shift.shape} for columns."
            )
        if self.step < 1:
            raise KernelError(f"The nodes of a distortion are 1 pixel apart or more, not {self.step}.")

    def table(self, panel: Placed) -> Vector:
        """The nodes, after what places them on the panel."""
        nodes = self.row_shift.shape
        for axis, (count, length) in enumerate(zip(nodes, panel.shape, strict=True)):
            if not length - 1 <= (count - 1) * self.step < length - 1 + self.step:
                raise KernelError(
                    f"A map of {nodes} nodes, {self.step} pixels apart, does not cover a panel of {panel.shape} pixels "
                    f"along axis {axis}: it is of another detector, or transposed."
                )
        head = [*nodes, self.step, *panel.pixel_um, *((length - 1) / 2 for length in panel.shape)]
        return np.concatenate([head, self.row_shift.ravel(), self.column_shift.ravel()])

    def with_coefficients(self, coefficients: tuple[float, ...]) -> MapDistortion:
        """A map has no coefficients."""
        return self


@compiled()
def undistort(kind: int, table: Vector, at: int, a: float, b: float) -> tuple[float, float]:
    """The ideal point (µm in the panel's plane) of the measured point (a, b); the model's table begins at `at`."""
    if kind == GE:
        f = _ge(table, at, a, b)
        return a * f, b * f
    if kind == DEXELA:
        i = at + _tile(a, b)
        return a - table[i + 1], b + table[i]
    if kind == MIDAS:
        return _midas(table, at, a, b)
    if kind == MAP:
        return _mapped(table, at, a, b)
    return a, b


@compiled()
def distort(kind: int, table: Vector, at: int, a: float, b: float) -> tuple[float, float]:
    """The measured point of the ideal point (a, b): the inverse of `undistort`.

    By repeated substitution, which gains three digits a step where the distortion changes by 0.1 % of the way. Where a
    model folds the plane there is no inverse, and what comes out is the last attempt.
    """
    if kind == NONE:
        return a, b
    if kind == DEXELA:
        i = at + _tile(a, b)
        return a + table[i + 1], b - table[i]
    u, v = a, b
    for _ in range(_STEPS):
        p, q = undistort(kind, table, at, u, v)
        da, db = a - p, b - q
        u += da
        v += db
        if abs(da) + abs(db) < _CLOSE_UM:
            break
    return u, v


@compiled()
def _ge(table: Vector, at: int, a: float, b: float) -> float:
    r2 = a * a + b * b
    if r2 < 1e-12:
        return 1.0
    q = math.sqrt(r2) / _GE_RADIUS_UM
    cos2 = (b * b - a * a) / r2
    cos4 = 2.0 * cos2 * cos2 - 1.0
    return float(
        1.0
        + table[at] * q ** table[at + 3] * cos2
        + table[at + 1] * q ** table[at + 4] * cos4
        + table[at + 2] * q ** table[at + 5]
    )


@compiled()
def _tile(a: float, b: float) -> int:
    if b >= 0.0:
        return 0 if a <= 0.0 else 6
    return 2 if a <= 0.0 else 4


@compiled()
def _midas(table: Vector, at: int, a: float, b: float) -> tuple[float, float]:
    o = at + 8
    x = table[o] + a * table[o + 3] + b * table[o + 6]
    y = table[o + 1] + a * table[o + 4] + b * table[o + 7]
    z = table[o + 2] + a * table[o + 5] + b * table[o + 8]
    rho2 = y * y + z * z
    if rho2 < 1e-12:
        return a, b
    q = table[at + 7] * math.sqrt(rho2) / x
    t = math.atan2(z, -y)
    q2 = q * q
    f = (
        1.0
        + q2 * (table[at] * math.cos(2.0 * t + table[at + 6]) + table[at + 2])
        + q2 * q2 * (table[at + 1] * math.cos(4.0 * t + table[at + 3]) + table[at + 5] + q2 * table[at + 4])
    )
    y *= f
    z *= f
    n = o + 9
    along = table[n] * table[o] + table[n + 1] * table[o + 1] + table[n + 2] * table[o + 2]
    t = along / (table[n] * x + table[n + 1] * y + table[n + 2] * z)
    x, y, z = t * x - table[o], t * y - table[o + 1], t * z - table[o + 2]
    return (
        x * table[o + 3] + y * table[o + 4] + z * table[o + 5],
        x * table[o + 6] + y * table[o + 7] + z * table[o + 8],
    )


@compiled()
def _mapped(table: Vector, at: int, a: float, b: float) -> tuple[float, float]:
    rows, columns, step = int(table[at]), int(table[at + 1]), table[at + 2]
    r = min(max((a / table[at + 3] + table[at + 5]) / step, 0.0), rows - 1.0)
    c = min(max((b / table[at + 4] + table[at + 6]) / step, 0.0), columns - 1.0)
    i, j = min(int(r), rows - 2), min(int(c), columns - 2)
    fr, fc = r - i, c - j
    k = at + 7 + i * columns + j
    m = k + rows * columns
    shift_r = (1 - fr) * ((1 - fc) * table[k] + fc * table[k + 1]) + fr * (
        (1 - fc) * table[k + columns] + fc * table[k + columns + 1]
    )
    shift_c = (1 - fr) * ((1 - fc) * table[m] + fc * table[m + 1]) + fr * (
        (1 - fc) * table[m + columns] + fc * table[m + columns + 1]
    )
    return a + shift_r * table[at + 3], b + shift_c * table[at + 4]
