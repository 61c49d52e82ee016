"""midas-suite (Sharma, Huizenga and Offerman, J. Appl. Cryst. 45 (2012) 693 and 705) behind our conventions.

Its programs run one after the other in a folder: `midas-bin-data`, `midas_indexer` and `midas_fitgrain` (those that are
compiled; its older fits refuse to run), `midas-process-grains`. They are given spots on one plane across the beam, rays
from the origin drawn on to it, so that several panels and distortions are done with; indices, rings and absences are
ours. Its reciprocal vectors have x along a*. An axis that leans is refused: the indexer knows none.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import threads
from kernels.errors import Exit, KernelError
from kernels.hedm.backends.packages import PACKAGES
from kernels.hedm.backends.task import Answer, Task, refused, straight
from kernels.hedm.conventions.midas_grains import read_midas_grains

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_TITLE = "MIDAS"
_LEAN = 2e-5  # radians; of the axis, moves spots less than they are measured to
_PAIRED = 0.95  # of a turn, from which on seeds are paired with their Friedel mates
_ORIENTATION_DEG = 0.2  # step of the search about a seed
_POSITIONS = 10  # steps of the search across the sample
_BIN_DEG = 0.1
_FEWEST_SEEDS = 3  # of a grain, where it has six and more
_ALL = "InputAllExtraInfoFittingAll.csv"
_ALL_COLUMNS = (
    "YLab ZLab Omega GrainRadius SpotID RingNumber Eta Ttheta OmegaIni YOrigDetCor ZOrigDetCor YRawPx ZRawPx "
    "OmegaDetCor IntegratedIntensity RawSumIntensity maskTouched FitRMSE OrigSpotID ReturnCode DetID"
)
_COLUMNS = "YLab ZLab Omega GrainRadius SpotID RingNumber Eta Ttheta DetID"
_BIN_DATA = "import sys; from midas_transforms.cli import bin_data_main; sys.exit(bin_data_main())"
_POLL_S = 0.5


def midas(task: Task) -> Answer:
    """Grains as MIDAS finds and refines them, positions and strains (its eKen) among them.

    Raises
    ------
    KernelError
        Exit 2 when it is not there or cannot do it; 65 when it fails, with its last words; 74 when its files cannot be
        written.
    """
    indexer, fit = _program("midas_index", "midas_indexer"), _program("midas_fit_grain", "midas_fitgrain")
    plane = _plane(task)
    says = "orientation, position and strain by midas_indexer and midas_fitgrain; completeness and residuals are ours"
    nothing = Answer(np.zeros((0, 3, 3)), np.zeros((0, 3)), np.zeros((0, 6)), says)
    if not len(plane.seeds):
        return nothing
    try:
        _write(task, plane)
    except OSError as error:
        raise KernelError(f"Cannot write for MIDAS in {str(task.folder)!r}: {error.strerror}.", Exit.IO) from error
    work = ["paramstest.txt", "0", "1", f"{len(plane.seeds)}", f"{threads()}"]
    _run(task, [sys.executable, "-c", _BIN_DATA, "--result-folder", "."], "bin")
    _run(task, [str(indexer), *work], "index")
    _run(task, [str(fit), *work], "refine")
    refined = task.folder / "Results" / "OrientPosFit.bin"
    if not refined.exists() or not any(np.fromfile(refined)):
        return nothing
    ending = ["--out-dir", ".", "--no-h5", "--no-diagnostics-h5", "--min-nr-spots", f"{_fewest_seeds(task, plane)}"]
    _run(task, [sys.executable, "-m", "midas_process_grains", work[0], work[-1], *ending], "grains")
    grains = read_midas_grains(task.folder / "Grains.csv", task.reflections.crystal, rigid=True)
    return Answer(grains.orientation, grains.position_um, grains.strain, says)


class _Plane(NamedTuple):
    """Spots (n), by ring and omega, as MIDAS has them: µm, degrees; rings from 1.

    `shift` is what omega is more than ours in degrees, `radius` that of each ring, `pixel` the size of pixels.
    """

    y: Floats
    z: Floats
    omega: Floats
    eta: Floats
    two_theta: Floats
    ring: Ints
    intensity: Floats
    radius: Floats
    distance: float
    pixel: float
    shift: float
    seed_ring: int
    seeds: Ints


def _plane(task: Task) -> _Plane:
    spots, limits, reflections = straight(task), task.limits, task.reflections
    if abs(spots.wedge) > _LEAN or abs(spots.chi) > _LEAN:
        raise KernelError(
            f"backend midas needs an axis at right angles to the beam, and this one leans by "
            f"{math.degrees(abs(spots.wedge)):.4g} degrees along and {math.degrees(abs(spots.chi)):.4g} across it. "
            "Choose another backend."
        )
    distance = float(np.median(spots.point_um[:, 0]))
    y, z = (spots.point_um[:, 1:] * (distance / spots.point_um[:, :1])).T
    away = np.hypot(y, z)
    radius = distance * np.tan(reflections.two_theta)
    ring = np.abs(away[:, None] - radius).argmin(axis=1)
    eta, poles = np.degrees(np.arctan2(-y, z)), math.degrees(limits.min_eta)
    used = np.abs(away - radius[ring]) < _margin(task) + limits.strain * radius[ring]
    used &= (np.abs(eta) > poles) & (np.abs(eta) < 180 - poles)
    omega = (np.degrees(spots.omega) + 180) % 360 - 180
    order = np.flatnonzero(used)[np.lexsort((omega[used], ring[used]))]
    y, z, omega, eta, ring = y[order], z[order], omega[order], eta[order], ring[order] + 1
    there = np.unique(ring)
    seed_ring = int(min(there, key=lambda one: reflections.multiplicity[one - 1])) if len(there) else 1
    # With Friedel mates half a turn has all.
    seeds = (ring == seed_ring) & (np.abs(omega) < (90 if _paired(task) else 360))
    return _Plane(
        y, z, omega, eta, np.degrees(np.arctan2(away[order], distance)), ring, task.spots.intensity[order], radius,
        distance, float(np.mean([panel.pixel_um for panel in task.geometry.panels])),
        math.degrees(float(spots.omega[0] - task.spots.omega[0])) if len(omega) else 0.0,
        seed_ring, np.flatnonzero(seeds) + 1,
    )  # fmt: skip


def _margin(task: Task) -> float:
    """How far a spot may lie from its ring since its grain is off the axis and it is measured with noise, µm."""
    return task.limits.extent_um + 5 * task.limits.spot_um


def _paired(task: Task) -> bool:
    return task.limits.friedel_covered > _PAIRED


def _fewest_seeds(task: Task, plane: _Plane) -> int:
    multiplicity = int(task.reflections.multiplicity[plane.seed_ring - 1])
    expected = multiplicity * (1 if _paired(task) else 2) * task.limits.turn_covered * task.seen
    return _FEWEST_SEEDS if expected >= 2 * _FEWEST_SEEDS * task.limits.min_completeness else 1


def _write(task: Task, plane: _Plane) -> None:
    """The files that its programs read."""
    folder = task.folder
    for name in ("Output", "Results"):
        (folder / name).mkdir(parents=True)
    n = len(plane.y)
    number, zero, one = np.arange(1, n + 1), np.zeros(n), np.ones(n)
    size = 30 * np.cbrt(plane.intensity / np.median(plane.intensity))
    middle = _half_pixels(plane)
    first = [plane.y, plane.z, plane.omega, size, number, plane.ring, plane.eta, plane.two_theta]
    pixels = [middle - plane.y / plane.pixel, middle + plane.z / plane.pixel]
    more = [plane.omega, plane.y, plane.z, *pixels, plane.omega, plane.intensity, plane.intensity]
    _table(folder / _ALL, _ALL_COLUMNS, [*first, *more, zero, zero, number, -one, one])
    _table(folder / "InputAll.csv", _COLUMNS, [*first, one])
    np.savetxt(folder / "SpotsToIndex.csv", plane.seeds, fmt="%d")
    _table(folder / "IDRings.csv", "RingNumber OriginalID NewID(RingsMerge)", [plane.ring, number, number], "%d")
    reflections = task.reflections
    bounds = np.searchsorted(plane.ring, np.arange(1, reflections.rings + 2)) + 1
    _lines(folder / "IDsHash.csv", (
        f"{k + 1} {bounds[k]} {bounds[k + 1]} {reflections.d_A[k]:.9f}" for k in range(reflections.rings)
    ))  # fmt: skip
    crystal, rows = reflections.crystal, ["h k l D-spacing RingNr g1 g2 g3 Theta 2Theta Radius"]
    theirs = reflections.g0 @ crystal.busing_levy_rotation.T
    for hkl, g, ring in zip(reflections.hkl.tolist(), theirs.tolist(), reflections.ring.tolist(), strict=True):
        theta = math.degrees(reflections.two_theta[ring]) / 2
        values = (reflections.d_A[ring], ring + 1, *g, theta, 2 * theta, plane.radius[ring])
        rows.append(" ".join([*map(str, hkl), *(f"{value:.9g}" for value in values)]))
    _lines(folder / "hkls.csv", rows)
    _lines(folder / "paramstest.txt", _parameters(task, plane))


def _parameters(task: Task, plane: _Plane) -> list[str]:
    """Lines of the parameter file. Names that say the same twice are read by different programs of it."""
    limits, crystal = task.limits, task.reflections.crystal
    lattice = " ".join(f"{value:.9g}" for value in crystal.lattice)
    middle, reach, margin = _half_pixels(plane), plane.radius.max() * 1.2, _margin(task)
    poles, least = (
        math.degrees(limits.min_eta),
        limits.min_completeness * task.seen / (1 - 2 * limits.min_eta / math.pi),
    )
    volume = math.pi * limits.radius_um**2 * limits.height_um
    known: dict[str, object] = {
        **dict.fromkeys(("LatticeParameter", "LatticeConstant"), lattice),
        "SpaceGroup": crystal.group.number,
        "Wavelength": task.geometry.wavelength_A,
        **dict.fromkeys(("Lsd", "Distance", "LsdFit"), plane.distance),
        "px": plane.pixel,
        "BC": f"{middle} {middle}",
        **dict.fromkeys(("YBCFit", "ZBCFit"), middle),
        **dict.fromkeys(("tx", "ty", "tz", "txFit", "tyFit", "tzFit", "p0", "p1", "p2", "p3", "Wedge"), 0),
        **dict.fromkeys(("RhoD", "MaxRingRad"), reach),
        **dict.fromkeys(("NrPixels", "NrPixelsY", "NrPixelsZ"), 2 * middle + 1),
        "Rsample": limits.radius_um,
        "Hbeam": limits.height_um,
        "BeamThickness": limits.height_um,
        "Vsample": volume,
        **dict.fromkeys(("StepSizePos", "StepsizePos"), limits.radius_um * 2 / _POSITIONS),
        **dict.fromkeys(("StepSizeOrient", "StepsizeOrient"), _ORIENTATION_DEG),
        "MarginOme": max(0.5, 5 * math.degrees(limits.omega)),
        "MarginRadius": 1e6,  # all sizes of spots
        "MarginRadial": margin,
        "MarginEta": margin,
        **dict.fromkeys(("EtaBinSize", "OmeBinSize"), _BIN_DEG),
        **dict.fromkeys(("MinEta", "ExcludePoleAngle"), poles),
        **dict.fromkeys(("MinMatchesToAcceptFrac", "Completeness"), min(least, 1.0)),
        **dict.fromkeys(("MargABC", "MargABG"), max(100 * limits.strain, 0.1)),
        "UseFriedelPairs": int(_paired(task)),
        **dict.fromkeys(("OverAllRingToIndex", "RingToIndex"), plane.seed_ring),
        "MinNrSpots": _fewest_seeds(task, plane),
        "WeightMask": 1,
        "WeightFitRMSE": 0,
        "NumPhases": 1,
        "PhaseNr": 1,
        "GlobalPosition": 0,
        "OutputFolder": task.folder / "Output",
        "ResultFolder": task.folder / "Results",
        "RefinementFileName": _ALL,
        "SpotsFileName": "InputAll.csv",
        "IDsFileName": "SpotsToIndex.csv",
    }
    lines = [f"{name} {value}" for name, value in known.items()]
    for start, stop in limits.omega_ranges:
        lines += [f"OmegaRange {low:.6f} {high:.6f}" for low, high in _ranges(start, stop, plane.shift)]
    box = " ".join(f"{sign * 10 * reach:.1f}" for sign in (-1, 1, -1, 1))
    lines += [f"BoxSize {box}" for line in list(lines) if line.startswith("OmegaRange")]
    for ring, radius in enumerate(plane.radius.tolist(), 1):
        lines += [f"RingNumbers {ring}", f"RingRadii {radius:.6f}"]
    return lines


def _ranges(start: float, stop: float, shift_deg: float) -> list[tuple[float, float]]:
    """From radians to degrees within ±180, in two parts where it goes over that."""
    low, length = math.degrees(start) + shift_deg, math.degrees(stop - start)
    if length >= 360 - 1e-6:
        return [(-180.0, 180.0)]
    low = (low + 180) % 360 - 180
    return [(low, low + length)] if low + length <= 180 else [(low, 180.0), (-180.0, low + length - 360)]


def _half_pixels(plane: _Plane) -> int:
    """Of a square detector on which all spots lie."""
    return math.ceil(float(max(np.abs(plane.y).max(), np.abs(plane.z).max(), plane.radius.max())) / plane.pixel) + 1


def _program(module: str, name: str) -> Path:
    """Where a compiled program of the suite lies; its module is not imported, which takes seconds."""
    spec = find_spec(module)
    path = Path(spec.origin).parent / "bin" / name if spec and spec.origin else None
    if path is None or not os.access(path, os.X_OK):
        raise KernelError(
            f"backend midas needs the program {name} of {module}, which is not built for this Python. Install it anew "
            f"with a C compiler with OpenMP ({PACKAGES['midas'].install}), or leave backend out."
        )
    return path


def _run(task: Task, command: list[str], phase: str) -> None:
    """One program to its end. It stays in our process group, and is killed when this run ends before it does."""
    said = task.folder / f"{phase}.log"
    environment = os.environ | {"OMP_NUM_THREADS": f"{threads()}"}
    try:
        with said.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=task.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                while process.poll() is None:
                    task.tell(phase, 0)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_POLL_S)
            finally:
                process.kill()
                process.wait()
    except OSError as error:
        raise refused(_TITLE, error) from error
    if process.returncode:
        words = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
        last = words[-1].strip() if words else f"exit {process.returncode}"
        raise refused(_TITLE, RuntimeError(f"{Path(command[0]).name} ({phase}): {last}"))


def _table(path: Path, columns: str, values: list[NDArray[np.generic]], form: str = "%.6f") -> None:
    np.savetxt(path, np.column_stack(values), fmt=form, header=columns, comments="")


def _lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines) + "\n")
