"""The rotation of each frame: from the file or from start and step, checked."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.errors import Exit, KernelError
from kernels.hedm.frames.source import Doubles

TURN_DEG = 360.0
_SAME = 0.025  # of a step, by which omegas that repeat may differ
_APART = 0.5  # of a step, by which readings of an encoder may scatter and frames be neighbours still
_LARGEST_STEP_DEG = 30.0


class Sweep(NamedTuple):
    """Omegas as a caller gives them, in degrees: frame n from `start_deg + n * step_deg`, `step_deg` long."""

    start_deg: float
    step_deg: float


class Omegas(NamedTuple):
    """The rotation of frames.

    Attributes
    ----------
    edges_deg : ndarray, shape (frames, 2)
        Where each frame begins and ends.
    breaks : tuple of int
        Frames that are no neighbours of the one before, since there is a gap between them.
    full_turn : bool
        Whether the last frame ends where the first begins, one turn on, without a gap.
    doubts : tuple of str
        What is strange but used, a sentence each.
    """

    edges_deg: Doubles
    breaks: tuple[int, ...]
    full_turn: bool
    doubts: tuple[str, ...]

    @property
    def step_deg(self) -> float:
        """How far most frames turn."""
        return float(np.median(np.abs(np.diff(self.edges_deg, axis=1))))


def swept(sweep: Sweep, count: int) -> Doubles:
    """Edges of `count` frames, shape (count, 2), degrees.

    Raises
    ------
    KernelError
        Exit 2 when they are not finite or the step is 0.
    """
    start, step = sweep
    if not (np.isfinite(start) and np.isfinite(step)) or step == 0 or abs(step) > _LARGEST_STEP_DEG:
        raise KernelError(f"Omegas need a start and a step in degrees, not 0 nor more than 30, not {start}, {step}.")
    edges = start + step * np.arange(count + 1)
    return np.stack([edges[:-1], edges[1:]], axis=1)


def checked(values_deg: Doubles | None, *, count: int, name: str) -> Doubles:
    """Edges (count, 2) in degrees of what a file holds: (count, 2), (count,) where frames begin, or (count + 1,) edges.

    Raises
    ------
    KernelError
        Exit 65 when there are none, or of another number, or some are not finite.
    """
    hint = "Give them by start and step."
    if values_deg is None:
        raise _bad(name, f"it does not say at which omegas its frames were taken. {hint}")
    values = np.asarray(values_deg, np.float64)
    if not np.isfinite(values).all():
        lost = int(np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0])
        raise _bad(
            name, f"{int((~np.isfinite(values)).sum())} omegas are not finite, the first of frame {lost}. {hint}"
        )
    if values.shape == (count, 2):
        return values
    if values.shape == (count + 1,):
        return np.stack([values[:-1], values[1:]], axis=1)
    if values.shape == (count,):
        if count < 2:
            raise _bad(name, f"one omega does not say how far a frame goes. {hint}")
        return np.stack([values, values + np.median(np.diff(values))], axis=1)
    raise _bad(name, f"it has omegas of shape {values.shape} for {count} frames. {hint}")


def ordered(edges_deg: Doubles, *, name: str) -> Omegas:
    """What the omegas of frames are like, in the order of the frames.

    Gaps and overlaps of more than half a step break the series, so that no spot goes over them.

    Raises
    ------
    KernelError
        Exit 65 when omegas repeat or turn back, or frames have no width.
    """
    hint = "Choose the frames before or after, or give omegas by start and step."
    widths = np.diff(edges_deg, axis=1)[:, 0]
    step = float(np.median(widths))
    if step == 0 or (np.sign(widths) != np.sign(step)).any():
        odd = int(np.flatnonzero(np.sign(widths) != np.sign(step or 1))[0])
        first, last = edges_deg[odd]
        raise _bad(name, f"frame {odd} goes from omega {first:.6g} to {last:.6g}, others by {step:.4g}. {hint}")
    apart = np.diff(edges_deg[:, 0]) / step
    if (same := np.abs(apart) < _SAME).any():
        at = int(np.flatnonzero(same)[0])
        raise _bad(
            name,
            f"{int(same.sum())} frames repeat the omega of the frame before, first frame {at + 1} at "
            f"{edges_deg[at + 1, 0]:.6g} degrees. {hint}",
        )
    if (back := apart < 0).any():
        at = int(np.flatnonzero(back)[0])
        raise _bad(
            name,
            f"omega goes back from {edges_deg[at, 0]:.6g} to {edges_deg[at + 1, 0]:.6g} degrees at frame {at + 1}. "
            f"{hint}",
        )
    gaps = (edges_deg[1:, 0] - edges_deg[:-1, 1]) / step
    breaks = np.flatnonzero(np.abs(gaps) > _APART) + 1
    doubts = []
    if len(breaks):
        at = int(breaks[0])
        doubts.append(
            f"Omega jumps {len(breaks)} times, first from {edges_deg[at - 1, 1]:.6g} to {edges_deg[at, 0]:.6g} degrees "
            f"at frame {at}: spots end there."
        )
    covered = abs(edges_deg[-1, 1] - edges_deg[0, 0])
    full = not len(breaks) and abs(covered - TURN_DEG) < _APART * abs(step)
    if not full and covered > TURN_DEG:
        doubts.append(f"Frames go over {covered:.6g} degrees, more than a turn: spots beyond it are found twice.")
    return Omegas(edges_deg, tuple(int(n) for n in breaks), full, tuple(doubts))


def _bad(name: str, what: str) -> KernelError:
    return KernelError(f"The omegas of {name!r} are not usable: {what}", Exit.BAD_INPUT)
