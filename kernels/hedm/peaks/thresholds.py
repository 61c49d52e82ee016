"""Above what a pixel is looked at: a number of counts, the noise of the dark, rings, all together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.hedm.frames import Dark, Frames, Limits


def limits(
    frames: Frames,
    dark: Dark,
    *,
    threshold: float | None = None,
    sigmas: float | None = None,
    rings: NDArray[np.integer] | None = None,
    of_ring: Mapping[int, float] | None = None,
    saturation: float | None = None,
) -> Limits:
    """What is subtracted from each pixel, and above what it is looked at: the greatest of the thresholds given.

    Parameters
    ----------
    frames : Frames
    dark : Dark
    threshold : float, optional
        Counts above the dark.
    sigmas : float, optional
        Standard deviations of the dark.
    rings : ndarray of int, optional
        Of each pixel of the picture the number of the ring on which it lies; pixels with -1 are left out.
    of_ring : mapping, optional
        Counts above the dark, by ring; rings that are not in it are left out. Not given: every ring is looked at.
    saturation : float, optional
        Counts from which on a pixel is saturated; not given: the largest whole number of the frames' kind.

    Raises
    ------
    KernelError
        Exit 2 when no threshold is given, or one is not above 0, or the noise is not known; 65 when the ring map is
        of another shape or leaves no pixel.
    """
    shape = (frames.rows, frames.columns)
    if dark.level.shape != shape:
        sentence = (
            f"The dark is of {dark.level.shape} pixels, the frames {frames.name!r} of {shape} as they are stored."
        )
        raise KernelError(sentence, Exit.BAD_INPUT)
    for name, value in (
        ("threshold", threshold),
        ("sigmas", sigmas),
        *((f"ring {n}", v) for n, v in (of_ring or {}).items()),
    ):
        if value is not None and not 0 < value < np.inf:
            raise KernelError(f"The threshold must be above 0, not {value:g} ({name}).")
    if threshold is None and sigmas is None and of_ring is None:
        raise KernelError("A threshold is needed: in counts, in standard deviations of the dark, or by ring.")
    if of_ring is not None and rings is None:
        raise KernelError("Thresholds by ring need a map of the rings.")
    least = np.full(shape, threshold or 0, np.float32)
    if sigmas is not None:
        if dark.noise is None:
            raise KernelError("The noise of the dark is not known: take the dark from 3 frames at least.")
        least = np.maximum(least, np.float32(sigmas) * dark.noise)
    if rings is not None:
        if rings.shape != frames.shape:
            sentence = (
                f"The map of the rings is of {rings.shape} pixels, the pictures of {frames.name!r} of {frames.shape}."
            )
            raise KernelError(sentence, Exit.BAD_INPUT)
        least = np.maximum(least, frames.turn.stored(_of_rings(rings, of_ring)))
    level = dark.level
    least = np.where(frames.used & np.isfinite(level) & np.isfinite(least), least, np.float32(np.inf))
    if not np.isfinite(least).any():
        raise KernelError(f"Mask, dark and rings leave no pixel of the frames {frames.name!r}.", Exit.BAD_INPUT)
    if saturation is None:
        saturation = float(np.iinfo(frames.kind).max) if frames.kind.kind in "iu" else np.inf
    return Limits(
        np.ascontiguousarray(np.where(np.isfinite(level), level, 0), np.float32),
        np.ascontiguousarray(least, np.float32),
        saturation,
        dark.noise,
    )


def _of_rings(rings: NDArray[np.integer], of_ring: Mapping[int, float] | None) -> NDArray[np.float32]:
    if of_ring is None:
        return np.where(rings >= 0, 0, np.inf).astype(np.float32)
    table = np.full(max(int(rings.max(initial=0)), *of_ring, 0) + 2, np.inf, np.float32)
    for ring, counts in of_ring.items():
        if ring >= 0:
            table[ring] = counts
    return np.asarray(table[np.where(rings < 0, len(table) - 1, rings)])
