"""Measured spots as the far field takes them, and the cells in which those near a prediction are found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import Exit, KernelError
from kernels.hedm.geometry import Geometry

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

_OMEGAS = 720  # cells of half a degree
_MOST_ETAS = 720
_SLACK = 1e-4  # radians; more than what `arctangent` is wrong by


@dataclass(frozen=True, eq=False)
class Spots:
    """Spots as measured: each an array of n.

    Attributes
    ----------
    point_um : (n, 3) where they lie, in the axis frame of the geometry, distortion taken away
    omega : (n,) radians
    intensity : (n,) above zero
    """

    point_um: Floats
    omega: Floats
    intensity: Floats

    def __post_init__(self) -> None:
        n = len(self.omega)
        if self.point_um.shape != (n, 3) or self.omega.shape != (n,) or self.intensity.shape != (n,):
            raise KernelError(
                f"Spots need n points of 3 numbers, n omegas and n intensities, not arrays of shapes "
                f"{self.point_um.shape}, {self.omega.shape} and {self.intensity.shape}.",
                Exit.BAD_INPUT,
            )
        if not (np.isfinite(self.point_um).all() and np.isfinite(self.omega).all()):
            raise KernelError("Some spots have a place or an omega that is not finite.", Exit.BAD_INPUT)

    def __len__(self) -> int:
        return len(self.omega)

    @classmethod
    def of_pixels(
        cls,
        geometry: Geometry,
        panel: NDArray[np.integer],
        row: Floats,
        column: Floats,
        *,
        omega: Floats,
        intensity: Floats | None = None,
    ) -> Spots:
        """From panels, pixels (row, column) and omega in radians; without intensities all are alike."""
        omega = np.array(omega, np.float64)
        points = geometry.axis_points(np.asarray(panel, np.int64), np.asarray(row), np.asarray(column))
        return cls(points, omega, np.ones(len(omega)) if intensity is None else np.array(intensity, np.float64))

    @classmethod
    def of_plane(
        cls, geometry: Geometry, y_um: Floats, z_um: Floats, *, omega: Floats, intensity: Floats | None = None
    ) -> Spots:
        """From y and z in the lab in the plane across the beam through where the first panel meets the x axis, as MIDAS
        writes them."""
        panel = geometry.panels[0]
        distance = float(panel.normal @ panel.centre_um) / float(panel.normal[0])
        lab = np.column_stack([np.full(len(y_um), distance), y_um, z_um])
        omega = np.array(omega, np.float64)
        weights = np.ones(len(omega)) if intensity is None else np.array(intensity, np.float64)
        return cls(np.ascontiguousarray(lab @ geometry.axis_to_lab), omega, weights)

    def take(self, which: NDArray[np.bool_] | NDArray[np.integer]) -> Spots:
        """Some of the spots, by a mask or by numbers."""
        return Spots(self.point_um[which], self.omega[which], self.intensity[which])


class Cells(NamedTuple):
    """Spots sorted into cells by shell, eta and omega; omega runs fastest.

    Attributes
    ----------
    start : (shells · etas · omegas + 1,) where the spots of a cell begin
    place : (n,) which spot of the list this is
    spot : (n, 5) its point in µm, cosine and sine of omega
    etas, omegas : how many cells go around
    """

    start: Ints
    place: Ints
    spot: Floats
    etas: int
    omegas: int


def directions(points: Floats, source: Floats) -> tuple[Floats, Floats, Floats]:
    """Of points in the axis frame: unit vectors to them from the origin (n, 3), how far they are (n,), and eta (n,)."""
    distance = np.linalg.norm(points, axis=1)
    ray = points / distance[:, None]
    away = ray - source[:3]
    return ray, distance, np.arctan2(-(away @ source[4:7]), away @ source[7:10])


def sort_spots(spots: Spots, shell: NDArray[np.integer], shells: int, source: Floats) -> Cells:
    """The spots whose `shell` is not negative, in cells."""
    kept = np.flatnonzero(shell >= 0)
    eta = directions(spots.point_um[kept], source)[2]
    omega = spots.omega[kept]
    etas = int(np.clip(len(kept) / (max(shells, 1) * _OMEGAS), 1, _MOST_ETAS))
    key = _cell(eta, etas) + etas * shell[kept]
    key = _cell((omega + math.pi) % (2 * math.pi) - math.pi, _OMEGAS) + _OMEGAS * key
    start = np.zeros(max(shells, 1) * etas * _OMEGAS + 1, np.int32)
    np.cumsum(np.bincount(key, minlength=len(start) - 1), out=start[1:])
    order = np.argsort(key, kind="stable")
    place = kept[order]
    turned = spots.omega[place]
    spot = np.column_stack([spots.point_um[place], np.cos(turned), np.sin(turned)])
    return Cells(start, place.astype(np.int32), np.ascontiguousarray(spot), etas, _OMEGAS)


def _cell(angle: Floats, cells: int) -> NDArray[np.int64]:
    return np.clip(((angle + math.pi) * (cells / (2 * math.pi))).astype(np.int64), 0, cells - 1)


@compiled()
def arctangent(y: float, x: float) -> float:
    """atan2 to 2e-5 radians, for finding cells (a minimax polynomial on the first octant)."""
    ax, ay = abs(x), abs(y)
    ratio = min(ax, ay) / (max(ax, ay) + 1e-300)
    s = ratio * ratio
    angle = ratio * (
        0.99997726 + s * (-0.33262347 + s * (0.19354346 + s * (-0.11643287 + s * (0.05265332 - s * 0.0117212))))
    )
    if ay > ax:
        angle = 0.5 * math.pi - angle
    if x < 0.0:
        angle = math.pi - angle
    return -angle if y < 0.0 else angle


@compiled()
def nearest(
    cells: Cells,
    shell: int,
    eta: float,
    eta_reach: float,
    cos: float,
    sin: float,
    omega_reach: float,
    panels: Floats,
    panel: int,
    x: float,
    y: float,
    z: float,
    inverse_um: float,
    inverse_omega: float,
    gate2: float,
) -> tuple[int, float, float, float, float]:
    """The spot nearest to a prediction, in standard deviations.

    Parameters
    ----------
    shell, eta, cos, sin : where to look; `eta_reach` and `omega_reach` in radians how far
    panels, panel : of `Flat`; distances are measured along this panel's rows and columns
    x, y, z : the predicted point in µm, axis frame
    inverse_um, inverse_omega : one over the standard deviations
    gate2 : the largest squared distance

    Returns
    -------
    which, distance2, a, b, omega
        Its number in `cells`, or -1; measured less predicted, along rows and columns in µm, omega in radians.
    """
    etas, omegas = cells.etas, cells.omegas
    scale_e, scale_o = etas / (2.0 * math.pi), omegas / (2.0 * math.pi)
    at = arctangent(sin, cos) + math.pi
    low = math.floor((eta + math.pi - eta_reach - _SLACK) * scale_e)
    high = math.floor((eta + math.pi + eta_reach + _SLACK) * scale_e)
    begin = math.floor((at - omega_reach - _SLACK) * scale_o)
    end = math.floor((at + omega_reach + _SLACK) * scale_o)
    high = min(high, low + etas - 1)
    end = min(end, begin + omegas - 1)
    r0, r1, r2 = panels[panel, 3], panels[panel, 4], panels[panel, 5]
    c0, c1, c2 = panels[panel, 6], panels[panel, 7], panels[panel, 8]
    which, least, least_a, least_b, least_w = -1, gate2, 0.0, 0.0, 0.0
    for e in range(low, high + 1):
        row = (shell * etas + e % etas) * omegas
        for part in range(2):
            if part == 0:
                first, last = max(begin, 0), min(end, omegas - 1)
            elif begin < 0:
                first, last = begin + omegas, omegas - 1
            elif end >= omegas:
                first, last = 0, end - omegas
            else:
                break
            for n in range(cells.start[row + first], cells.start[row + last + 1]):
                w = cells.spot[n, 4] * cos - cells.spot[n, 3] * sin
                if cells.spot[n, 3] * cos + cells.spot[n, 4] * sin < 0.0:
                    continue
                dx, dy, dz = cells.spot[n, 0] - x, cells.spot[n, 1] - y, cells.spot[n, 2] - z
                a = dx * r0 + dy * r1 + dz * r2
                b = dx * c0 + dy * c1 + dz * c2
                away = (a * a + b * b) * inverse_um * inverse_um + w * w * inverse_omega * inverse_omega
                if away < least:
                    which, least, least_a, least_b, least_w = n, away, a, b, w
    return which, least, least_a, least_b, least_w + least_w * least_w * least_w / 6.0


@compiled()
def measured(ranges: Floats, omega: float) -> bool:
    """Whether frames were taken at this omega; ranges (n, 2) are start and length."""
    for n in range(ranges.shape[0]):
        if ranges[n, 1] >= 2.0 * math.pi or (omega - ranges[n, 0]) % (2.0 * math.pi) <= ranges[n, 1]:
            return True
    return False
