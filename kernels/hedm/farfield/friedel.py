"""Friedel pairs: the same lattice planes seen from both sides, half a turn apart.

The two spots of a pair lie at opposite places, moved by the same vector since the grain is off the axis. Half their
difference is the reciprocal vector without that error, half their sum is the part of the position across the ray: two
equations, linear in the position. What is left out is the square of position over distance (1e-7 for 500 µm at 1 m),
and with a wedge, where the two rays are not quite opposite, the wedge times position over distance. Moscicki et al.,
Mater. Sci. Eng. A 524 (2009) 64; Ludwig et al., Rev. Sci. Instrum. 80 (2009) 033905.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.farfield.spots import Cells, Spots, arctangent, directions
from kernels.hedm.geometry import Flat

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

_GATE = 4.0  # standard deviations
_INTENSITY = 0.5  # standard deviation of the logarithm of the ratio of two intensities: overlaps, absorption, drift


@dataclass(frozen=True, eq=False)
class Pairs:
    """Friedel pairs: each an array of m.

    Attributes
    ----------
    first, second : (m,) numbers of the spots
    g : (m, 3) reciprocal vector of the first spot in the sample, 1/Å; that of the second is its opposite
    ray : (m, 3) unit vector along the first spot's ray in the sample
    offset_um : (m, 3) the part of the grain's position at right angles to the ray, in the sample
    shell : (m,)
    """

    first: Ints
    second: Ints
    g: Floats
    ray: Floats
    offset_um: Floats
    shell: Ints

    def __len__(self) -> int:
        return len(self.first)

    def take(self, which: NDArray[np.bool_] | NDArray[np.integer]) -> Pairs:
        """Some of the pairs, by a mask or by numbers."""
        return Pairs(**{name: getattr(self, name)[which] for name in self.__dataclass_fields__})


def pair_spots(
    spots: Spots,
    cells: Cells,
    flat: Flat,
    ring_length: Floats,
    ring_shell: NDArray[np.integer],
    *,
    limits: Limits,
) -> Pairs:
    """The pairs whose spots are each other's best mate.

    A mate lies within four standard deviations in omega and within the sample's size in place, and their reciprocal
    vector has a ring's length within the largest strain. Of several that one is best which has the least sum of squares
    of omega, strain (a third of the largest counts as one deviation) and the logarithm of the intensities' ratio.

    Parameters
    ----------
    cells : Cells
        Of the spots that may be paired.
    ring_length, ring_shell : (rings,)
        1/Å, and the shell of `cells` each ring belongs to.
    """
    ray, distance, _ = directions(cells.spot[:, :3], flat.source)
    order = np.argsort(ring_length, kind="stable")
    shells = (len(cells.start) - 1) // (cells.etas * cells.omegas)
    bounds = np.searchsorted(np.asarray(ring_shell)[order], np.arange(shells + 1)).astype(np.int64)
    logarithm = np.log(np.maximum(spots.intensity[cells.place], 1e-30))
    tolerances = np.array(
        [limits.omega, limits.strain, limits.spot_um, limits.radius_um, limits.height_um / 2, math.sin(limits.min_eta)]
    )
    n = len(cells.place)
    mate, g, along, offset = np.full(n, -1, np.int32), np.empty((n, 3)), np.empty((n, 3)), np.empty((n, 3))
    _best_mates(
        cells, flat.source, ray, distance, logarithm, ring_length[order], bounds, tolerances, mate, g, along, offset
    )
    number = np.arange(n, dtype=np.int32)
    mutual = (mate > number) & (mate[np.maximum(mate, 0)] == number)
    shell = np.searchsorted(cells.start, number[mutual], side="right") - 1
    return Pairs(
        cells.place[mutual],
        cells.place[mate[mutual]],
        g[mutual],
        along[mutual],
        offset[mutual],
        (shell // (cells.etas * cells.omegas)).astype(np.int32),
    )


@compiled(parallel=True)
def _best_mates(
    cells: Cells,
    source: Floats,
    ray: Floats,
    distance: Floats,
    logarithm: Floats,
    lengths: Floats,
    bounds: NDArray[np.int64],
    tolerances: Floats,
    mate: Ints,
    g: Floats,
    along: Floats,
    offset: Floats,
) -> None:
    etas, omegas = cells.etas, cells.omegas
    omega_sigma, strain, spot_um, radius_um, height_um, min_sine = (
        tolerances[0], tolerances[1], tolerances[2], tolerances[3], tolerances[4], tolerances[5],
    )  # fmt: skip
    omega_gate = _GATE * math.sqrt(2.0) * omega_sigma
    scale_e, scale_o = etas / (2.0 * math.pi), omegas / (2.0 * math.pi)
    bx, by, bz = source[0], source[1], source[2]
    extent = math.sqrt(radius_um * radius_um + height_um * height_um)
    cells_in_all = bounds.size - 1
    for part in numba.prange(cells_in_all * etas):
        shell = part // etas
        out = np.empty(10)
        for n in range(cells.start[part * omegas], cells.start[(part + 1) * omegas]):
            dx, dy, dz = ray[n, 0] - bx, ray[n, 1] - by, ray[n, 2] - bz
            cy = source[4] * dx + source[5] * dy + source[6] * dz
            cz = source[7] * dx + source[8] * dy + source[9] * dz
            across = math.sqrt(cy * cy + cz * cz)
            if abs(cy) < min_sine * across:
                continue
            split = _split(dx * bx + dy * by, dx * by - dy * bx, 2.0 * dz * bz)
            eta = arctangent(-cy, -cz) + math.pi
            at = arctangent(cells.spot[n, 4], cells.spot[n, 3]) + split + 2.0 * math.pi
            reach = (2.0 * extent + _GATE * spot_um) / (across * distance[n]) + 2e-4
            low, high = math.floor((eta - reach) * scale_e), math.floor((eta + reach) * scale_e)
            begin = math.floor((at - omega_gate - 1e-4) * scale_o)
            end = math.floor((at + omega_gate + 1e-4) * scale_o)
            high, end = min(high, low + etas - 1), min(end, begin + omegas - 1)
            split_cos, split_sin = math.cos(split), math.sin(split)
            least = 1e30
            for e in range(low, high + 1):
                row = (shell * etas + e % etas) * omegas
                for o in range(begin, end + 1):
                    cell = row + o % omegas
                    for m in range(cells.start[cell], cells.start[cell + 1]):
                        if m == n or not _combine(
                            cells.spot, source, ray, distance, n, m, split_cos, split_sin, omega_gate,
                            radius_um + _GATE * spot_um, height_um + _GATE * spot_um, out,
                        ):  # fmt: skip
                            continue
                        length = math.sqrt(out[0] * out[0] + out[1] * out[1] + out[2] * out[2])
                        off = 1e30
                        for k in range(bounds[shell], bounds[shell + 1]):
                            off = min(off, abs(length / lengths[k] - 1.0))
                        noise = strain / 3.0 + spot_um / (across * distance[n])
                        if off > 3.0 * noise:
                            continue
                        ratio = (logarithm[n] - logarithm[m]) / _INTENSITY
                        late = out[9] / (math.sqrt(2.0) * omega_sigma)
                        cost = late * late + (off / noise) ** 2 + ratio * ratio
                        if cost < least:
                            least = cost
                            mate[n] = m
                            for k in range(3):
                                g[n, k], along[n, k], offset[n, k] = out[k], out[3 + k], out[6 + k]


@compiled()
def _split(along: float, rate: float, change: float) -> float:
    """By how much more than half a turn the mate comes later, since the beam is not across the axis: the angle at which
    along · cos + rate · sin = along + change."""
    split = change / rate
    if change != 0.0:
        for _ in range(3):
            c, s = math.cos(split), math.sin(split)
            split -= (along * (c - 1.0) + rate * s - change) / (rate * c - along * s)
    return split


@compiled()
def _combine(
    spot: Floats,
    source: Floats,
    ray: Floats,
    distance: Floats,
    n: int,
    m: int,
    split_cos: float,
    split_sin: float,
    omega_gate: float,
    radius_um: float,
    height_um: float,
    out: Floats,
) -> bool:
    """Reciprocal vector, ray, offset and lateness of spots n and m as a pair; False where they are none."""
    c, s = spot[n, 3], spot[n, 4]
    back_c = -c * spot[m, 3] - s * spot[m, 4]  # of omega m - omega n - half a turn
    back_s = s * spot[m, 3] - c * spot[m, 4]
    late = back_s * split_cos - back_c * split_sin
    if back_c < 0.5 or abs(late) > omega_gate:
        return False
    # What both say about omega, without their difference, which noise alone makes.
    half = 0.5 * late
    cn, sn = c - half * s - 0.5 * half * half * c, s + half * c - 0.5 * half * half * s
    cm, sm = spot[m, 3], spot[m, 4]
    cm, sm = cm + half * sm - 0.5 * half * half * cm, sm - half * cm - 0.5 * half * half * sm
    wavelength = source[3]
    ax, ay, az = ray[n, 0] - source[0], ray[n, 1] - source[1], ray[n, 2] - source[2]
    gx, gy, gz = cn * ax + sn * ay, cn * ay - sn * ax, az
    ax, ay, az = ray[m, 0] - source[0], ray[m, 1] - source[1], ray[m, 2] - source[2]
    hx, hy, hz = cm * ax + sm * ay, cm * ay - sm * ax, az
    rn, rm = distance[n], distance[m]
    share = 1.0 / (rn + rm)
    back = rn * rm * share
    px, py, pz = back * (gx + hx), back * (gy + hy), back * (gz + hz)
    if abs(pz) > height_um or px * px + py * py > radius_um * radius_um:
        return False
    scale = share / wavelength
    out[0], out[1], out[2] = (rn * gx - rm * hx) * scale, (rn * gy - rm * hy) * scale, (rn * gz - rm * hz) * scale
    out[3], out[4], out[5] = cn * ray[n, 0] + sn * ray[n, 1], cn * ray[n, 1] - sn * ray[n, 0], ray[n, 2]
    out[6], out[7], out[8] = px, py, pz
    out[9] = late
    return True
