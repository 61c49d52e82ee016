"""What is asked of a package, what it answers, and what is done the same for each of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.hedm.farfield.expected import look
from kernels.hedm.farfield.find import Found, Scene
from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.farfield.refinement import Refined, refine
from kernels.hedm.farfield.spots import Spots
from kernels.hedm.geometry import Geometry
from kernels.hedm.reflections import Reflections
from kernels.hedm.rotations import about_x, about_y

Floats = NDArray[np.float64]

_GATE = 5.0  # standard deviations of a spot, as in our own refinement
_ROUNDS = 3
_SETTLED = 1.25


class Task(NamedTuple):
    """One search: what is given to `find_grains` of ours.

    Attributes
    ----------
    reflections
        Those that count, of the unstrained crystal.
    folder
        Where a package may write; removed afterwards.
    tell
        Called with a phase and how many grains there are.
    """

    spots: Spots
    geometry: Geometry
    reflections: Reflections
    limits: Limits
    folder: Path
    tell: Callable[[str, int], None]

    @property
    def lattice(self) -> Lattice:
        crystal = self.reflections.crystal
        return Lattice(crystal.b0, self.reflections.hkl, self.reflections.ring, crystal.rotations)

    @property
    def seen(self) -> float:
        """The share of all etas that panels see and that are used, the mean over reflections."""
        seen = look(self.geometry.flat, self.lattice, limits=self.limits).seen
        return float((seen > 0).mean(axis=1)[np.asarray(self.reflections.ring)].mean())


class Answer(NamedTuple):
    """Grains (n) of a package, in our frames.

    Attributes
    ----------
    orientation : (n, 3, 3)
    position_um : (n, 3)
    strain : (n, 6)
    says
        By what of the package these were found, for the record.
    """

    orientation: Floats
    position_um: Floats
    strain: Floats
    says: str


class Straight(NamedTuple):
    """Spots in a frame in which the beam goes along x.

    Attributes
    ----------
    point_um : (n, 3) where they lie
    omega : (n,) radians; a sample turns by it about z, then leans
    wedge, chi
        Radians; v = Ry(-wedge) Rx(chi) Rz(omega) v_sample.
    """

    point_um: Floats
    omega: Floats
    wedge: float
    chi: float


def straight(task: Task) -> Straight:
    """The spots as programs want them that know the beam along x only.

    Any instrument can be turned so: its axis then leans otherwise, and omega begins elsewhere.
    """
    to_lab = task.geometry.axis_to_lab
    turn = _turn_to_x(task.geometry.beam) @ to_lab
    chi = math.asin(float(np.clip(-turn[1, 2], -1.0, 1.0)))
    wedge = math.atan2(-turn[0, 2], turn[2, 2])
    about_z = (about_y(-wedge) @ about_x(chi)).T @ turn
    omega = task.spots.omega + math.atan2(about_z[1, 0], about_z[0, 0])
    return Straight(np.ascontiguousarray(task.spots.point_um @ turn.T), omega, wedge, chi)


def judged(task: Task, answer: Answer) -> Found:
    """A package's grains with the columns of ours, by our own prediction: which spots they should have, have, and have
    alone, and how far these lie from where they should.

    Orientations, positions and strains stay as they were. The gate is as wide as the noise that was given, or wider
    where spots lie farther from their predictions, since a package may fit less closely than it could. Grains of too
    few of their spots, and those of which better grains have most spots, are left out as they are from ours. The
    covariance is not finite.
    """
    scene = Scene(task.spots, task.geometry.flat, task.lattice, task.limits)
    if not len(answer.orientation):
        return scene.finish(scene.nothing(), 0)
    for _ in range(_ROUNDS):
        seen = _look(scene, answer)
        good = seen.completeness >= task.limits.min_completeness
        if not good.any():
            break
        now = scene.limits
        place, omega = float(np.median(seen.spot_um[good])), float(np.median(seen.omega[good]))
        if place < _SETTLED * now.spot_um and omega < _SETTLED * now.omega:
            break
        scene.limits = replace(now, spot_um=max(place, now.spot_um), omega=max(omega, now.omega))
    return scene.finish(seen.take(good), len(answer.orientation))


def refused(title: str, error: Exception) -> KernelError:
    """What a package has failed with, as one sentence."""
    words = " ".join(f"{error}".split()) or type(error).__name__
    return KernelError(f"{title} failed: {words[:300]}. Check the limits, or leave backend out.", Exit.BAD_INPUT)


def _look(scene: Scene, answer: Answer) -> Refined:
    limits = scene.limits
    seen = refine(
        scene.cells,
        scene.flat,
        scene.lattice.g0,
        scene.shell_of,
        orientation=answer.orientation,
        position_um=answer.position_um,
        strain=answer.strain,
        limits=limits,
        steps=np.array([[limits.spot_um, limits.omega, _GATE, 12.0]]),
    )
    return replace(seen, covariance=np.full_like(seen.covariance, np.nan))


def _turn_to_x(beam: Floats) -> Floats:
    """The smallest rotation that brings a direction, not against x, to x."""
    x, y, z = beam.tolist()
    scale = 1.0 / (1.0 + x)
    return np.array([[x, y, z], [-y, 1 - scale * y * y, -scale * y * z], [-z, -scale * y * z, 1 - scale * z * z]])
