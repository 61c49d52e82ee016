"""The axis with which a slice is sharpest: a wrong one doubles edges, smears the air and makes negative values.

A few candidates are reconstructed from binned data and scored (Donath et al., J. Opt. Soc. Am. A 23 (2006) 1048): by
the negative values, relative to the sum, where the object is within the view; by the entropy of the grey values where
it is wider, since truncation makes negative values of its own. The score is smooth, so the vertex of a parabola finds
the minimum to a small part of a binned column.

In a full turn of an object wider than the view, the opposite projections are joined to a half turn of up to twice the
width, so that an axis at the detector's edge (half acquisition) is judged as well.
"""

from __future__ import annotations

import math

import numpy as np

from kernels.tomography.axis.estimate import Doubles, Estimate, Floats, binned, vertex
from kernels.tomography.axis.turn import Pair, Turn, opposite_pairs
from kernels.tomography.fbp import Reconstructor
from kernels.tomography.lanes import LANES

_COLUMNS, _COLUMNS_OF_FULL_TURN = 160, 128
_ANGLES_PER_COLUMN, _LEAST_ANGLES_PER_COLUMN = 1.2, 0.4
_LEAST_ANGLES = 40
_REACH, _FARTHEST = 4, 12  # binned columns to each side at first, and at most
_BINS, _ENTROPY_QUALITY = 256, 0.6


class Sharpness:
    """Scores axes by the slices they give.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Line integrals; the first `LANES` rows are used.
    theta_deg : ndarray, shape (angles,)
        Degrees.
    turn
        How they lie; a half turn of it is used, or all where the object is wider than the view.
    inside
        Whether the object is within the view.
    seen
        Of a wider object: the distance from the axis up to which all projections see it, pixels.
    """

    def __init__(self, sinograms: Floats, theta_deg: Doubles, turn: Turn, *, inside: bool, seen: float) -> None:
        both = turn.full and not inside
        chosen = turn.order if both else turn.half
        wanted = min(_COLUMNS_OF_FULL_TURN if both else _COLUMNS, int(len(turn.half) / _LEAST_ANGLES_PER_COLUMN))
        self.binning = max(1, round(sinograms.shape[2] / wanted))
        small = binned(sinograms[:LANES, chosen], self.binning, 2)
        by = max(1, int(len(turn.half) / (_ANGLES_PER_COLUMN * small.shape[2] * (1 + both))))
        self.small = binned(small, by, 1)
        kept = len(chosen) // by
        self.theta_deg = theta_deg[chosen][: kept * by].reshape(kept, by).mean(1)
        self.inside = inside
        self.pairs = opposite_pairs(self.theta_deg, kept) if both else []
        self.radius = math.inf if inside or both else seen / self.binning
        self._range: tuple[float, float] | None = None
        self._scores: dict[float, float] = {}

    @property
    def step(self) -> float:
        """Detector pixels between the axes that are tried."""
        return float(self.binning)

    @property
    def uncertainty(self) -> float:
        """Of the sharpest axis, pixels; more for the entropy, which streaks from outside the view disturb."""
        return (0.25 if self.inside else 0.5) * self.step

    def score(self, axis: float) -> float:
        """The score of one axis, lower is sharper."""
        if axis not in self._scores:
            self._scores[axis] = self._score((axis + 0.5) / self.binning - 0.5)
        return self._scores[axis]

    def sharpest(self, near: float) -> Estimate | None:
        """The sharpest axis downhill from `near`; None where the score falls to the end of the search."""
        first, last = -_REACH, _REACH
        while True:
            axes = np.asarray(near + self.step * np.arange(first, last + 1), np.float64)
            scores = np.array([self.score(axis) for axis in axes])
            best = int(scores.argmin())
            if best == 0 and first > -_FARTHEST:
                first -= _REACH
            elif best == len(axes) - 1 and last < _FARTHEST:
                last += _REACH
            else:
                break
        if best in (0, len(axes) - 1):
            return None
        axes = np.sort(np.concatenate((axes, axes[best] + self.step * np.array([-0.5, 0.5]))))
        scores = np.array([self.score(axis) for axis in axes])
        best = int(scores.argmin())
        position = float(axes[best])
        if np.isclose(axes[best + 1] - axes[best], axes[best] - axes[best - 1]):
            position += (vertex(scores, best) - best) * float(axes[best + 1] - axes[best])
        rises = np.diff(scores)
        uphill = (rises[:best] > 0).sum() + (rises[best:] < 0).sum()  # a clear minimum has no other dips around
        quality = float(np.clip(1 - 3 * uphill / len(rises), 0, 1)) * (1.0 if self.inside else _ENTROPY_QUALITY)
        word = "negative values are fewest" if self.inside else "the entropy of the slices is lowest"
        reason = f"{word} there among {len(axes)} trial reconstructions"
        return Estimate("sharpness", position, self.uncertainty, quality, reason, axes, scores)

    def _score(self, axis: float) -> float:
        slices = self._slices(axis)
        middle = 0.5 * (slices.shape[1] - 1)
        from_axis = np.hypot(*(np.mgrid[: slices.shape[1], : slices.shape[1]] - middle))
        values = slices[:, from_axis < min(0.96 * middle, self.radius)].astype(np.float64)
        if self.inside:
            return float(np.minimum(values, 0).sum() / -max(abs(values.sum()), 1e-12))
        if self._range is None:
            low, high = np.percentile(values, [0.1, 99.9])
            self._range = (float(low), max(float(high), float(low) + 1e-9))
        share = np.histogram(np.clip(values, *self._range), _BINS, range=self._range)[0] / values.size
        return float(-(share[share > 0] * np.log(share[share > 0])).sum())

    def _slices(self, axis: float) -> Floats:
        sinograms, theta = self.small, self.theta_deg
        if self.pairs:
            sinograms, axis = joined(sinograms, self.pairs, axis)
            theta = theta[[p.here for p in self.pairs]]
        padding = "zero" if self.inside else "edge"
        width = sinograms.shape[2]
        return Reconstructor(theta, width, axis=axis, window="hann", padding=padding, circle=False).slices(sinograms)


