"""What one way to find the rotation axis says, and what follows from all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

HIGH, LOW = 0.8, 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What one way says.

    Attributes
    ----------
    method
        "wedge", "pairs", "moment" or "sharpness".
    position
        Detector pixels from the middle of pixel 0.
    uncertainty
        How far the position may be off by the way's own evidence, pixels.
    quality
        0 to 1: how clearly the way's own curve or fit points there.
    reason
        The evidence in a few words.
    candidates, curve
        The search curve, lowest at the axis: energy in the wedge relative to its largest value, 1 less the correlation
        of opposite projections, or the score of trial reconstructions. Empty for "moment".
    """

    method: str
    position: float
    uncertainty: float
    quality: float
    reason: str
    candidates: Doubles = field(default_factory=lambda: np.zeros(0))
    curve: Doubles = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """Where the axis is, and why one may believe it.

    Attributes
    ----------
    position
        Detector pixels from the middle of pixel 0: the mean of the ways that agree, the certain ones counting most.
    method
        The way among them that is most certain; see `Estimate`.
    spread
        Half of the range in which the inner half of the single rows' results lies, pixels; 0 for a single row.
    confidence
        0 to 1. From 0.8 on independent ways agree; below 0.5 the position should not be believed unseen.
    reason
        Why, in a few words about each way.
    evidence
        What each way said that applied, the chosen one first.
    """

    position: float
    method: str
    spread: float
    confidence: float
    reason: str
    evidence: tuple[Estimate, ...] = ()

    @property
    def level(self) -> str:
        """The confidence in a word: "high", "medium" or "low"."""
        return "high" if self.confidence >= HIGH else "medium" if self.confidence >= LOW else "low"

    @property
    def warning(self) -> str:
        """A sentence for whoever uses a position of low confidence; empty otherwise."""
        if self.confidence >= LOW:
            return ""
        return (
            f"The rotation axis {self.position:.2f} is not certain (confidence {self.confidence:.2f}; {self.reason}): "
            "look at the curves and a slice, or give rotationAxis."
        )

    def by(self, method: str) -> Estimate | None:
        """What one way said; None where it did not apply."""
        return next((estimate for estimate in self.evidence if estimate.method == method), None)


def vertex(curve: Doubles, best: int) -> float:
    """The extremum of the parabola through a sampled curve's lowest point and its neighbours, as an index."""
    if 0 < best < len(curve) - 1:
        before, here, after = curve[best - 1 : best + 2]
        bend = before - 2 * here + after
        if bend > 0:
            return float(best + 0.5 * (before - after) / bend)
    return float(best)


def uniqueness(curve: Doubles, best: int, apart: int) -> float:
    """How much deeper a curve is at `best` than at its next dip at least `apart` samples away: 0 equal, 1 no other.

    A dip on the flank of the minimum itself is no dip: what counts is how far one has to climb out of it again.
    """
    level = float(np.median(curve))
    depth = level - float(curve[best])
    if depth <= 0:
        return 0.0
    dips = [float(curve[i]) for i in local_minima(curve) if abs(i - best) >= apart]
    return float(np.clip((min(dips, default=level) - curve[best]) / depth, 0.0, 1.0))


def local_minima(curve: Doubles) -> NDArray[np.intp]:
    """Indices at which a curve is lower than at both neighbours."""
    inner = (curve[1:-1] < curve[:-2]) & (curve[1:-1] <= curve[2:])
    return np.flatnonzero(inner) + 1


def weighted_median(values: Doubles, weights: Doubles) -> float:
    """The value with half of the weight on each side."""
    order = np.argsort(values)
    total = np.cumsum(np.maximum(weights[order], 1e-12))
    return float(np.interp(0.5 * total[-1], total - 0.5 * weights[order], values[order]))


def inner_half(values: Doubles) -> float:
    """Half of the range in which the inner half of some values lies."""
    return float(np.ptp(np.percentile(values, [25, 75])) / 2)


def binned(values: Floats, by: int, axis: int) -> Floats:
    """Means over groups of `by` along an axis; what is left over at its end is left out."""
    if by <= 1:
        return values
    axis %= values.ndim
    kept = values.shape[axis] // by
    cut = values[(slice(None),) * axis + (slice(0, kept * by),)]
    shape = (*values.shape[:axis], kept, by, *values.shape[axis + 1 :])
    return np.asarray(cut.reshape(shape).mean(axis + 1, dtype=np.float32))
