"""The forward model: at which omega a grain's lattice planes diffract, and where on the detector.

A reciprocal vector of the strained grain is g = (1 + eps)^-1 U B0 hkl in the sample frame. It diffracts where
(Rz(omega) g) · b = -lambda |g|² / 2 in the axis frame, b the beam's direction; the ray goes from Rz(omega) p along
b + lambda Rz(omega) g, a unit vector. Poulsen, Three-Dimensional X-Ray Diffraction Microscopy (Springer, 2004), without
its approximations for a beam at right angles to the axis.

`solve`, `find`, `hit` and `differentiate` are for other compiled code: scalars and the arrays of
`kernels.hedm.geometry.Flat`. `predict` does whole lists of grains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.errors import KernelError
from kernels.hedm.geometry import (
    CENTRE,
    COLUMN,
    HALF_COLUMNS,
    HALF_ROWS,
    NORMAL,
    ROW,
    Flat,
    Geometry,
    to_pixel,
)

Vector = NDArray[np.float64]

TURN = 2.0 * math.pi
MIN_ETA = math.radians(6.0)
_SLOTS = 500_000
_REAL, _WHOLE = 5, 3


@compiled()
def solve(
    gx: float, gy: float, gz: float, bx: float, by: float, bz: float, wavelength: float
) -> tuple[float, float, float, float, float]:
    """Cosine and sine of the two omegas at which g (1/Å, sample frame) diffracts.

    Returns
    -------
    w, cos0, sin0, cos1, sin1 : float
        `w` in 1/Å is 0 where g never diffracts. Else the derivative of (Rz(omega) g) · b is -w at the first solution,
        +w at the second, and 1 / (wavelength · w) the Lorentz factor of both. With the beam along x the first
        lies at y > 0, eta < 0.
    """
    along = gx * bx + gy * by
    across = gx * by - gy * bx
    v = -0.5 * wavelength * (gx * gx + gy * gy + gz * gz) - gz * bz
    h2 = along * along + across * across
    d = h2 - v * v
    if d <= 0.0:
        return 0.0, 1.0, 0.0, 1.0, 0.0
    w = math.sqrt(d)
    inverse = 1.0 / h2
    av, cw, cv, aw = along * v * inverse, across * w * inverse, across * v * inverse, along * w * inverse
    return w, av - cw, cv + aw, av + cw, cv - aw


@compiled()
def angle_of(y: float, x: float) -> float:
    """atan2(y, x) to 5e-16 radians, in half the time: the rational function of Moshier's Cephes, without jumps."""
    ax, ay = abs(x), abs(y)
    least, most = min(ax, ay), max(ax, ay)
    near = least <= 0.4142135623730950488 * most
    upper = least if near else least - most
    lower = most if near else least + most
    r = upper / lower if lower > 0.0 else 0.0
    z = r * r
    p = (((-0.8750608600031904 * z - 16.157537187333652) * z - 75.00855792314705) * z - 122.88666844901361) * z
    q = ((((z + 24.858464901423062) * z + 165.02700983169885) * z + 432.88106049129027) * z + 485.3903996359137) * z
    angle = r + r * z * (p - 64.85021904942025) / (q + 194.5506571482614)
    angle = angle if near else angle + 0.25 * math.pi
    angle = angle if ay <= ax else 0.5 * math.pi - angle
    angle = angle if x >= 0.0 else math.pi - angle
    return -angle if y < 0.0 else angle


