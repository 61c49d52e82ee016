"""Frames and their instruments as the arguments of kernels name them, opened and found to belong together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from kernels.errors import Exit, KernelError
from kernels.hedm.frames import Frames, Sweep, open_frames, open_panels
from kernels.hedm.frames.series import files_of
from kernels.hedm.geometry import Geometry
from kernels.hedm.jobs.scene import open_geometry
from kernels.hedm.nearfield.setup import Setup, from_panels


def sweep(omega_start: float | None, omega_step: float | None) -> Sweep | None:
    """The omegas that were given in degrees, or None: as the frames say."""
    if (omega_start is None) != (omega_step is None):
        raise KernelError("Give omegaStart and omegaStep together, or neither.")
    return None if omega_start is None or omega_step is None else Sweep(omega_start, omega_step)


# ------------------------------------------------------------------------------- far field: panels at one distance


class Scan(NamedTuple):
    """The instrument, the frames of each panel by its name, and the files that these are."""

    instrument: Geometry
    frames: dict[str, Frames]
    read: list[str]


def open_scan(input: str, geometry: str, omegas: Sweep | None, *, first: int = 0, beyond: int | None = None) -> Scan:
    """Frames `first` to `beyond` of one file, or of several panels as NAME=FILE,NAME=FILE.

    Raises
    ------
    KernelError
        Exit 65, 66 for files that are wrong or do not belong together; 2 for arguments.
    """
    paths = _panels(input)
    if paths is None:
        frames = open_frames(input, omegas=omegas, first=first, beyond=beyond)
        instrument = open_geometry(geometry, frames.shape)
        if len(instrument.panels) != 1:
            raise KernelError(
                f"The geometry has the panels {', '.join(instrument.names)}: say the frames of each, as "
                "NAME=FILE,NAME=FILE."
            )
        wanted = instrument.panels[0].shape
        if frames.shape != wanted:
            raise KernelError(
                f"The frames {input!r} have {frames.shape[0]} x {frames.shape[1]} pixels, and panel "
                f"{instrument.names[0]!r} of {geometry!r} {wanted[0]} x {wanted[1]}.",
                Exit.BAD_INPUT,
            )
        opened = {instrument.names[0]: frames}
    else:
        instrument = open_geometry(geometry)
        shapes = {panel.name: panel.shape for panel in instrument.panels}
        opened = open_panels(paths, shapes=shapes, omegas=omegas, first=first, beyond=beyond)
    return Scan(instrument, opened, _files([input] if paths is None else paths.values()))


def _files(paths: Iterable[str]) -> list[str]:
    return [file for path in paths for file in (files_of(path) if "*" in path or "?" in path else [path])]


def _panels(text: str) -> dict[str, str] | None:
    """`NAME=FILE,NAME=FILE` by name, or None for one file."""
    if not re.match(r"[\w-]+=", text):
        return None
    paths: dict[str, str] = {}
    for each in text.split(","):
        name, _, path = each.partition("=")
        if not path or name in paths:
            raise KernelError(f"The frames of panels are NAME=FILE,NAME=FILE, each once, not {text!r}.")
        paths[name.strip()] = path
    return paths


# -------------------------------------------------------------------------- near field: one panel at each distance


class Distances(NamedTuple):
    """The frames and the instrument of each distance, near ones first, and the files that all these are."""

    frames: list[Frames]
    instruments: list[Geometry]
    read: list[str]

    def setup(self, *, height: float, min_eta: float) -> Setup:
        """As the search takes them: a layer `height` µm above z = 0, spots `min_eta` degrees off the axis.

        Raises
        ------
        KernelError
            Exit 65 or 2 when they do not belong together.
        """
        return _setup(self.frames, self.instruments, height=height, min_eta=min_eta)


def open_distances(input: str, geometry: str, omegas: Sweep | None) -> Distances:
    """The frames and instruments in lists of files with commas.

    Raises
    ------
    KernelError
        Exit 65, 66 for files; 2 for arguments.
    """
    images, told = _listed("input", input), _listed("geometry", geometry)
    frames = [open_frames(path, omegas=omegas) for path in images]
    instruments = [open_geometry(path, frames[0].shape) for path in told]
    return Distances(frames, instruments, [*_files(images), *told])


def _listed(name: str, text: str) -> list[str]:
    """Files with commas between them, one for each distance; nothing has to follow the last comma."""
    paths = [word.strip() for word in text.removesuffix(",").split(",")]
    if not all(paths):
        raise KernelError(f"{name} is a file for each distance, with commas between them, not {text!r}.")
    return paths


def _setup(frames: list[Frames], instruments: list[Geometry], *, height: float, min_eta: float) -> Setup:
    if len(frames) != len(instruments):
        raise KernelError(
            f"Frames are given for {len(frames)} distances, and geometries for {len(instruments)}: give as many."
        )
    leader = instruments[0]
    for number, (each, instrument) in enumerate(zip(frames, instruments, strict=True), 1):
        if len(instrument.panels) != 1:
            raise KernelError(
                f"The geometry of distance {number} has {len(instrument.panels)} panels, and one is wanted."
            )
        if each.shape != instrument.panels[0].shape:
            raise KernelError(
                f"The frames {each.name!r} have {each.shape[0]} x {each.shape[1]} pixels, and the detector of distance "
                f"{number} {instrument.panels[0].shape[0]} x {instrument.panels[0].shape[1]}.",
                Exit.BAD_INPUT,
            )
        if instrument.wedge or instrument.chi or not np.array_equal(instrument.beam, leader.beam):
            raise KernelError(f"The rotation axis of distance {number} leans: near field takes no wedge and no chi.")
        if not math.isclose(instrument.wavelength_A, leader.wavelength_A, rel_tol=1e-6):
            raise KernelError(
                f"The wavelengths of the distances differ: {leader.wavelength_A:.6g} and "
                f"{instrument.wavelength_A:.6g} angstrom.",
                Exit.BAD_INPUT,
            )
        if each.omegas.breaks:
            raise KernelError(f"The omegas of {each.name!r} have gaps: near field takes one sweep.", Exit.BAD_INPUT)
        if each.count != frames[0].count or np.abs(each.omegas.edges_deg - frames[0].omegas.edges_deg).max() > 1e-3:
            raise KernelError(
                f"The frames of distance {number} are not of the same omegas as those of distance 1.", Exit.BAD_INPUT
            )
    edges = frames[0].omegas.edges_deg
    return from_panels(
        leader.wavelength_A,
        [instrument.panels[0] for instrument in instruments],
        omega_start_deg=float(edges[0, 0]),
        omega_step_deg=float(edges[-1, 1] - edges[0, 0]) / len(edges),
        frames=len(edges),
        beam=leader.beam,
        z_um=height,
        eta_deg=(min_eta, 90.0),
    )
