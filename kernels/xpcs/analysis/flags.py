"""What in a series is not to be trusted: frames unlike their neighbours, and a sample that the beam changes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.ndimage import median_filter

from kernels.xpcs.analysis.scattering import Scattering

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MAD = 1.4826  # standard deviation of a normal distribution, of its median absolute deviation


class BadFrames(NamedTuple):
    """Numbers of frames that hold nothing, far less, or far more than those around them."""

    empty: Ints
    dark: Ints
    bright: Ints

    @property
    def total(self) -> int:
        return len(self.empty) + len(self.dark) + len(self.bright)

    def sentences(self) -> list[str]:
        """What is to be said of them; nothing when there are none."""
        said = {
            "Frames without any counts (lost, or the beam was off)": self.empty,
            "Frames far darker than their neighbours": self.dark,
            "Frames far brighter than their neighbours": self.bright,
        }
        return [f"{what}: {_some(frames)}." for what, frames in said.items() if len(frames)]


class Damage(NamedTuple):
    """A change of the scattering's shape from the beginning of a series to its end.

    Attributes
    ----------
    change : ndarray, shape (static bins,)
        Relative change of each static bin's share of all counts, over the whole series; from a straight line through
        its segments. NaN where a bin has no counts.
    significant : ndarray, shape (static bins,), bool
        Where it is larger than asked for, and larger than chance would make any of the bins' once in so many series.
    trend : float
        Relative change of all counts: of the beam, or of how much sample is in it.
    """

    change: Floats
    significant: NDArray[np.bool_]
    trend: float

    @property
    def found(self) -> bool:
        return bool(self.significant.any())

    def sentences(self) -> list[str]:
        """What is to be said of it; nothing when there is none."""
        if not self.found:
            return []
        most = int(np.nanargmax(np.where(self.significant, np.abs(self.change), np.nan)))
        return [
            f"The scattering changes its shape while it is measured, in {int(self.significant.sum())} of "
            f"{len(self.change)} static bins, most in bin {most + 1} by {100 * self.change[most]:+.1f} %: the beam may "
            "be changing the sample."
        ]


def bad_frames(intensity: Floats, pixels: int, *, window: int = 101, deviations: float = 8.0) -> BadFrames:
    """Frames unlike those around them.

    Parameters
    ----------
    intensity : ndarray, shape (frames,)
        Mean counts per pixel.
    pixels
        Over so many.
    window
        A frame is compared with the median of so many frames around it (an odd number; fewer in shorter series).
    deviations
        It is bad where it is farther from it than so many standard deviations: those of counting, or of the series
        about its running median where those are larger.

    Notes
    -----
    A frame without any counts is `empty` where its neighbours have at least 10 on average, and never otherwise.
    """
    count = len(intensity)
    wide = min(window, count) | 1
    usual = median_filter(intensity, wide, mode="nearest")
    apart = intensity - usual
    scatter = _MAD * float(np.median(np.abs(apart)))
    allowed = deviations * np.maximum(np.sqrt(np.maximum(usual * pixels, 1.0)) / pixels, scatter)
    empty = (intensity == 0) & (usual * pixels >= 10)
    return BadFrames(
        np.flatnonzero(empty), np.flatnonzero((apart < -allowed) & ~empty), np.flatnonzero(apart > allowed)
    )


def beam_damage(scattering: Scattering, *, change: float = 0.05, chance: float = 1e-3) -> Damage:
    """Whether the scattering changes its shape steadily, as that of a sample does which the beam damages.

    Parameters
    ----------
    change
        A relative change of a static bin over the series below this is not significant.
    chance
        Nor one that chance alone would show in some bin of a series this often; the scatter of its segments about
        the straight line is the measure (Student's t, for as many bins as there are).

    Notes
    -----
    Each bin is compared with all counts of its segment, so that a beam that fades is no damage; it is `trend`.
    """
    counts = scattering.counts.astype(float)
    segments, bins = counts.shape
    whole = counts.sum(1)
    change_of, significant = np.full(bins, np.nan), np.zeros(bins, bool)
    if segments < 4 or not whole.all():
        return Damage(change_of, significant, float("nan"))
    time = np.linspace(-0.5, 0.5, segments)
    used = counts.sum(0) > 0
    share = counts[:, used] / whole[:, None]
    share /= share.mean(0)
    change_of[used] = time @ share / (time @ time)
    left = share - 1 - time[:, None] * change_of[used]
    error = np.sqrt((left**2).sum(0) / (segments - 2) / (time @ time))
    # Counting alone gives at least this much; a lucky straight line is no proof.
    error = np.maximum(error, np.sqrt(segments / counts[:, used].sum(0) / (time @ time)))
    odds = 2 * stats.t.sf(np.abs(change_of[used]) / error, segments - 2)
    significant[used] = (np.abs(change_of[used]) > change) & (odds * used.sum() < chance)
    trend = float(time @ (whole / whole.mean()) / (time @ time))
    return Damage(change_of, significant, trend)


def _some(frames: Ints) -> str:
    shown = ", ".join(str(n) for n in frames[:8])
    return f"{len(frames)} ({shown}, …)" if len(frames) > 8 else f"{len(frames)} ({shown})"
