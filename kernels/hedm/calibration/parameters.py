"""The numbers of an instrument that a calibration may change, by name.

wavelength          relative change
wedge, chi          radians
distance            all panels along x, µm
shift_y, shift_z    all panels, µm
tilt_x, tilt_y, tilt_z
                    all panels as one about the middle of them, a rotation vector in radians
PANEL.shift_x, _y, _z, PANEL.tilt_x, _y, _z
                    one panel, about its own middle
PANEL.distortion_0, …
                    the coefficients of its distortion
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError, nearest
from kernels.hedm.geometry import Geometry, Panel
from kernels.hedm.rotations import by_vector

Vector = NDArray[np.float64]

_AXES = "xyz"
_WHOLE = ("wavelength", "wedge", "chi", "distance", "shift_y", "shift_z", "tilt_x", "tilt_y", "tilt_z")


def parameters(geometry: Geometry) -> tuple[str, ...]:
    """All names for this instrument. Those of the whole and of its panels overlap: not all can be free at once."""
    names = list(_WHOLE)
    for panel in geometry.panels:
        names += [f"{panel.name}.{kind}_{axis}" for kind in ("shift", "tilt") for axis in _AXES]
        count = len(panel.distortion.coefficients) if panel.distortion is not None else 0
        names += [f"{panel.name}.distortion_{i}" for i in range(count)]
    return tuple(names)


def check_parameters(geometry: Geometry, names: Sequence[str]) -> None:
    """Refuse names that the instrument has not, or that come twice."""
    known = parameters(geometry)
    for i, name in enumerate(names):
        if name not in known:
            raise KernelError(f"The instrument has no parameter {name!r}.{nearest(name, known)}")
        if name in names[:i]:
            raise KernelError(f"The parameter {name!r} is named twice.")


def steps(geometry: Geometry, names: Sequence[str]) -> Vector:
    """By how much to change each parameter to see what it does."""
    found = []
    # Less than panels may come together before they count as overlapping.
    shift = 0.01 * min(min(panel.pixel_um) for panel in geometry.panels)
    for name in names:
        kind = name.rsplit(".", 1)[-1]
        if kind.startswith("distortion_"):
            distortion = geometry.panels[geometry.index(name.rsplit(".", 1)[0])].distortion
            assert distortion is not None
            found.append(1e-5 * max(1.0, abs(distortion.coefficients[int(kind.split("_")[1])])))
        else:
            found.append(shift if kind == "distance" or kind.startswith("shift") else 1e-5)
    return np.array(found)


def changed(geometry: Geometry, names: Sequence[str], values: Vector) -> Geometry:
    """The instrument with `names` changed by `values`, both from the one given."""
    by_name = dict(zip(names, (float(value) for value in values), strict=True))

    def three(prefix: str, first: str) -> Vector:
        return np.array([by_name.get(f"{prefix}{axis}" if i else first, 0.0) for i, axis in enumerate(_AXES)])

    shift, turn = three("shift_", "distance"), by_vector(three("tilt_", "tilt_x"))
    middle = np.mean([panel.centre_um for panel in geometry.panels], axis=0)
    panels = []
    for panel in geometry.panels:
        moved = panel
        if any(name in by_name for name in _WHOLE[3:]):
            moved = moved.moved(shift + (turn - np.eye(3)) @ (moved.centre_um - middle), turn)
        own = f"{panel.name}."
        if any(name.startswith(own) for name in by_name):
            moved = moved.moved(three(f"{own}shift_", f"{own}shift_x"), by_vector(three(f"{own}tilt_", f"{own}tilt_x")))
            moved = _bent(moved, by_name)
        panels.append(moved)
    return replace(
        geometry,
        wavelength_A=geometry.wavelength_A * (1.0 + by_name.get("wavelength", 0.0)),
        wedge=geometry.wedge + by_name.get("wedge", 0.0),
        chi=geometry.chi + by_name.get("chi", 0.0),
        panels=tuple(panels),
    )


def _bent(panel: Panel, by_name: dict[str, float]) -> Panel:
    if panel.distortion is None:
        return panel
    old = panel.distortion.coefficients
    new = tuple(value + by_name.get(f"{panel.name}.distortion_{i}", 0.0) for i, value in enumerate(old))
    return panel if new == old else replace(panel, distortion=panel.distortion.with_coefficients(new))
