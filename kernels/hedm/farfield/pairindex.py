"""Grains from Friedel pairs.

A pair of a ring with few reflections is a seed. Another pair makes a candidate with it where the angle between both
is one that the lattice has, and where the two lines on which their grains must lie meet: a candidate has an orientation
and a position, and is judged by the pairs that agree with both. Seeds are tried in rounds, all of a round at the same
time, and what they found is accepted one by one in the order of seeds: the result is the same for any number of threads
or processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.hedm.farfield.expected import View, expected_pairs
from kernels.hedm.farfield.friedel import Pairs
from kernels.hedm.farfield.lattice import BINS, AngleTable, Lattice, angle_table
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.farfield.paircells import LENGTH, PairCells, fit, matches, polar, sort_pairs
from kernels.hedm.farfield.together import ALONE, to_all
from kernels.ranks import Ranks

if TYPE_CHECKING:
    from kernels.hedm.farfield.cuda.search import CudaSearch

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

_PARTNERS = (4, 12)  # reflections that partners have together, in the first pass and in those that follow
_SEEDS = 12  # reflections of the rings that seeds are taken from, at least
_LEAST_ROUND = 64
_OVERLAP = 0.5  # share of pairs that another grain may have taken
_PASSES = 3


@dataclass(frozen=True, eq=False)
class Indexed:
    """Grains (n) as the search has found them.

    Attributes
    ----------
    orientation, position_um, strain : (n, 3, 3), (n, 3), (n, 6)
    tried : how many candidates were judged
    """

    orientation: Floats
    position_um: Floats
    strain: Floats
    tried: int

    def __len__(self) -> int:
        return len(self.orientation)


def index_pairs(
    pairs: Pairs,
    view: View,
    lattice: Lattice,
    ring_shell: NDArray[np.integer],
    *,
    limits: Limits,
    ranks: Ranks = ALONE,
    progress: Callable[[int], None] | None = None,
    gpu: CudaSearch | None = None,
) -> Indexed:
    """Grains that explain Friedel pairs; each rank tries its share of the seeds of a round, on its `gpu` if it has one.

    A grain is accepted with four fifths of `min_completeness` squared of its expected pairs, since a pair needs both of
    its spots, when no more than half of them belong to another grain already.
    """
    if not len(pairs):
        return Indexed(np.zeros((0, 3, 3)), np.zeros((0, 3)), np.zeros((0, 6)), 0)
    pairs, cells = sort_pairs(pairs, int(np.max(ring_shell)) + 1)
    search = _Search(pairs, cells, view, lattice, ring_shell, limits, ranks, gpu)
    order = lattice.seed_rings(limits.strain)
    reflections = 0
    for number, ring in enumerate(order):
        if reflections >= _SEEDS and number >= _PASSES:
            break
        search.from_ring(ring, lattice.partner_rings(ring, order, _PARTNERS[min(number, 1)]), progress)
        reflections += int((np.asarray(lattice.ring) == ring).sum())
    return search.result()


class _Search:
    """What is found already, and which pairs it has used up."""

    def __init__(
        self,
        pairs: Pairs,
        cells: PairCells,
        view: View,
        lattice: Lattice,
        ring_shell: NDArray[np.integer],
        limits: Limits,
        ranks: Ranks,
        gpu: CudaSearch | None,
    ) -> None:
        self._cells, self._view, self._lattice, self._ranks = cells, view, lattice, ranks
        self._by = gpu.try_pairs if gpu else _try_seeds
        self._g0 = lattice.g0[lattice.lines]
        self._ring = np.asarray(lattice.ring, np.int64)[lattice.lines]
        self._shell = np.asarray(ring_shell, np.int64)[self._ring]
        self._used = np.zeros(len(pairs), np.uint8)
        self._matrix: list[Floats] = []
        self._position: list[Floats] = []
        self._tried = 0
        noise = limits.omega / math.sqrt(2.0)
        radius = limits.spot_um / float(np.min(lattice.ring_length)) / view.distance_um / view.wavelength_A
        self._angle = 4.0 * math.hypot(noise, radius) + limits.strain / 2.0
        across = limits.spot_um / math.sqrt(2.0)
        self._scalars = np.array(
            [
                1.5 * self._angle,
                self._angle,
                limits.strain + 2.0 * radius,
                6.0 * across + 5.0,
                5.0 * across + 5.0,
                (noise / (limits.strain / 3.0)) ** 2,
                limits.radius_um + 4.0 * limits.spot_um,
                limits.height_um / 2.0 + 4.0 * limits.spot_um,
                0.6 * view.pair_share * 2.0 * len(self._g0),
                max(0.8 * limits.min_completeness**2, 0.1),
            ]
        )

    def from_ring(self, ring: int, partners: list[int], progress: Callable[[int], None] | None) -> None:
        table = angle_table(self._lattice, ring, partners, self._angle)
        length = self._cells.pair[:, LENGTH]
        wanted = self._lattice.ring_length
        near = np.abs(length / wanted[ring] - 1.0) <= self._scalars[2]
        seeds = np.random.default_rng(1).permutation(np.flatnonzero(near)).astype(np.int32)
        mates = np.flatnonzero((np.abs(length[:, None] / wanted[partners] - 1.0) <= self._scalars[2]).any(1))
        while True:
            seeds = seeds[self._used[seeds] == 0]
            mates = mates[self._used[mates] == 0]
            if not len(seeds):
                return
            size = max(_LEAST_ROUND, len(seeds) // 12)
            self._round(seeds[:size], mates.astype(np.int32), table)
            seeds = seeds[size:]
            if progress is not None:
                progress(len(self._matrix))

    def _round(self, seeds: Ints, mates: Ints, table: AngleTable) -> None:
        share = self._ranks.share(len(seeds))
        seeds = seeds[share.start : share.stop]
        n = len(seeds)
        matrix, position = np.zeros((n, 3, 3)), np.zeros((n, 3))
        found, report = np.full((n, 2 * len(self._g0)), -1, np.int32), np.zeros((n, 3))
        self._by(
            seeds, mates, np.ascontiguousarray(self._cells.pair[mates]), table, self._cells, self._used, self._view,
            self._g0, self._ring, self._shell, self._scalars, matrix, position, found, report,
        )  # fmt: skip
        good = np.flatnonzero(report[:, 0] > 0)
        for tried, *grains in to_all(self._ranks, (int(report[:, 2].sum()), matrix[good], position[good], found[good])):
            self._tried += tried
            for matrix_, position_, found_ in zip(*grains, strict=True):
                mine = found_[found_ >= 0]
                if self._used[mine].sum() <= _OVERLAP * len(mine):
                    self._used[mine] = 1
                    self._matrix.append(matrix_)
                    self._position.append(position_)

    def result(self) -> Indexed:
        if not self._matrix:
            return Indexed(np.zeros((0, 3, 3)), np.zeros((0, 3)), np.zeros((0, 6)), self._tried)
        orientation, strain = polar(np.array(self._matrix))
        return Indexed(orientation, np.array(self._position), strain, self._tried)


@compiled(parallel=True)
def _try_seeds(
    seeds: Ints,
    mates: Ints,
    rows: Floats,
    table: AngleTable,
    cells: PairCells,
    used: NDArray[np.uint8],
    view: View,
    g0: Floats,
    ring: NDArray[np.int64],
    shell: NDArray[np.int64],
    scalars: Floats,
    matrix: Floats,
    position: Floats,
    found: Ints,
    report: Floats,
) -> None:
    for n in numba.prange(seeds.size):
        _try_seed(
            seeds[n], mates, rows, table, cells, used, view, g0, ring, shell, scalars,
            matrix[n], position[n], found[n], report[n],
        )  # fmt: skip


@compiled()
def _try_seed(
    seed: int,
    mates: Ints,
    rows: Floats,
    table: AngleTable,
    cells: PairCells,
    used: NDArray[np.uint8],
    view: View,
    g0: Floats,
    ring: NDArray[np.int64],
    shell: NDArray[np.int64],
    scalars: Floats,
    matrix: Floats,
    position: Floats,
    found: Ints,
    report: Floats,
) -> None:
    """The best grain of one seed into `matrix`, `position` and `found`; `report`: pairs found, expected, candidates."""
    pair = cells.pair
    x, y, z = pair[seed, 0], pair[seed, 1], pair[seed, 2]
    rx, ry, rz = pair[seed, 3], pair[seed, 4], pair[seed, 5]
    ox, oy, oz = pair[seed, 6], pair[seed, 7], pair[seed, 8]
    turn, place, here = np.empty((3, 3)), np.empty(3), np.empty(found.size, np.int32)
    observed, scratch = np.empty((3, 3)), np.empty((6, 3, 3))
    best, candidates = 0, 0
    for family in range(table.first.shape[0]):
        for m in range(mates.size):
            cosine = x * rows[m, 0] + y * rows[m, 1] + z * rows[m, 2]
            bin_ = min(int((cosine + 1.0) * (0.5 * BINS)), BINS - 1)
            for entry in range(table.first[family, bin_], table.last[family, bin_]):
                if abs(cosine - table.cosine[entry]) > table.slack[entry]:
                    continue
                if abs(rows[m, LENGTH] - table.length[entry]) > scalars[2] * table.length[entry]:
                    continue
                if mates[m] == seed:
                    continue
                # Where the two lines come closest, on which the grains of the pairs must lie.
                sx, sy, sz = rows[m, 3], rows[m, 4], rows[m, 5]
                dx, dy, dz = rows[m, 6] - ox, rows[m, 7] - oy, rows[m, 8] - oz
                rs = rx * sx + ry * sy + rz * sz
                sine2 = 1.0 - rs * rs
                if sine2 < 1e-3:
                    continue
                dr, ds = dx * rx + dy * ry + dz * rz, dx * sx + dy * sy + dz * sz
                t, u = (dr - rs * ds) / sine2, (rs * dr - ds) / sine2
                ex, ey, ez = t * rx - u * sx - dx, t * ry - u * sy - dy, t * rz - u * sz - dz
                if ex * ex + ey * ey + ez * ez > scalars[3] * scalars[3]:
                    continue
                place[0] = ox + t * rx + 0.5 * (dx + u * sx - t * rx)
                place[1] = oy + t * ry + 0.5 * (dy + u * sy - t * ry)
                place[2] = oz + t * rz + 0.5 * (dz + u * sz - t * rz)
                if not _inside(place, scalars):
                    continue
                _triad(x, y, z, rows[m, 0], rows[m, 1], rows[m, 2], observed)
                for a in range(3):
                    for b in range(3):
                        turn[a, b] = (
                            observed[0, a] * table.triad[entry, 0, b]
                            + observed[1, a] * table.triad[entry, 1, b]
                            + observed[2, a] * table.triad[entry, 2, b]
                        )
                candidates += 1
                gate = scalars[3] * (1.0 + 1.0 / math.sqrt(sine2))
                total = matches(cells, used, turn, place, g0, shell, scalars[0], scalars[2], gate, here)
                if total > best:
                    best = total
                    for a in range(3):
                        position[a] = place[a]
                        for b in range(3):
                            matrix[a, b] = turn[a, b]
                    found[:] = here
            if best >= scalars[8]:
                break
        if best >= scalars[8]:
            break
    report[2] = candidates
    if best < 4:
        return
    for step in range(3):
        if not fit(cells, found, g0, scalars[5], matrix, position, scratch):
            return
        angle = scalars[0] if step == 0 else scalars[1]
        gate = scalars[3] if step == 0 else scalars[4]
        best = matches(cells, used, matrix, position, g0, shell, angle, scalars[2], gate, found)
        if best < 4:
            return
    expected = expected_pairs(view, matrix, g0, ring)
    if _inside(position, scalars) and best >= scalars[9] * expected:
        report[0], report[1] = best, expected


@compiled()
def _inside(place: Floats, scalars: Floats) -> bool:
    return bool(abs(place[2]) <= scalars[7] and place[0] * place[0] + place[1] * place[1] <= scalars[6] ** 2)


@compiled()
def _triad(ax: float, ay: float, az: float, bx: float, by: float, bz: float, out: Floats) -> None:
    """Rows: unit vector a, that along a × b, and that along the first × the second."""
    cx, cy, cz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    inverse = 1.0 / math.sqrt(cx * cx + cy * cy + cz * cz)
    cx, cy, cz = cx * inverse, cy * inverse, cz * inverse
    out[0, 0], out[0, 1], out[0, 2] = ax, ay, az
    out[1, 0], out[1, 1], out[1, 2] = cx, cy, cz
    out[2, 0], out[2, 1], out[2, 2] = ay * cz - az * cy, az * cx - ax * cz, ax * cy - ay * cx
