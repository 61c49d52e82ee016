"""Find the axis by all ways that apply, compare them, and say how far the result may be believed.

A way's own curve may be clear and wrong: stripes, an object wider than the view or its own symmetry can make a dip in
the wrong place. So no way is believed alone. Each gives a position with an uncertainty and a quality; those that agree
support each other, those that do not take confidence away, and the sharpness of trial reconstructions judges between
them. The position is that of the way with the least uncertainty among those that agree best.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.ndimage

from kernels.errors import Exit, KernelError
from kernels.tomography.axis.estimate import Axis, Doubles, Estimate, Floats
from kernels.tomography.axis.moment import centre_of_mass
from kernels.tomography.axis.registration import register
from kernels.tomography.axis.sharpness import Sharpness, sharpness_applies
from kernels.tomography.axis.turn import Turn, turn
from kernels.tomography.axis.wedge import least_wedge

_LEAST_TURN_DEG = 90.0
_WIDEST_OF_FULL_TURN = 0.48  # half width of the search, as a fraction of the columns
_AGREE = 1.0  # pixels within which ways agree, however certain they are
_TRUST = 0.8  # how much a way of quality 1 is believed by itself
_EDGE = 0.1
_STRIPE = 7  # columns
_LEAST_SEEN = 0.2  # of the width


def find_axis(sinograms: Floats, theta_deg: Doubles, *, width: float = 0.3) -> Axis:
    """The rotation axis of sinograms of the same scan.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Line integrals.
    theta_deg : ndarray, shape (angles,)
        Angles in degrees, over at least 90 degrees; over a full turn, the axis may be near the detector's edge.
    width
        Half width of the search around the detector's middle, as a fraction of the columns.

    Raises
    ------
    KernelError
        Exit 65 when the angles cover less than 90 degrees or no way has a result.
    """
    angles = turn(theta_deg)
    if angles.covered < _LEAST_TURN_DEG:
        raise KernelError(
            f"The angles cover only {angles.covered:.4g} of 180 degrees, too few to find the axis; give rotationAxis.",
            Exit.BAD_INPUT,
        )
    columns = sinograms.shape[2]
    middle, reach = 0.5 * (columns - 1), width * columns
    sinograms = _without_stripes(sinograms)
    inside = _is_inside(sinograms)
    found, spread = _searched(sinograms, theta_deg, angles, middle, reach, inside=inside)
    if sharpness_applies(angles):
        starts = [estimate.position for estimate in found] or [middle]
        seen = max(_LEAST_SEEN * columns, 0.95 * min(min(start, columns - 1 - start) for start in starts))
        judge = Sharpness(sinograms, theta_deg, angles, inside=inside, seen=seen)
        starts = _apart(starts, judge.step)
        if trials := [trial for start in starts if (trial := judge.sharpest(start))]:
            found.append(min(trials, key=lambda trial: float(trial.curve.min())))
    if not found:
        raise KernelError(
            f"Nothing in the rows looked at shows where the rotation axis is ({angles.covered:.0f} degrees of a half "
            f"turn, an object {'within' if inside else 'wider than'} the view); give rotationAxis.",
            Exit.BAD_INPUT,
        )
    return choose(found, spread)


def _searched(
    sinograms: Floats, theta_deg: Doubles, angles: Turn, middle: float, reach: float, *, inside: bool
) -> tuple[list[Estimate], float]:
    """What the ways say that search by themselves, and the spread of the wedge's rows."""
    columns = sinograms.shape[2]
    far = _WIDEST_OF_FULL_TURN * columns if angles.full else reach
    spread = 0.0
    found: list[Estimate | None] = []
    if angles.whole:
        half = np.ascontiguousarray(sinograms[:, angles.half])
        if of_rows := least_wedge(half, reach, inside=inside):
            found.append(of_rows[0])
            spread = of_rows[1]
    found.append(register(sinograms, theta_deg, angles, middle - far, middle + far))
    found.append(centre_of_mass(sinograms, theta_deg))
    return [e for e in found if e and abs(e.position - middle) <= far], spread


def choose(found: list[Estimate], spread: float = 0.0) -> Axis:
    """Which of several ways' results to take, and how far to believe it."""
    supports = [[other for other in found if _agree(one, other)] for one in found]
    beliefs = [_belief(support) for support in supports]
    most = max(beliefs)
    chosen = min(
        (one for one, belief in zip(found, beliefs, strict=True) if belief >= most - 0.05),
        key=lambda one: one.uncertainty / max(one.quality, 0.1),
    )
    agreeing = next(s for one, s in zip(found, supports, strict=True) if one is chosen)
    against = [one for one in found if one not in agreeing]
    confidence = _belief(agreeing) * (1 - 0.7 * _belief(against))
    weights = np.array([max(one.quality, 0.1) / one.uncertainty**2 for one in agreeing])
    position = float(np.average([one.position for one in agreeing], weights=weights))
    evidence = (chosen, *sorted((e for e in found if e is not chosen), key=lambda e: -e.quality))
    reason = _reason(chosen, agreeing, against)
    return Axis(position, chosen.method, spread, round(confidence, 3), reason, evidence)


def _belief(estimates: list[Estimate]) -> float:
    """How much some ways that agree are believed together: 1 less the chance that all of them err."""
    return 1 - math.prod(1 - _TRUST * e.quality for e in estimates)


def _agree(one: Estimate, other: Estimate) -> bool:
    within = max(_AGREE, 2 * math.hypot(one.uncertainty, other.uncertainty))
    return abs(one.position - other.position) <= within


def _reason(chosen: Estimate, agreeing: list[Estimate], against: list[Estimate]) -> str:
    said = [f"{chosen.method}: {chosen.reason}"]
    for word, others in (("agrees", agreeing), ("contradicts", against)):
        said += [f"{e.method} {word} ({e.position:.2f})" for e in others if e is not chosen]
    if len(agreeing) == len(against) + 1 == 1:
        said.append("no other way applies")
    return "; ".join(said)


def _is_inside(sinograms: Floats) -> bool:
    """Whether the outermost columns see air in all projections."""
    rim = max(2, sinograms.shape[2] // 50)
    edges = np.concatenate((sinograms[:, :, :rim], sinograms[:, :, -rim:]), axis=2).mean(2)
    return bool(np.percentile(edges, 95) < _EDGE * np.percentile(sinograms, 99))


def _without_stripes(sinograms: Floats) -> Floats:
    """Less what is jagged in the mean over the angles, which is symmetric about the axis for no way to find it.

    Edges stay: what is centred on the axis has them in the mean as well.
    """
    mean = sinograms.mean(1, dtype=np.float64)
    jagged = mean - scipy.ndimage.median_filter(mean, (1, _STRIPE), mode="mirror")
    return np.asarray(sinograms - jagged[:, None].astype(np.float32))


def _apart(starts: list[float], step: float) -> list[float]:
    """Starts of which none is within reach of another's search."""
    kept: list[float] = []
    for start in starts:
        if all(abs(start - other) > 2 * step for other in kept):
            kept.append(start)
    return kept
