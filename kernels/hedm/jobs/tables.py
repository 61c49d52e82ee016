"""The file of spots that goes from one kernel to the next: the table, and how its frames were taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kernels.cautions import Caution
from kernels.errors import Exit, KernelError
from kernels.hedm.farfield.spots import Spots as Placed
from kernels.hedm.frames.omegas import Omegas
from kernels.hedm.geometry import Geometry
from kernels.hedm.jobs.scene import open_geometry
from kernels.hedm.peaks import Spots, read_spots, write_spots
from kernels.io import hdf5, nexus

_RANGES, _STEP, _SHAPES = (f"/entry/scan/{name}" for name in ("omega_ranges", "omega_step", "shapes"))


class Scanned(NamedTuple):
    """Spots, the instrument, where frames were taken, (start, stop), and how far one of them turns; radians."""

    spots: Spots
    geometry: Geometry
    omega_ranges: tuple[tuple[float, float], ...]
    omega_step: float

    def placed(self) -> Placed:
        """As the far field takes them; by their Gaussians where these were fitted."""
        spots = self.spots
        row, column, omega = spots.row.copy(), spots.column.copy(), spots.omega.copy()
        fitted = np.isfinite(spots.fit[:, :4]).all(axis=1)
        row[fitted], column[fitted], omega[fitted] = spots.fit[fitted, 1:4].T
        return Placed.of_pixels(self.geometry, spots.panel, row, column, omega=omega, intensity=spots.intensity)


def write_table(
    part: Path,
    spots: Spots,
    geometry: Geometry,
    omegas: Omegas,
    *,
    program: str,
    version: str,
    parameters: Mapping[str, object],
    warnings: Iterable[Caution] = (),
) -> None:
    """Write spots to a staged `part`: NeXus, shown first is omega against two theta."""
    with nexus.new_file(part) as file:
        entry = nexus.add_entry(file, "Spots of diffraction", "map")
        write_spots(entry.create_group("spots"), spots, panels=geometry.names)
        scan = entry.create_group("scan")
        scan["omega_ranges"] = np.array(_ranges(omegas))
        scan["omega_step"] = omegas.step_deg
        for name in ("omega_ranges", "omega_step"):
            scan[name].attrs["units"] = "deg"
        scan["shapes"] = np.array([panel.shape for panel in geometry.panels])
        shown = entry.create_group("map")
        shown.attrs.update({"NX_class": "NXdata", "signal": "omega", "axes": ["two_theta"], "title": "spots"})
        shown["omega"] = np.degrees(spots.omega)
        shown["two_theta"] = np.degrees(geometry.angles(spots.panel.astype(np.int64), spots.row, spots.column)[0])
        for name in ("omega", "two_theta"):
            shown[name].attrs["units"] = "deg"
        nexus.add_process(entry, program, version, parameters, warnings)


def check_table(path: Path) -> None:
    """Raise `KernelError` (exit 3) when the written file cannot be read again."""
    nexus.check_nexus(path)


def read_table(path: str, geometry: str) -> Scanned:
    """The spots at `path` with the instrument in the file `geometry`.

    Raises
    ------
    KernelError
        Exit 66 or 65 for a file that is missing, or not what it should be, or of another instrument.
    """
    spots, names = read_spots(path)
    with hdf5.open_file(path) as file:
        ranges = hdf5.numbers(file, _RANGES, rank=2)[()]
        step = math.radians(float(hdf5.numbers(file, _STEP, rank=0)[()]))
        shapes = hdf5.numbers(file, _SHAPES, rank=2)[()].astype(int)
    if ranges.shape[1:] != (2,) or shapes.shape[1:] != (2,) or not len(shapes) or not np.isfinite(ranges).all():
        raise KernelError(f"The spots {path!r} do not say how their frames were taken.", Exit.BAD_INPUT)
    instrument = open_geometry(geometry, (int(shapes[0, 0]), int(shapes[0, 1])))
    if len(instrument.panels) == 1 and len(names) == 1:
        names = instrument.names  # other programs' files do not name their panel
    if set(names) != set(instrument.names):
        raise KernelError(
            f"The spots {path!r} are of the panels {', '.join(names)}, and {geometry!r} has "
            f"{', '.join(instrument.names)}.",
            Exit.BAD_INPUT,
        )
    instrument = instrument.arranged(names)
    for panel, shape in zip(instrument.panels, shapes.tolist(), strict=True):
        if panel.shape != tuple(shape):
            raise KernelError(
                f"The spots {path!r} are of frames of {shape[0]} x {shape[1]} pixels, and panel {panel.name!r} of "
                f"{geometry!r} has {panel.shape[0]} x {panel.shape[1]}.",
                Exit.BAD_INPUT,
            )
    if len(spots.panel) and not 0 <= spots.panel.min() <= spots.panel.max() < len(names):
        raise KernelError(f"Some of the spots {path!r} are of a panel that there is not.", Exit.BAD_INPUT)
    return Scanned(spots, instrument, tuple((math.radians(a), math.radians(b)) for a, b in ranges.tolist()), step)


def _ranges(omegas: Omegas) -> list[tuple[float, float]]:
    """Where frames lie without a gap, ascending, degrees."""
    edges, starts = omegas.edges_deg, [0, *omegas.breaks]
    found = []
    for first, beyond in zip(starts, [*starts[1:], len(edges)], strict=True):
        some = edges[first:beyond]
        found.append((float(some.min()), float(some.max())))
    return sorted(found)
