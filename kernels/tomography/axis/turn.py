"""Which projections of a scan make a half turn, and which see the object from opposite sides."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.tomography.axis.estimate import Doubles

_NEARLY_HALF_A_TURN_DEG = 165.0
_AHEAD = 1.5  # steps beyond the last angle that may be extrapolated


class Turn(NamedTuple):
    """How a scan's angles lie.

    Attributes
    ----------
    order
        Indices of all projections by rising angle.
    half
        Those of the first half turn, the one at 180 degrees left out.
    spacing
        The usual step, degrees.
    covered
        Degrees from the first to one step after the last of the half turn.
    largest_gap
        The largest step within the half turn, degrees.
    full
        Whether all of a full turn was seen.
    """

    order: NDArray[np.intp]
    half: NDArray[np.intp]
    spacing: float
    covered: float
    largest_gap: float
    full: bool

    @property
    def whole(self) -> bool:
        """Whether there is a half turn, or nearly, without a gap."""
        return self.covered >= _NEARLY_HALF_A_TURN_DEG and self.largest_gap <= 3 * self.spacing


class Pair(NamedTuple):
    """A projection and what it takes to have the one half a turn later: (1 - part) of `left` and part of `right`."""

    here: int
    left: int
    right: int
    part: float


def turn(theta_deg: Doubles) -> Turn:
    """How the angles lie."""
    order = np.argsort(theta_deg, kind="stable")
    half = half_turn(theta_deg)
    gaps = np.diff(theta_deg[half])
    spacing = float(np.median(gaps)) if len(gaps) else 0.0
    covered = float(np.ptp(theta_deg[half])) + spacing
    rising = theta_deg[order]
    around = bool(rising[-1] - rising[0] + 1.5 * spacing >= 360.0 and np.diff(rising).max() < 5 * max(spacing, 1e-9))
    return Turn(order, half, spacing, covered, float(gaps.max()) if len(gaps) else 0.0, around)


def half_turn(theta_deg: Doubles) -> NDArray[np.intp]:
    """The indices, by rising angle, of the projections of the first half turn, the one at 180 degrees left out."""
    order = np.argsort(theta_deg, kind="stable")
    rising = theta_deg[order]
    spacing = float(np.median(np.diff(rising)))
    return np.asarray(order[rising < rising[0] + 180.0 - 0.25 * abs(spacing)])


def opposite_pairs(theta_deg: Doubles, most: int) -> list[Pair]:
    """Up to `most` pairs half a turn apart, evenly over those there are.

    Between two projections, the opposite one is interpolated; a scan that stops one step short of the half turn has a
    single pair, extrapolated from its last two projections. Across a gap in the angles there is no pair.
    """
    order = np.argsort(theta_deg, kind="stable")
    rising = theta_deg[order]
    spacing = float(np.median(np.diff(rising)))
    pairs = []
    for n, angle in enumerate(rising):
        right = int(np.searchsorted(rising, angle + 180.0 - 1e-6 * abs(spacing)))
        if right >= len(rising):
            break
        step = rising[right] - rising[right - 1]
        if step <= 2 * spacing:
            part = 1.0 - (rising[right] - angle - 180.0) / max(step, 1e-9)
            pairs.append(Pair(int(order[n]), int(order[right - 1]), int(order[right]), float(part)))
    if not pairs and rising[0] + 180.0 - rising[-1] <= _AHEAD * spacing:
        ahead = 1.0 + (rising[0] + 180.0 - rising[-1]) / max(rising[-1] - rising[-2], 1e-9)
        pairs.append(Pair(int(order[0]), int(order[-2]), int(order[-1]), float(ahead)))
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(most, len(pairs))).round().astype(int))
    return [pairs[i] for i in chosen]
