"""Frames of area detectors while a sample turns, in the formats in which HEDM is measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.hedm.frames.cache import CacheSource
from kernels.hedm.frames.chosen import Frames
from kernels.hedm.frames.dark import Dark, dark_of_first, dark_of_source, flat_dark
from kernels.hedm.frames.ge import SHAPE, GeSource
from kernels.hedm.frames.hdf5 import Hdf5Source
from kernels.hedm.frames.memory import MemorySource
from kernels.hedm.frames.omegas import Sweep
from kernels.hedm.frames.series import SeriesSource, files_of
from kernels.hedm.frames.source import Limits, Pixels, Source
from kernels.hedm.frames.turns import Turn, turned
from kernels.io.hdf5 import is_hdf5, regular

__all__ = [
    "Dark",
    "Frames",
    "GeSource",
    "Hdf5Source",
    "Limits",
    "MemorySource",
    "Pixels",
    "SeriesSource",
    "Source",
    "Sweep",
    "Turn",
    "dark_of_first",
    "dark_of_source",
    "flat_dark",
    "open_frames",
    "open_panels",
    "open_source",
    "read_mask",
    "turned",
]


def open_frames(
    path: str | Sequence[str],
    *,
    omegas: Sweep | None = None,
    first: int = 0,
    beyond: int | None = None,
    turn: Turn = Turn(),  # noqa: B008 -- immutable
    mask: NDArray[np.bool_] | None = None,
    shape: tuple[int, int] | None = None,
    data: str | None = None,
    omega: str | None = None,
) -> Frames:
    """The chosen frames at `path`: a file, a pattern such as `scan_*.tif`, or the files of a series in order.

    Parameters
    ----------
    path : str or sequence of str
    omegas : Sweep, optional
        Of the first frame of all; not given: as the file says.
    first, beyond : int
        Which frames are chosen.
    turn, mask, shape
        As `Frames`. GE files, which do not say their shape, are taken to have `shape`, or 2048 x 2048.
    data, omega : str, optional
        Where frames and omegas are in an HDF5 file; not given: looked for at the usual places.

    Raises
    ------
    KernelError
        Exit 66 when a file is missing, empty or no file; 65 when it is of no known format, damaged or not what was
        said; 2 when the range does not fit it.
    """
    stored = shape if shape is None else turn.stored(np.empty(shape, np.bool_)).shape
    source = open_source(path, shape=stored, data=data, omega=omega)
    return Frames(source, omegas=omegas, first=first, beyond=beyond, turn=turn, mask=mask, shape=shape)


def open_source(
    path: str | Sequence[str],
    *,
    shape: tuple[int, ...] | None = None,
    data: str | None = None,
    omega: str | None = None,
) -> Source:
    """All frames at `path`, known by their content where that is possible, else by the name; as `open_frames`."""
    if not isinstance(path, str):
        return SeriesSource(path)
    if "*" in path or "?" in path:
        return SeriesSource(files_of(path))
    regular(path)
    if is_hdf5(path):
        return Hdf5Source(path, data=data, omega=omega)
    ending = Path(path).suffix.lower()
    if ending == ".npz":
        return CacheSource(path)
    if re.fullmatch(r"\.ge\d*", ending):
        return GeSource(path, shape=SHAPE if shape is None else (shape[0], shape[1]))
    if ending in (".tif", ".tiff", ".cbf"):
        return SeriesSource([path])
    raise KernelError(
        f"The format of {path!r} is not known: it is not HDF5, and does not end in .ge, .ge1 to .ge9, .npz, .tif, "
        ".tiff or .cbf.",
        Exit.BAD_INPUT,
    )


def read_mask(path: str, *, data: str | None = None) -> NDArray[np.bool_]:
    """A mask as `Frames` takes it, of a picture in which all but 0 marks a bad pixel, as NeXus and MIDAS have it.

    Parameters
    ----------
    path : str
        Of any format of frames; the first one counts.
    data : str, optional
        Where it is in an HDF5 file, of shape (1, rows, columns).

    Raises
    ------
    KernelError
        As `open_frames`.
    """
    return np.asarray(open_source(path, data=data).frames(0, 1)[0] == 0)


def open_panels(
    paths: Mapping[str, str | Sequence[str]],
    *,
    shapes: Mapping[str, tuple[int, int]],
    omegas: Sweep | None = None,
    first: int = 0,
    beyond: int | None = None,
) -> dict[str, Frames]:
    """The frames of several panels that were read out together, by the names that the geometry has for them.

    Raises
    ------
    KernelError
        As `open_frames`; 65 when panels differ in number or omegas of frames, or a file is named as another panel's;
        2 when names are not those of the geometry.
    """
    if set(paths) != set(shapes):
        raise KernelError(f"Frames are given for the panels {sorted(paths)}, the geometry has {sorted(shapes)}.")
    opened: dict[str, Frames] = {}
    for panel, path in paths.items():
        name = Path(path if isinstance(path, str) else path[0]).name
        others = [other for other in paths if other != panel and other not in panel and other in name]
        if panel not in name and others:
            raise KernelError(
                f"The frames {name!r}, given for panel {panel}, are named as those of panel {others[0]}: are the "
                "panels exchanged?",
                Exit.BAD_INPUT,
            )
        opened[panel] = open_frames(path, omegas=omegas, first=first, beyond=beyond, shape=shapes[panel])
    leader, *rest = opened.values()
    for frames in rest:
        alike = frames.count == leader.count
        if not alike or np.abs(frames.omegas.edges_deg - leader.omegas.edges_deg).max() > 1e-3:
            raise KernelError(
                f"The panels were not read out together: {leader.name!r} has {leader.count} frames from "
                f"{leader.omegas.edges_deg[0, 0]:.6g} degrees, {frames.name!r} {frames.count} from "
                f"{frames.omegas.edges_deg[0, 0]:.6g}.",
                Exit.BAD_INPUT,
            )
    return opened
