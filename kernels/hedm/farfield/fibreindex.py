"""Grains from single spots, for any omega range.

A spot of a ring with few reflections is a seed: its reciprocal vector is known but for where the grain lies, and a
fibre of orientations has a reflection along it. Each is judged by how many of its spots fall on cells of eta and omega
that hold a spot of the same ring, cells being dilated by what the sample's size may move a spot. The best are refined,
first in orientation and position with a wide gate, then in strain too. Schmidt, J. Appl. Cryst. 47 (2014) 276; Bernier
et al., J. Strain Anal. Eng. Des. 46 (2011) 527.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.farfield.expected import View, is_seen, towards
from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.farfield.pairindex import Indexed
from kernels.hedm.farfield.refinement import EXPECTED, MATCHED, PARAMETERS, refine_one, steps_far, turn_by
from kernels.hedm.farfield.spots import Cells, arctangent
from kernels.hedm.farfield.together import ALONE, to_all
from kernels.hedm.forward import solve
from kernels.hedm.geometry import Flat
from kernels.ranks import Ranks

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

_STEP = math.radians(0.5)
_CELL_BYTES = 96 << 20
_KEPT = 4  # orientations of a fibre that are refined
_LEAST_ROUND = 32
_EARLY = 24  # expected spots after which a bad orientation is given up
_OVERLAP = 0.5
_SEEDS, _PASSES = 12, 2  # reflections of the rings that seeds are taken from, and how many rings, at least


def index_fibres(
    cells: Cells,
    flat: Flat,
    view: View,
    lattice: Lattice,
    ring_shell: NDArray[np.integer],
    used: NDArray[np.bool_],
    *,
    limits: Limits,
    ranks: Ranks = ALONE,
    progress: Callable[[int], None] | None = None,
) -> Indexed:
    """Grains that explain spots which are not `used` yet (one flag for each spot of the list that `cells` sorts); each
    rank tries its share of the seeds of a round."""
    search = _Search(cells, flat, view, lattice, ring_shell, used, limits, ranks)
    order = lattice.seed_rings(limits.strain)
    reflections = 0
    for number, ring in enumerate(order):
        if reflections >= _SEEDS and number >= _PASSES:
            break
        search.from_ring(ring, progress)
        reflections += int((np.asarray(lattice.ring) == ring).sum())
    return search.result()


class _Search:
    """What is found already, and which spots it has used up."""

    def __init__(
        self,
        cells: Cells,
        flat: Flat,
        view: View,
        lattice: Lattice,
        ring_shell: NDArray[np.integer],
        used: NDArray[np.bool_],
        limits: Limits,
        ranks: Ranks,
    ) -> None:
        self._cells, self._flat, self._view, self._lattice, self._limits = cells, flat, view, lattice, limits
        self._ranks = ranks
        self._ring = np.asarray(lattice.ring, np.int64)
        self._shell = np.asarray(ring_shell, np.int64)[self._ring]
        self._used = used.copy()
        shells = int(np.max(ring_shell)) + 1
        side = min(1440, int(math.sqrt(_CELL_BYTES / shells)))
        self._map = np.zeros((shells, side, side), np.uint8)
        self._steps = steps_far(limits, _STEP)
        self._scalars = np.array([limits.mosaicity, math.sin(limits.min_eta) ** 2])
        self._shell_of_cell = np.repeat(np.arange(shells), cells.etas * cells.omegas)
        self._found: list[tuple[Floats, Floats, Floats]] = []
        self._tried = 0

    def from_ring(self, ring: int, progress: Callable[[int], None] | None) -> None:
        seeds = self._seeds(ring)
        families = _families(self._lattice, ring)
        while True:
            seeds = seeds[~self._used[self._cells.place[seeds]]]
            if not len(seeds):
                return
            size = max(_LEAST_ROUND, len(seeds) // 12)
            self._round(seeds[:size], ring, families)
            seeds = seeds[size:]
            if progress is not None:
                progress(len(self._found))

    def _seeds(self, ring: int) -> Ints:
        """The spots that may be on a ring, shuffled: those of one grain are alike and would be tried together."""
        spot, source = self._cells.spot, self._flat.source
        direction = spot[:, :3] / np.linalg.norm(spot[:, :3], axis=1)[:, None]
        length = np.linalg.norm(direction - source[:3], axis=1) / source[3]
        wanted = self._lattice.ring_length[ring]
        reach = self._limits.extent_um / (self._view.distance_um * self._view.wavelength_A)
        near = np.abs(length - wanted) <= reach + self._limits.strain * wanted
        return np.random.default_rng(2).permutation(np.flatnonzero(near)).astype(np.int32)

    def _round(self, seeds: Ints, ring: int, families: Floats) -> None:
        limits, share = self._limits, self._ranks.share(len(seeds))
        seeds = seeds[share.start : share.stop]
        n = len(seeds)
        self._map[:] = 0
        free = ~self._used[self._cells.place]
        _mark(self._cells, free, self._flat.source, limits.extent_um, _STEP, limits.mosaicity, self._map)
        orientation, position, strain = np.zeros((n, 3, 3)), np.zeros((n, 3)), np.zeros((n, 6))
        report = np.zeros((n, 6))
        spot = np.full((n, 2 * len(self._ring)), -2, np.int32)
        _try_seeds(
            seeds, families, float(self._lattice.ring_length[ring]), self._cells, self._flat, self._view, self._map,
            self._lattice.g0, self._ring, self._shell, self._scalars, self._steps, 0.8 * limits.min_completeness,
            orientation, position, strain, report, spot,
        )  # fmt: skip
        x, y, z = position.T
        good = np.flatnonzero(
            (report[:, MATCHED] > 0)
            & (report[:, MATCHED] >= limits.min_completeness * report[:, EXPECTED])
            & (np.hypot(x, y) <= limits.radius_um + 4 * limits.spot_um)
            & (np.abs(z) <= limits.height_um / 2 + 4 * limits.spot_um)
        )
        mine = (int(report[:, 5].sum()), orientation[good], position[good], strain[good], spot[good])
        for tried, *grains in to_all(self._ranks, mine):
            self._tried += tried
            for *grain, spots in zip(*grains, strict=True):
                taken = spots[spots >= 0]
                if self._used[taken].sum() <= _OVERLAP * len(taken):
                    self._used[taken] = True
                    self._found.append((grain[0], grain[1], grain[2]))

    def result(self) -> Indexed:
        if not self._found:
            return Indexed(np.zeros((0, 3, 3)), np.zeros((0, 3)), np.zeros((0, 6)), self._tried)
        orientation, position, strain = (np.array(each) for each in zip(*self._found, strict=True))
        return Indexed(orientation, position, strain, self._tried)


def _families(lattice: Lattice, ring: int) -> Floats:
    """(f, 4): of each family of the ring one unit vector in crystal cartesian, and the part of a turn about it after
    which the crystal looks the same."""
    rows = []
    for head in lattice.heads(ring):
        own = sum(bool(np.abs(turn @ lattice.g0[head] - lattice.g0[head]).max() < 1e-6) for turn in lattice.rotations)
        rows.append([*(lattice.g0[head] / lattice.length[head]), 2.0 * math.pi / own])
    return np.array(rows)


@compiled()
def _mark(
    cells: Cells,
    free: NDArray[np.bool_],
    source: Floats,
    extent_um: float,
    angle: float,
    mosaicity: float,
    map_: NDArray[np.uint8],
) -> None:
    """Mark where predictions may lie that belong to spots."""
    etas, omegas = map_.shape[1], map_.shape[2]
    scale_e, scale_o = etas / (2.0 * math.pi), omegas / (2.0 * math.pi)
    for shell in range(map_.shape[0]):
        row = cells.etas * cells.omegas
        for n in range(cells.start[shell * row], cells.start[(shell + 1) * row]):
            if not free[n]:
                continue
            x, y, z = cells.spot[n, 0], cells.spot[n, 1], cells.spot[n, 2]
            far = math.sqrt(x * x + y * y + z * z)
            dx, dy, dz = x / far - source[0], y / far - source[1], z / far - source[2]
            cy = source[4] * dx + source[5] * dy + source[6] * dz
            cz = source[7] * dx + source[8] * dy + source[9] * dz
            across = math.sqrt(cy * cy + cz * cz)
            eta = math.atan2(-cy, cz) + math.pi
            omega = math.atan2(cells.spot[n, 4], cells.spot[n, 3]) + math.pi
            reach = extent_um / (across * far) + 0.5 * angle
            steep = min(across / max(abs(cy), 1e-9), 5.0)
            late = (0.5 * angle + mosaicity) * steep
            for e in range(math.floor((eta - reach) * scale_e), math.floor((eta + reach) * scale_e) + 1):
                for o in range(math.floor((omega - late) * scale_o), math.floor((omega + late) * scale_o) + 1):
                    map_[shell, e % etas, o % omegas] = 1


@compiled(parallel=True)
def _try_seeds(
    seeds: Ints,
    families: Floats,
    length: float,
    cells: Cells,
    flat: Flat,
    view: View,
    map_: NDArray[np.uint8],
    g0: Floats,
    ring: NDArray[np.int64],
    shell: NDArray[np.int64],
    scalars: Floats,
    steps: Floats,
    least: float,
    orientation: Floats,
    position: Floats,
    strain: Floats,
    report: Floats,
    spot: Ints,
) -> None:
    for n in numba.prange(seeds.size):
        _try_seed(
            seeds[n], families, length, cells, flat, view, map_, g0, ring, shell, scalars, steps, least,
            orientation[n], position[n], strain[n], report[n], spot[n],
        )  # fmt: skip


@compiled()
def _try_seed(
    seed: int,
    families: Floats,
    length: float,
    cells: Cells,
    flat: Flat,
    view: View,
    map_: NDArray[np.uint8],
    g0: Floats,
    ring: NDArray[np.int64],
    shell: NDArray[np.int64],
    scalars: Floats,
    steps: Floats,
    least: float,
    orientation: Floats,
    position: Floats,
    strain: Floats,
    report: Floats,
    spot: Ints,
) -> None:
    """The best grain of one seed, already refined."""
    source = flat.source
    x, y, z = cells.spot[seed, 0], cells.spot[seed, 1], cells.spot[seed, 2]
    direction = np.empty(3)
    _direction(source, x, y, z, cells.spot[seed, 3], cells.spot[seed, 4], length, direction)
    turns = np.empty((_KEPT, 3, 3))
    scores = np.zeros(_KEPT)
    turn, start = np.empty((3, 3)), np.empty((3, 3))
    for family in range(families.shape[0]):
        _onto(families[family, 0], families[family, 1], families[family, 2], direction, start)
        count = math.ceil(families[family, 3] / _STEP)
        step = families[family, 3] / count
        before, slot = -10, 0
        for k in range(count):
            turn[:, :] = start
            turn_by(turn, direction[0] * step * k, direction[1] * step * k, direction[2] * step * k)
            score = _score(view, map_, turn, g0, ring, shell, least)
            report[5] += 1.0
            if score < least:
                continue
            if k - before > 2:  # neighbours on the fibre are one candidate
                slot = 0
                for i in range(1, _KEPT):
                    if scores[i] < scores[slot]:
                        slot = i
            before = k
            if score > scores[slot]:
                scores[slot] = score
                turns[slot, :, :] = turn
    u, p, e = np.empty((3, 3)), np.empty(3), np.empty(6)
    covariance = np.empty((PARAMETERS, PARAMETERS))
    here, now, away = np.empty(5), np.empty(spot.size, np.int32), np.empty(spot.size, np.float32)
    for i in range(_KEPT):
        if scores[i] < least:
            continue
        u[:, :] = turns[i]
        p[:] = 0.0
        e[:] = 0.0
        if not refine_one(flat, cells, g0, shell, view.ranges, scalars, steps, u, p, e, covariance, here, now, away):
            continue
        if here[MATCHED] > report[MATCHED]:
            report[:5] = here
            orientation[:, :] = u
            position[:] = p
            strain[:] = e
            spot[:] = now


@compiled()
def _score(
    view: View,
    map_: NDArray[np.uint8],
    turn: Floats,
    g0: Floats,
    ring: NDArray[np.int64],
    shell: NDArray[np.int64],
    least: float,
) -> float:
    """The share of the expected spots of an orientation that fall on marked cells."""
    source = view.source
    etas, omegas = map_.shape[1], map_.shape[2]
    scale_e, scale_o = etas / (2.0 * math.pi), omegas / (2.0 * math.pi)
    expected, hits = 0, 0
    for k in range(g0.shape[0]):
        gx = turn[0, 0] * g0[k, 0] + turn[0, 1] * g0[k, 1] + turn[0, 2] * g0[k, 2]
        gy = turn[1, 0] * g0[k, 0] + turn[1, 1] * g0[k, 1] + turn[1, 2] * g0[k, 2]
        gz = turn[2, 0] * g0[k, 0] + turn[2, 1] * g0[k, 1] + turn[2, 2] * g0[k, 2]
        w, cos0, sin0, cos1, sin1 = solve(gx, gy, gz, source[0], source[1], source[2], source[3])
        if w == 0.0:
            continue
        for s in range(2):
            cos, sin = (cos0, sin0) if s == 0 else (cos1, sin1)
            eta, omega = towards(source, gx, gy, gz, cos, sin), arctangent(sin, cos)
            if not is_seen(view, ring[k], eta, omega):
                continue
            expected += 1
            hits += map_[
                shell[k],
                int((eta + math.pi) * scale_e) % etas,
                int((omega + math.pi) * scale_o) % omegas,
            ]
        if expected >= _EARLY and hits < 0.6 * least * expected:
            return 0.0
    return hits / expected if expected >= 6 else 0.0


@compiled()
def _direction(
    source: Floats, x: float, y: float, z: float, cos: float, sin: float, length: float, out: Floats
) -> None:
    """The unit reciprocal vector of a spot in the sample, at its eta and omega and at the two theta of its ring."""
    far = 1.0 / math.sqrt(x * x + y * y + z * z)
    bx, by, bz, wavelength = source[0], source[1], source[2], source[3]
    along = (x * bx + y * by + z * bz) * far
    ax, ay, az = x * far - along * bx, y * far - along * by, z * far - along * bz
    across = 1.0 / math.sqrt(ax * ax + ay * ay + az * az)
    half = 0.5 * wavelength * length  # the sine of theta
    c = math.sqrt(1.0 - half * half)
    hx, hy, hz = c * ax * across - half * bx, c * ay * across - half * by, c * az * across - half * bz
    out[0], out[1], out[2] = cos * hx + sin * hy, cos * hy - sin * hx, hz


@compiled()
def _onto(ax: float, ay: float, az: float, target: Floats, out: Floats) -> None:
    """The shortest rotation that takes the unit vector a to `target`."""
    out[:, :] = 0.0
    out[0, 0] = out[1, 1] = out[2, 2] = 1.0
    cx, cy, cz = ay * target[2] - az * target[1], az * target[0] - ax * target[2], ax * target[1] - ay * target[0]
    sine = math.sqrt(cx * cx + cy * cy + cz * cz)
    angle = math.atan2(sine, ax * target[0] + ay * target[1] + az * target[2])
    if sine < 1e-9:
        # Any axis across will do for half a turn.
        cx, cy, cz = (0.0, -az, ay) if abs(ax) < 0.9 else (az, 0.0, -ax)
        sine = math.sqrt(cx * cx + cy * cy + cz * cz)
    turn_by(out, cx * angle / sine, cy * angle / sine, cz * angle / sine)