@compiled()
def hit(
    panels: Vector, i: int, px: float, py: float, pz: float, kx: float, ky: float, kz: float
) -> tuple[float, float, float]:
    """Where the ray from p along k meets the plane of panel `i`, all in the axis frame.

    Returns
    -------
    t, a, b : float
        How far along k, not above zero where it never does, and the ideal point in µm in the plane.
    """
    cx, cy, cz = panels[i, CENTRE] - px, panels[i, CENTRE + 1] - py, panels[i, CENTRE + 2] - pz
    nx, ny, nz = panels[i, NORMAL], panels[i, NORMAL + 1], panels[i, NORMAL + 2]
    t = (nx * cx + ny * cy + nz * cz) / (nx * kx + ny * ky + nz * kz)
    dx, dy, dz = t * kx - cx, t * ky - cy, t * kz - cz
    return (
        t if t < math.inf else 0.0,
        dx * panels[i, ROW] + dy * panels[i, ROW + 1] + dz * panels[i, ROW + 2],
        dx * panels[i, COLUMN] + dy * panels[i, COLUMN + 1] + dz * panels[i, COLUMN + 2],
    )


@compiled()
def find(
    panels: Vector, tables: Vector, px: float, py: float, pz: float, kx: float, ky: float, kz: float
) -> tuple[int, float, float, float, float]:
    """Which panel the ray from p along k meets first, and where.

    Returns
    -------
    i : int
        The panel, or -1.
    row, column : float
        The pixel at which it is measured.
    a, b : float
        The ideal point in µm in the plane.
    """
    panel, row, column, a, b, nearest = -1, 0.0, 0.0, 0.0, 0.0, math.inf
    for i in range(panels.shape[0]):
        t, u, v = hit(panels, i, px, py, pz, kx, ky, kz)
        if not 0.0 < t < nearest:
            continue
        r, c = to_pixel(panels, tables, i, u, v)
        if -0.5 <= r < 2.0 * panels[i, HALF_ROWS] + 0.5 and -0.5 <= c < 2.0 * panels[i, HALF_COLUMNS] + 0.5:
            panel, row, column, a, b, nearest = i, r, c, u, v, t
    return panel, row, column, a, b


@compiled()
def differentiate(
    source: Vector,
    panels: Vector,
    i: int,
    ux: float,
    uy: float,
    uz: float,
    shrink: Vector,
    px: float,
    py: float,
    pz: float,
    cos: float,
    sin: float,
    out: Vector,
) -> None:
    """Derivatives of the ideal point (a, b in µm) on panel `i` and of omega by the twelve numbers of a grain.

    Parameters
    ----------
    source, panels : ndarray
        Of `Flat`.
    i : int
        The panel.
    ux, uy, uz : float
        U B0 hkl in 1/Å, without the strain.
    shrink : ndarray of float64, shape (3, 3)
        (1 + eps)^-1.
    px, py, pz : float
        The grain's position in the sample, µm.
    cos, sin : float
        Of omega, as `solve` gives them.
    out : ndarray of float64, shape (3, 12)
        Rows a, b, omega; columns rotation 3 (radians, U becomes exp(d) U), position 3 (µm), strain 6.
        At the poles, where w of `solve` is 0, they are not finite.
    """
    bx, by, bz, wavelength = source[0], source[1], source[2], source[3]
    gx = shrink[0, 0] * ux + shrink[0, 1] * uy + shrink[0, 2] * uz
    gy = shrink[1, 0] * ux + shrink[1, 1] * uy + shrink[1, 2] * uz
    gz = shrink[2, 0] * ux + shrink[2, 1] * uy + shrink[2, 2] * uz
    hx, hy = cos * gx - sin * gy, sin * gx + cos * gy
    kx, ky, kz = bx + wavelength * hx, by + wavelength * hy, bz + wavelength * gz
    lx, ly = cos * px - sin * py, sin * px + cos * py
    t, _, _ = hit(panels, i, lx, ly, pz, kx, ky, kz)
    nx, ny, nz = panels[i, NORMAL], panels[i, NORMAL + 1], panels[i, NORMAL + 2]
    n_k = nx * kx + ny * ky + nz * kz
    # f(omega, g) = (Rz g) · b + lambda |g|² / 2 = 0, differentiated by omega and by g.
    rate = -1.0 / (hx * by - hy * bx)
    wx = (cos * bx + sin * by + wavelength * gx) * rate
    wy = (cos * by - sin * bx + wavelength * gy) * rate
    wz = (bz + wavelength * gz) * rate
    for m in range(3):
        if m < 2:
            at = ROW if m == 0 else COLUMN
            ex, ey, ez = panels[i, at], panels[i, at + 1], panels[i, at + 2]
            # A point that moves by d takes the spot along (e - n (e·k) / (n·k)) · d, since the ray slides on the plane.
            slope = (ex * kx + ey * ky + ez * kz) / n_k
            mx, my, mz = ex - slope * nx, ey - slope * ny, ez - slope * nz
            qx, qy = cos * mx + sin * my, cos * my - sin * mx
            s = t * wavelength
            turn = s * (my * hx - mx * hy) + my * lx - mx * ly
            jx, jy, jz = s * qx + turn * wx, s * qy + turn * wy, s * mz + turn * wz
            out[m, 3], out[m, 4], out[m, 5] = qx, qy, mz
        else:
            jx, jy, jz = wx, wy, wz
            out[m, 3] = out[m, 4] = out[m, 5] = 0.0
        vx = shrink[0, 0] * jx + shrink[1, 0] * jy + shrink[2, 0] * jz
        vy = shrink[0, 1] * jx + shrink[1, 1] * jy + shrink[2, 1] * jz
        vz = shrink[0, 2] * jx + shrink[1, 2] * jy + shrink[2, 2] * jz
        out[m, 0], out[m, 1], out[m, 2] = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        out[m, 6], out[m, 7], out[m, 8] = -vx * gx, -vy * gy, -vz * gz
        out[m, 9], out[m, 10], out[m, 11] = -(vy * gz + vz * gy), -(vx * gz + vz * gx), -(vx * gy + vy * gx)


