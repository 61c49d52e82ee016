"""Find the rotation axis of a half-turn scan.

Two independent ways, compared:

* **Wedge** (Vo et al., Opt. Express 22 (2014) 19078): the sinogram and its mirror image, joined to a full turn, fill
  with energy the double wedge of its Fourier transform that a true sinogram leaves empty, unless mirrored about the
  axis. Found over all rows together on integer shifts, then to a twentieth of a pixel in each row by itself. The
  transform over angles is taken once, not per shift; the fine search shifts by a phase, because interpolation would
  damp high frequencies between the pixels and so move the minimum.
* **Mirror**: the projection at 180 degrees is the one at 0 degrees mirrored about the axis. Less exact, but works
  with few angles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import scipy.fft
import scipy.ndimage
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled, threads
from kernels.errors import Exit, KernelError

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]

_FEW_ANGLES, _FEW_PER_COLUMN = 24, 0.15  # below either, the wedge is too coarsely sampled to be trusted
_COARSE_COLUMNS = 320
_LEAST_TURN_DEG = 165.0
_FINE_REACH, _FINE_STEP = 2.0, 0.05
_OBJECT_RADIUS = 0.25  # of the width: Vo's ratio 0.5, the wedge's opening
_DROP = 20  # angular frequencies around 0 that stripes fill


@dataclass(frozen=True, slots=True)
class Axis:
    """Where the axis is, and why one may believe it.

    Attributes
    ----------
    position
        Detector pixels from the middle of pixel 0.
    method
        "wedge" or "mirror": whose result `position` is.
    spread
        Half of the range of the results of the single rows, pixels; 0 for a single row.
    mirror
        The mirror's result, pixels.
    candidates, metric
        The wedge's coarse curve: energy in the wedge relative to its largest value, lowest at the axis.
    """

    position: float
    method: str
    spread: float
    mirror: float
    candidates: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    metric: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def find_axis(sinograms: Floats, theta_deg: NDArray[np.float64], *, width: float = 0.2) -> Axis:
    """The rotation axis of sinograms of the same scan.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Line integrals.
    theta_deg : ndarray, shape (angles,)
        Angles in degrees, about equally spaced, over at least about 180 degrees; of more, one half turn is used.
    width
        Half width of the search around the detector's middle, as a fraction of the columns.

    Raises
    ------
    KernelError
        Exit 65 when the angles cover less than 165 degrees.
    """
    columns = sinograms.shape[2]
    order = half_turn(theta_deg)
    covered = float(np.ptp(theta_deg[order])) * len(order) / (len(order) - 1)
    if covered < _LEAST_TURN_DEG:
        raise KernelError(
            f"The angles cover only {covered:.4g} of 180 degrees, too few to find the axis; give rotationAxis.",
            Exit.BAD_INPUT,
        )
    sinograms, theta_deg = np.ascontiguousarray(sinograms[:, order]), theta_deg[order]
    middle, reach = 0.5 * (columns - 1), width * columns
    mirror = _mirror(sinograms, theta_deg, middle - reach, middle + reach)
    if len(order) < max(_FEW_ANGLES, _FEW_PER_COLUMN * columns):
        return Axis(mirror, "mirror", 0.0, mirror)
    candidates, curves = _coarse(sinograms, reach)
    total = (curves / curves.max(1, keepdims=True)).mean(0)
    best = int(total.argmin())
    if best in (0, len(total) - 1):
        return Axis(mirror, "mirror", 0.0, mirror, candidates, total)
    step = candidates[1] - candidates[0]
    found, weights = zip(*(_fine(row, candidates[best], max(_FINE_REACH, step)) for row in sinograms), strict=True)
    position = _weighted_median(np.array(found), np.array(weights))
    inner = np.percentile(found, [25, 75])
    return Axis(position, "wedge", float(np.ptp(inner) / 2), mirror, candidates, total)


def half_turn(theta_deg: NDArray[np.float64]) -> NDArray[np.intp]:
    """The indices, by rising angle, of the projections of the first half turn, the one at 180 degrees left out."""
    order = np.argsort(theta_deg, kind="stable")
    rising = theta_deg[order]
    spacing = float(np.median(np.diff(rising)))
    return np.asarray(order[rising < rising[0] + 180.0 - 0.25 * abs(spacing)])


def _mask(angles: int, columns: int) -> Floats:
    """1 where a true sinogram over a full turn of `angles` has no energy; fftshifted (angles, columns)."""
    slope = (angles - 1.0) / (angles * 2.0 * math.pi) / (_OBJECT_RADIUS * columns) * columns
    row, column = math.ceil(angles / 2) - 1, math.ceil(columns / 2) - 1
    drop = min(_DROP, math.ceil(0.05 * angles))
    reach = np.ceil(np.abs(np.arange(angles) - row) * slope)
    mask = (np.abs(np.arange(columns) - column) <= reach[:, None]).astype(np.float32)
    mask[row - drop : row + drop + 1] = 0
    mask[:, column - 1 : column + 2] = 0
    return mask


def _half_weights(angles: int, columns: int) -> Floats:
    """The mask for the half spectrum of `rfft` over 2 `angles`: (angles + 1, columns), mirrored half added."""
    mask = np.fft.ifftshift(_mask(2 * angles, columns))
    mirrored = mask[(-np.arange(2 * angles)) % (2 * angles)][:, (-np.arange(columns)) % columns]
    weights = mask[: angles + 1].copy()
    weights[1:angles] += mirrored[1:angles]
    return np.asarray(weights, np.float32)


def _coarse(sinograms: Floats, reach: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wedge energy at integer mirror shifts: candidate axes (n,) and curves (rows, n)."""
    columns = sinograms.shape[2]
    binning = max(1, -(-columns // _COARSE_COLUMNS))
    kept = columns // binning * binning
    small = sinograms[:, :, :kept].reshape(*sinograms.shape[:2], -1, binning).mean(3, dtype=np.float32)
    small = scipy.ndimage.gaussian_filter(small, (0, 3, 1), mode="nearest")
    rows, angles, width = small.shape
    most = int(2 * reach / binning)
    centre = round((columns - kept) / binning)
    shifts = np.arange(max(-most, 3 - width) + centre, min(most, width - 3) + centre + 1)
    weights = _half_weights(angles, width)
    sign = ((-1.0) ** np.arange(angles + 1)).astype(np.float32)[:, None]
    curves = np.empty((rows, len(shifts)))
    for row in range(rows):
        plain = scipy.fft.rfft(small[row], 2 * angles, axis=0, workers=threads())
        mirrored = scipy.fft.rfft(np.ascontiguousarray(small[row, :, ::-1]), 2 * angles, axis=0) * sign
        filling = scipy.fft.rfft(np.ascontiguousarray(small[row, ::-1]), 2 * angles, axis=0) * sign
        for n, shift in enumerate(shifts):
            moved = np.roll(mirrored, shift, 1)
            if shift > 0:
                moved[:, :shift] = filling[:, :shift]
            elif shift < 0:
                moved[:, shift:] = filling[:, shift:]
            moved += plain
            curves[row, n] = _energy(scipy.fft.fft(moved, axis=1, workers=threads(), overwrite_x=True), weights)
    candidates = (0.5 * (width - 1 + shifts) + 0.5) * binning - 0.5
    return candidates, curves


def _fine(sinogram: Floats, near: float, reach: float) -> tuple[float, float]:
    """The axis within `reach` of `near` in one sinogram, and the depth of the minimum as its weight.

    The sinogram is cut symmetrically about the nearest half pixel and tapered, so that the shift that is left is
    small and wraps nothing around.
    """
    angles, columns = sinogram.shape
    doubled = round(2 * near)
    half = min(doubled, 2 * (columns - 1) - doubled)  # first and last column are (doubled -+ half) / 2
    cut = sinogram[:, (doubled - half) // 2 : (doubled + half) // 2 + 1]
    width = cut.shape[1]
    ramp = np.clip((0.5 + np.minimum(np.arange(width), np.arange(width)[::-1])) / max(1.0, 0.08 * width), 0, 1)
    cut = np.asarray(cut * np.sin(0.5 * np.pi * ramp) ** 2, np.float32)
    sign = ((-1.0) ** np.arange(angles + 1)).astype(np.float32)[:, None]
    plain = scipy.fft.fft(scipy.fft.rfft(cut, 2 * angles, axis=0), axis=1)
    flipped = scipy.fft.fft(scipy.fft.rfft(np.ascontiguousarray(cut[:, ::-1]), 2 * angles, axis=0) * sign, axis=1)
    weights = _half_weights(angles, width)
    frequency = scipy.fft.fftfreq(width)
    weights[:, np.abs(frequency) > 0.45] = 0
    offsets = np.arange(-reach, reach + 0.5 * _FINE_STEP, _FINE_STEP)
    metric = np.array(
        [
            _joined_energy(plain, flipped, np.exp(-4j * np.pi * frequency * offset).astype(np.complex64), weights)
            for offset in offsets
        ]
    )
    best = int(metric.argmin())
    depth = float(1 - metric[best] / metric.max()) if metric.max() > 0 else 0.0
    vertex = _vertex(metric, best)
    return 0.5 * doubled + offsets[0] + vertex * _FINE_STEP, depth


def _mirror(sinograms: Floats, theta_deg: NDArray[np.float64], first: float, last: float) -> float:
    """The axis that best mirrors the projection at the start onto the one half a turn later.

    The latter is extrapolated from the last two, since a half turn usually stops one step short of it.
    """
    columns = sinograms.shape[2]
    missing = (theta_deg[0] + 180.0 - theta_deg[-1]) / max(theta_deg[-1] - theta_deg[-2], 1e-9)
    ahead = sinograms[:, -1] + min(missing, 1.5) * (sinograms[:, -1] - sinograms[:, -2])
    start = scipy.ndimage.gaussian_filter1d(sinograms[:, 0], 2, axis=1, mode="nearest")
    ahead = scipy.ndimage.gaussian_filter1d(ahead, 2, axis=1, mode="nearest")
    sums = np.arange(max(columns // 4, math.ceil(2 * first)), min(2 * columns - columns // 4, math.floor(2 * last)) + 1)
    misfit = np.empty(len(sums))
    for n, total in enumerate(sums):
        low, high = max(0, total - columns + 1), min(columns - 1, total)
        a, b = ahead[:, low : high + 1], start[:, total - high : total - low + 1][:, ::-1]
        misfit[n] = np.mean((a - b) ** 2)
    best = int(misfit.argmin())
    return float(0.5 * (sums[0] + _vertex(misfit, best)))


def _vertex(curve: NDArray[np.float64], best: int) -> float:
    """The minimum of the parabola through a sampled curve's lowest point and its neighbours, as an index."""
    if 0 < best < len(curve) - 1:
        before, here, after = curve[best - 1 : best + 2]
        bend = before - 2 * here + after
        if bend > 0:
            return float(best + 0.5 * (before - after) / bend)
    return float(best)


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    total = np.cumsum(np.maximum(weights[order], 1e-12))
    return float(np.interp(0.5 * total[-1], total - 0.5 * weights[order], values[order]))


@compiled(parallel=True, fastmath=True)
def _energy(spectrum: Complexes, weights: Floats) -> float:
    total = 0.0
    for i in prange(spectrum.shape[0]):
        part = 0.0
        for j in range(spectrum.shape[1]):
            z = spectrum[i, j]
            part += weights[i, j] * math.sqrt(z.real * z.real + z.imag * z.imag)
        total += part
    return total


@compiled(parallel=True, fastmath=True)
def _joined_energy(plain: Complexes, flipped: Complexes, phase: Complexes, weights: Floats) -> float:
    total = 0.0
    for i in prange(plain.shape[0]):
        part = 0.0
        for j in range(plain.shape[1]):
            z = plain[i, j] + flipped[i, j] * phase[j]
            part += weights[i, j] * math.sqrt(z.real * z.real + z.imag * z.imag)
        total += part
    return total
