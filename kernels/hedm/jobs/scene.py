"""Crystal, instrument, reflections and limits, as every kernel of HEDM is told of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.hedm.conventions import hexrd, imaged11, midas_parameters
from kernels.hedm.crystals import Crystal
from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.geometry import Geometry
from kernels.hedm.grains import read_grains
from kernels.hedm.reflections import Reflections, list_reflections

_WHOLE_CUBIC = 195  # the first cubic space group
_OMEGA_SHARE, _LEAST_OMEGA = 0.15, math.radians(0.03)  # noise of omega: of a frame's step, and where frames are fine


def open_crystal(cif: str | None, lattice: str | None, space_group: str | None) -> Crystal:
    """The crystal in `cif`, or that of `lattice` and `space_group` as the schema has them.

    Raises
    ------
    KernelError
        Exit 2 when neither or both are given; 65, 66 for what they say.
    """
    if cif is not None:
        if lattice is not None or space_group is not None:
            raise KernelError("The crystal is told by cif or by lattice and spaceGroup, not by both.")
        return Crystal.from_cif(cif)
    if lattice is None or space_group is None:
        raise KernelError(
            "Tell the crystal: cif, or lattice and spaceGroup, such as lattice 4.08 and spaceGroup Fm-3m."
        )
    try:
        values = [float(word) for word in lattice.split(",")]
    except ValueError:
        raise KernelError(f"The lattice {lattice!r} is not a,b,c,alpha,beta,gamma.") from None
    if len(values) == 1:
        made = Crystal.of([values[0]] * 3 + [90.0] * 3, space_group)
        if made.group.number < _WHOLE_CUBIC:
            raise KernelError(f"{made.name} is not cubic: its lattice needs six numbers, a,b,c,alpha,beta,gamma.")
        return made
    return Crystal.of(values, space_group)


def open_geometry(path: str, shape: tuple[int, int] | None = None) -> Geometry:
    """The instrument at `path`, by the ending of its name.

    `shape` (rows, columns) is wanted for ImageD11's parameters, which do not say it.

    Raises
    ------
    KernelError
        Exit 66 when it cannot be read, 65 when it is wrong.
    """
    ending = Path(path).suffix.lower()
    if ending in (".yml", ".yaml"):
        return hexrd.read(path).geometry
    if ending == ".par":
        if shape is None:
            raise KernelError(f"{path!r} does not say how many pixels the detector has.", Exit.BAD_INPUT)
        return imaged11.read(path, shape=shape).geometry
    return midas_parameters.read(path).geometry


def reach(geometry: Geometry) -> float:
    """The largest two theta that a corner of a panel sees, radians."""
    corners = np.concatenate([panel.corners_um() for panel in geometry.panels])
    cosine = corners @ geometry.beam / np.linalg.norm(corners, axis=1)
    return float(np.arccos(np.clip(cosine, -1.0, 1.0)).max())


def open_reflections(
    crystal: Crystal, geometry: Geometry, max_two_theta_deg: float | None, rings: int | None
) -> Reflections:
    """Those that can reach a panel, up to a two theta (degrees), of so many rings."""
    most = reach(geometry)
    if max_two_theta_deg is not None:
        most = min(most, math.radians(max_two_theta_deg))
    return list_reflections(crystal, geometry.wavelength_A, max_two_theta=most, rings=rings)


def open_seeds(path: str | None) -> NDArray[np.float64] | None:
    """The orientations (n, 3, 3) of the grains at `path`; None: none were given.

    Raises
    ------
    KernelError
        Exit 2 for an empty table; 65, 66 for the file.
    """
    if path is None:
        return None
    table = read_grains(path)
    if not len(table):
        raise KernelError(f"The grains {path!r} are none: leave seeds out to search all orientations.")
    return table.orientation


def open_lattice(reflections: Reflections) -> Lattice:
    """The reflections as the far field takes them."""
    crystal = reflections.crystal
    return Lattice(crystal.b0, reflections.hkl, reflections.ring, crystal.rotations)


def open_volume(told: str | None, sample_radius: float, sample_height: float) -> float | None:
    """What all grains fill together in µm³, as the schema has it; None where it is not told.

    Raises
    ------
    KernelError
        Exit 2 when it is none.
    """
    if told is None or told == "sample":
        return None if told is None else math.pi * sample_radius**2 * sample_height
    try:
        volume = float(told)
    except ValueError:
        volume = math.nan
    if not 0 < volume < math.inf:
        raise KernelError(
            f"illuminatedVolume is {told!r}: it is a number of µm³ above 0, or `sample`, the cylinder of sampleRadius "
            "and sampleHeight."
        )
    return volume


def open_limits(
    geometry: Geometry,
    omega_ranges: tuple[tuple[float, float], ...],
    omega_step: float,
    *,
    sample_radius: float,
    sample_height: float,
    max_strain: float,
    min_completeness: float,
    spot_noise: float,
    omega_noise: float | None,
    min_eta: float,
) -> Limits:
    """Limits by the arguments of the schema; `omega_ranges` and `omega_step` in radians."""
    usual = max(_LEAST_OMEGA, _OMEGA_SHARE * omega_step)
    pixel_um = float(np.mean([panel.pixel_um for panel in geometry.panels]))
    return Limits(
        spot_um=spot_noise * pixel_um,
        omega=usual if omega_noise is None else math.radians(omega_noise),
        radius_um=sample_radius,
        height_um=sample_height,
        strain=max_strain,
        min_completeness=min_completeness,
        omega_ranges=omega_ranges,
        min_eta=math.radians(min_eta),
    )
