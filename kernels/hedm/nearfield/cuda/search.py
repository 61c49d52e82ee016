"""The search for orientations and their refinement on a GPU: the counts of `search.py` and `refine.py`, by other hands.

The bits of the images stay on the device. Orientations go there in batches, become spots there, and are screened at all
tiles of voxels at once (`search.cu`): each warp keeps the best that it has seen, and the host puts these together. The
refinement is a warp for each voxel from beginning to end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from kernels.cuda.device import Cuda, failed, open_device
from kernels.cuda.memory import as_many, too_small
from kernels.cuda.sources import defines, functions
from kernels.errors import KernelError
from kernels.hedm.nearfield.arcs import TANGENTS
from kernels.hedm.nearfield.rays import MARGIN, limit
from kernels.hedm.nearfield.refine import DIRECTIONS, FARTHEST, Fit, own_points, turns
from kernels.hedm.nearfield.search import FLOOR, Found, check_together
from kernels.hedm.nearfield.setup import Setup
from kernels.hedm.nearfield.spots import Spots
from kernels.hedm.nearfield.voxels import Voxels

T = TypeVar("T")
Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]

SEARCH, REFINE = (Path(__file__).with_name(f"{name}.cu") for name in ("search", "refine"))
KERNELS = {SEARCH: ("trace_spots", "screen_tiles"), REFINE: ("climb_voxels", "spread_voxels")}

BATCH = 16384  # orientations that are screened at once
LEAST = 64
VOXELS = 1 << 18  # that are refined at once
_WARPS, _WARP = 4, 32
_BUSY = 8192  # warps that a large GPU has at work
_EACH = 16  # orientations of a warp at least, for each that is kept: the first ones cannot be left out
_SHARE = 40  # bits of a confidence made a whole number, as in the source
_MOST_COUNTED = 1 << _SHARE // 2  # sample points of the reflections of a voxel: confidences then differ in these bits
_MOST_SPOTS = 1 << 15
_MOST_DISTANCES = 8  # of which the spots fit into shared memory


def options(distances: int) -> tuple[str, ...]:
    """What the sources are compiled with. Nothing is fused, so that all is rounded as on the CPU."""
    constants: dict[str, int | str] = {"DISTANCES": distances, "FARTHEST": FARTHEST, "DIRECTIONS": len(DIRECTIONS)}
    return *defines(constants | {"MARGIN": repr(MARGIN), "WARPS": _WARPS}), "--fmad=false"


def prepare(spots: Spots, setup: Setup, voxels: Voxels, g0: Floats) -> CudaSearch:
    """A GPU made ready for the maps of a scan: it has these images, and has had room for all voxels.

    Raises
    ------
    KernelError
        Exit 2 where there is no GPU, it is too small, or there are more reflections, sample points or distances than it
        takes; 75 when others have its memory, or it fails.
    """
    _check_sizes(spots.distances, len(g0), voxels.points[0].shape[1])
    cuda = open_device()
    try:
        made = CudaSearch(cuda, spots.distances)
        made.reserve(spots, setup, voxels, g0)
    except MemoryError as error:
        what = f"The images of {spots.frames} frames at {spots.distances} distances"
        need = spots.bits.nbytes + spots.blocks.nbytes + _Room.bytes_of(LEAST, len(g0), spots.distances)
        raise too_small(cuda, what, need, "take device cpu") from error
    except RuntimeError as error:
        raise failed(error) from error
    return made


def _check_sizes(distances: int, reflections: int, points: int) -> None:
    for what, value, most in (
        ("distances", distances, _MOST_DISTANCES),
        ("reflections", reflections, _MOST_SPOTS // 2 - 1),
        ("sample points of reflections", limit(reflections) * points, _MOST_COUNTED - 1),
    ):
        if value > most:
            raise KernelError(f"{value} {what} are more than the {most} that the GPU takes: take device cpu.")


class CudaSearch:
    """`ways.Way` on a GPU, for images of so many distances.

    All raise `KernelError` with exit 75 when the device fails.
    """

    def __init__(self, cuda: Cuda, distances: int) -> None:
        self._cuda, self._batch = cuda, BATCH
        self._kernels: dict[str, Any] = {}
        for source, names in KERNELS.items():
            self._kernels |= functions(cuda, source, options(distances), names)
        self._images: WeakKeyDictionary[Spots, tuple[Any, ...]] = WeakKeyDictionary()

    def reserve(self, spots: Spots, setup: Setup, voxels: Voxels, g0: Floats) -> None:
        """Send the images, and see how many orientations can be screened at once.

        Raises
        ------
        MemoryError
            When not even few can.
        """

        def room(batch: int) -> int:
            self._scene(spots, setup, voxels, g0)
            _Room(self._cuda, batch, len(g0), spots.distances, _Tiles.of(voxels, batch, 1))
            return batch

        self._batch = self._roomy(spots, BATCH, room, least=LEAST)

    def screen(
        self,
        spots: Spots,
        setup: Setup,
        voxels: Voxels,
        orientations: Floats,
        g0: Floats,
        *,
        keep: int = 1,
        least: float = 0.0,
    ) -> Found:
        check_together(spots, setup)
        orientations = np.ascontiguousarray(orientations, np.float64)
        floor = math.floor(least * FLOOR)

        def work(batch: int) -> Found:
            scene = self._scene(spots, setup, voxels, g0)
            tiles = _Tiles.of(voxels, batch, keep)
            room = _Room(self._cuda, batch, len(g0), spots.distances, tiles)
            return self._screened(scene, voxels, orientations, tiles, room, floor)

        most = max(1, min(self._batch, len(orientations)))
        return self._guarded(lambda: self._roomy(spots, most, work, least=min(LEAST, most)))

    def climb(
        self,
        spots: Spots,
        setup: Setup,
        voxels: Voxels,
        starts: Floats,
        g0: Floats,
        *,
        step_deg: float,
        least_deg: float,
        centre: bool = True,
    ) -> Fit:
        check_together(spots, setup)
        table, asarray = turns(step_deg, least_deg), self._cuda.cupy.asarray
        x, y = own_points(voxels)
        starts = np.ascontiguousarray(starts, np.float64)
        made, counts = np.empty((len(x), 3, 3)), np.empty((len(x), 2), np.int32)

        def work(many: int) -> None:
            scene, turning = self._scene(spots, setup, voxels, g0), [asarray(each) for each in table]
            for first in range(0, len(x), many):
                some = slice(first, min(first + many, len(x)))
                size = some.stop - some.start
                points = [asarray(np.ascontiguousarray(each[some])) for each in (x, y)]
                numbers = np.int32(len(table.tried)), np.int32(centre)
                found = _Refined(self._cuda, size)
                sizes = np.int32(size), np.int32(starts.shape[1])
                self._launch(
                    "climb_voxels", size, *scene, *turning, *numbers, *points, asarray(starts[some]), *sizes,
                    found.made, found.counts,
                )  # fmt: skip
                made[some], counts[some] = found.made.get(), found.counts.get()

        self._guarded(lambda: self._roomy(spots, min(VOXELS, len(x)), work))
        return Fit(made, *np.ascontiguousarray(counts.T, np.int64))

    def spread(
        self,
        spots: Spots,
        setup: Setup,
        voxels: Voxels,
        fit: Fit,
        g0: Floats,
        *,
        step_deg: float,
        least_deg: float,
        mine: Whole | None = None,
        changed: Flags | None = None,
    ) -> tuple[Fit, Flags]:
        check_together(spots, setup)
        table, asarray = turns(step_deg, least_deg), self._cuda.cupy.asarray
        x, y = own_points(voxels)
        which = np.arange(len(x)) if mine is None else np.asarray(mine, np.int64)
        changed = np.ones(len(x), np.bool_) if changed is None else changed
        before = np.stack([fit.hits, fit.counted], axis=1).astype(np.int32)
        made = Fit(fit.orientations.copy(), fit.hits.copy(), fit.counted.copy())
        new = np.zeros(len(x), np.bool_)

        def work(many: int) -> None:
            scene, turning = self._scene(spots, setup, voxels, g0), [asarray(each) for each in table]
            all_ = asarray(fit.orientations), asarray(before)
            changes = asarray(changed.astype(np.uint8))
            for first in range(0, len(which), many):
                some = which[first : first + many]
                neighbours = voxels.neighbours[some].astype(np.int32)
                points = [asarray(each[some]) for each in (x, y)]
                found, size = _Refined(self._cuda, len(some)), np.int32(len(some))
                self._launch(
                    "spread_voxels", len(some), *scene, *turning, np.int32(len(table.tried)), *points,
                    asarray(some.astype(np.int32)), size, *all_, asarray(neighbours), np.int32(neighbours.shape[1]),
                    changes, found.made, found.counts, found.changes,
                )  # fmt: skip
                made.orientations[some] = found.made.get()
                made.hits[some], made.counted[some] = found.counts.get().T
                new[some] = found.changes.get()

        if len(which):
            self._guarded(lambda: self._roomy(spots, min(VOXELS, len(which)), work))
        return made, new

    def _screened(
        self, scene: tuple[Any, ...], voxels: Voxels, orientations: Floats, tiles: _Tiles, room: _Room, floor: int
    ) -> Found:
        asarray, count = self._cuda.cupy.asarray, len(voxels.places_um)
        points = [asarray(np.ascontiguousarray(each.T)) for each in voxels.points]
        starts, boxes = asarray(voxels.starts.astype(np.int32)), asarray(_boxes(voxels))
        least = asarray(np.full(count, (floor << _SHARE) // FLOOR, np.uint64))
        entries = asarray(np.full((*tiles.shape, 3), (-1, floor, FLOOR), np.int32))
        for first in range(0, len(orientations), room.batch):
            part = orientations[first : first + room.batch]
            size, most = np.int32(len(part)), np.int32(room.most)
            self._launch("trace_spots", len(part), *scene, asarray(part), size, most, *room.spots)
            numbers = tiles.tiles, tiles.parts, tiles.each, tiles.keep
            self._launch(
                "screen_tiles", tiles.tiles * tiles.parts, *scene, *room.spots, size, most, np.int32(first), *points,
                np.int32(count), starts, boxes, *map(np.int32, numbers), room.bounds, least, entries,
            )  # fmt: skip
        found = _merged(entries.get())
        back = np.argsort(voxels.order)
        return Found(*(each[back] for each in found))

    def _launch(self, kernel: str, warps: int, *arguments: Any) -> None:
        self._kernels[kernel]((-(-warps // _WARPS), 1, 1), (_WARPS * _WARP, 1, 1), arguments)

    def _scene(self, spots: Spots, setup: Setup, voxels: Voxels, g0: Floats) -> tuple[Any, ...]:
        """What all kernels begin with."""
        held = self._images.get(spots)
        asarray = self._cuda.cupy.asarray
        if held is None:
            held = asarray(spots.bits), asarray(spots.blocks), asarray(spots.present.astype(np.uint8))
            self._images[spots] = held
        sizes = [
            *(spots.rows, spots.columns, spots.frames, spots.shift, spots.block_shift),
            *(*spots.bits.shape[2:], *spots.blocks.shape[2:], len(g0), voxels.points[0].shape[1]),
        ]
        g0 = np.ascontiguousarray(g0, np.float64)
        return asarray(_numbers(setup, voxels)), asarray(np.array(sizes, np.int32)), asarray(g0), *held

    def _roomy(self, spots: Spots, most: int, work: Callable[[int], T], *, least: int = 1) -> T:
        """What is made of the largest number that there is memory for, which other images leave where they have to."""
        try:
            return as_many(self._cuda, most, work, least=least)
        except MemoryError:
            others = [each for each in self._images if each is not spots]
            if not others:
                raise
        for each in others:
            del self._images[each]
        self._cuda.cupy.get_default_memory_pool().free_all_blocks()
        return as_many(self._cuda, most, work, least=least)

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            raise failed(error) from error


class _Tiles(NamedTuple):
    """Tiles of voxels, each of which is searched by so many warps, that have up to `each` orientations of a batch."""

    tiles: int
    voxels: int
    parts: int
    each: int
    keep: int

    @classmethod
    def of(cls, voxels: Voxels, batch: int, keep: int) -> _Tiles:
        tiles = len(voxels.starts) - 1
        parts = max(1, min(batch // (_EACH * keep), -(-_BUSY // tiles)))
        return cls(tiles, len(voxels.places_um), parts, -(-batch // parts), keep)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of entries."""
        return self.parts, self.voxels, self.keep