@compiled()
def shrinking(strain: Vector, out: Vector) -> None:
    """(1 + eps)^-1 into `out` (3, 3), of the six numbers 11, 22, 33, 23, 13, 12."""
    a, b, c = 1.0 + strain[0], 1.0 + strain[1], 1.0 + strain[2]
    d, e, f = strain[3], strain[4], strain[5]
    xx, yy, zz = b * c - d * d, a * c - e * e, a * b - f * f
    xy, xz, yz = d * e - c * f, d * f - b * e, e * f - a * d
    s = 1.0 / (a * xx + f * xy + e * xz)
    out[0, 0], out[1, 1], out[2, 2] = xx * s, yy * s, zz * s
    out[0, 1] = out[1, 0] = xy * s
    out[0, 2] = out[2, 0] = xz * s
    out[1, 2] = out[2, 1] = yz * s


@dataclass(frozen=True, eq=False)
class Spots:
    """Spots that grains make, in the order of grains, then reflections; each an array of shape (n,).

    Attributes
    ----------
    grain, reflection : ndarray of int32
        Which of the orientations and which of `g0`.
    solution : ndarray of int8
        0 or 1: which of the two omegas of `solve`.
    panel : ndarray of int16
    row, column : ndarray of float64
        The pixel at which it is measured.
    omega, eta : ndarray of float64
        Radians; omega as the ranges count it, eta of the ray's direction in the lab.
    lorentz : ndarray of float64
        How long the planes stay in reflection: 1 / (sin 2 theta |sin eta|) where the beam is across the axis.
    """

    grain: NDArray[np.int32]
    reflection: NDArray[np.int32]
    solution: NDArray[np.int8]
    panel: NDArray[np.int16]
    row: Vector
    column: Vector
    omega: Vector
    eta: Vector
    lorentz: Vector

    def __len__(self) -> int:
        return len(self.grain)

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Spots:
        """Some of the spots, by a mask or by numbers."""
        return Spots(**{one.name: getattr(self, one.name)[which] for one in fields(self)})


