"""Twelve numbers a grain by Gauss-Newton: rotation 3, position 3, strain 6.

Each step takes the spots anew from the whole list: to every reflection the nearest spot within the gate. Weights are
Tukey's biweight, so that a spot at the gate counts little and overlaps do not pull. Residuals are measured on the panel
along rows and columns, and in omega. Schmidt, J. Appl. Cryst. 47 (2014) 276, and Oddershede et al., J. Appl. Cryst. 43
(2010) 539, refine the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.farfield.spots import Cells, arctangent, measured, nearest
from kernels.hedm.forward import differentiate, find, shrinking, solve
from kernels.hedm.geometry import CENTRE, COLUMN, ROW, Flat

if TYPE_CHECKING:
    from kernels.hedm.farfield.cuda.search import CudaSearch

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

PARAMETERS = 12
EXPECTED, MATCHED, PLACE2, OMEGA2, SPREAD = range(5)  # of a report
NO_SPOT, NOT_EXPECTED = -1, -2  # where a reflection has none
_TUKEY = 2.0  # its squared cut-off against that of the gate: 2.5 % less efficient than least squares
_FEWEST = 8  # spots, for strain
# Of the series of sin(x) / x and (1 - cos(x)) / x² in x², the highest power first: to rounding up to half a radian, and
# with the same bits on a GPU, whose sines have others.
_SINE = tuple((-1.0) ** n / math.factorial(2 * n + 1) for n in range(6, -1, -1))
_VERSINE = tuple((-1.0) ** n / math.factorial(2 * n + 2) for n in range(6, -1, -1))


@dataclass(frozen=True, eq=False)
class Refined:
    """Grains (n) and what they were refined from.

    Attributes
    ----------
    orientation : (n, 3, 3) crystal cartesian to sample
    position_um : (n, 3) in the sample
    strain : (n, 6) in the sample: 11, 22, 33, 23, 13, 12
    covariance : (n, 12, 12) of rotation (radians, from the left), position and strain; not finite where a grain failed
    expected, matched : (n,) spots
    spot_um, omega : (n,) standard deviation of a spot from its prediction, in each direction in µm, and in radians
    spread : (n,) the mean squared residual in units of the noise that was given; 1 where that is right
    spot : (n, 2 · reflections) which spot was taken for each reflection and solution; -1 none, -2 not expected
    away : (n, 2 · reflections) how far from its prediction it lies, in standard deviations
    """

    orientation: Floats
    position_um: Floats
    strain: Floats
    covariance: Floats
    expected: NDArray[np.int64]
    matched: NDArray[np.int64]
    spot_um: Floats
    omega: Floats
    spread: Floats
    spot: Ints
    away: NDArray[np.float32]

    @property
    def completeness(self) -> Floats:
        return self.matched / np.maximum(self.expected, 1)

    def __len__(self) -> int:
        return len(self.matched)

    def take(self, which: NDArray[np.bool_] | NDArray[np.integer]) -> Refined:
        """Some of the grains, by a mask or by numbers."""
        return Refined(**{name: getattr(self, name)[which] for name in self.__dataclass_fields__})


def steps_near(limits: Limits) -> Floats:
    """The steps of a refinement that begins within a few standard deviations: a row is the deviations in µm and
    radians, the gate in units of them, and the number of parameters. The last row only looks."""
    wide = [2.0 * limits.spot_um, 2.0 * limits.omega, 5.0, 12.0]
    near = [limits.spot_um, limits.omega, 5.0, 12.0]
    return np.array([wide, [*near[:2], 6.0, 12.0], near, near])


def steps_far(limits: Limits, angle: float) -> Floats:
    """The steps of a refinement that knows the orientation to `angle` and nothing of the position."""
    place = np.geomspace(max(limits.extent_um / 2, 4 * limits.spot_um), 3 * limits.spot_um, 5)
    omega = np.geomspace(max(angle, 4 * limits.omega), 3 * limits.omega, 5)
    rows = [[a, w, 2.5, 6.0] for a, w in zip(place[:3], omega[:3], strict=True)]
    rows += [[a, w, 3.0, 12.0] for a, w in zip(place[3:], omega[3:], strict=True)]
    return np.concatenate([np.array(rows), steps_near(limits)])


def refine(
    cells: Cells,
    flat: Flat,
    g0: Floats,
    shell: NDArray[np.integer],
    *,
    orientation: Floats,
    position_um: Floats,
    strain: Floats | None = None,
    limits: Limits,
    steps: Floats | None = None,
    gpu: CudaSearch | None = None,
) -> Refined:
    """Refine grains (n), each by itself.

    Parameters
    ----------
    cells : Cells
        All spots.
    flat : Flat
        The geometry.
    g0, shell : (reflections, 3) and (reflections,)
        Reciprocal vectors of the unstrained crystal, and the shell of `cells` each belongs to.
    orientation, position_um, strain : (n, 3, 3), (n, 3), (n, 6)
        Where to begin.
    steps : (k, 4), optional
        `steps_near` unless given.
    gpu : CudaSearch, optional
        Refines in the place of the CPU.
    """
    n, slots = len(orientation), 2 * len(g0)
    u, p = np.array(orientation, np.float64), np.array(position_um, np.float64)
    e = np.zeros((n, 6)) if strain is None else np.array(strain, np.float64)
    covariance, report = np.full((n, PARAMETERS, PARAMETERS), np.nan), np.zeros((n, 5))
    spot, away = np.full((n, slots), NOT_EXPECTED, np.int32), np.zeros((n, slots), np.float32)
    steps = steps_near(limits) if steps is None else steps
    scalars = np.array([limits.mosaicity, math.sin(limits.min_eta) ** 2])
    shells = np.asarray(shell, np.int64)
    by = gpu.refine if gpu else _refine
    by(flat, cells, g0, shells, limits.ranges, scalars, steps, u, p, e, covariance, report, spot, away)
    matched = report[:, MATCHED]
    return Refined(
        u,
        p,
        e,
        covariance,
        report[:, EXPECTED].astype(np.int64),
        matched.astype(np.int64),
        np.sqrt(report[:, PLACE2] / np.maximum(2 * matched, 1)),
        np.sqrt(report[:, OMEGA2] / np.maximum(matched, 1)),
        report[:, SPREAD],
        spot,
        away,
    )


@compiled(parallel=True)
def _refine(
    flat: Flat,
    cells: Cells,
    g0: Floats,
    shell: NDArray[np.int64],
    ranges: Floats,
    scalars: Floats,
    steps: Floats,
    orientation: Floats,
    position: Floats,
    strain: Floats,
    covariance: Floats,
    report: Floats,
    spot: Ints,
    away: NDArray[np.float32],
) -> None:
    for n in numba.prange(orientation.shape[0]):
        refine_one(
            flat, cells, g0, shell, ranges, scalars, steps,
            orientation[n], position[n], strain[n], covariance[n], report[n], spot[n], away[n],
        )  # fmt: skip


@compiled()
def refine_one(
    flat: Flat,
    cells: Cells,
    g0: Floats,
    shell: NDArray[np.int64],
    ranges: Floats,
    scalars: Floats,
    steps: Floats,
    orientation: Floats,
    position: Floats,
    strain: Floats,
    covariance: Floats,
    report: Floats,
    spot: Ints,
    away: NDArray[np.float32],
) -> bool:
    """One grain, in place; False where the spots did not suffice. `covariance` is left as it is then."""
    shrink, normal = np.empty((3, 3)), np.empty((PARAMETERS, PARAMETERS))
    right, move = np.empty(PARAMETERS), np.empty(PARAMETERS)
    jacobian = np.empty((3, PARAMETERS))
    last = steps.shape[0] - 1
    for step in range(last + 1):
        count = int(steps[step, 3])
        shrinking(strain, shrink)
        scale = _gather(
            flat, cells, g0, shell, ranges, scalars, steps[step], orientation, position, shrink,
            jacobian, normal, right, report, spot, away,
        )  # fmt: skip
        if report[MATCHED] < _FEWEST:
            if report[MATCHED] < 4:
                return False
            count = 6
        if not factor(normal, count):
            return False
        if step == last:
            if count == PARAMETERS:
                _invert(normal, covariance)
                covariance *= scale
            return count == PARAMETERS
        substitute(normal, count, right, move)
        turn_by(orientation, move[0], move[1], move[2])
        for k in range(3):
            position[k] += move[3 + k]
        if count == PARAMETERS:
            for k in range(6):
                strain[k] += move[6 + k]
    return False


@compiled()
def _gather(
    flat: Flat,
    cells: Cells,
    g0: Floats,
    shell: NDArray[np.int64],
    ranges: Floats,
    scalars: Floats,
    step: Floats,
    orientation: Floats,
    position: Floats,
    shrink: Floats,
    jacobian: Floats,
    normal: Floats,
    right: Floats,
    report: Floats,
    spot: Ints,
    away: NDArray[np.float32],
) -> float:
    """Find the spots of a grain, and its normal equations; the factor from their inverse to the covariance."""
    source, panels, tables = flat
    bx, by, bz, wavelength = source[0], source[1], source[2], source[3]
    sigma_um, sigma_omega, gate = step[0], step[1], step[2]
    gate2 = gate * gate
    cut2 = _TUKEY * gate2
    inverse_um = 1.0 / sigma_um
    normal[:, :] = 0.0
    right[:] = 0.0
    report[:] = 0.0
    weights = influence = slope = 0.0
    px, py, pz = position[0], position[1], position[2]
    for h in range(g0.shape[0]):
        ux = orientation[0, 0] * g0[h, 0] + orientation[0, 1] * g0[h, 1] + orientation[0, 2] * g0[h, 2]
        uy = orientation[1, 0] * g0[h, 0] + orientation[1, 1] * g0[h, 1] + orientation[1, 2] * g0[h, 2]
        uz = orientation[2, 0] * g0[h, 0] + orientation[2, 1] * g0[h, 1] + orientation[2, 2] * g0[h, 2]
        gx = shrink[0, 0] * ux + shrink[0, 1] * uy + shrink[0, 2] * uz
        gy = shrink[1, 0] * ux + shrink[1, 1] * uy + shrink[1, 2] * uz
        gz = shrink[2, 0] * ux + shrink[2, 1] * uy + shrink[2, 2] * uz
        w, cos0, sin0, cos1, sin1 = solve(gx, gy, gz, bx, by, bz, wavelength)
        spot[2 * h] = spot[2 * h + 1] = NOT_EXPECTED
        if w == 0.0:
            continue
        for s in range(2):
            cos, sin = (cos0, sin0) if s == 0 else (cos1, sin1)
            kx = bx + wavelength * (cos * gx - sin * gy)
            ky = by + wavelength * (sin * gx + cos * gy)
            kz = bz + wavelength * gz
            ey = source[4] * kx + source[5] * ky + source[6] * kz
            ez = source[7] * kx + source[8] * ky + source[9] * kz
            if ey * ey < scalars[1] * (ey * ey + ez * ez):
                continue
            panel, _, _, a, b = find(panels, tables, cos * px - sin * py, sin * px + cos * py, pz, kx, ky, kz)
            if panel < 0 or not measured(ranges, arctangent(sin, cos)):
                continue
            report[EXPECTED] += 1.0
            spot[2 * h + s] = NO_SPOT
            x = panels[panel, CENTRE] + a * panels[panel, ROW] + b * panels[panel, COLUMN]
            y = panels[panel, CENTRE + 1] + a * panels[panel, ROW + 1] + b * panels[panel, COLUMN + 1]
            z = panels[panel, CENTRE + 2] + a * panels[panel, ROW + 2] + b * panels[panel, COLUMN + 2]
            # Eta as the cells have it: of the ray from the origin to the spot.
            far = math.sqrt(x * x + y * y + z * z)
            dx, dy, dz = x / far - bx, y / far - by, z / far - bz
            cy = source[4] * dx + source[5] * dy + source[6] * dz
            cz = source[7] * dx + source[8] * dy + source[9] * dz
            radius = math.sqrt(cy * cy + cz * cz) * far
            blur = scalars[0] * math.sqrt(1.0 + ez * ez / (ey * ey))
            deviation = math.sqrt(sigma_omega * sigma_omega + blur * blur)
            inverse_omega = 1.0 / deviation
            which, distance2, da, db, dw = nearest(
                cells, shell[h], arctangent(-cy, cz), gate * sigma_um / radius, cos, sin, gate * deviation,
                panels, panel, x, y, z, inverse_um, inverse_omega, gate2,
            )  # fmt: skip
            if which < 0:
                continue
            spot[2 * h + s] = cells.place[which]
            away[2 * h + s] = math.sqrt(distance2)
            report[MATCHED] += 1.0
            report[PLACE2] += da * da + db * db
            report[OMEGA2] += dw * dw
            report[SPREAD] += distance2
            differentiate(source, panels, panel, ux, uy, uz, shrink, px, py, pz, cos, sin, jacobian)
            share = 1.0 - distance2 / cut2
            weight = share * share
            weights += weight
            influence += weight * weight * distance2
            slope += weight - 4.0 / 3.0 * share * distance2 / cut2
            root = math.sqrt(weight)
            ra, rb, rw = da * inverse_um * root, db * inverse_um * root, dw * inverse_omega * root
            for k in range(PARAMETERS):
                jacobian[0, k] *= inverse_um * root
                jacobian[1, k] *= inverse_um * root
                jacobian[2, k] *= inverse_omega * root
            for k in range(PARAMETERS):
                ja, jb, jw = jacobian[0, k], jacobian[1, k], jacobian[2, k]
                right[k] += ja * ra + jb * rb + jw * rw
                for j in range(PARAMETERS):
                    normal[k, j] += ja * jacobian[0, j] + jb * jacobian[1, j] + jw * jacobian[2, j]
    found = report[MATCHED]
    freedom = max(3.0 * found - PARAMETERS, 1.0)
    report[SPREAD] /= freedom
    scale: float = weights * influence / max(3.0 * slope * slope, 1e-300) * 3.0 * found / freedom
    return scale


@compiled()
def factor(matrix: Floats, n: int) -> bool:
    """The Cholesky factor of the first n rows of a symmetric matrix, in place in the lower triangle; False where a
    pivot is lost in rounding."""
    for k in range(n):
        for j in range(k + 1):
            total = matrix[k, j]
            for i in range(j):
                total -= matrix[k, i] * matrix[j, i]
            if j < k:
                matrix[k, j] = total / matrix[j, j]
            elif total <= 1e-12 * matrix[k, k] or not total > 0.0:
                return False
            else:
                matrix[k, k] = math.sqrt(total)
    return True


@compiled()
def substitute(lower: Floats, n: int, right: Floats, out: Floats) -> None:
    """Solve with the factor of `factor`."""
    for k in range(n):
        total = right[k]
        for i in range(k):
            total -= lower[k, i] * out[i]
        out[k] = total / lower[k, k]
    for k in range(n - 1, -1, -1):
        total = out[k]
        for i in range(k + 1, n):
            total -= lower[i, k] * out[i]
        out[k] = total / lower[k, k]


@compiled()
def _invert(lower: Floats, out: Floats) -> None:
    n = lower.shape[0]
    unit = np.zeros(n)
    for k in range(n):
        unit[k] = 1.0
        substitute(lower, n, unit, out[k])
        unit[k] = 0.0


@compiled()
def turn_by(matrix: Floats, x: float, y: float, z: float) -> None:
    """Turn a (3, 3) matrix from the left by the rotation vector (x, y, z), in place."""
    angle2 = x * x + y * y + z * z
    if angle2 < 0.25:
        s = c = 0.0
        for more in _SINE:
            s = s * angle2 + more
        for more in _VERSINE:
            c = c * angle2 + more
    else:
        angle = math.sqrt(angle2)
        s, c = math.sin(angle) / angle, (1.0 - math.cos(angle)) / angle2
    for k in range(3):
        a, b, d = matrix[0, k], matrix[1, k], matrix[2, k]
        p, q, r = y * d - z * b, z * a - x * d, x * b - y * a
        matrix[0, k] = a + s * p + c * (y * r - z * q)
        matrix[1, k] = b + s * q + c * (z * p - x * r)
        matrix[2, k] = d + s * r + c * (x * q - y * p)