def sharpness_applies(turn: Turn) -> bool:
    """Whether the angles are enough for slices whose worst faults come from the axis: a half turn, not too few."""
    return turn.whole and len(turn.half) >= _LEAST_ANGLES


def joined(sinograms: Floats, pairs: list[Pair], axis: float) -> tuple[Floats, float]:
    """A half turn as wide as both sides of a full turn see together, and where the axis is in it.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Over a full turn.
    pairs
        Opposite projections; each becomes one of the half turn.
    axis
        Pixels from the middle of pixel 0.

    Returns
    -------
    (ndarray, float)
        Shape (rows, pairs, wide); blended linearly where both sides see the object.
    """
    columns = sinograms.shape[2]
    if axis < 0.5 * (columns - 1):  # seen from behind, the same object turned by half a turn
        sinograms, axis = sinograms[:, :, ::-1], columns - 1 - axis
    part = np.array([p.part for p in pairs], np.float32)[:, None]
    there = (1 - part) * sinograms[:, [p.left for p in pairs]] + part * sinograms[:, [p.right for p in pairs]]
    at = np.arange(math.floor(2 * axis) + 1)
    from_here = np.clip((columns - 1 - at) / max(2 * (columns - 1 - axis), 1e-9), 0, 1).astype(np.float32)
    mirrored = np.clip(2 * axis - at, 0, columns - 1)
    left = np.minimum(mirrored.astype(np.intp), columns - 2)
    rest = (mirrored - left).astype(np.float32)
    beyond = (1 - rest) * there[:, :, left] + rest * there[:, :, left + 1]
    here = sinograms[:, [p.here for p in pairs]][:, :, np.minimum(at, columns - 1)]
    return np.asarray(from_here * here + (1 - from_here) * beyond, np.float32), axis