def predict(
    geometry: Geometry,
    g0: Vector,
    *,
    orientation: Vector,
    position_um: Vector | None = None,
    strain: Vector | None = None,
    omega_ranges: Sequence[tuple[float, float]] = ((-math.pi, math.pi),),
    min_eta: float = MIN_ETA,
) -> Spots:
    """All spots of grains that reach a panel.

    Parameters
    ----------
    geometry : Geometry
    g0 : ndarray of float64, shape (reflections, 3)
        Reciprocal vectors of the unstrained lattice in crystal cartesian, 1/Å, Friedel mates included.
    orientation : ndarray of float64, shape (grains, 3, 3)
        Crystal cartesian to sample.
    position_um : ndarray of float64, shape (grains, 3), optional
        In the sample; without it on the axis.
    strain : ndarray of float64, shape (grains, 6), optional
        Small strain in the sample frame: 11, 22, 33, 23, 13, 12.
    omega_ranges : sequence of (start, stop)
        Radians. A range of more than a turn gives a spot each time it comes by.
    min_eta : float
        Radians; spots closer than this to the z axis are left out, where omega is badly known.

    Returns
    -------
    Spots

    Raises
    ------
    KernelError
        For arrays of the wrong shape or that are not finite, and ranges that end before they start.
    """
    blocks = list(predict_blocks(geometry, g0, orientation, position_um, strain, omega_ranges, min_eta))
    if len(blocks) == 1:
        return blocks[0]
    return Spots(**{one.name: np.concatenate([getattr(block, one.name) for block in blocks]) for one in fields(Spots)})


