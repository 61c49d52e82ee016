"""What is wrong with whole frames: frames that were dropped, and the intensity of the beam that jumps or drifts.

A dropped frame has nothing to correct: its angle is left out of the reconstruction, which takes angles as they come.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Frames = NDArray[np.bool_]

_AROUND = 11  # frames, for what is usual there
_LEAST_FINITE = 0.5
_LEAST_KEPT = 0.5


def frame_levels(frames: Floats) -> Doubles:
    """Mean of the finite values of each frame, (frames, rows, columns) to (frames,); NaN where most are not finite."""
    levels = np.full(len(frames), np.nan)
    for k, frame in enumerate(frames):
        level = float(frame.mean(dtype=np.float64))
        if not np.isfinite(level):
            finite = frame[np.isfinite(frame)]
            level = float(finite.mean(dtype=np.float64)) if finite.size >= _LEAST_FINITE * frame.size else np.nan
        levels[k] = level
    return levels


def dropped_frames(levels: Doubles, *, least: float = 0.2) -> Frames:
    """Which frames are lost: empty, not finite, or far darker than those around.

    Parameters
    ----------
    levels : ndarray, shape (frames,), float64
        Mean counts of each frame without the dark field, as `frame_levels` gives them, of all rows or of some.
    least
        Frames below this share of the median of the frames around are lost.

    Returns
    -------
    ndarray, shape (frames,), bool
        What is True is to be left out, with its angle.

    Raises
    ------
    KernelError
        Exit 65 when more than half of the frames are lost.

    Notes
    -----
    Harm: a beam that is truly that much weaker for a few frames, such as behind a thick part of the sample, is lost.
    """
    finite = np.isfinite(levels)
    known = np.where(finite, levels, 0.0)
    usual = scipy.ndimage.median_filter(known, min(_AROUND, len(known) - 1 | 1), mode="nearest")
    # where a run of lost frames is longer than the window, the whole scan says what is usual
    overall = float(np.median(known[known > 0])) if (known > 0).any() else 0.0
    lost = ~finite | (known <= 0) | (known < least * np.maximum(usual, least * overall))
    if lost.mean() > 1 - _LEAST_KEPT:
        raise KernelError(
            f"{int(lost.sum())} of {len(lost)} projections are empty, not finite, or below {least:g} of those around: "
            "the scan has no usable beam.",
            Exit.BAD_INPUT,
        )
    return np.asarray(lost)


def intensity_from_air(frames: Floats, left: int, right: int) -> Doubles:
    """The beam in each frame, from columns at the sides that see only air.

    Parameters
    ----------
    frames : ndarray, shape (frames, rows, columns), float32
        Transmission.
    left, right
        Columns at each side; one of them may be 0.

    Returns
    -------
    ndarray, shape (frames,), float64
        Median over the columns and rows; 1 when nothing changes since the flats.

    Raises
    ------
    KernelError
        When there are no such columns, or no light in them (exit 65).

    Notes
    -----
    Harm: the noise of these columns goes into whole frames, and so does the sample when it comes into them.
    """
    columns = frames.shape[2]
    if left < 0 or right < 0 or not 0 < left + right < columns:
        raise KernelError(f"{left} columns of air at the left and {right} at the right are not a part of {columns}.")
    sides = np.concatenate((frames[:, :, :left], frames[:, :, columns - right :]), axis=2)
    level = np.median(sides.reshape(len(frames), -1), axis=1).astype(np.float64)
    return _with_light(level)


def intensity_from_mass(line_integrals: Floats) -> Doubles:
    """The beam in each frame, from that all angles see the same mass.

    The sum of all line integrals of a frame is the sum of the whole object, whatever the angle (the zeroth condition
    of Helgason and Ludwig); a frame whose mean is off by c had a beam of exp(-c).

    Parameters
    ----------
    line_integrals : ndarray, shape (frames, rows, columns), float32
        Of an object that is inside the view at all angles.

    Returns
    -------
    ndarray, shape (frames,), float64
        Relative to the median frame.

    Notes
    -----
    Harm: for an object wider than the view what truly comes and goes is taken for the beam; use `intensity_steps`.
    """
    mean = line_integrals.mean((1, 2), dtype=np.float64)
    return np.asarray(np.exp(np.median(mean) - mean))


def intensity_steps(levels: Doubles, *, threshold: float = 6.0) -> Doubles:
    """The beam in each frame, from jumps between frames: fillings of the ring, lost bunches, a shutter.

    Parameters
    ----------
    levels : ndarray, shape (frames,), float64
        Mean transmission of each frame, as `frame_levels` gives it.
    threshold
        What a change between two frames has to stand out by, in units of the robust spread of such changes.

    Returns
    -------
    ndarray, shape (frames,), float64
        Relative to the first frame; all 1 when there are no jumps. What drifts slowly stays, as it cannot be told from
        the object.

    Raises
    ------
    KernelError
        When a level is not above 0; dropped frames are to be left out before (exit 65).

    Notes
    -----
    Harm: none unless something is found; a sample that moves by a jerk looks like a jump.
    """
    logarithm = np.log(_with_light(levels))
    change = np.diff(logarithm)
    if len(change) < 3:
        return np.ones_like(levels)
    excess = change - scipy.ndimage.median_filter(change, min(_AROUND, len(change) - 1 | 1), mode="nearest")
    spread = 1.4826 * np.median(np.abs(excess))
    jumps = np.where(np.abs(excess) > threshold * spread + 1e-3, excess, 0.0)
    return np.asarray(np.exp(np.concatenate(([0.0], np.cumsum(jumps)))))


def steady(frames: Floats, intensity: Doubles) -> Floats:
    """Transmission (frames, rows, columns) as if the beam had been the same in all frames."""
    return np.asarray(frames / intensity.astype(np.float32)[:, None, None])


def _with_light(levels: Doubles) -> Doubles:
    if not (np.isfinite(levels) & (levels > 0)).all():
        dark = int((~(np.isfinite(levels) & (levels > 0))).sum())
        raise KernelError(
            f"{dark} of {len(levels)} projections have no light to tell the beam by; leave dropped frames out first, "
            "or choose other columns of air.",
            Exit.BAD_INPUT,
        )
    return levels
