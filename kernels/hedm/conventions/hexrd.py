"""HEXRD's instrument file (YAML), both ways.

HEXRD has X to the right, Y up along the rotation axis, Z against the beam, so that (x, y, z) here are (-Z, -X, Y); mm
and keV. A panel's point is R · (xp, yp, 0) + t, R the rotation by the vector `tilt`, xp along columns and yp against
rows from the middle. Its stage turns by Rx(chi) Ry(omega) and stands at `translation`: chi there is the wedge here, and
the translation is taken off the panels, since our origin lies on the axis. The beam goes along
-(sin P cos A, cos P, sin P sin A) with azimuth A and polar angle P.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError, nearest
from kernels.hedm.conventions.told import Told, bad, check_names, number, of_file, read_text, wanted, whole, write_text
from kernels.hedm.distortion import DexelaDistortion, Distortion, GeDistortion
from kernels.hedm.geometry import Geometry, Panel
from kernels.hedm.rotations import as_vector, by_vector

Vector = NDArray[np.float64]

# Takes vectors of HEXRD's frame to ours.
FRAME = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
KEV_A = 12.398419843320026

_DISTORTIONS: dict[str, type[GeDistortion] | type[DexelaDistortion]] = {
    "GE_41RT": GeDistortion,
    "Dexela_2923": DexelaDistortion,
}
_NAMES = ("beam", "detectors", "oscillation_stage", "calibration_crystal", "id")
_DETECTOR = ("pixels", "transform", "distortion", "buffer", "saturation_level", "detector_type")


@dataclass(frozen=True, eq=False)
class CalibrationGrains:
    """The crystals an instrument was calibrated with.

    Attributes
    ----------
    orientation : ndarray of float64, shape (n, 3, 3)
    position_um : ndarray of float64, shape (n, 3)
    strain : ndarray of float64, shape (n, 6)
    """

    orientation: Vector
    position_um: Vector
    strain: Vector


def read(path: str | Path) -> Told:
    """The instrument at `path`.

    `other` holds `calibration_crystal`, `id`, and of each panel `buffer` and `saturation_level` as `PANEL.NAME`.

    Raises
    ------
    KernelError
        Exit 66 when it cannot be read; 65 when it is no such file, names are missing or misspelt, or it has what we do
        not: cylindrical panels, several beams, other distortions.
    """
    with of_file(path):
        return _read(path)


def write(path: str | Path, geometry: Geometry, other: dict[str, Any] | None = None) -> None:
    """Write an instrument file, with the rest of what was read (`other`) where it is given.

    Raises
    ------
    KernelError
        For what HEXRD cannot say: an axis that leans across the beam (our chi), distortions of others.
    """
    yaml = _yaml()
    if geometry.chi != 0.0:
        raise KernelError(
            f"An instrument of HEXRD has no lean of its axis across the beam, and here chi is {geometry.chi:.6g}."
        )
    beam = -(FRAME.T @ geometry.beam)
    rest = dict(other or {})
    detectors = {}
    for panel in geometry.panels:
        own = {key.split(".", 1)[1]: rest.pop(key) for key in list(rest) if key.startswith(f"{panel.name}.")}
        turn = FRAME.T @ np.column_stack([panel.column, -panel.row, np.cross(panel.column, -panel.row)])
        told: dict[str, Any] = {
            "pixels": {
                "rows": int(panel.shape[0]),
                "columns": int(panel.shape[1]),
                "size": [size * 1e-3 for size in panel.pixel_um],
            },
            "transform": {
                "tilt": as_vector(turn).tolist(),
                "translation": (FRAME.T @ panel.centre_um * 1e-3).tolist(),
            },
        }
        if panel.distortion is not None:
            told["distortion"] = _written(panel.name, panel.distortion)
        detectors[panel.name] = told | own
    text = {
        "beam": {
            "energy": KEV_A / geometry.wavelength_A,
            "vector": {
                "azimuth": math.degrees(math.atan2(beam[2], beam[0])),
                "polar_angle": math.degrees(math.acos(max(-1.0, min(1.0, float(beam[1]))))),
            },
        },
        "detectors": detectors,
        "oscillation_stage": {"chi": float(geometry.wedge), "translation": [0.0, 0.0, 0.0]},
    }
    write_text(path, yaml.safe_dump(text | rest, sort_keys=True))


def read_calibration_grains(path: str | Path) -> CalibrationGrains:
    """The crystals under `calibration_crystal` of the file at `path`, in our frame.

    HEXRD writes a rotation vector, a position in mm and the inverse stretch as six numbers 11, 22, 33, 23, 13, 12, the
    last three times the root of two; its crystal axes are ours.
    """
    found = _section(path, read(path).other, "calibration_crystal")
    crystals = {"calibration_crystal": found} if "orientation" in found else found
    orientation, position, strain = [], [], []
    for name, one in crystals.items():
        where = f"calibration_crystal.{name}"
        if not isinstance(one, dict):
            raise bad(path, f"{where} should name orientation, position and inv_stretch.")
        orientation.append(FRAME @ by_vector(_vector(path, one, "orientation", where, 3)))
        position.append(FRAME @ _vector(path, one, "position", where, 3) * 1e3)
        a, b, c, d, e, f = _vector(path, one, "inv_stretch", where, 6)
        d, e, f = d / math.sqrt(2), e / math.sqrt(2), f / math.sqrt(2)
        inverse = FRAME @ np.array([[a, f, e], [f, b, d], [e, d, c]]) @ FRAME.T
        eps = np.linalg.inv(inverse) - np.eye(3)
        strain.append([eps[0, 0], eps[1, 1], eps[2, 2], eps[1, 2], eps[0, 2], eps[0, 1]])
    return CalibrationGrains(np.array(orientation), np.array(position), np.array(strain))


def _read(path: str | Path) -> Told:
    yaml = _yaml()
    try:
        found = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise bad(path, f"this is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise bad(path, "this is no instrument of HEXRD: it should name beam, detectors and oscillation_stage.")
    check_names(path, found, _NAMES)
    beam = _section(path, found, "beam")
    if "energy" not in beam and beam and all(isinstance(value, dict) for value in beam.values()):
        if len(beam) > 1 and "vector" not in beam:
            raise bad(path, f"there are {len(beam)} beams, {', '.join(beam)}, and one is wanted.")
        if "vector" not in beam:
            (beam,) = beam.values()
    check_names(path, beam, ("energy", "vector"), " in beam")
    energy = number(path, "beam.energy", wanted(path, beam, "energy", " in beam"))
    if energy <= 0:
        raise bad(path, f"beam.energy is {energy} keV: it must be above 0.")
    vector = _section(path, beam, "vector", " in beam")
    azimuth, polar = (
        math.radians(number(path, f"beam.vector.{name}", wanted(path, vector, name, " in beam.vector")))
        for name in ("azimuth", "polar_angle")
    )
    towards = -np.array([math.sin(polar) * math.cos(azimuth), math.cos(polar), math.sin(polar) * math.sin(azimuth)])
    # Angles of 90 degrees leave some 1e-17, which would tell a beam along x from one that nearly is.
    towards[np.abs(towards) < 1e-15] = 0.0
    stage = _section(path, found, "oscillation_stage")
    check_names(path, stage, ("chi", "translation"), " in oscillation_stage")
    chi = number(path, "oscillation_stage.chi", wanted(path, stage, "chi", " in oscillation_stage"))
    origin_mm = _vector(path, stage, "translation", "oscillation_stage", 3)
    other = {name: value for name, value in found.items() if name not in ("beam", "detectors", "oscillation_stage")}
    panels = []
    for name, told in _section(path, found, "detectors").items():
        panel, rest = _read_panel(path, str(name), told, origin_mm)
        panels.append(panel)
        other |= {f"{name}.{key}": value for key, value in rest.items()}
    return Told(Geometry(KEV_A / energy, tuple(panels), wedge=chi, beam=FRAME @ towards), other)


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise KernelError("Instrument files of HEXRD need PyYAML: install PyYAML.") from None
    return yaml


def _read_panel(path: str | Path, name: str, told: object, origin_mm: Vector) -> tuple[Panel, dict[str, Any]]:
    where = f"detectors.{name}"
    if not isinstance(told, dict):
        raise bad(path, f"{where} should name pixels and transform.")
    check_names(path, told, _DETECTOR, f" in {where}")
    kind = told.get("detector_type", "planar")
    if kind != "planar":
        raise bad(path, f"{where} is {kind}, and only planar panels are known.")
    pixels, transform = (
        _section(path, told, "pixels", f" in {where}"),
        _section(path, told, "transform", f" in {where}"),
    )
    check_names(path, pixels, ("rows", "columns", "size"), f" in {where}.pixels")
    check_names(path, transform, ("tilt", "translation"), f" in {where}.transform")
    rows, columns = (
        whole(path, f"{where}.pixels.{key}", wanted(path, pixels, key, f" in {where}.pixels"))
        for key in ("rows", "columns")
    )
    size = _vector(path, pixels, "size", f"{where}.pixels", 2) * 1e3
    turn = FRAME @ by_vector(_vector(path, transform, "tilt", f"{where}.transform", 3))
    place = FRAME @ (_vector(path, transform, "translation", f"{where}.transform", 3) - origin_mm) * 1e3
    panel = Panel(
        name,
        (rows, columns),
        (float(size[0]), float(size[1])),
        place,
        -turn[:, 1],
        turn[:, 0],
        _distortion(path, where, told.get("distortion")),
    )
    return panel, {key: value for key, value in told.items() if key not in ("pixels", "transform", "distortion")}


def _distortion(path: str | Path, where: str, told: object) -> Distortion | None:
    if told is None:
        return None
    if not isinstance(told, dict):
        raise bad(path, f"{where}.distortion should name function_name and parameters.")
    check_names(path, told, ("function_name", "parameters"), f" in {where}.distortion")
    name = str(wanted(path, told, "function_name", f" in {where}.distortion"))
    known = {key.lower(): key for key in _DISTORTIONS}
    if name.lower() not in known:
        raise bad(
            path,
            f"{where} has the distortion {name!r}; known are {', '.join(_DISTORTIONS)}.{nearest(name, _DISTORTIONS)}",
        )
    values = wanted(path, told, "parameters", f" in {where}.distortion")
    if not isinstance(values, list):
        raise bad(path, f"{where}.distortion.parameters should be a list of numbers.")
    numbers = tuple(number(path, f"{where}.distortion.parameters", value) for value in values)
    return _DISTORTIONS[known[name.lower()]](numbers)


def _written(name: str, distortion: Distortion) -> dict[str, Any]:
    for word, kind in _DISTORTIONS.items():
        if isinstance(distortion, kind):
            return {"function_name": word, "parameters": list(distortion.coefficients)}
    raise KernelError(f"HEXRD has no distortion as panel {name!r} has it ({type(distortion).__name__}).")


def _section(path: str | Path, found: dict[str, Any], name: str, where: str = "") -> dict[str, Any]:
    section = wanted(path, found, name, where)
    if not isinstance(section, dict) or not section:
        raise bad(path, f"{name!r}{where} is {section!r} where names and values are wanted.")
    return section


def _vector(path: str | Path, found: dict[str, Any], name: str, where: str, length: int) -> Vector:
    values = wanted(path, found, name, f" in {where}")
    if not isinstance(values, list) or len(values) != length:
        raise bad(path, f"{where}.{name} is {values!r} where {length} numbers are wanted.")
    return np.array([number(path, f"{where}.{name}", value) for value in values])