def predict_blocks(
    geometry: Geometry,
    g0: Vector,
    orientation: Vector,
    position_um: Vector | None = None,
    strain: Vector | None = None,
    omega_ranges: Sequence[tuple[float, float]] = ((-math.pi, math.pi),),
    min_eta: float = MIN_ETA,
) -> Iterator[Spots]:
    """As `predict`, some millions of possible spots at a time, so that memory stays bounded."""
    g0 = as_array("g0", g0, (-1, 3))
    orientation = as_array("orientation", orientation, (-1, 3, 3))
    grains = len(orientation)
    position_um = np.zeros((grains, 3)) if position_um is None else as_array("position_um", position_um, (grains, 3))
    strain = np.zeros((grains, 6)) if strain is None else as_array("strain", strain, (grains, 6))
    ranges = as_array("omega_ranges", np.asarray(omega_ranges, np.float64), (-1, 2))
    if not (ranges[:, 1] > ranges[:, 0]).all():
        raise KernelError(f"Each omega range ends after its start, in radians, not {ranges.tolist()}.")
    turns = int(np.ceil((ranges[:, 1] - ranges[:, 0]) / TURN).sum())
    slots = 2 * len(g0) * turns + 2
    step = max(1, min(grains, _SLOTS // slots))
    real, whole = np.empty((step, slots, _REAL)), np.empty((step, slots, _WHOLE), np.int32)
    counts = np.zeros(step, np.int64)
    for start in range(0, max(grains, 1), step):
        block = slice(start, min(start + step, grains))
        n = block.stop - block.start
        _predict(
            geometry.flat,
            g0,
            orientation[block],
            position_um[block],
            strain[block],
            ranges,
            math.sin(min_eta) ** 2 if min_eta > 0 else 0.0,
            real,
            whole,
            counts[:n],
        )
        ends = np.concatenate([[0], np.cumsum(counts[:n])])
        spots = _empty(int(ends[-1]))
        _gather(
            real,
            whole,
            ends,
            start,
            spots.grain,
            spots.reflection,
            spots.solution,
            spots.panel,
            spots.row,
            spots.column,
            spots.omega,
            spots.eta,
            spots.lorentz,
        )
        yield spots


def as_array(name: str, values: Vector, shape: tuple[int, ...]) -> Vector:
    """`values` as finite float64 in one piece, of `shape`, in which -1 is any length; refused by its `name`."""
    array = np.ascontiguousarray(values, np.float64)
    if array.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("n" if length < 0 else str(length) for length in shape)
        raise KernelError(f"{name} has the shape ({wanted}), not {array.shape}.")
    if not np.isfinite(array).all():
        raise KernelError(f"{name} holds numbers that are not finite.")
    return array


def _empty(n: int) -> Spots:
    real = [np.empty(n) for _ in range(5)]
    return Spots(np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int8), np.empty(n, np.int16), *real)


@compiled(parallel=True)
def _predict(
    flat: Flat,
    g0: Vector,
    orientation: Vector,
    position: Vector,
    strain: Vector,
    ranges: Vector,
    min_sine2: float,
    real: Vector,
    whole: NDArray[np.int32],
    counts: NDArray[np.int64],
) -> None:
    source, panels, tables = flat
    bx, by, bz, wavelength = source[0], source[1], source[2], source[3]
    for n in numba.prange(orientation.shape[0]):
        shrink = np.empty((3, 3))
        shrinking(strain[n], shrink)
        m = shrink @ orientation[n]
        px, py, pz = position[n, 0], position[n, 1], position[n, 2]
        count = 0
        for h in range(g0.shape[0]):
            gx = m[0, 0] * g0[h, 0] + m[0, 1] * g0[h, 1] + m[0, 2] * g0[h, 2]
            gy = m[1, 0] * g0[h, 0] + m[1, 1] * g0[h, 1] + m[1, 2] * g0[h, 2]
            gz = m[2, 0] * g0[h, 0] + m[2, 1] * g0[h, 1] + m[2, 2] * g0[h, 2]
            w, cos0, sin0, cos1, sin1 = solve(gx, gy, gz, bx, by, bz, wavelength)
            if w == 0.0:
                continue
            for s in range(2):
                cos, sin = (cos0, sin0) if s == 0 else (cos1, sin1)
                kx = bx + wavelength * (cos * gx - sin * gy)
                ky = by + wavelength * (sin * gx + cos * gy)
                kz = bz + wavelength * gz
                y = source[4] * kx + source[5] * ky + source[6] * kz
                z = source[7] * kx + source[8] * ky + source[9] * kz
                if y * y < min_sine2 * (y * y + z * z):
                    continue
                panel, row, column, _, _ = find(
                    panels, tables, cos * px - sin * py, sin * px + cos * py, pz, kx, ky, kz
                )
                if panel < 0:
                    continue
                omega = angle_of(sin, cos)
                for r in range(ranges.shape[0]):
                    at = omega + TURN * math.ceil((ranges[r, 0] - omega) / TURN)
                    while at < ranges[r, 1]:
                        real[n, count, 0] = row
                        real[n, count, 1] = column
                        real[n, count, 2] = at
                        real[n, count, 3] = angle_of(-y, z)
                        real[n, count, 4] = 1.0 / (wavelength * w)
                        whole[n, count, 0] = h
                        whole[n, count, 1] = s
                        whole[n, count, 2] = panel
                        count += 1
                        at += TURN
        counts[n] = count


@compiled(parallel=True)
def _gather(
    real: Vector,
    whole: NDArray[np.int32],
    ends: NDArray[np.int64],
    first: int,
    grain: NDArray[np.int32],
    reflection: NDArray[np.int32],
    solution: NDArray[np.int8],
    panel: NDArray[np.int16],
    row: Vector,
    column: Vector,
    omega: Vector,
    eta: Vector,
    lorentz: Vector,
) -> None:
    for n in numba.prange(ends.size - 1):
        for k in range(ends[n + 1] - ends[n]):
            at = ends[n] + k
            grain[at] = first + n
            reflection[at] = whole[n, k, 0]
            solution[at] = whole[n, k, 1]
            panel[at] = whole[n, k, 2]
            row[at], column[at], omega[at] = real[n, k, 0], real[n, k, 1], real[n, k, 2]
            eta[at], lorentz[at] = real[n, k, 3], real[n, k, 4]
