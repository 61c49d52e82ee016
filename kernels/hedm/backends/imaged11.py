"""ImageD11 (Wright, github.com/FABLE-3DXRD/ImageD11) behind our conventions.

Reciprocal vectors are those of rays from the origin. Its `indexer` pairs spots of two rings whose angle is one of the
lattice: first each spot with its best partner, over pairs of the rings of the fewest reflections, then with every
partner. Its `refinegrains` then fits each grain's position by a simplex and its lattice by least squares to the spots
it has, with omega free within three standard deviations. It has rings and absences from us, and spots as points in the
lab, so that it works for several panels and for any distortion, which its own files do not know.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.hedm.backends.packages import load
from kernels.hedm.backends.task import Answer, Straight, Task, refused, straight
from kernels.hedm.strains import from_ubi

Floats = NDArray[np.float64]

_TITLE = "ImageD11"
_SCAN = "spots"
_RINGS = 3  # of the fewest reflections, of which pairs are made
_ROUNDS = 3  # of assigning spots and fitting positions
_STEPS = 100  # of the simplex
_WIDEST = 0.25  # hkl; beyond that any vector is near whole numbers
_UNIQUE = 0.5  # least share of spots that no grain before has
_SLOP = 3.0  # standard deviations of omega


def imaged11(task: Task) -> Answer:
    """Grains as ImageD11 finds and refines them, positions and strains among them.

    Raises
    ------
    KernelError
        Exit 2 when it is not there; 65 when it fails, with its words.
    """
    spots = straight(task)
    with _quiet():
        indexing, unitcell, refinegrains = (_module(name) for name in ("indexing", "unitcell", "refinegrains"))
        indexing.loglevel = 3
        try:
            found = _index(task, indexing, unitcell)
            refined = _refine(task, spots, found, refinegrains)
        except KernelError:
            raise
        except Exception as error:  # of foreign code: whatever it is, it is told in a sentence
            raise refused(_TITLE, error) from error
    ubi = np.array([grain.ubi for grain in refined], np.float64).reshape(-1, 3, 3)
    # A left-handed lattice is the mirror image that diffraction cannot tell apart.
    orientation, strain = from_ubi(task.reflections.crystal, ubi * np.sign(np.linalg.det(ubi))[:, None, None])
    position = np.array([grain.translation for grain in refined], np.float64).reshape(-1, 3)
    says = "orientation by indexing, position and strain by refinegrains; completeness and residuals are ours"
    return Answer(orientation, position, strain, says)


def _module(name: str) -> Any:
    return load("imaged11", f"ImageD11.{name}")


def tolerances(task: Task) -> tuple[float, float]:
    """How far a reciprocal vector may lie from where it should since its grain is off the origin, strained and measured
    with noise: in 1/Å, and in indices."""
    limits, reflections = task.limits, task.reflections
    nearest = min(float(np.linalg.norm(panel.centre_um)) for panel in task.geometry.panels)
    angle = (limits.extent_um + 3 * limits.spot_um) / nearest
    longest = float(reflections.length.max())
    away = angle / reflections.wavelength_A + (limits.strain + 3 * limits.omega) * longest
    return away, min(away * max(reflections.crystal.lattice[:3]), _WIDEST)


def _index(task: Task, indexing: Any, unitcell: Any) -> list[Floats]:
    reflections, limits = task.reflections, task.limits
    cell = unitcell.unitcell(list(reflections.crystal.lattice), "P")
    order = np.argsort(reflections.length, kind="stable")
    peaks = [[float(reflections.length[n]), tuple(int(i) for i in reflections.hkl[n])] for n in order]
    cell.gethkls = lambda _limit: peaks  # ours, with our absences
    away, indices = tolerances(task)
    shortest = float(reflections.length.min())
    expected = 2 * len(reflections) * limits.turn_covered * task.seen
    indexer = indexing.indexer(
        unitcell=cell,
        gv=_vectors(task),
        wavelength=reflections.wavelength_A,
        cosine_tol=away / shortest,
        minpks=max(int(limits.min_completeness * expected), 8),
        hkl_tol=indices,
        ds_tol=away,
        uniqueness=_UNIQUE,
        max_grains=len(task.spots),
    )
    indexer.assigntorings()
    here = [ring for ring in sorted(set(indexer.ra.tolist())) if ring >= 0]
    rings = sorted(here, key=lambda ring: len(cell.ringhkls[cell.ringds[ring]]))[:_RINGS]
    pairs = [(first, second) for first in rings for second in rings]
    for widely in (False, True):
        indexer.cosine_tol = -abs(indexer.cosine_tol) if widely else abs(indexer.cosine_tol)
        for indexer.ring_1, indexer.ring_2 in pairs[:1] if widely else pairs:
            indexer.hits = []
            indexer.find()
            indexer.scorethem()
            task.tell("index", len(indexer.ubis))
    return list(indexer.ubis)


def _vectors(task: Task) -> Floats:
    """(n, 3): reciprocal vectors in the sample, for rays from the origin, 1/Å."""
    spots, source = task.spots, task.geometry.flat.source
    away = spots.point_um / np.linalg.norm(spots.point_um, axis=1)[:, None] - source[:3]
    cos, sin = np.cos(spots.omega), np.sin(spots.omega)
    turned = [cos * away[:, 0] + sin * away[:, 1], cos * away[:, 1] - sin * away[:, 0], away[:, 2]]
    return np.ascontiguousarray(np.stack(turned, axis=1) / source[3])


def _refine(task: Task, spots: Straight, found: list[Floats], refinegrains: Any) -> list[Any]:
    """Its grains with `ubi` and `translation`."""
    if not found:
        return []
    compiled, grain = _module("cImageD11"), _module("grain")
    _, indices = tolerances(task)
    fit = refinegrains.refinegrains(tolerance=indices, OmFloat=True, OmSlop=_SLOP * math.degrees(task.limits.omega))
    fit.parameterobj.parameters.update(
        wavelength=task.geometry.wavelength_A,
        wedge=math.degrees(spots.wedge),
        chi=math.degrees(spots.chi),
        omegasign=1.0,
    )
    fit.parameterobj.stepsizes.update(dict.fromkeys(("t_x", "t_y", "t_z"), task.limits.extent_um / 4))
    fit.scannames, fit.grainnames = [_SCAN], list(range(len(found)))
    fit.grains = {(n, _SCAN): grain.grain(ubi, translation=[0.0, 0.0, 0.0]) for n, ubi in enumerate(found)}
    omega = np.degrees(spots.omega)
    g = np.zeros_like(spots.point_um)

    def assign(quiet: bool = True) -> None:
        """What `assignlabels` does, from points in place of pixels: each spot to the grain it fits best."""
        worst, label = np.ones(len(omega)), np.full(len(omega), -1, np.int32)
        told = fit.parameterobj.parameters
        for n in fit.grainnames:
            one = fit.grains[n, _SCAN]
            compiled.compute_gv(
                spots.point_um, omega, 1.0, told["wavelength"], told["wedge"], told["chi"], one.translation, g
            )
            compiled.score_and_assign(one.ubi, g, fit.tolerance, worst, label, n)
        by_grain = np.argsort(label, kind="stable")
        bounds = np.searchsorted(label[by_grain], np.arange(len(fit.grainnames) + 1))
        for n in fit.grainnames:
            one, mine = fit.grains[n, _SCAN], by_grain[bounds[n] : bounds[n + 1]]
            one.ind, one.npks = mine, len(mine)
            one.peaks_xyz, one.om, one.omega_calc = spots.point_um[mine], omega[mine], omega[mine].copy()

    fit.assignlabels = assign
    for turn in range(_ROUNDS):
        assign()
        for n in [n for n in fit.grainnames if fit.grains[n, _SCAN].npks < 8]:  # nothing to fit
            del fit.grains[n, _SCAN]
            fit.grainnames.remove(n)
        fit.grainnames = list(range(len(fit.grainnames)))
        fit.grains = {(n, _SCAN): one for n, one in enumerate(fit.grains.values())}
        fit.ubisread = {n: one.ubi.copy() for (n, _), one in fit.grains.items()}
        fit.refinepositions(maxiters=_STEPS)
        fit.refineubis()
        fit.tolerance = max(fit.tolerance / 2, _finest(task))
        task.tell("refine", int((turn + 1) / _ROUNDS * len(fit.grains)))
    return list(fit.grains.values())


def _finest(task: Task) -> float:
    """How near whole indices spots are when only noise is left, five standard deviations."""
    limits, reflections = task.limits, task.reflections
    nearest = min(float(np.linalg.norm(panel.centre_um)) for panel in task.geometry.panels)
    noise = math.hypot(limits.spot_um / nearest / reflections.wavelength_A, limits.omega * reflections.length.max())
    return min(5 * noise * max(reflections.crystal.lattice[:3]), _WIDEST)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
