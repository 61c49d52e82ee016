"""An orientation map of a layer: orientations are found at a few voxels, screened at all, refined and spread.

Where seeds are given (grains of the far field) candidates lie around them; else over the whole fundamental zone. What
confidence means anything is measured: the same search with the detector mirrored, which no crystal fits, says how much
comes by chance, and whether a lattice is the right one is seen from how much of the images the map explains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.hedm.grids import grid_ball, grid_zone
from kernels.hedm.nearfield.chance import Chance, chance_of, distinct
from kernels.hedm.nearfield.explained import explained
from kernels.hedm.nearfield.grains import Segments, segment, unlike
from kernels.hedm.nearfield.ideal import ideal_images
from kernels.hedm.nearfield.ladder import Rung, descend, ladder
from kernels.hedm.nearfield.refine import Fit
from kernels.hedm.nearfield.search import check_together
from kernels.hedm.nearfield.setup import Setup
from kernels.hedm.nearfield.spots import Spots
from kernels.hedm.nearfield.voxels import Voxels
from kernels.hedm.nearfield.ways import Cpu, Way
from kernels.ranks import Ranks

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]
Say = Callable[[float, str], None]

_PROBES = 32  # voxels of a round in which orientations are found
_BLIND = 8  # voxels at which chance is measured
_ROUNDS = 12
_FRUITLESS = 2  # rounds after which no more are made
_KEEP = 12  # candidates of a probe that are refined
_TRUSTED = 0.3  # a lattice that is wrong by more than 4 % reaches less, or a little more
_EXPLAINED = 0.15  # it explains up to 0.07 of the images then, the right one 0.27 or more
_BEST = 95.0  # percentile
_BLOCK = 16384  # candidates held at once
_PASSES = 30
_CLEARLY = 0.2  # better than what was asked for, to be told as what may be wrong
_ALIKE_DEG = 0.1  # orientations found that are one
_STEP_DEG = 0.2  # of the climb from an orientation of the same grain


@dataclass(frozen=True, eq=False)
class OrientationMap:
    """What each voxel of a layer is.

    Attributes
    ----------
    orientations : ndarray, shape (voxels, 3, 3)
        Crystal to sample.
    confidence : ndarray, shape (voxels,)
        Fraction of the reflections that should be seen which are seen at all distances.
    expected : ndarray, shape (voxels,)
        How many reflections should be seen.
    segments : Segments
        Grains of voxels above the threshold.
    chance : float
        What wrong orientations exceed at any voxel with odds of 0.05.
    threshold : float
        Below it, a voxel belongs to no grain: half of what the best voxels have, which is what a voxel has that the
        sample's edge divides, but not below chance.
    explained : float
        The share of all spots' pixels that voxels above the threshold have hits on.
    """

    voxels: Voxels
    orientations: Floats
    confidence: Floats
    expected: Floats
    segments: Segments
    chance: float
    threshold: float
    explained: float

    @property
    def accepted(self) -> Flags:
        return self.confidence >= self.threshold

    @property
    def doubtful(self) -> bool:
        """Whether neither most of the reflections are seen nor much of what is seen is explained."""
        return _best(self.confidence) < 0.5 and self.explained < _EXPLAINED


def reconstruct(
    spots: Spots,
    setup: Setup,
    voxels: Voxels,
    g0: Floats,
    rotations: Floats,
    *,
    seeds: Floats | None = None,
    radius_deg: float = 1.0,
    gap_deg: float | None = None,
    least_deg: float = 0.02,
    grain_deg: float = 1.0,
    ranks: Ranks | None = None,
    way: Way | None = None,
    say: Say | None = None,
) -> OrientationMap:
    """An orientation map from bits, as the detector saw them: its distortion is taken out of them first.

    Parameters
    ----------
    g0 : ndarray, shape (n, 3)
        The crystal's reciprocal vectors in 1/Å, all signs of each, those of low order first.
    rotations : ndarray, shape (m, 3, 3)
        The rotations of the Laue class.
    seeds : ndarray, shape (k, 3, 3), optional
        Orientations near which all of them lie, up to `radius_deg`; without them the whole zone is searched.
    gap_deg : float, optional
        How far the first candidates may be from the true orientation; without it as far as the images allow.
    least_deg : float
        The last step of the refinement.
    grain_deg : float
        Neighbours with a smaller misorientation are of one grain.
    ranks : Ranks, optional
        Processes that share the voxels; each needs all bits, and gets the whole map.
    way : Way, optional
        What computes; without it the CPU. The map is the same.

    Raises
    ------
    KernelError
        Exit 65 when no voxel has a confidence above chance, or the map explains too little, with what was found and
        what would fit better.
    """
    ranks, say = ranks or Ranks(), say or _silent
    spots, setup = ideal_images(spots, setup, ranks)
    check_together(spots, setup)
    g0 = np.ascontiguousarray(g0, np.float64)
    work = _Work(spots, setup, voxels, g0, rotations, seeds, radius_deg, least_deg, way or Cpu())
    rungs = ladder(spots, setup, gap_deg, most_deg=180.0 if seeds is None else radius_deg / 3, ranks=ranks)
    say(0.0, f"images for orientations within {', '.join(f'{rung.gap_deg:.2g}°' for rung in rungs)}")
    probes = _spaced(np.arange(len(voxels.places_um)), _PROBES)
    chance, least = _chance(work, rungs, probes, ranks)
    fit = Fit(np.tile(np.eye(3), (len(voxels.places_um), 1, 1)), *np.zeros((2, len(voxels.places_um)), np.int64))
    known, fruitless, above = np.empty((0, 3, 3)), 0, 0
    tried = np.zeros(len(voxels.places_um), np.bool_)
    for number in range(_ROUNDS):
        say(
            (number + 0.5) / (_ROUNDS + 1), f"round {number + 1}: {len(probes)} voxels, {len(known)} orientations known"
        )
        tried[probes] = True
        found, confidence = _find(work, rungs, probes, ranks)
        if number == 0 and not confidence.max() >= least < 1:
            best = float(confidence.max())
            said = f"at {len(probes)} voxels the largest confidence is {best:.2f}, and chance alone reaches {least:.2f}"
            said += f" with {chance.reflections:.0f} reflections."
            raise _nowhere(work, rungs, probes, ranks, best, said)
        good = np.flatnonzero(confidence >= least)
        if not len(good):
            break
        every = np.concatenate([known, found[good[np.argsort(-confidence[good], kind="stable")]]])
        kept = unlike(every, rotations, np.deg2rad(_ALIKE_DEG))
        new, known = every[kept[kept >= len(known)]], every[kept]
        fit = _fill(work, fit, new, ranks)
        closed = fit.confidence >= _threshold(fit, least)
        fruitless = 0 if closed.sum() > above else fruitless + 1
        above = closed.sum()
        if (closed | tried).all() or fruitless == _FRUITLESS:
            break
        open_ = np.flatnonzero(~closed & ~tried)
        probes = _spaced(open_, _PROBES)
    threshold = _threshold(fit, least)
    used = fit.confidence >= threshold
    share = explained(spots, setup, voxels.chosen(used), fit.orientations[used], work.g0)
    if (best := _best(fit.confidence)) < _TRUSTED and share < _EXPLAINED:
        said = f"the best voxels have a confidence of {best:.2f}, and what was found explains {share:.2f} of the spots."
        raise _nowhere(work, rungs, _spaced(np.arange(len(used)), _PROBES), ranks, best, said)
    segments = segment(voxels, fit.orientations, rotations, angle_deg=grain_deg, used=used)
    say(1.0, f"{len(segments.voxels)} grains")
    points = voxels.points[0].shape[1]
    expected = fit.counted / points
    return OrientationMap(voxels, fit.orientations, fit.confidence, expected, segments, least, threshold, share)


@dataclass(frozen=True, eq=False)
class _Work:
    """What a search is about."""

    spots: Spots
    setup: Setup
    voxels: Voxels
    g0: Floats
    rotations: Floats
    seeds: Floats | None
    radius_deg: float
    least_deg: float
    way: Way

    def mirrored(self) -> _Work:
        return replace(self, setup=self.setup.mirrored())


def _chance(work: _Work, rungs: list[Rung], probes: Whole, ranks: Ranks) -> tuple[Chance, float]:
    """What reflections hit by chance, and the confidence that no wrong orientation has at any voxel."""
    blind = work.mirrored()
    measured = _find(blind, rungs, _spaced(probes, _BLIND), ranks)[1]
    many = distinct(work.setup, work.rotations, work.seeds, work.radius_deg)
    chance = chance_of(
        blind.spots, blind.setup, work.voxels.chosen(probes), work.g0, orientations=many, measured=measured
    )  # fmt: skip
    return chance, chance.level(len(work.voxels.places_um))


def _best(confidence: Floats) -> float:
    return float(np.percentile(confidence, _BEST))


def _threshold(fit: Fit, least: float) -> float:
    return max(least, 0.5 * _best(fit.confidence))


def _silent(_: float, __: str) -> None:
    return None


def _spaced(which: Whole, count: int) -> Whole:
    """`count` of them, at equal steps that begin in the middle of one."""
    if len(which) <= count:
        return which
    return which[((np.arange(count) + 0.5) * len(which) / count).astype(np.int64)]


def _all(ranks: Ranks, mine: Whole, count: int, *values: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """What all ranks have of `count` rows, put together for all of them."""
    parts = ranks.told(ranks.gathered((mine, values)))
    made = [np.empty((count, *value.shape[1:]), value.dtype) for value in values]
    for where, part in parts:
        for whole, value in zip(made, part, strict=True):
            whole[where] = value
    return made


def _candidates(work: _Work, gap_deg: float) -> Iterator[Floats]:
    gap = np.deg2rad(gap_deg)
    if work.seeds is None:
        yield from grid_zone(work.rotations, gap).parts(_BLOCK)
        return
    ball = grid_ball(np.deg2rad(work.radius_deg), gap)
    step = max(1, _BLOCK // len(ball))
    for first in range(0, len(work.seeds), step):
        yield np.einsum("bij,sjk->sbik", ball, work.seeds[first : first + step]).reshape(-1, 3, 3)


def _find(work: _Work, rungs: list[Rung], probes: Whole, ranks: Ranks) -> tuple[Floats, Floats]:
    """The best orientation of each probe, and its confidence."""
    mine = np.arange(ranks.rank, len(probes), ranks.size)
    found, confidence = np.empty((0, 3, 3)), np.empty(0)
    if len(mine):
        voxels = work.voxels.chosen(probes[mine])
        starts = _screened(work, rungs[0], voxels)
        found, confidence = descend(rungs, work.setup, voxels, starts, work.g0, least_deg=work.least_deg, way=work.way)
    made = _all(ranks, mine, len(probes), found, confidence)
    return np.asarray(made[0], np.float64), np.asarray(made[1], np.float64)


def _screened(work: _Work, rung: Rung, voxels: Voxels) -> Floats:
    """The best candidates of each voxel on the coarsest images, shape (voxels, k, 3, 3)."""
    count = len(voxels.places_um)
    best = np.zeros((count, 0, 3, 3))
    confidence = np.zeros((count, 0))
    for part in _candidates(work, rung.gap_deg):
        least = float(confidence[:, -1].min()) if confidence.shape[1] == _KEEP else 0.0
        found = work.way.screen(rung.spots, work.setup, voxels, part, work.g0, keep=min(_KEEP, len(part)), least=least)
        best = np.concatenate([best, part[np.maximum(found.best, 0)]], axis=1)
        confidence = np.concatenate([confidence, found.confidence], axis=1)
        order = np.argsort(-confidence, axis=1, kind="stable")[:, :_KEEP]
        best = np.take_along_axis(best, order[:, :, None, None], axis=1)
        confidence = np.take_along_axis(confidence, order, axis=1)
    return best


def _fill(work: _Work, fit: Fit, new: Floats, ranks: Ranks) -> Fit:
    """Give each voxel the new orientation that is better than what it has, refine it, and let it spread."""
    count = len(work.voxels.places_um)
    tile = np.searchsorted(work.voxels.starts, np.arange(count), side="right") - 1
    mine = np.sort(work.voxels.order[tile % ranks.size == ranks.rank])
    made = Fit(fit.orientations[mine], fit.hits[mine], fit.counted[mine])
    better = np.zeros(len(mine), np.bool_)
    if len(mine) and len(new):
        voxels = work.voxels.chosen(mine)
        found = work.way.screen(work.spots, work.setup, voxels, new, work.g0)
        better = found.confidence[:, 0] > made.confidence
        if better.any():
            starts = new[found.best[better, 0]][:, None]
            risen = work.way.climb(
                work.spots, work.setup, voxels.chosen(better), starts, work.g0, step_deg=_STEP_DEG,
                least_deg=work.least_deg,
            )  # fmt: skip
            made.orientations[better], made.hits[better] = risen.orientations, risen.hits
            made.counted[better] = risen.counted
    for _ in range(_PASSES):
        parts = _all(ranks, mine, count, made.orientations, made.hits, made.counted, better)
        fit = Fit(parts[0].astype(np.float64), parts[1].astype(np.int64), parts[2].astype(np.int64))
        if not parts[3].any():
            break
        fit, changed = work.way.spread(
            work.spots, work.setup, work.voxels, fit, work.g0, step_deg=_STEP_DEG, least_deg=work.least_deg, mine=mine,
            changed=parts[3].astype(np.bool_),
        )  # fmt: skip
        made = Fit(fit.orientations[mine], fit.hits[mine], fit.counted[mine])
        better = changed[mine]
    return fit


def _nowhere(work: _Work, rungs: list[Rung], probes: Whole, ranks: Ranks, best: float, said: str) -> KernelError:
    """What to say when nothing was found, `said` being how so: with what else these images would fit, if with any."""
    setup, spots = work.setup, work.spots
    others = {
        "the detector's columns mirrored": (spots, setup.mirrored()),
        "omega running the other way": (
            spots,
            replace(setup, omega_start_deg=-setup.omega_start_deg, omega_step_deg=-setup.omega_step_deg),
        ),
    }
    if spots.distances > 1:
        swapped = Spots(np.ascontiguousarray(spots.bits[::-1]), spots.rows, spots.columns, spots.present[::-1].copy())
        others["the distances in the opposite order"] = (swapped, setup)
    probes = _spaced(probes, _BLIND)
    fitting, most = "", best + _CLEARLY
    for what, (images, other) in others.items():
        less = replace(work, spots=images, setup=other)
        rungs_of = rungs if images is spots else ladder(images, other, rungs[0].gap_deg, ranks=ranks)
        confidence = float(_find(less, rungs_of, probes, ranks)[1].max())
        if confidence > most:
            most, fitting = confidence, f" With {what} it would be {confidence:.2f}: is that so?"
    where = "near any of the seeds" if work.seeds is not None else "of any orientation"
    check = (
        " Check the lattice, the wavelength, the detector's place, the threshold of the images and the number of rings."
    )
    return KernelError(f"No grain was found {where}: {said}{fitting or check}", Exit.BAD_INPUT)
