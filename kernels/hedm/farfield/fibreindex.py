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
from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.farfield.expected import View, is_seen, towards
from kernels.hedm.farfield.fibres import KEPT, STEP, Fibres, begin, best_of, list_fibres, turned
from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.farfield.pairindex import Indexed
from kernels.hedm.farfield.refinement import EXPECTED, MATCHED, PARAMETERS, refine_one, steps_far
from kernels.hedm.farfield.spots import Cells, arctangent
from kernels.hedm.farfield.together import ALONE, to_all
from kernels.hedm.forward import solve
from kernels.hedm.geometry import Flat
from kernels.ranks import Ranks

if TYPE_CHECKING:
    from kernels.hedm.farfield.cuda.search import CudaSearch

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

_CELL_BYTES = 96 << 20
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
    gpu: CudaSearch | None = None,
) -> Indexed:
    """Grains that explain spots which are not `used` yet (one flag for each spot of the list that `cells` sorts); each
    rank tries its share of the seeds of a round, on its `gpu` if it has one."""
    search = _Search(cells, flat, view, lattice, ring_shell, used, limits, ranks, gpu)
    order = lattice.seed_rings(limits.strain)
    reflections = 0
    for number, ring in enumerate(order):
        if reflections >= _SEEDS and number >= _PASSES:
            break
        search.from_ring(ring, progress)
        reflections += int((np.asarray(lattice.ring) == ring).sum())
    return search.result()


def map_side(shells: int) -> int:
    """Cells of eta, and of omega, of the map of a shell on which orientations are judged."""
    return min(1440, int(math.sqrt(_CELL_BYTES / shells)))


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
        gpu: CudaSearch | None,
    ) -> None:
        self._cells, self._flat, self._view, self._lattice, self._limits = cells, flat, view, lattice, limits
        self._ranks = ranks
        self._by = gpu.try_fibres if gpu else _try_seeds
        self._ring = np.asarray(lattice.ring, np.int64)
        self._shell = np.asarray(ring_shell, np.int64)[self._ring]
        self._used = used.copy()
        shells = int(np.max(ring_shell)) + 1
        side = map_side(shells)
        self._map = np.zeros((shells, side, side), np.uint8)
        self._steps = steps_far(limits, STEP)
        self._scalars = np.array([limits.mosaicity, math.sin(limits.min_eta) ** 2])
        self._shell_of_cell = np.repeat(np.arange(shells), cells.etas * cells.omegas)
        self._found: list[tuple[Floats, Floats, Floats]] = []
        self._tried = 0

    def from_ring(self, ring: int, progress: Callable[[int], None] | None) -> None:
        seeds = self._seeds(ring)
        fibres = list_fibres(self._lattice, ring)
        while True:
            seeds = seeds[~self._used[self._cells.place[seeds]]]
            if not len(seeds):
                return
            size = max(_LEAST_ROUND, len(seeds) // 12)
            self._round(seeds[:size], ring, fibres)
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

    def _round(self, seeds: Ints, ring: int, fibres: Fibres) -> None:
        limits, share = self._limits, self._ranks.share(len(seeds))
        seeds = seeds[share.start : share.stop]
        n = len(seeds)
        self._map[:] = 0
        free = ~self._used[self._cells.place]
        _mark(self._cells, free, self._flat.source, limits.extent_um, STEP, limits.mosaicity, self._map)
        orientation, position, strain = np.zeros((n, 3, 3)), np.zeros((n, 3)), np.zeros((n, 6))
        report = np.zeros((n, 6))
        spot = np.full((n, 2 * len(self._ring)), -2, np.int32)
        self._by(
            seeds, fibres, float(self._lattice.ring_length[ring]), self._cells, self._flat, self._view, self._map,
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
    fibres: Fibres,
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
            seeds[n], fibres, length, cells, flat, view, map_, g0, ring, shell, scalars, steps, least,
            orientation[n], position[n], strain[n], report[n], spot[n],
        )  # fmt: skip


@compiled()
def _try_seed(
    seed: int,
    fibres: Fibres,
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
    axis, starts = np.empty(3), np.empty((fibres.head.shape[0], 3, 3))
    begin(cells.spot[seed], flat.source, length, fibres.head, axis, starts)
    scores, kept, turn = np.empty(fibres.family.size), np.empty(KEPT, np.int64), np.empty((3, 3))
    for n in range(scores.size):
        turned(starts[fibres.family[n]], axis, fibres.sine[n], fibres.versine[n], turn)
        scores[n] = _score(view, map_, turn, g0, ring, shell, least)
    best_of(scores, fibres.family, least, kept)
    report[5] = scores.size
    u, p, e = np.empty((3, 3)), np.empty(3), np.empty(6)
    covariance = np.empty((PARAMETERS, PARAMETERS))
    here, now, away = np.empty(5), np.empty(spot.size, np.int32), np.empty(spot.size, np.float32)
    for one in kept:
        if one < 0:
            continue
        turned(starts[fibres.family[one]], axis, fibres.sine[one], fibres.versine[one], u)
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
