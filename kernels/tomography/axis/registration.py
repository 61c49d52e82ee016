"""The axis from projections half a turn apart: one is the other mirrored about the axis.

For each place of the axis, the columns that both see are correlated, each with its own mean and variance (masked
normalised cross-correlation, Padfield, IEEE Trans. Image Process. 21 (2012) 2706), all places at once by FFT, pooled
over rows and pairs. The overlap may be narrow, so this also finds the axis of a scan over a full turn with the axis at
the detector's edge (half acquisition), where the overlap search of sinogram halves is the usual way (Vo et al., J.
Synchrotron Rad. 28 (2021) 1820).

The projections are band-passed, so that edges decide and not the thickness of the object; in a full turn the mean over
the angles, symmetric about the axis by itself, is taken away and with it all stripes.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
import scipy.ndimage

from kernels.compiled import threads
from kernels.tomography.axis.estimate import Doubles, Estimate, Floats, inner_half, uniqueness, vertex
from kernels.tomography.axis.turn import Turn, opposite_pairs

_PAIRS, _INDEPENDENT_PAIRS = 60, 4
_FLOOR, _NARROW = 0.05, 4.0  # pixels; pixels times columns of overlap: a narrow one ends within a structure
_LEAST_COLUMNS = 8
_SMOOTH = 2.0  # pixels
_BROADEST = 40  # parts of the width: what is broader is not looked at
_LEAST_OVERLAP, _LEAST_OVERLAP_OF_FULL_TURN = 0.2, 0.04  # of the width
_NEAR = 4.0  # pixels around the common peak in which rows and pairs may have their own


def register(sinograms: Floats, theta_deg: Doubles, turn: Turn, first: float, last: float) -> Estimate | None:
    """The axis between `first` and `last` (pixels) that best mirrors projections onto their opposites.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Line integrals.
    theta_deg : ndarray, shape (angles,)
        Degrees.

    Returns
    -------
    Estimate or None
        None where no two projections are half a turn apart, or all are flat.
    """
    pairs = opposite_pairs(theta_deg, _PAIRS)
    columns = sinograms.shape[2]
    trim = round(_broad(columns))  # what the filter makes of the ends
    if not pairs or columns < 2 * trim + _LEAST_COLUMNS:
        return None
    mean = sinograms.mean(1, keepdims=True) if turn.full else np.float32(0)
    centred = sinograms - mean if turn.full else sinograms
    here = _band_passed(centred[:, [p.here for p in pairs]])
    part = np.array([p.part for p in pairs], np.float32)[:, None]
    left, right = centred[:, [p.left for p in pairs]], centred[:, [p.right for p in pairs]]
    there = _band_passed((1 - part) * left + part * right)
    here, there = here[:, :, trim:-trim], there[:, :, trim:-trim]
    first, last, columns = first - trim, last - trim, columns - 2 * trim
    least = max(_LEAST_COLUMNS, int((_LEAST_OVERLAP_OF_FULL_TURN if turn.full else _LEAST_OVERLAP) * columns))
    sums = np.arange(max(least - 1, round(2 * first)), min(2 * columns - 1 - least, round(2 * last)) + 1)
    if len(sums) < 3:
        return None
    moments = _moments(here, there, sums)  # (rows, pairs, sums) each
    curve = _correlation(moments, axes=(0, 1))
    overlap = np.minimum(sums, 2 * (columns - 1) - sums) + 1.0
    score = -np.arctanh(np.clip(curve, -0.9999, 0.9999)) * np.sqrt(overlap / columns)
    best = int(score.argmin())
    peak = float(curve[best])
    if best in (0, len(sums) - 1) or peak <= 0:
        return None
    position = 0.5 * (float(sums[0]) + vertex(-curve, best)) + trim
    several = len(pairs) if turn.full else min(len(pairs), _INDEPENDENT_PAIRS)  # all pairs have the same stripes
    independent = sinograms.shape[0] * several * overlap[best] / (3.5 * _SMOOTH)
    bend = max(float(2 * curve[best] - curve[best - 1] - curve[best + 1]), 1e-9)
    expected = 0.5 * math.sqrt((1 - min(peak, 0.9999) ** 2) / (independent * bend))
    each = _own_peaks(moments, best)
    scatter = inner_half(each) / math.sqrt(len(each)) if len(each) > 2 else 0.0
    floor = _FLOOR if len(pairs) > 1 else 2 * _FLOOR
    uncertainty = math.hypot(floor, max(expected, scatter), _NARROW / overlap[best])
    above_noise = math.atanh(min(peak, 0.9999)) * math.sqrt(independent)
    alone = uniqueness(score, best, max(4, columns // 32))
    quality = float(np.clip(2.5 * alone, 0, 1) * np.clip((above_noise - 4) / 6, 0, 1))
    which = f"{len(pairs)} pairs of opposite projections correlate" if len(pairs) > 1 else "one pair correlates"
    reason = f"{which} by {peak:.2f} over {overlap[best]:.0f} columns"
    return Estimate("pairs", position, uncertainty, quality, reason, 0.5 * sums + trim, 1 - curve)


def _band_passed(projections: Floats) -> Floats:
    broad = _broad(projections.shape[-1])
    fine = scipy.ndimage.gaussian_filter1d(projections, _SMOOTH, axis=-1, mode="nearest")
    return np.asarray(fine - scipy.ndimage.gaussian_filter1d(projections, broad, axis=-1, mode="nearest"))


def _broad(columns: int) -> float:
    return max(3 * _SMOOTH, columns / _BROADEST)


def _moments(here: Floats, there: Floats, sums: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Covariance and the two variances, times the overlap, of here[x] and there[sum - x] for each sum."""
    columns = here.shape[-1]
    length = scipy.fft.next_fast_len(2 * columns, real=True)
    product = scipy.fft.rfft(here, length, workers=threads()) * scipy.fft.rfft(there, length, workers=threads())
    both = scipy.fft.irfft(product, length, workers=threads())[..., sums].astype(np.float64)
    low, high = np.maximum(0, sums - columns + 1), np.minimum(columns - 1, sums)
    count = high - low + 1.0

    def over(values: Floats) -> Doubles:
        total = np.concatenate((np.zeros((*values.shape[:-1], 1)), np.cumsum(values, -1, dtype=np.float64)), -1)
        return np.asarray(total[..., high + 1] - total[..., low])

    a, b = over(here), over(there)  # the overlap is the same range of columns in both
    return both - a * b / count, over(here**2) - a**2 / count, over(there**2) - b**2 / count


def _correlation(moments: tuple[Doubles, Doubles, Doubles], axes: tuple[int, ...]) -> Doubles:
    both, a, b = (m.sum(axes) for m in moments)
    scale = np.sqrt(np.maximum(a * b, 0))
    # where one side sees only air, what little there is must not count as much as the object does elsewhere
    return np.asarray(both / np.maximum(scale, 0.01 * scale.max(-1, keepdims=True) + 1e-30))


def _own_peaks(moments: tuple[Doubles, Doubles, Doubles], best: int) -> Doubles:
    """Where each row, and of one row each pair, has its peak near the common one, pixels from it."""
    rows, pairs = moments[0].shape[:2]
    curves = _correlation(moments, axes=(1,)) if rows > 2 or pairs < 3 else _correlation(moments, axes=(0,))
    reach = int(2 * _NEAR)
    start = max(0, best - reach)
    near = -curves[:, start : best + reach + 1]
    return np.array([0.5 * (start + vertex(curve, int(curve.argmin())) - best) for curve in near])
