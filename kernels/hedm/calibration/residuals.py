"""How far spots lie from where instrument and grains say, and the normal equations that follow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import KernelError
from kernels.hedm.calibration.parameters import changed, steps
from kernels.hedm.calibration.system import System
from kernels.hedm.forward import differentiate, hit, shrinking, solve
from kernels.hedm.geometry import PIXEL_COLUMN, PIXEL_ROW, Flat, Geometry, to_plane

Vector = NDArray[np.float64]
Whole = NDArray[np.int64]

_HUBER = 3.0
_AT_ONCE = 200_000


@dataclass(frozen=True, eq=False)
class Measured:
    """Spots that belong to known grains and reflections; each an array of shape (n,).

    Attributes
    ----------
    grain, reflection : ndarray of int
        Which of the orientations and which of `g0`.
    panel : ndarray of int
    row, column, omega : ndarray of float64
        Pixels as measured, and radians.
    sigma_px, sigma_omega : float
        Standard deviations of rows and columns, and of omega.
    """

    grain: Whole
    reflection: Whole
    panel: Whole
    row: Vector
    column: Vector
    omega: Vector
    sigma_px: float = 0.1
    sigma_omega: float = math.radians(0.03)

    def __post_init__(self) -> None:
        for name in ("grain", "reflection", "panel"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.int64))
        for name in ("row", "column", "omega"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float64))
            if not np.isfinite(getattr(self, name)).all():
                raise KernelError(f"Measured spots have a {name} that is not finite.")
        if len({len(getattr(self, name)) for name in ("grain", "reflection", "panel", "row", "column", "omega")}) != 1:
            raise KernelError("Measured spots have as many grains, reflections, panels, rows, columns and omegas.")
        if not (self.sigma_px > 0 and self.sigma_omega > 0):
            raise KernelError("The standard deviations of measured spots must be above 0.")


@dataclass(frozen=True, eq=False)
class State:
    """Instrument and grains at one point of the way, with the residuals (n, 3) there, in standard deviations."""

    values: Vector
    geometry: Geometry
    orientation: Vector
    position: Vector
    strain: Vector
    residuals: Vector
    cost: float
    rms: tuple[float, float]


class Problem:
    """The spots, in the order of their grains, and what is free."""

    def __init__(
        self,
        geometry: Geometry,
        measured: Measured,
        used: Whole,
        g0: Vector,
        refine: tuple[str, ...],
        free: Whole,
        strain_sigma: float | None,
    ) -> None:
        order = used[np.argsort(measured.grain[used], kind="stable")]
        self.base, self.refine, self.free = geometry, refine, free
        self.grain, self.panel = measured.grain[order], measured.panel[order]
        self.g0 = np.ascontiguousarray(np.asarray(g0, np.float64)[measured.reflection[order]])
        self.row, self.column, self.omega = measured.row[order], measured.column[order], measured.omega[order]
        self.sigma_px, self.sigma_omega = measured.sigma_px, measured.sigma_omega
        self.prior = 0.0 if strain_sigma is None else 1.0 / strain_sigma**2
        self.steps = steps(geometry, refine)

    def at(self, values: Vector, orientation: Vector, position: Vector, strain: Vector) -> State:
        """The residuals and their cost at a point; `KernelError` for a geometry that cannot be."""
        geometry = changed(self.base, self.refine, values)
        residuals = self._residuals(geometry, orientation, position, strain)
        distance = np.linalg.norm(residuals, axis=1)
        huber = np.where(distance < _HUBER, 0.5 * distance**2, _HUBER * (distance - 0.5 * _HUBER))
        cost = float(huber.sum()) + 0.5 * self.prior * float((strain[np.unique(self.grain)] ** 2).sum())
        rms = np.sqrt((residuals**2).mean(axis=0))
        pixels = self.sigma_px * math.sqrt(0.5 * (rms[0] ** 2 + rms[1] ** 2))
        return State(
            values, geometry, orientation, position, strain, residuals, cost, (pixels, self.sigma_omega * float(rms[2]))
        )

    def linearised(self, state: State) -> System:
        """The normal equations at a point, grain by grain."""
        grains = np.unique(self.grain)
        starts = np.append(np.searchsorted(self.grain, grains), len(self.grain))
        m, k = len(self.refine), len(self.free)
        blocks = np.zeros((len(grains), k + m, k + m)), np.zeros((len(grains), k + m))
        begin = 0
        while begin < len(grains):
            end = int(np.searchsorted(starts, starts[begin] + _AT_ONCE, side="right")) - 1
            end = min(len(grains), max(end, begin + 1))
            here = slice(int(starts[begin]), int(starts[end]))
            by_instrument = np.empty((m, here.stop - here.start, 3))
            for i, step in enumerate(self.steps):
                ahead, behind = (
                    self._residuals(
                        changed(self.base, self.refine, state.values + sign * step * np.eye(m)[i]),
                        state.orientation,
                        state.position,
                        state.strain,
                        here,
                    )
                    for sign in (1.0, -1.0)
                )
                by_instrument[i] = (ahead - behind) / (2.0 * step)
            _accumulate(
                state.geometry.flat,
                self.panel[here],
                self.omega[here],
                self.g0[here],
                starts[begin : end + 1] - starts[begin],
                grains[begin:end],
                state.orientation,
                state.position,
                state.strain,
                state.residuals[here],
                by_instrument,
                self.free,
                self.sigma_px,
                self.sigma_omega,
                blocks[0][begin:end],
                blocks[1][begin:end],
            )
            begin = end
        for j in np.flatnonzero(self.free >= 6) if self.prior else ():
            blocks[0][:, j, j] += self.prior
            blocks[1][:, j] -= self.prior * state.strain[grains, self.free[j] - 6]
        return System(grains, len(state.orientation), self.free, *blocks)

    def scatter(self, state: State) -> float:
        """Chi² over the degrees of freedom."""
        unknown = len(self.refine) + len(self.free) * len(np.unique(self.grain))
        if self.prior:
            unknown = len(self.refine)
        return float((np.minimum(np.abs(state.residuals), _HUBER) ** 2).sum()) / max(1, 3 * len(self.grain) - unknown)

    def _residuals(
        self, geometry: Geometry, orientation: Vector, position: Vector, strain: Vector, here: slice = slice(None)
    ) -> Vector:
        out = np.empty((len(self.grain[here]), 3))
        _compare(
            geometry.flat,
            self.grain[here],
            self.panel[here],
            self.row[here],
            self.column[here],
            self.omega[here],
            self.g0[here],
            orientation,
            position,
            strain,
            self.sigma_px,
            self.sigma_omega,
            out,
        )
        return out


@compiled()
def _nearest(source: Vector, gx: float, gy: float, gz: float, omega: float) -> tuple[float, float, float]:
    """Cosine and sine of that omega at which g diffracts nearest to the measured one, and w of `solve`."""
    w, cos0, sin0, cos1, sin1 = solve(gx, gy, gz, source[0], source[1], source[2], source[3])
    c, s = math.cos(omega), math.sin(omega)
    if c * cos0 + s * sin0 > c * cos1 + s * sin1:
        return cos0, sin0, w
    return cos1, sin1, w


@compiled(parallel=True)
def _compare(
    flat: Flat,
    grain: Whole,
    panel: Whole,
    row: Vector,
    column: Vector,
    omega: Vector,
    g0: Vector,
    orientation: Vector,
    position: Vector,
    strain: Vector,
    sigma_px: float,
    sigma_omega: float,
    out: Vector,
) -> None:
    source, panels, tables = flat
    for n in numba.prange(grain.size):
        i, at = panel[n], grain[n]
        shrink = np.empty((3, 3))
        shrinking(strain[at], shrink)
        g = shrink @ (orientation[at] @ g0[n])
        cos, sin, w = _nearest(source, g[0], g[1], g[2], omega[n])
        p = position[at]
        kx = source[0] + source[3] * (cos * g[0] - sin * g[1])
        ky = source[1] + source[3] * (sin * g[0] + cos * g[1])
        kz = source[2] + source[3] * g[2]
        t, a, b = hit(panels, i, cos * p[0] - sin * p[1], sin * p[0] + cos * p[1], p[2], kx, ky, kz)
        if w == 0.0 or t <= 0.0:
            # A spot that a step has made impossible holds the step back.
            out[n, 0] = out[n, 1] = out[n, 2] = 1e6
            continue
        ideal_a, ideal_b = to_plane(panels, tables, i, row[n], column[n])
        out[n, 0] = (ideal_a - a) / (sigma_px * panels[i, PIXEL_ROW])
        out[n, 1] = (ideal_b - b) / (sigma_px * panels[i, PIXEL_COLUMN])
        apart = omega[n] - math.atan2(sin, cos)
        out[n, 2] = (apart - 2.0 * math.pi * math.floor(apart / (2.0 * math.pi) + 0.5)) / sigma_omega


@compiled(parallel=True)
def _accumulate(
    flat: Flat,
    panel: Whole,
    omega: Vector,
    g0: Vector,
    starts: Whole,
    grains: Whole,
    orientation: Vector,
    position: Vector,
    strain: Vector,
    residuals: Vector,
    by_instrument: Vector,
    free: Whole,
    sigma_px: float,
    sigma_omega: float,
    normal: Vector,
    right: Vector,
) -> None:
    source, panels, _ = flat
    k, m = free.size, by_instrument.shape[0]
    for j in numba.prange(grains.size):
        at = grains[j]
        shrink, jacobian, line = np.empty((3, 3)), np.empty((3, 12)), np.empty(k + m)
        shrinking(strain[at], shrink)
        p = position[at]
        for n in range(starts[j], starts[j + 1]):
            i = panel[n]
            u = orientation[at] @ g0[n]
            g = shrink @ u
            cos, sin, w = _nearest(source, g[0], g[1], g[2], omega[n])
            if w == 0.0:
                continue
            differentiate(source, panels, i, u[0], u[1], u[2], shrink, p[0], p[1], p[2], cos, sin, jacobian)
            distance = math.sqrt(residuals[n, 0] ** 2 + residuals[n, 1] ** 2 + residuals[n, 2] ** 2)
            weight = 1.0 if distance < _HUBER else _HUBER / distance
            for r in range(3):
                if r == 0:
                    scale = 1.0 / (sigma_px * panels[i, PIXEL_ROW])
                elif r == 1:
                    scale = 1.0 / (sigma_px * panels[i, PIXEL_COLUMN])
                else:
                    scale = 1.0 / sigma_omega
                for q in range(k):
                    line[q] = jacobian[r, free[q]] * scale
                for q in range(m):
                    line[k + q] = -by_instrument[q, n, r]
                for q in range(k + m):
                    x = weight * line[q]
                    right[j, q] += x * residuals[n, r]
                    for v in range(k + m):
                        normal[j, q, v] += x * line[v]
