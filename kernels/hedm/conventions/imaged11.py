"""ImageD11's parameter file (.par), both ways: `name value` lines.

Its frames are ours. Distance and pixel sizes have one unit of length, which we take for µm; tilts are radians and turn
the panel about the beam centre by Rx Ry Rz; wedge and chi are degrees, v_lab = Ry(-wedge) Rx(chi) Rz(omega) v_sample.
`z_*` belong to the slow direction of the image (rows), `y_*` to the fast one; o11, o12, o21, o22 say how these lie to z
and y. The file has no image size.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.hedm.conventions.told import (
    Told,
    bad,
    check_names,
    number,
    of_file,
    only_panel,
    read_lines,
    read_text,
    wanted,
)
from kernels.hedm.conventions.told import write_text as _write_text
from kernels.hedm.distortion import Distortion, MapDistortion
from kernels.hedm.geometry import Geometry, Panel

_ORIENTATION = {"o11": 1.0, "o12": 0.0, "o21": 0.0, "o22": -1.0}
_TILTS = ("tilt_x", "tilt_y", "tilt_z")
_NEEDED = ("distance", "wavelength", "y_center", "y_size", "z_center", "z_size")
_MAPS = ("dxfile", "dyfile", "spline")
_GEOMETRY = (*_NEEDED, *_TILTS, *_ORIENTATION, "wedge", "chi", *_MAPS)
_OTHERS = (
    *("cell__a", "cell__b", "cell__c", "cell_alpha", "cell_beta", "cell_gamma", "cell_lattice_[P,A,B,C,I,F,R]"),
    *("omegasign", "t_x", "t_y", "t_z", "fit_tolerance", "min_bin_prob", "no_bins", "weight_hist_intensities"),
)


def read(path: str | Path, *, shape: tuple[int, int], name: str = "imaged11") -> Told:
    """The panel at `path`, of `shape` (rows, columns) and called `name`.

    `other` holds what is no geometry as text. There too is `omegasign`: where it is -1, angles have to be negated.

    Raises
    ------
    KernelError
        Exit 66 when it cannot be read; 65 when names are missing or misspelt, or values are no numbers.
    """
    with of_file(path):
        return _read(path, shape, name)


def write(path: str | Path, geometry: Geometry, other: dict[str, Any] | None = None) -> None:
    """Write the lines that make a geometry, and those of `other`. Maps go beside it as `STEM_dx.edf` and `STEM_dy.edf`.

    Raises
    ------
    KernelError
        For what ImageD11 cannot say: several panels, distortions that are no maps.
    """
    only_panel(geometry, "ImageD11")
    (panel,) = geometry.panels
    told = panel.as_tilted()
    lines: dict[str, object] = {
        "distance": told.distance_um,
        "wavelength": float(geometry.wavelength_A),
        "z_center": told.beam_centre[0],
        "y_center": told.beam_centre[1],
        "z_size": float(panel.pixel_um[0]),
        "y_size": float(panel.pixel_um[1]),
        **dict(zip(_TILTS, told.tilts, strict=True)),
        **dict(zip(_ORIENTATION, told.orientation, strict=True)),
        "wedge": math.degrees(geometry.wedge),
        "chi": math.degrees(geometry.chi),
    }
    if panel.distortion is not None:
        lines |= _write_maps(Path(path), panel.name, panel.distortion)
    _write_text(path, "".join(f"{key} {value}\n" for key, value in sorted((lines | (other or {})).items())))


def read_spline(path: str | Path, shape: tuple[int, int], *, step: int = 8) -> MapDistortion:
    """A FIT2D spline file as a map with nodes `step` pixels apart.

    The file has two bicubic splines with knots along x (columns) and y (rows): ideal minus measured column, then row.
    Between nodes the map is linear, which for a smooth spline differs by its curvature times step² / 8.
    """
    from scipy.interpolate import bisplev

    lines = read_text(path).splitlines()
    if not lines or not lines[0].startswith("SPATIAL"):
        raise bad(path, "this is no spline file of FIT2D: it should begin with SPATIAL DISTORTION.")
    nodes = [np.arange(math.ceil((length - 1) / step) + 1) * step for length in shape]
    shifts = []
    for title in ("X-DISTORTION", "Y-DISTORTION"):
        at = next((i for i, line in enumerate(lines) if line.startswith(title)), None)
        try:
            if at is None:
                raise ValueError
            nx, ny = (int(word) for word in lines[at + 1].split())
            values = _fixed(lines[at + 2 :], [nx, ny, (nx - 4) * (ny - 4)])
        except (ValueError, IndexError):
            raise bad(path, f"{title} is missing or cut short.") from None
        shifts.append(np.atleast_2d(bisplev(nodes[1], nodes[0], (*values, 3, 3))).T)
    return MapDistortion(shifts[1], shifts[0], step)


def _read(path: str | Path, shape: tuple[int, int], name: str) -> Told:
    found = {key: " ".join(lines[-1]) for key, lines in read_lines(path).items()}
    check_names(path, found, (*_GEOMETRY, *_OTHERS))

    def value(key: str, default: float | None = None) -> float:
        if key not in found and default is not None:
            return default
        return number(path, key, wanted(path, found, key))

    orientation = [value(key, default) for key, default in _ORIENTATION.items()]
    if any(one not in (-1, 0, 1) for one in orientation):
        raise bad(path, f"o11, o12, o21, o22 are {orientation} where only 1, 0 and -1 can be.")
    o11, o12, o21, o22 = (int(one) for one in orientation)
    tilt_x, tilt_y, tilt_z = (value(key, 0.0) for key in _TILTS)
    panel = Panel.tilted(
        name,
        shape=shape,
        pixel_um=(abs(value("z_size")), abs(value("y_size"))),
        distance_um=value("distance"),
        beam_centre=(value("z_center"), value("y_center")),
        tilts=(tilt_x, tilt_y, tilt_z),
        # A size below zero reverses its direction.
        orientation=_signed((o11, o12, o21, o22), value("z_size"), value("y_size")),
        distortion=_distortion(path, found, shape),
    )
    geometry = Geometry(
        value("wavelength"), (panel,), wedge=math.radians(value("wedge", 0.0)), chi=math.radians(value("chi", 0.0))
    )
    return Told(geometry, {key: text for key, text in found.items() if key not in _GEOMETRY})


def _fixed(lines: list[str], counts: list[int]) -> list[NDArray[np.float64]]:
    """Blocks of numbers of 14 characters, five a line; each block begins on a new line."""
    blocks = []
    for count in counts:
        rows = math.ceil(count / 5)
        words = [line[i : i + 14] for line in lines[:rows] for i in range(0, len(line.rstrip()), 14)]
        if len(words) < count:
            raise ValueError
        blocks.append(np.array([float(word) for word in words[:count]]))
        lines = lines[rows:]
    return blocks


def _signed(orientation: tuple[int, int, int, int], z_size: float, y_size: float) -> tuple[int, int, int, int]:
    row, column = (-1 if z_size < 0 else 1), (-1 if y_size < 0 else 1)
    o11, o12, o21, o22 = orientation
    return o11 * row, o12 * column, o21 * row, o22 * column


def _distortion(path: str | Path, found: dict[str, str], shape: tuple[int, int]) -> Distortion | None:
    beside = Path(path).parent
    if "spline" in found:
        return read_spline(beside / found["spline"], shape)
    maps = [key for key in ("dyfile", "dxfile") if key in found]
    if not maps:
        return None
    if len(maps) == 1:
        raise bad(path, f"there is a {maps[0]} alone, and dxfile and dyfile are wanted together.")
    row_shift, column_shift = (_read_map(beside / found[key]) for key in maps)
    if row_shift.shape != tuple(shape) or column_shift.shape != tuple(shape):
        raise bad(
            path, f"dxfile and dyfile are of {column_shift.shape} and {row_shift.shape} pixels, the panel of {shape}."
        )
    return MapDistortion(row_shift, column_shift)


def _read_map(path: Path) -> NDArray[np.float64]:
    try:
        import fabio
    except ImportError:
        raise KernelError(f"To read the map {str(path)!r} fabio is wanted: install fabio.") from None
    try:
        with fabio.open(str(path)) as image:
            return np.array(image.data, np.float64)
    except OSError as error:
        raise KernelError(f"Cannot read the map {str(path)!r}: {error}.", Exit.NO_INPUT) from error


def _write_maps(path: Path, name: str, distortion: Distortion) -> dict[str, object]:
    if not isinstance(distortion, MapDistortion) or distortion.step != 1:
        raise KernelError(
            f"ImageD11 has its distortion as maps of single pixels, and panel {name!r} has {type(distortion).__name__}."
        )
    try:
        from fabio.edfimage import EdfImage
    except ImportError:
        raise KernelError("To write a map of distortion fabio is wanted: install fabio.") from None
    written: dict[str, object] = {}
    for key, values in (("dxfile", distortion.column_shift), ("dyfile", distortion.row_shift)):
        beside = path.with_name(f"{path.stem}_{key[:2]}.edf")
        EdfImage(data=values).write(str(beside))
        written[key] = beside.name
    return written
