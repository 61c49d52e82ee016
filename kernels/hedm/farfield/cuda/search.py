"""The far field's search and refinement on a GPU: what the CPU's functions do, with their arguments.

`try_pairs` has those of `pairindex._try_seeds`, `try_fibres` those of `fibreindex._try_seeds`, and `refine` those of
`refinement._refine`. Spots, pairs and cells stay on the device as long as they are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.cuda.device import Cuda, failed, open_device
from kernels.cuda.memory import as_many, too_small
from kernels.cuda.sources import defines, functions
from kernels.errors import KernelError
from kernels.hedm.distortion import MAP
from kernels.hedm.farfield.cuda.arrays import Arrays, Size, bytes_of
from kernels.hedm.farfield.expected import View
from kernels.hedm.farfield.fibreindex import map_side
from kernels.hedm.farfield.fibres import KEPT, Fibres, begin, best_of, turned
from kernels.hedm.farfield.lattice import BINS, AngleTable, Lattice
from kernels.hedm.farfield.paircells import PairCells
from kernels.hedm.farfield.refinement import MATCHED, PARAMETERS
from kernels.hedm.farfield.spots import Cells
from kernels.hedm.geometry import KIND, Flat, Geometry

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Wholes = NDArray[np.int64]

PAIRS, FIBRES, REFINE = (Path(__file__).with_name(f"{name}.cu") for name in ("pairs", "fibres", "refine"))
KERNELS = {PAIRS: ("try_pairs",), FIBRES: ("score_fibres",), REFINE: ("refine_grains",)}

MOST, LEAST = 4096, 64  # seeds or grains at once
_WARP, _THREADS = 32, 128
_WARPS = {PAIRS: 4, REFINE: 2}  # of a block
_SCORES = 1 << 22  # at once
_CELLS = 720  # of a turn in omega, see `spots`
_DOUBLES = {"orientation": 9, "position": 3, "strain": 6, "covariance": PARAMETERS**2, "report": 5}  # of a grain


def options(source: Path) -> tuple[str, ...]:
    """What a source is compiled with."""
    constants: dict[str, int | str] = {"BINS": BINS, "WARPS": _WARPS.get(source, 1)}
    return "--fmad=false", *defines(constants)


def prepare(spots: int, geometry: Geometry, lattice: Lattice) -> CudaSearch:
    """A GPU made ready for so many spots.

    Raises
    ------
    KernelError
        Exit 2 where there is no GPU, it is too small, or the panels have a distortion that it does not know; 75 when
        others have its memory, or it fails.
    """
    cuda = open_device()
    if geometry.flat.panels[:, KIND].max() > MAP:
        raise KernelError("The distortion of a panel is not one that the GPU path has: take device cpu.")
    rings = len(lattice.ring_length)
    try:
        return as_many(
            cuda,
            MOST,
            lambda batch: CudaSearch(cuda, sizes_of(spots, len(lattice.g0), rings, batch), batch),
            least=LEAST,
        )
    except MemoryError as error:
        need = bytes_of(sizes_of(spots, len(lattice.g0), rings, LEAST))
        what = f"{spots} spots and {len(lattice.g0)} reflections"
        raise too_small(cuda, what, need, "take device cpu") from error
    except RuntimeError as error:
        raise failed(error) from error


def sizes_of(spots: int, reflections: int, rings: int, batch: int) -> dict[str, Size]:
    """What is needed on the device: of spots, of pairs (half as many at most), and of `batch` seeds or grains."""
    pairs, cells = spots // 2 + 1, max(spots, _CELLS * rings) + 1
    whole = {"start": cells, "place": spots, "pair_start": cells, "item": spots, "mates": pairs, "done": batch}
    whole |= dict.fromkeys(("found", "here"), batch * reflections) | {"spot": 2 * batch * reflections}
    real = {"spots": 5 * spots, "pair": 10 * pairs, "directions": 3 * pairs, "scores": _SCORES}
    real |= {name: batch * count for name, count in _DOUBLES.items()}
    sizes: dict[str, Size] = {name: (count, np.int32) for name, count in whole.items()}
    sizes |= {name: (count, np.float64) for name, count in real.items()}
    marked = max(shells * map_side(shells) ** 2 for shells in range(1, rings + 1))
    return sizes | {
        "away": (2 * batch * reflections, np.float32),
        "used": (pairs, np.uint8),
        "marked": (marked, np.uint8),
    }


class CudaSearch:
    """A GPU with its kernels compiled, and room for `batch` seeds or grains at once."""

    def __init__(self, cuda: Cuda, sizes: dict[str, Size], batch: int) -> None:
        self._cuda, self._batch = cuda, batch
        self._arrays = Arrays(cuda, sizes)
        self._kernels: dict[str, Any] = {}
        for source, names in KERNELS.items():
            self._kernels |= functions(cuda, source, options(source), names)
        self._cells: Cells | None = None
        self._pairs: PairCells | None = None

    def try_pairs(
        self,
        seeds: Ints,
        mates: Ints,
        rows: Floats,
        table: AngleTable,
        cells: PairCells,
        used: NDArray[np.uint8],
        view: View,
        g0: Floats,
        ring: Wholes,
        shell: Wholes,
        scalars: Floats,
        matrix: Floats,
        position: Floats,
        found: Ints,
        report: Floats,
    ) -> None:
        """The best grain of each seed; of those that have none only `report` is written."""
        with _at_work():
            send, room, lines = self._arrays.send, self._arrays.room, len(g0)
            if cells is not self._pairs:
                send("pair_start", cells.start, np.int32)
                send("item", cells.item, np.int32)
                send("pair", cells.pair, np.float64)
                self._pairs = cells
            with_mates = (
                send("mates", mates, np.int32), send("directions", rows[:, :3].T, np.float64), np.int32(len(mates)),
                send("first", table.first, np.int32), send("last", table.last, np.int32),
                *(send(name, getattr(table, name), np.float64) for name in ("cosine", "slack", "length", "triad")),
                np.int32(len(table.first)), *(room(name, 1, np.int32) for name in ("pair_start", "item")),
                room("pair", 1, np.float64), send("used", used, np.uint8), np.int32(cells.size),
                send("source", view.source, np.float64), send("seen", view.seen, np.uint8),
                send("ranges", view.ranges, np.float64), np.int32(len(view.ranges)), *self._sent_lines(g0, ring, shell),
                send("scalars", scalars, np.float64),
            )  # fmt: skip
            for begun in range(0, len(seeds), self._batch):
                part = slice(begun, min(begun + self._batch, len(seeds)))
                n = part.stop - part.start
                self._kernels["try_pairs"](
                    (-(-n // _WARPS[PAIRS]), 1, 1),
                    (_WARPS[PAIRS] * _WARP, 1, 1),
                    (
                        send("seeds", seeds[part], np.int32), np.int32(n), *with_mates,
                        room("orientation", 9 * n, np.float64), room("position", 3 * n, np.float64),
                        room("found", 2 * lines * n, np.int32), room("here", 2 * lines * n, np.int32),
                        room("report", 3 * n, np.float64),
                    ),
                )  # fmt: skip
                report[part] = self._arrays.fetch("report", (n, 3), np.float64)
                good = np.flatnonzero(report[part, 0] > 0)
                for name, out in (("orientation", matrix), ("position", position), ("found", found)):
                    out[part][good] = self._arrays.fetch(name, (n, *out.shape[1:]), out.dtype)[good]

    def try_fibres(
        self,
        seeds: Ints,
        fibres: Fibres,
        length: float,
        cells: Cells,
        flat: Flat,
        view: View,
        map_: NDArray[np.uint8],
        g0: Floats,
        ring: Wholes,
        shell: Wholes,
        scalars: Floats,
        steps: Floats,
        least: float,
        orientation: Floats,
        position: Floats,
        strain: Floats,
        report: Floats,
        spot: Ints,
    ) -> None:
        """The best grain of each seed, already refined; of those that have none only how many were tried is told."""
        turns, side = len(fibres.family), map_.shape[1]
        with _at_work():
            send, room = self._arrays.send, self._arrays.room
            first = (
                send("source", view.source, np.float64), send("ranges", view.ranges, np.float64),
                np.int32(len(view.ranges)), send("seen", view.seen, np.uint8), send("marked", map_, np.uint8),
                np.int32(side), *self._sent_lines(g0, ring, shell), np.float64(least),
            )  # fmt: skip
            of_turns = (
                np.int32(len(fibres.head)), send("family", fibres.family, np.int32),
                send("sine", fibres.sine, np.float64), send("versine", fibres.versine, np.float64), np.int32(turns),
            )  # fmt: skip
        batch = max(1, min(self._batch, _SCORES // turns))
        for begun in range(0, len(seeds), batch):
            part = slice(begun, min(begun + batch, len(seeds)))
            n = part.stop - part.start
            axes, starts = np.empty((n, 3)), np.empty((n, len(fibres.head), 3, 3))
            _begin_all(seeds[part], cells.spot, flat.source, length, fibres.head, axes, starts)
            with _at_work():
                self._kernels["score_fibres"](
                    (-(-turns // _THREADS), n, 1),
                    (_THREADS, 1, 1),
                    (
                        *first, send("axes", axes, np.float64), send("starts", starts, np.float64), *of_turns,
                        room("scores", n * turns, np.float64),
                    ),
                )  # fmt: skip
                scores = self._arrays.fetch("scores", (n, turns), np.float64)
            kept = np.empty((n, KEPT), np.int64)
            _best_of_all(scores, fibres.family, least, kept)
            seed, place = np.nonzero(kept >= 0)
            tried = _Tried(len(seed), spot.shape[1])
            _turn_all(seed, kept[seed, place], axes, starts, fibres, tried.orientation)
            good = self.refine(
                flat, cells, g0, shell, view.ranges, scalars, steps, tried.orientation, tried.position, tried.strain,
                tried.covariance, tried.report, tried.spot, tried.away,
            )  # fmt: skip
            report[part, 5] = turns
            for one in np.flatnonzero(good):
                at = part.start + seed[one]
                if tried.report[one, MATCHED] > report[at, MATCHED]:
                    report[at, :5] = tried.report[one]
                    orientation[at], position[at] = tried.orientation[one], tried.position[one]
                    strain[at], spot[at] = tried.strain[one], tried.spot[one]

    def refine(
        self,
        flat: Flat,
        cells: Cells,
        g0: Floats,
        shell: Wholes,
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
    ) -> NDArray[np.bool_]:
        """All grains, in place; which of them have a covariance."""
        good = np.zeros(len(orientation), bool)
        with _at_work():
            send, room, slots = self._arrays.send, self._arrays.room, spot.shape[1]
            if cells is not self._cells:
                send("start", cells.start, np.int32)
                send("place", cells.place, np.int32)
                send("spots", cells.spot, np.float64)
                self._cells = cells
            scene = (
                send("source", flat.source, np.float64), send("panels", flat.panels, np.float64),
                send("tables", flat.tables, np.float64), send("ranges", ranges, np.float64),
                np.int32(len(flat.panels)), np.int32(len(ranges)), room("start", 1, np.int32),
                room("place", 1, np.int32), room("spots", 1, np.float64), np.int32(cells.etas),
                np.int32(cells.omegas), send("g0", g0, np.float64), send("shell", shell, np.int32),
                np.int32(len(g0)), np.float64(scalars[0]), np.float64(scalars[1]), send("steps", steps, np.float64),
                np.int32(len(steps)),
            )  # fmt: skip
            in_place = {"orientation": orientation, "position": position, "strain": strain}
            results: dict[str, NDArray[Any]] = {**in_place, "report": report, "spot": spot, "away": away}
            for begun in range(0, len(orientation), self._batch):
                part = slice(begun, min(begun + self._batch, len(orientation)))
                n = part.stop - part.start
                self._kernels["refine_grains"](
                    (-(-n // _WARPS[REFINE]), 1, 1),
                    (_WARPS[REFINE] * _WARP, 1, 1),
                    (
                        *scene, np.int32(n), *(send(name, each[part], np.float64) for name, each in in_place.items()),
                        room("covariance", PARAMETERS**2 * n, np.float64), room("report", 5 * n, np.float64),
                        room("done", n, np.int32), room("spot", n * slots, np.int32),
                        room("away", n * slots, np.float32),
                    ),
                )  # fmt: skip
                good[part] = self._arrays.fetch("done", (n,), np.int32) > 0
                for name, each in results.items():
                    each[part] = self._arrays.fetch(name, (n, *each.shape[1:]), each.dtype)
                made = self._arrays.fetch("covariance", (n, PARAMETERS, PARAMETERS), np.float64)
                covariance[part][good[part]] = made[good[part]]
        return good

    def _sent_lines(self, g0: Floats, ring: Wholes, shell: Wholes) -> tuple[Any, ...]:
        whole = self._arrays.send("ring", ring, np.int32), self._arrays.send("shell", shell, np.int32)
        return self._arrays.send("g0", g0, np.float64), *whole, np.int32(len(g0))


class _Tried:
    """Grains from which the best of each seed is taken."""

    def __init__(self, count: int, slots: int) -> None:
        self.orientation, self.position, self.strain = (
            np.empty((count, 3, 3)),
            np.zeros((count, 3)),
            np.zeros((count, 6)),
        )
        self.covariance, self.report = np.empty((count, PARAMETERS, PARAMETERS)), np.zeros((count, 5))
        self.spot, self.away = np.empty((count, slots), np.int32), np.empty((count, slots), np.float32)


@contextmanager
def _at_work() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise failed(error) from error


@compiled(parallel=True)
def _begin_all(
    seeds: Ints, spot: Floats, source: Floats, length: float, head: Floats, axes: Floats, starts: Floats
) -> None:
    for n in numba.prange(seeds.size):
        begin(spot[seeds[n]], source, length, head, axes[n], starts[n])


@compiled(parallel=True)
def _best_of_all(scores: Floats, family: Ints, least: float, kept: Wholes) -> None:
    for n in numba.prange(scores.shape[0]):
        best_of(scores[n], family, least, kept[n])


@compiled(parallel=True)
def _turn_all(seed: Wholes, turn: Wholes, axes: Floats, starts: Floats, fibres: Fibres, out: Floats) -> None:
    for n in numba.prange(seed.size):
        at, k = seed[n], turn[n]
        turned(starts[at, fibres.family[k]], axes[at], fibres.sine[k], fibres.versine[k], out[n])
