"""Which grains are real, and whose each spot is.

A grain is refused when most of its spots belong to a better one: the same grain found twice, or an orientation that
shares planes with a true one. It is refused, too, when chance explains it. A prediction meets some spot by chance with
the probability q = density · gate volume. Four spots fix the twelve numbers of a grain, so of `expected` spots at least
`matched` are met by chance, once in 1 / P(X >= matched - 4) tries, X binomial of expected - 4 and q; times the number
of candidates that were judged this is how many false grains as good as this one are to be expected.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from kernels.compiled import compiled
from kernels.hedm.farfield.expected import View
from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.farfield.refinement import NOT_EXPECTED, Refined
from kernels.hedm.farfield.spots import Cells

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

_OWN = 0.4  # least share of a grain's spots that no better grain has
_GATE = 5.0
_FIXED = 4
_WORST = -300.0


def share_out(refined: Refined, spots: int) -> tuple[NDArray[np.int64], Ints, NDArray[np.int64]]:
    """Which grains to keep, and whose each spot is.

    Parameters
    ----------
    spots : how many there are in all

    Returns
    -------
    kept : (k,) numbers of grains in their order
    owner : (spots,) place in `kept` of the grain to which a spot lies nearest, or -1
    unique : (k,) how many of its matched spots each of them owns
    """
    quality = refined.matched * refined.completeness
    order = np.lexsort((refined.spread, -quality)).astype(np.int64)
    kept = np.sort(order[_greedy(order, refined.spot, spots)])
    owner = np.full(spots, -1, np.int32)
    unique = np.zeros(len(kept), np.int64)
    _own(kept, refined.spot, refined.away, owner, np.full(spots, np.inf, np.float32))
    np.add.at(unique, owner[owner >= 0], 1)
    return kept, owner, unique


@compiled()
def _greedy(order: NDArray[np.int64], spot: Ints, spots: int) -> NDArray[np.bool_]:
    taken = np.zeros(spots, np.uint8)
    good = np.zeros(order.size, np.bool_)
    for n in range(order.size):
        free, total = 0, 0
        for k in range(spot.shape[1]):
            i = spot[order[n], k]
            if i >= 0:
                total += 1
                free += 1 - taken[i]
        if total and free >= _OWN * total:
            good[n] = True
            for k in range(spot.shape[1]):
                if spot[order[n], k] >= 0:
                    taken[spot[order[n], k]] = 1
    return good


@compiled()
def _own(
    kept: NDArray[np.int64], spot: Ints, away: NDArray[np.float32], owner: Ints, least: NDArray[np.float32]
) -> None:
    for n in range(kept.size):
        for k in range(spot.shape[1]):
            i = spot[kept[n], k]
            if i >= 0 and away[kept[n], k] < least[i]:
                owner[i], least[i] = n, away[kept[n], k]


def chance_of_match(
    cells: Cells, lattice: Lattice, view: View, ring_shell: NDArray[np.integer], limits: Limits
) -> Floats:
    """(shells,): how likely a prediction finds some spot within its gate by chance.

    A shell's spots are taken to lie evenly over the covered part of eta and omega, and over the width in two theta that
    nine tenths of them fill.
    """
    shells = int(np.max(ring_shell)) + 1
    volume = 4.0 / 3.0 * math.pi * _GATE**3 * limits.spot_um**2 * limits.omega
    turn = limits.turn_covered * 2.0 * math.pi
    per_shell = cells.etas * cells.omegas
    chance = np.zeros(shells)
    for shell in range(shells):
        spot = cells.spot[cells.start[shell * per_shell] : cells.start[(shell + 1) * per_shell]]
        rings = np.flatnonzero(np.asarray(ring_shell) == shell)
        covered = float((view.seen[rings] > 0).mean()) * 2.0 * math.pi
        if len(spot) < 2 or not covered:
            continue
        far = np.linalg.norm(spot[:, :3], axis=1)
        angle = np.arccos(np.clip(spot[:, :3] @ view.source[:3] / far, -1.0, 1.0))
        low, high = np.quantile(angle, [0.05, 0.95])
        width = max(float(high - low) / 0.9 * float(far.mean()), 4.0 * limits.spot_um)
        around = float((far * np.sin(angle)).mean()) * covered
        chance[shell] = 1.0 - math.exp(-len(spot) * volume / (width * around * turn))
    return chance


def false_grains(refined: Refined, chance: Floats, shell: NDArray[np.integer], tried: int) -> Floats:
    """(n,): the decimal logarithm of how many false grains as good as each of these are to be expected by chance.

    Parameters
    ----------
    chance : (shells,) of `chance_of_match`
    shell : (reflections,) which shell each reflection belongs to
    tried : how many candidates were judged
    """
    expected = refined.spot != NOT_EXPECTED
    mean = (expected @ np.repeat(chance[np.asarray(shell)], 2)) / np.maximum(refined.expected, 1)
    left = np.maximum(refined.expected - _FIXED, 0)
    logarithm = binom.logsf(refined.matched - _FIXED - 1, left, mean) / math.log(10.0)
    return np.asarray(np.maximum(np.nan_to_num(logarithm, neginf=_WORST), _WORST) + math.log10(max(tried, 1)))
