"""What a scan can have seen: which spots of a grain fall on a panel, outside the poles, while frames were taken.

For the search, which does not know where a grain lies, as seen from the origin; the refinement counts again for each
grain at its place.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.farfield.spots import arctangent, measured
from kernels.hedm.forward import find, solve
from kernels.hedm.geometry import CENTRE, Flat

Floats = NDArray[np.float64]

ETAS = 1440


class View(NamedTuple):
    """What the panels and the omega ranges cover.

    Attributes
    ----------
    source : (10,) of `Flat`
    seen : (rings, ETAS) 1 where a ring falls on a panel
    ranges : (n, 2) start and length in omega
    wavelength_A : float
    distance_um : float
        To the nearest panel.
    spot_share, pair_share : float
        Of the reflections and solutions of a grain the share whose spot is seen, and of its lines the share of whose
        Friedel pairs both spots are, for random orientations.
    """

    source: Floats
    seen: NDArray[np.uint8]
    ranges: Floats
    wavelength_A: float
    distance_um: float
    spot_share: float
    pair_share: float


def look(flat: Flat, lattice: Lattice, *, limits: Limits) -> View:
    """The view of a geometry on the rings of a lattice."""
    seen = np.zeros((len(lattice.ring_length), ETAS), np.uint8)
    wavelength = float(flat.source[3])
    _cast(flat, np.arcsin(np.minimum(0.5 * wavelength * lattice.ring_length, 1.0)), math.sin(limits.min_eta), seen)
    distance = float(np.linalg.norm(flat.panels[:, CENTRE : CENTRE + 3], axis=1).min())
    view = View(flat.source, seen, limits.ranges, wavelength, distance, 1.0, 1.0)
    ring = np.asarray(lattice.ring, np.int64)
    random = np.random.default_rng(3)
    turns = [np.ascontiguousarray(np.linalg.qr(random.normal(size=(3, 3)))[0]) for _ in range(64)]
    lines = lattice.lines
    pairs = sum(expected_pairs(view, turn, lattice.g0[lines], ring[lines]) for turn in turns)
    spots = sum(expected_spots(view, turn, lattice.g0, ring) for turn in turns)
    shares = spots / (2.0 * len(ring) * len(turns)), pairs / (2.0 * len(lines) * len(turns))
    return View(flat.source, seen, limits.ranges, wavelength, distance, *shares)


@compiled(parallel=True)
def _cast(flat: Flat, theta: Floats, min_sine: float, seen: NDArray[np.uint8]) -> None:
    source, panels, tables = flat
    for ring in numba.prange(theta.size):
        along, across = math.cos(2.0 * theta[ring]), math.sin(2.0 * theta[ring])
        for n in range(ETAS):
            eta = (n + 0.5) * (2.0 * math.pi / ETAS) - math.pi
            s, c = math.sin(eta), math.cos(eta)
            if abs(s) < min_sine or along >= 1.0:
                continue
            kx = along * source[0] + across * (c * source[7] - s * source[4])
            ky = along * source[1] + across * (c * source[8] - s * source[5])
            kz = along * source[2] + across * (c * source[9] - s * source[6])
            panel, _, _, _, _ = find(panels, tables, 0.0, 0.0, 0.0, kx, ky, kz)
            seen[ring, n] = panel >= 0


@compiled()
def towards(source: Floats, gx: float, gy: float, gz: float, cos: float, sin: float) -> float:
    """Eta of the ray that g (1/Å, sample) makes at this omega."""
    hx, hy = cos * gx - sin * gy, sin * gx + cos * gy
    y = source[4] * hx + source[5] * hy + source[6] * gz
    z = source[7] * hx + source[8] * hy + source[9] * gz
    return arctangent(-y, z)


@compiled()
def is_seen(view: View, ring: int, eta: float, omega: float) -> bool:
    """Whether a spot of a ring would have been measured."""
    n = int((eta + math.pi) * (ETAS / (2.0 * math.pi))) % ETAS
    return view.seen[ring, n] != 0 and measured(view.ranges, omega)


@compiled()
def expected_pairs(view: View, matrix: Floats, g0: Floats, ring: NDArray[np.int64]) -> int:
    """How many Friedel pairs a grain at the origin would show; `g0` holds one reflection of each line."""
    source = view.source
    total = 0
    for k in range(g0.shape[0]):
        gx = matrix[0, 0] * g0[k, 0] + matrix[0, 1] * g0[k, 1] + matrix[0, 2] * g0[k, 2]
        gy = matrix[1, 0] * g0[k, 0] + matrix[1, 1] * g0[k, 1] + matrix[1, 2] * g0[k, 2]
        gz = matrix[2, 0] * g0[k, 0] + matrix[2, 1] * g0[k, 1] + matrix[2, 2] * g0[k, 2]
        w, cos0, sin0, cos1, sin1 = solve(gx, gy, gz, source[0], source[1], source[2], source[3])
        if w == 0.0:
            continue
        for s in range(2):
            cos, sin = (cos0, sin0) if s == 0 else (cos1, sin1)
            eta, omega = towards(source, gx, gy, gz, cos, sin), arctangent(sin, cos)
            if is_seen(view, ring[k], eta, omega) and is_seen(view, ring[k], math.pi - eta, omega + math.pi):
                total += 1
    return total


@compiled()
def expected_spots(view: View, matrix: Floats, g0: Floats, ring: NDArray[np.int64]) -> int:
    """How many spots a grain at the origin would show; `g0` holds all reflections."""
    source = view.source
    total = 0
    for k in range(g0.shape[0]):
        gx = matrix[0, 0] * g0[k, 0] + matrix[0, 1] * g0[k, 1] + matrix[0, 2] * g0[k, 2]
        gy = matrix[1, 0] * g0[k, 0] + matrix[1, 1] * g0[k, 1] + matrix[1, 2] * g0[k, 2]
        gz = matrix[2, 0] * g0[k, 0] + matrix[2, 1] * g0[k, 1] + matrix[2, 2] * g0[k, 2]
        w, cos0, sin0, cos1, sin1 = solve(gx, gy, gz, source[0], source[1], source[2], source[3])
        if w == 0.0:
            continue
        for s in range(2):
            cos, sin = (cos0, sin0) if s == 0 else (cos1, sin1)
            total += int(is_seen(view, ring[k], towards(source, gx, gy, gz, cos, sin), arctangent(sin, cos)))
    return total