class _Room:
    """Room for the spots of a batch of orientations, and for what is known of them at each tile."""

    def __init__(self, cuda: Cuda, batch: int, reflections: int, distances: int, tiles: _Tiles) -> None:
        ndarray = cuda.cupy.ndarray
        self.batch, self.most = batch, limit(reflections)
        frames = ndarray((batch, self.most), np.int32)
        traced = ndarray((batch, self.most, distances, 6), np.float32)
        self.spots = frames, traced, ndarray((batch,), np.int32), ndarray((batch,), np.int32)
        self.bounds = ndarray((tiles.tiles, tiles.parts, tiles.each), np.uint64)

    @staticmethod
    def bytes_of(batch: int, reflections: int, distances: int) -> int:
        return batch * (limit(reflections) * (4 + 24 * distances) + 8)


class _Refined:
    """Room for what becomes of some voxels: orientations, (hits, counted), and whether they have changed."""

    def __init__(self, cuda: Cuda, voxels: int) -> None:
        self.made = cuda.cupy.ndarray((voxels, 3, 3), np.float64)
        self.counts = cuda.cupy.ndarray((voxels, 2), np.int32)
        self.changes = cuda.cupy.ndarray((voxels,), np.uint8)


def _numbers(setup: Setup, voxels: Voxels) -> Floats:
    """`Optics` of the source."""
    optics = setup.optics
    turn = optics.start, optics.step, optics.period, optics.z
    parts = [optics.wavelength], optics.beam, turn, optics.eta, TANGENTS, voxels.corners, optics.panels
    return np.concatenate([np.ravel(part) for part in parts]).astype(np.float64)


def _boxes(voxels: Voxels) -> Floats:
    """Middle and half width in x, and in y, of all points of each tile, shape (tiles, 4)."""
    made = []
    for points in voxels.points:
        low, high = (
            edge.reduceat(edge.reduce(points.astype(np.float64), axis=1), voxels.starts[:-1])
            for edge in (np.minimum, np.maximum)
        )
        made += [0.5 * (low + high), 0.5 * (high - low)]
    return np.stack(made, axis=1)


def _merged(entries: NDArray[np.int32]) -> Found:
    """The best of the entries of all parts, shape (parts, voxels, keep, 3), best first, and of equals the first."""
    _, voxels, keep, _ = entries.shape
    which, hits, counted = np.moveaxis(entries.astype(np.int64), -1, 0).swapaxes(1, 2).reshape(3, voxels, -1)
    share = np.where(which < 0, -1, (hits << _SHARE) // counted)
    order = np.lexsort((which, -share), axis=1)[:, :keep]
    which, hits, counted = (np.take_along_axis(each, order, axis=1) for each in (which, hits, counted))
    some = which >= 0
    return Found(which, np.where(some, hits, 0), np.where(some, counted, 0))


__all__ = ["CudaSearch", "options", "prepare"]
