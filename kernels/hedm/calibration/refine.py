"""The steps from a first guess to the refined instrument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.hedm.calibration.parameters import check_parameters
from kernels.hedm.calibration.residuals import Measured, Problem
from kernels.hedm.calibration.system import PARTS
from kernels.hedm.forward import as_array
from kernels.hedm.geometry import Geometry
from kernels.hedm.rotations import by_vector

Vector = NDArray[np.float64]
Whole = NDArray[np.int64]

_ROUNDS = 40
_SETTLED = 1e-9


@dataclass(frozen=True, eq=False)
class Calibration:
    """What came out.

    Attributes
    ----------
    geometry : Geometry
    orientation, position_um, strain : ndarray
        Of the grains, those left out as they were.
    names : tuple of str
        The refined parameters of the instrument.
    values, sigmas : ndarray of float64, shape (m,)
        By how much they changed, and standard deviations, in the units of `instrument_parameters`.
    covariance : ndarray of float64, shape (m, m)
    grain_sigmas : ndarray of float64, shape (grains, 12)
        Standard deviations of rotation (radians), position (µm) and strain; NaN where they were held.
    rms_px, rms_omega : float
        Root mean square of residuals in pixels and radians, before: `rms_before_px`, `rms_before_omega`.
    spots : int
        How many were used.
    left_out : tuple of int
        Grains with too few spots.
    rounds : int
    settled : bool
        Whether the last round changed nothing more.
    """

    geometry: Geometry
    orientation: Vector
    position_um: Vector
    strain: Vector
    names: tuple[str, ...]
    values: Vector
    sigmas: Vector
    covariance: Vector
    grain_sigmas: Vector
    rms_px: float
    rms_omega: float
    rms_before_px: float
    rms_before_omega: float
    spots: int
    left_out: tuple[int, ...]
    rounds: int
    settled: bool


def calibrate(
    geometry: Geometry,
    measured: Measured,
    *,
    g0: Vector,
    orientation: Vector,
    position_um: Vector,
    strain: Vector,
    refine: Sequence[str],
    grains: Sequence[str] = ("rotation", "position", "strain"),
    strain_sigma: float | None = None,
    min_spots: int = 8,
) -> Calibration:
    """Refine an instrument from spots of grains.

    Parameters
    ----------
    geometry, measured, g0
        Where one begins, the spots, and the reciprocal vectors of the unstrained lattice, shape (reflections, 3), 1/Å.
    orientation, position_um, strain : ndarray
        The grains where one begins, as `forward.predict` takes them.
    refine : sequence of str
        Parameters of the instrument (`instrument_parameters`).
    grains : sequence of str
        Which of "rotation", "position" and "strain" of each grain are refined; the others are known.
    strain_sigma : float, optional
        How large strains are expected to be around zero, as a standard deviation. With it the wavelength can be refined
        beside the strain: what all grains have in common is then taken for the wavelength.
    min_spots : int
        Grains with fewer are left out.

    Returns
    -------
    Calibration

    Raises
    ------
    KernelError
        For unknown parameters, and where the spots do not determine what is to be refined, saying what to hold.
    """
    refine = tuple(refine)
    check_parameters(geometry, refine)
    free = _free(grains)
    if not refine:
        raise KernelError("Name at least one parameter of the instrument to be refined.")
    if strain_sigma is not None and not strain_sigma > 0:
        raise KernelError(f"The strain_sigma is {strain_sigma}: it must be above 0.")
    g0 = as_array("g0", g0, (-1, 3))
    turn = as_array("orientation", orientation, (-1, 3, 3))
    position = as_array("position_um", position_um, (len(turn), 3))
    eps = as_array("strain", strain, (len(turn), 6))
    _check_numbers(measured, len(turn), len(g0), len(geometry.panels))
    used, left_out = _usable(measured, len(turn), max(min_spots, -(-len(free) // 3)))
    if not used.size:
        raise KernelError(
            f"No grain has {min_spots} spots: there is nothing to refine the instrument from. Assign more of the spots."
        )
    problem = Problem(geometry, measured, used, g0, refine, free, strain_sigma)
    values, damping = np.zeros(len(refine)), 1e-6
    state = problem.at(values, turn, position, eps)
    before = state.rms
    rounds, settled = 0, False
    while rounds < _ROUNDS and not settled:
        rounds += 1
        try:
            system = problem.linearised(state)
        except KernelError as error:
            raise _astray(error.sentence) from error
        if rounds == 1:
            system.refuse_undetermined(refine, free)
        gained, refusal = 0.0, ""
        while damping < 1e8:
            step, each = system.step(damping)
            try:
                trial = problem.at(
                    state.values + step,
                    _turned(state.orientation, each[:, 0:3]),
                    state.position + each[:, 3:6],
                    state.strain + each[:, 6:12],
                )
            except KernelError as error:
                refusal = error.sentence
            else:
                if trial.cost <= state.cost:
                    gained = (state.cost - trial.cost) / max(state.cost, 1e-300)
                    state, damping = trial, max(damping * 0.1, 1e-12)
                    break
            damping *= 10.0
        if gained < _SETTLED and refusal:
            raise _astray(refusal)
        settled = gained < _SETTLED
    system = problem.linearised(state)
    system.refuse_undetermined(refine, free)
    covariance, grain_sigmas = system.covariance(problem.scatter(state))
    return Calibration(
        geometry=state.geometry,
        orientation=state.orientation,
        position_um=state.position,
        strain=state.strain,
        names=refine,
        values=state.values,
        sigmas=np.sqrt(np.diag(covariance)),
        covariance=covariance,
        grain_sigmas=grain_sigmas,
        rms_px=state.rms[0],
        rms_omega=state.rms[1],
        rms_before_px=before[0],
        rms_before_omega=before[1],
        spots=len(used),
        left_out=left_out,
        rounds=rounds,
        settled=settled,
    )


def _astray(sentence: str) -> KernelError:
    return KernelError(
        f"The spots lead to an instrument that cannot be. {sentence} Are spots assigned to the right panels?"
    )


def _free(parts: Sequence[str]) -> Whole:
    for part in parts:
        if part not in PARTS:
            raise KernelError(f"Grains have {', '.join(PARTS)} to be refined, not {part!r}.")
    wanted = [np.arange(12)[where] for part, where in PARTS.items() if part in parts]
    return np.concatenate(wanted) if wanted else np.empty(0, np.int64)


def _check_numbers(measured: Measured, grains: int, reflections: int, panels: int) -> None:
    for name, values, count in (
        ("grains", measured.grain, grains),
        ("reflections", measured.reflection, reflections),
        ("panels", measured.panel, panels),
    ):
        if values.size and not (values.min() >= 0 and values.max() < count):
            raise KernelError(
                f"Measured spots name {name} from {values.min()} to {values.max()}, and there are {count}, from 0 on."
            )


def _usable(measured: Measured, grains: int, least: int) -> tuple[Whole, tuple[int, ...]]:
    few = np.bincount(measured.grain, minlength=grains) < least
    return np.flatnonzero(~few[measured.grain]), tuple(int(n) for n in np.flatnonzero(few))


def _turned(orientation: Vector, by: Vector) -> Vector:
    return np.array([by_vector(vector) @ matrix for vector, matrix in zip(by, orientation, strict=True)])
