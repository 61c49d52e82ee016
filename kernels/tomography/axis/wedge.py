"""The axis from the energy in the wedge (Vo et al., Opt. Express 22 (2014) 19078).

The sinogram of a half turn and its mirror image, joined to a full turn, fill with energy the double wedge of its
Fourier transform that a true sinogram leaves empty, unless mirrored about the axis. Searched over binned columns on
integer shifts first, then to a twentieth of a pixel in each row by itself.

The transform over angles is linear and does not know of the shift, so it is taken once, not per shift. The fine
search shifts by a phase, because interpolation would damp high frequencies between the pixels and so move the minimum.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
import scipy.ndimage
from numba import prange
from numpy.typing import NDArray

from kernels.compiled import compiled, threads
from kernels.tomography.axis.estimate import (
    Doubles,
    Estimate,
    Floats,
    binned,
    inner_half,
    uniqueness,
    vertex,
    weighted_median,
)

Complexes = NDArray[np.complex64]

_FEW_ANGLES, _FEW_PER_COLUMN = 24, 0.15  # below either, the wedge is too coarsely sampled to be trusted
_COARSE_COLUMNS, _COARSE_ANGLES_PER_COLUMN = 256, 1.2
_FLOOR, _FLOOR_OF_WIDE = 0.1, 0.2  # pixels: what rows have in common, such as stripes; what leaves the view
_TAPER = 0.05  # of the width
_FINE_REACH, _FINE_STEPS, _FINE_ANGLES_PER_COLUMN = 2.0, (1.0, 0.5, 0.25, 0.125), 0.35
_OBJECT_RADIUS = 0.25  # of the width: Vo's ratio 0.5, the wedge's opening
_DROP = 20  # angular frequencies around 0 that stripes fill


def least_wedge(sinograms: Floats, reach: float, *, inside: bool) -> tuple[Estimate, float] | None:
    """The axis with the least energy in the wedge, and the spread of the single rows' results.

    Parameters
    ----------
    sinograms : ndarray, shape (rows, angles, columns), float32
        Line integrals over a half turn, equally spaced, by rising angle.
    reach
        Half width of the search around the detector's middle, pixels.
    inside
        Whether the object is within the view.

    Returns
    -------
    (Estimate, float) or None
        None for too few angles, or where the least energy is at the end of the search.
    """
    angles, columns = sinograms.shape[1:]
    if angles < max(_FEW_ANGLES, _FEW_PER_COLUMN * columns):
        return None
    candidates, curves = _coarse(sinograms, reach)
    total = (curves / curves.max(1, keepdims=True)).mean(0)
    best = int(total.argmin())
    if best in (0, len(total) - 1):
        return None
    step = float(candidates[1] - candidates[0])
    fine = [_fine(row, candidates[best], max(_FINE_REACH, step)) for row in sinograms]
    found, depths = (np.array(values) for values in zip(*fine, strict=True))
    position, spread = weighted_median(found, depths), inner_half(found)
    alone = uniqueness(total, best, max(3, len(total) // 30))
    own = candidates[curves.argmin(1)]
    agreeing = float(depths[np.abs(own - position) <= 2 * step].sum() / max(depths.sum(), 1e-12))
    uncertainty = math.hypot(_FLOOR if inside else _FLOOR_OF_WIDE, spread / math.sqrt(len(found)))
    quality = float(np.clip(1.5 * alone, 0, 1)) * agreeing
    fall = 1 - float(total[best] / np.median(total))
    reason = f"the energy in the wedge falls by {100 * fall:.0f} % in one dip, in {100 * agreeing:.0f} % of the rows"
    return Estimate("wedge", position, uncertainty, quality, reason, candidates, total), spread


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


def _coarse(sinograms: Floats, reach: float) -> tuple[Doubles, Doubles]:
    """Wedge energy at integer mirror shifts: candidate axes (n,) and curves (rows, n)."""
    columns = sinograms.shape[2]
    binning = max(1, -(-columns // _COARSE_COLUMNS))
    kept = columns // binning * binning
    small = binned(sinograms, binning, 2)
    # fewer angles too, as many as that width asks for: what they smear is less than a binned column
    small = binned(small, int(small.shape[1] / (_COARSE_ANGLES_PER_COLUMN * small.shape[2])), 1)
    small = scipy.ndimage.gaussian_filter(small, (0, 3, 1), mode="nearest")
    rows, angles, width = small.shape
    most = int(2 * reach / binning)
    centre = round((columns - kept) / binning)
    shifts = np.arange(max(-most, 3 - width) + centre, min(most, width - 3) + centre + 1)
    weights = _half_weights(angles, width)
    sign = ((-1.0) ** np.arange(angles + 1)).astype(np.float32)[:, None]
    curves = np.empty((rows, len(shifts)))
    moved = np.empty(
        (angles + 1, width), np.complex64
    )  # once: fresh memory for each shift would cost more than its FFT
    for row in range(rows):
        plain = scipy.fft.rfft(small[row], 2 * angles, axis=0, workers=threads())
        mirrored = scipy.fft.rfft(np.ascontiguousarray(small[row, :, ::-1]), 2 * angles, axis=0) * sign
        filling = scipy.fft.rfft(np.ascontiguousarray(small[row, ::-1]), 2 * angles, axis=0) * sign
        for n, shift in enumerate(shifts):
            moved[:, max(shift, 0) : width + min(shift, 0)] = mirrored[:, max(-shift, 0) : width - max(shift, 0)]
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

    The sinogram is cut symmetrically about the nearest half pixel, so that the shift that is left is small. The taper
    that keeps it from wrapping around goes along with the axis that is tried; one that stayed would draw the minimum
    to its own middle, wherever something leaves the view.
    """
    sinogram = binned(sinogram, int(sinogram.shape[0] / (_FINE_ANGLES_PER_COLUMN * sinogram.shape[1])), 0)
    angles, columns = sinogram.shape
    doubled = round(2 * near)
    half = min(doubled, 2 * (columns - 1) - doubled)  # first and last column are (doubled -+ half) / 2
    while scipy.fft.next_fast_len(half + 1) != half + 1:  # a prime width would take ten times as long
        half -= 2
    cut = sinogram[:, (doubled - half) // 2 : (doubled + half) // 2 + 1]
    width = cut.shape[1]
    angular = scipy.fft.rfft(cut, 2 * angles, axis=0, workers=threads())
    sign = ((-1.0) ** np.arange(angles + 1)).astype(np.float32)
    weights = _half_weights(angles, width)
    frequency = scipy.fft.fftfreq(width)
    weights[:, np.abs(frequency) > 0.45] = 0
    from_middle = np.arange(width) - 0.5 * (width - 1)

    def energy(offset: float) -> float:
        to_end = 0.5 * width - reach - np.abs(from_middle - offset)
        taper = np.sin(0.5 * np.pi * np.clip(to_end / max(1.0, _TAPER * width), 0, 1)) ** 2
        spectrum = scipy.fft.fft(angular * taper.astype(np.float32), axis=1, workers=threads(), overwrite_x=True)
        phase = np.exp(-2j * np.pi * frequency * (width - 1 + 2 * offset)).astype(np.complex64)
        return float(_joined_energy(spectrum, sign, phase, weights))

    steps = math.ceil(reach / _FINE_STEPS[0])
    offsets = _FINE_STEPS[0] * np.arange(-steps, steps + 1)
    metric = np.array([energy(offset) for offset in offsets])
    worst = float(metric.max())
    best, lowest = float(offsets[metric.argmin()]), float(metric.min())
    for step in _FINE_STEPS[1:]:
        around = np.array([energy(best - step), lowest, energy(best + step)])
        best, lowest = best + step * float(around.argmin() - 1), float(around.min())
    around = np.array([energy(best - step), lowest, energy(best + step)])
    depth = 1 - lowest / worst if worst > 0 else 0.0
    return 0.5 * doubled + best + (vertex(around, 1) - 1) * step, depth


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
def _joined_energy(spectrum: Complexes, sign: Floats, phase: Complexes, weights: Floats) -> float:
    """Energy of a spectrum and that of the mirrored sinogram, which is the same one from behind."""
    total = 0.0
    width = spectrum.shape[1]
    for i in prange(spectrum.shape[0]):
        part = 0.0
        for j in range(width):
            weight = weights[i, j]
            if weight != 0:
                z = spectrum[i, j] + sign[i] * spectrum[i, (width - j) % width] * phase[j]
                part += weight * math.sqrt(z.real * z.real + z.imag * z.imag)
        total += part
    return total
