"""From spots to grains."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.hedm.farfield.expected import View, look
from kernels.hedm.farfield.fibreindex import index_fibres
from kernels.hedm.farfield.friedel import pair_spots
from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.farfield.ownership import chance_of_match, false_grains, share_out
from kernels.hedm.farfield.pairindex import Indexed, index_pairs
from kernels.hedm.farfield.refinement import Refined, refine
from kernels.hedm.farfield.spots import Cells, Spots, sort_spots
from kernels.hedm.farfield.together import ALONE, to_all
from kernels.hedm.farfield.verdict import Verdict, judge
from kernels.hedm.geometry import Flat, Geometry
from kernels.ranks import Ranks

if TYPE_CHECKING:
    from kernels.hedm.farfield.cuda.search import CudaSearch

Floats = NDArray[np.float64]

_CYCLES = 3
_LEAST_NEW = 0.002  # of the grains; a cycle that finds fewer is the last
_FALSE = -3.0  # logarithm of the false grains that are put up with
_PAIRED = 0.25  # of a turn, from which on Friedel pairs are looked for
_WHOLE = 0.9  # of a turn, from which on nothing else is
_NOISE = (0.8, 1.25)  # what was given is kept where the measured noise is within these times it
_FARTHER = 3.0  # times the sample's limits, up to which grains are looked for that lie outside of them


@dataclass(frozen=True, eq=False)
class Found:
    """Grains (n), and whose each spot (s) is.

    Attributes
    ----------
    orientation : (n, 3, 3) crystal cartesian to sample
    position_um : (n, 3) in the sample
    strain : (n, 6) small strain in the sample: 11, 22, 33, 23, 13, 12
    covariance : (n, 12, 12) of rotation in radians (U becomes exp(d) U), position in µm, strain
    expected, matched, unique : (n,) spots that should be there, that are, and that are no other grain's
    spot_um, omega : (n,) how far spots lie from their predictions: standard deviation in each direction in µm, radians
    log_false : (n,) decimal logarithm of how many grains as good as this one chance is expected to make
    owner : (s,) the grain of each spot, or -1
    reflection : (s,) the reflection (row of `Lattice.hkl`) by which its grain has it, or -1
    limits : Limits
        With the noise as it was measured, which the refinement has used.
    tried : int
        How many candidates were judged.
    verdict : Verdict
        What the two thetas say; worth reading where few spots are owned.
    outside_um : (k, 3) where those grains lie that are good but outside of the limits, and so are none of these
    """

    orientation: Floats
    position_um: Floats
    strain: Floats
    covariance: Floats
    expected: NDArray[np.int64]
    matched: NDArray[np.int64]
    unique: NDArray[np.int64]
    spot_um: Floats
    omega: Floats
    log_false: Floats
    owner: NDArray[np.int32]
    reflection: NDArray[np.int32]
    limits: Limits
    tried: int
    verdict: Verdict
    outside_um: Floats

    def __len__(self) -> int:
        return len(self.matched)

    @property
    def completeness(self) -> Floats:
        """(n,) matched of expected spots."""
        return self.matched / np.maximum(self.expected, 1)

    @property
    def indexed(self) -> float:
        """The share of the spots that a grain owns."""
        return float((self.owner >= 0).mean()) if len(self.owner) else 0.0


def find_grains(
    spots: Spots,
    geometry: Geometry,
    lattice: Lattice,
    *,
    limits: Limits,
    ranks: Ranks = ALONE,
    progress: Callable[[str, int], None] | None = None,
    gpu: CudaSearch | None = None,
) -> Found:
    """Index, refine, and share the spots out, in up to three cycles over the spots that are left.

    Where frames were taken on both sides of a turn, from Friedel pairs; where less than nine tenths of a turn has both,
    from single spots, too.

    Parameters
    ----------
    ranks : Ranks, optional
        Processes that share the work; each is given all spots and returns all grains.
    progress : callable, optional
        Called with a phase and how many grains there are.
    gpu : CudaSearch, optional
        Made ready for these spots, this geometry and lattice; computes in the place of the CPU what takes most time.

    Raises
    ------
    KernelError
        Exit 65: no spots at all.
    """
    if not len(spots):
        raise KernelError("The list of spots is empty.", Exit.BAD_INPUT)
    scene = Scene(spots, geometry.flat, lattice, limits, ranks, gpu)
    tell = progress or (lambda phase, grains: None)
    grains, tried = scene.nothing(), 0
    used = np.zeros(len(spots), bool)
    for cycle in range(_CYCLES):
        found = scene.index(used, cycle, tell)
        tried += found.tried
        if not len(found):
            break
        new = scene.refine(found, measure=cycle == 0)
        before = len(grains)
        grains = scene.sift(_joined(grains, new), tried)
        used = share_out(grains, len(spots))[1] >= 0
        tell("refine", len(grains))
        if len(grains) - before <= _LEAST_NEW * len(grains):
            break
    tell("outside", len(grains))
    return scene.finish(grains, tried, scene.outside(used))


class Scene:
    """What stays the same while grains are looked for; only the noise is measured on the way."""

    def __init__(
        self,
        spots: Spots,
        flat: Flat,
        lattice: Lattice,
        limits: Limits,
        ranks: Ranks = ALONE,
        gpu: CudaSearch | None = None,
    ) -> None:
        self.spots, self.flat, self.lattice, self.limits, self.ranks = spots, flat, lattice, limits, ranks
        self.gpu = gpu
        self.coarse = limits  # with the larger of the noises that were given and measured
        self.view: View = look(flat, lattice, limits=limits)
        reach = limits.extent_um / (self.view.distance_um * self.view.wavelength_A)
        self.ring_shell, bounds = lattice.shells(reach + limits.strain * lattice.ring_length)
        self.shell_of = self.ring_shell[np.asarray(lattice.ring)]
        self.spot_shell = _shell(spots, flat, bounds)
        self.cells = self._cells(np.ones(len(spots), bool))

    def _cells(self, which: NDArray[np.bool_]) -> Cells:
        shells = int(self.ring_shell.max()) + 1
        return sort_spots(self.spots, np.where(which, self.spot_shell, -1), shells, self.flat.source)

    def index(self, used: NDArray[np.bool_], cycle: int, tell: Callable[[str, int], None]) -> Indexed:
        """Grains from the spots that are not used."""
        paired = self.limits.friedel_covered
        cells = self._cells(~used) if cycle else self.cells
        if paired >= _PAIRED:
            pairs = pair_spots(
                self.spots, cells, self.flat, self.lattice.ring_length, self.ring_shell, limits=self.coarse
            )
            found = index_pairs(
                pairs,
                self.view,
                self.lattice,
                self.ring_shell,
                limits=self.coarse,
                ranks=self.ranks,
                progress=lambda grains: tell("pairs", grains),
                gpu=self.gpu,
            )
            if len(found) or paired >= _WHOLE:
                return found
        return index_fibres(
            cells,
            self.flat,
            self.view,
            self.lattice,
            self.ring_shell,
            used,
            limits=self.coarse,
            ranks=self.ranks,
            progress=lambda grains: tell("fibres", grains),
            gpu=self.gpu,
        )

    def refine(self, found: Indexed, *, measure: bool) -> Refined:
        """Refine grains; with `measure` the noise is taken from them where it is not what was given.

        They begin within the larger of both noises, since what indexing gives is not as near as spots may be, and come
        to the measured one by way of the middle between them.
        """
        grains = self._refined(found, self.coarse)
        for _ in range(4 if measure else 0):
            good = np.isfinite(grains.covariance[:, 0, 0]) & (grains.completeness >= self.limits.min_completeness)
            if not good.any():
                break
            place, omega = float(np.median(grains.spot_um[good])), float(np.median(grains.omega[good]))
            if all(
                _NOISE[0] < now / given < _NOISE[1]
                for now, given in ((place, self.limits.spot_um), (omega, self.limits.omega))
            ):
                break
            self.limits = replace(self.limits, spot_um=max(place, 1e-3), omega=max(omega, 1e-7))
            wider = replace(
                self.coarse,
                spot_um=max(self.coarse.spot_um, self.limits.spot_um),
                omega=max(self.coarse.omega, self.limits.omega),
            )
            if wider == self.coarse:
                grains = self._nearer(grains)
            else:
                self.coarse = wider
                grains = self._refined(found, wider)
        return self._nearer(grains) if self.coarse != self.limits else grains

    def _nearer(self, grains: Refined) -> Refined:
        """From the larger noise to the measured one."""
        between = replace(
            self.limits,
            spot_um=math.sqrt(self.coarse.spot_um * self.limits.spot_um),
            omega=math.sqrt(self.coarse.omega * self.limits.omega),
        )
        return self._refined(self._refined(grains, between), self.limits)

    def _refined(self, start: Indexed | Refined, limits: Limits) -> Refined:
        """Refined from there, each rank a share of the grains."""
        part = self.ranks.share(len(start))
        mine = slice(part.start, part.stop)
        share = refine(
            self.cells,
            self.flat,
            self.lattice.g0,
            self.shell_of,
            orientation=start.orientation[mine],
            position_um=start.position_um[mine],
            strain=start.strain[mine],
            limits=limits,
            gpu=self.gpu,
        )
        return _joined(*to_all(self.ranks, share))

    def sift(self, grains: Refined, tried: int) -> Refined:
        """Without those that failed, lie outside, are incomplete, are another grain's, or that chance explains."""
        limits = self.limits
        chance = chance_of_match(self.cells, self.lattice, self.view, self.ring_shell, limits)
        good = (
            np.isfinite(grains.covariance[:, 0, 0])
            & (grains.completeness >= limits.min_completeness)
            & _inside(grains, limits)
            & (false_grains(grains, chance, self.shell_of, tried) < _FALSE)
        )
        grains = grains.take(good)
        return grains.take(share_out(grains, len(self.spots))[0])

    def outside(self, used: NDArray[np.bool_]) -> Floats:
        """(k, 3): where good grains lie that are outside of the limits; by the spots that are not used."""
        limits = self.limits
        farther = replace(limits, radius_um=_FARTHER * limits.radius_um, height_um=_FARTHER * limits.height_um)
        if used.all():
            return np.zeros((0, 3))
        scene = Scene(self.spots.take(~used), self.flat, self.lattice, farther, self.ranks)
        found = scene.index(np.zeros(len(scene.spots), bool), 0, lambda phase, grains: None)
        if not len(found):
            return np.zeros((0, 3))
        grains = scene.sift(scene.refine(found, measure=not used.any()), found.tried)
        return np.asarray(grains.position_um[~_inside(grains, limits)])

    def nothing(self) -> Refined:
        empty = np.zeros(0, np.int64)
        slots = np.zeros((0, 2 * len(self.lattice.g0)), np.int32)
        covariance, none = np.zeros((0, 12, 12)), np.zeros(0)
        return Refined(
            np.zeros((0, 3, 3)), np.zeros((0, 3)), np.zeros((0, 6)), covariance, empty, empty, none, none, none, slots,
            slots.astype(np.float32),
        )  # fmt: skip

    def finish(self, grains: Refined, tried: int, outside_um: Floats | None = None) -> Found:
        kept, owner, unique = share_out(grains, len(self.spots))
        grains = grains.take(kept)
        chance = chance_of_match(self.cells, self.lattice, self.view, self.ring_shell, self.limits)
        return Found(
            grains.orientation,
            grains.position_um,
            grains.strain,
            grains.covariance,
            grains.expected,
            grains.matched,
            unique,
            grains.spot_um,
            grains.omega,
            false_grains(grains, chance, self.shell_of, tried),
            owner,
            _reflections(grains, owner),
            self.limits,
            tried,
            judge(self.spots, self.flat, self.lattice, self.limits),
            np.zeros((0, 3)) if outside_um is None else outside_um,
        )


