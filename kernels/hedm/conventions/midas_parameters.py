"""MIDAS's parameter file, both ways: `NAME VALUE …` lines, µm, degrees, Å.

With its beam centre `BC` (column, row), pixel `px` and distance `Lsd` an untilted panel has
y = (BC_column - column) px, z = (row - BC_row) px; tilts turn it about the beam centre by Rx(tx) Ry(ty) Rz(tz). `Wedge`
is our wedge. Rows and columns of the file are those after `ImTransOpt` (1: columns reversed, 2: rows reversed, 3: rows
and columns exchanged, one line after the other); rows and columns here are those of the images as they are stored.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError
from kernels.hedm.conventions.told import (
    Told,
    bad,
    check_names,
    number,
    of_file,
    only_panel,
    read_lines,
    wanted,
    whole,
    write_text,
)
from kernels.hedm.distortion import MidasDistortion
from kernels.hedm.geometry import Geometry, Panel

# A change of pixels: new = matrix · old + shift.
_Change = tuple[NDArray[np.float64], NDArray[np.float64]]

_DISTORTION = tuple(f"p{i}" for i in range(7))
_HIGHER = tuple(f"p{i}" for i in range(7, 15))
_GEOMETRY = (
    *("Lsd", "BC", "tx", "ty", "tz", "px", "Wavelength", "Wedge", "RhoD", "ImTransOpt"),
    *("NrPixels", "NrPixelsY", "NrPixelsZ"),
    *_DISTORTION,
)


def read(path: str | Path, *, name: str = "midas") -> Told:
    """The panel at `path`, called `name`; `other` holds all other lines, each name with its values as text.

    Raises
    ------
    KernelError
        Exit 66 when it cannot be read; 65 when names are missing or misspelt, values are no numbers, or the distortion
        is one with more than p0 … p6.
    """
    with of_file(path):
        return _read(path, name)


def write(path: str | Path, geometry: Geometry, other: dict[str, Any] | None = None) -> None:
    """Write the lines that make a geometry, and those of `other`.

    Raises
    ------
    KernelError
        For what MIDAS cannot say: several panels, pixels that are not square, a chi, distortions of others.
    """
    only_panel(geometry, "MIDAS")
    (panel,) = geometry.panels
    if geometry.chi != 0.0:
        raise KernelError(f"A file of MIDAS has no chi, and here it is {geometry.chi:.6g} radians.")
    if abs(panel.pixel_um[0] - panel.pixel_um[1]) > 1e-9 * panel.pixel_um[0]:
        raise KernelError(f"Pixels of MIDAS are square, and those of panel {panel.name!r} are {panel.pixel_um} µm.")
    if panel.distortion is not None and not isinstance(panel.distortion, MidasDistortion):
        raise KernelError(
            f"MIDAS has no distortion as panel {panel.name!r} has it ({type(panel.distortion).__name__})."
        )
    told = panel.as_tilted()
    changes = _changes_to(told.orientation)
    matrix, shift = _changed(changes, panel.shape)
    row, column = matrix @ told.beam_centre + shift
    rows, columns = panel.shape[::-1] if 3 in changes else panel.shape
    lines = [
        f"Lsd {told.distance_um!r}",
        f"BC {float(column)!r} {float(row)!r}",
        *(f"{key} {math.degrees(tilt)!r}" for key, tilt in zip(("tx", "ty", "tz"), told.tilts, strict=True)),
        f"px {float(panel.pixel_um[0])!r}",
        f"NrPixelsY {columns}",
        f"NrPixelsZ {rows}",
        f"Wavelength {float(geometry.wavelength_A)!r}",
        f"Wedge {math.degrees(geometry.wedge)!r}",
        *(f"ImTransOpt {change}" for change in changes or [0]),
    ]
    if panel.distortion is not None:
        lines += [f"{key} {value!r}" for key, value in zip(_DISTORTION, panel.distortion.coefficients, strict=True)]
        lines.append(f"RhoD {float(panel.distortion.radius_um)!r}")
    lines += [f"{key} {line}".rstrip() for key, values in (other or {}).items() for line in values]
    write_text(path, "\n".join(lines) + "\n")


def _read(path: str | Path, name: str) -> Told:
    found = read_lines(path)
    check_names(path, found, (*_GEOMETRY, *_HIGHER))

    def numbers(key: str, count: int, default: float | None = None) -> list[float]:
        if key not in found and default is not None:
            return [default] * count
        values = wanted(path, found, key)[-1]
        if len(values) < count:
            raise bad(path, f"{key} has {len(values)} values where {count} are wanted.")
        return [number(path, key, value) for value in values[:count]]

    if higher := [key for key in _HIGHER if key in found and numbers(key, 1)[0] != 0.0]:
        raise bad(path, f"the distortion has {', '.join(higher)}, and only p0 … p6 are known.")
    if "NrPixels" in found:
        rows = columns = whole(path, "NrPixels", numbers("NrPixels", 1)[0])
    else:
        rows, columns = (whole(path, key, numbers(key, 1)[0]) for key in ("NrPixelsZ", "NrPixelsY"))
    changes = [_option(path, values) for values in found.get("ImTransOpt", [])]
    # The file counts pixels after the changes; the stored image is the other way about.
    shape = (columns, rows) if changes.count(3) % 2 else (rows, columns)
    coefficients = tuple(numbers(key, 1, 0.0)[0] for key in _DISTORTION)
    distortion = None
    if any(coefficients[i] != 0.0 for i in (0, 1, 2, 4, 5)):
        distortion = MidasDistortion(coefficients, numbers("RhoD", 1)[0])
    pixel = numbers("px", 1)[0]
    column, row = numbers("BC", 2)
    tilts = tuple(math.radians(numbers(key, 1, 0.0)[0]) for key in ("tx", "ty", "tz"))
    matrix, shift = _changed(changes, shape)
    centre = matrix.T @ (np.array([row, column]) - shift)
    # Before the changes: z goes up with the new row, y down with the new column.
    z, y = matrix[0], -matrix[1]
    panel = Panel.tilted(
        name,
        shape=shape,
        pixel_um=(pixel, pixel),
        distance_um=numbers("Lsd", 1)[0],
        beam_centre=(float(centre[0]), float(centre[1])),
        tilts=(tilts[0], tilts[1], tilts[2]),
        orientation=(int(z[0]), int(z[1]), int(y[0]), int(y[1])),
        distortion=distortion,
    )
    wedge = math.radians(numbers("Wedge", 1, 0.0)[0])
    other = {key: [" ".join(values) for values in lines] for key, lines in found.items() if key not in _GEOMETRY}
    return Told(Geometry(numbers("Wavelength", 1)[0], (panel,), wedge=wedge), other)


def _option(path: str | Path, values: list[str]) -> int:
    if not values or values[0] not in ("0", "1", "2", "3"):
        raise bad(path, f"ImTransOpt is {' '.join(values)!r} where 0, 1, 2 or 3 is wanted.")
    return int(values[0])


def _changed(changes: list[int], shape: tuple[int, int]) -> _Change:
    """What takes (row, column) of a stored image of `shape` to those after the changes."""
    matrix, shift, (rows, columns) = np.eye(2), np.zeros(2), shape
    for change in changes:
        if change == 1:
            matrix[1], shift[1] = -matrix[1], columns - 1 - shift[1]
        elif change == 2:
            matrix[0], shift[0] = -matrix[0], rows - 1 - shift[0]
        elif change == 3:
            matrix, shift, (rows, columns) = matrix[::-1].copy(), shift[::-1].copy(), (columns, rows)
    return matrix, shift


def _changes_to(orientation: tuple[int, int, int, int]) -> list[int]:
    """Changes after which rows go up and columns against y."""
    o11, o12, o21, o22 = orientation
    if o11:
        return [2] * (o11 < 0) + [1] * (o22 > 0)
    return [3] + [2] * (o12 < 0) + [1] * (o21 > 0)