def _inside(grains: Refined, limits: Limits) -> NDArray[np.bool_]:
    """(n,): whether grains lie within the sample's limits, as far as their positions are known."""
    x, y, z = grains.position_um.T
    across, along = (5 * np.sqrt(np.abs(grains.covariance[:, n, n])) + limits.spot_um for n in (3, 5))
    return np.asarray((np.hypot(x, y) <= limits.radius_um + across) & (np.abs(z) <= limits.height_um / 2 + along))


def _shell(spots: Spots, flat: Flat, bounds: Floats) -> NDArray[np.int64]:
    """(s,): which shell a spot belongs to as seen from the origin, or -1."""
    far = np.linalg.norm(spots.point_um, axis=1)
    cosine = np.clip(spots.point_um @ flat.source[:3] / np.maximum(far, 1e-9), -1.0, 1.0)
    length = np.sqrt(np.maximum(2.0 - 2.0 * cosine, 0.0)) / flat.source[3]
    shell = np.searchsorted(bounds[:, 0], length, side="right") - 1
    return np.where((shell >= 0) & (length <= bounds[np.maximum(shell, 0), 1]), shell, -1)


def _joined(*parts: Refined) -> Refined:
    if len(parts) == 1:
        return parts[0]
    names = Refined.__dataclass_fields__
    return Refined(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _reflections(grains: Refined, owner: NDArray[np.int32]) -> NDArray[np.int32]:
    reflection = np.full(len(owner), -1, np.int32)
    grain, slot = np.nonzero(grains.spot >= 0)
    spot = grains.spot[grain, slot]
    mine = owner[spot] == grain
    reflection[spot[mine]] = (slot[mine] // 2).astype(np.int32)
    return reflection


__all__ = ["Found", "Scene", "find_grains"]
