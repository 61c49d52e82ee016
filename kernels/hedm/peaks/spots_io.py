"""The table of spots in HDF5: a data set a column under /entry/spots, each with its units; angles in degrees.

`flags` says in its attribute `bits` what its bits mean; `panels` names the panels by their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels import outputs
from kernels.errors import Exit, KernelError
from kernels.hedm.peaks.measure import CUT, EDGE, MASKED, OVERLAPPED, SATURATED
from kernels.hedm.peaks.spots import FITTED, Spots
from kernels.io import hdf5, nexus

GROUP = "/entry/spots"
_BITS = {EDGE: "edge", MASKED: "masked", CUT: "cut", SATURATED: "saturated", OVERLAPPED: "overlapped", FITTED: "fitted"}
_FITTED = ("intensity", "row", "column", "omega", "width_row", "width_column", "width_omega")
_FITTED_UNITS = ("counts", "pixel", "pixel", "deg", "pixel", "pixel", "deg")
_TO_RAD = {"": 1.0, "rad": 1.0, "deg": np.pi / 180, "deg^2": (np.pi / 180) ** 2, "pixel deg": np.pi / 180}

# Of each column of the file: the column of the table, of which a further one (or None), and the units.
_COLUMNS: dict[str, tuple[str, int | None, str]] = {
    "panel": ("panel", None, ""),
    "row": ("row", None, "pixel"),
    "column": ("column", None, "pixel"),
    "frame": ("frame", None, "frame"),
    "omega": ("omega", None, "deg"),
    "intensity": ("intensity", None, "counts"),
    "largest": ("largest", None, "counts"),
    "pixels": ("pixels", None, ""),
    "frames": ("frames", None, ""),
    "variance_row": ("moments", 0, "pixel^2"),
    "variance_column": ("moments", 1, "pixel^2"),
    "variance_omega": ("moments", 2, "deg^2"),
    "covariance_column_omega": ("moments", 3, "pixel deg"),
    "covariance_row_omega": ("moments", 4, "pixel deg"),
    "covariance_row_column": ("moments", 5, "pixel^2"),
    "flags": ("flags", None, ""),
    **{f"fit_{name}": ("fit", k, _FITTED_UNITS[k]) for k, name in enumerate(_FITTED)},
    **{f"error_{name}": ("errors", k, _FITTED_UNITS[k]) for k, name in enumerate(_FITTED)},
    "fit_chi2": ("chi2", None, ""),
}
_KINDS = {"panel": np.int16, "pixels": np.int32, "frames": np.int32, "flags": np.uint8}


def write_spots(group: h5py.Group, spots: Spots, *, panels: Sequence[str] = ()) -> None:
    """Put the table into an empty group; `panels` are the names of the panels."""
    group.attrs["NX_class"] = "NXcollection"
    for name, (column, which, units) in _COLUMNS.items():
        values = getattr(spots, column)
        values = values if which is None else values[:, which]
        data = group.create_dataset(name, data=values / _TO_RAD.get(units, 1.0) if "deg" in units else values)
        if units:
            data.attrs["units"] = units
    group["flags"].attrs["bits"] = [f"{bit} {name}" for bit, name in _BITS.items()]
    if panels:
        group.attrs["panels"] = list(panels)


def save_spots(path: str | Path, spots: Spots, *, panels: Sequence[str] = ()) -> None:
    """Write a file with the table in it, whole or not at all.

    Raises
    ------
    KernelError
        Exit 73 when it cannot be created, 74 when there is no room, 75 when another process is writing it.
    """
    staged = outputs.claim(path)
    try:
        with nexus.new_file(staged.part) as file:
            entry = nexus.add_entry(file, "Spots of diffraction", "spots")
            write_spots(entry.create_group("spots"), spots, panels=panels)
        outputs.publish(staged)
    except OSError as error:
        raise outputs.failed_write(error, [staged], "Writing spots") from error
    finally:
        outputs.discard(staged)


def read_spots(path: str | Path) -> tuple[Spots, tuple[str, ...]]:
    """The table in a file, and the names of its panels.

    Columns of Gaussians and moments may be missing; they are then NaN.

    Raises
    ------
    KernelError
        Exit 66 when the file is missing or empty; 65 when it holds no such table, or its columns are not of one length.
    """
    with hdf5.open_file(str(path)) as file:
        if hdf5.found(file, f"{GROUP}/row") is None:
            raise KernelError(f"The input {str(path)!r} has no table of spots at {GROUP}.", Exit.BAD_INPUT)
        rows = hdf5.found(file, f"{GROUP}/row")
        count = 0 if rows is None else int(rows.size)
        columns: dict[str, NDArray[Any]] = {
            "moments": np.full((count, 6), np.nan),
            "fit": np.full((count, 7), np.nan),
            "errors": np.full((count, 7), np.nan),
            "chi2": np.full(count, np.nan),
        }
        for name, (column, which, _) in _COLUMNS.items():
            needed = column not in columns
            values = _column(file, f"{GROUP}/{name}", count, needed=needed)
            if which is not None and values is not None:
                columns[column][:, which] = values
            elif values is not None:
                columns[column] = values.astype(_KINDS.get(column, np.float64))
        named = file[GROUP].attrs.get("panels", ())
        panels = tuple(one.decode() if isinstance(one, bytes) else str(one) for one in np.ravel(named))
    return Spots(**columns), panels


def _column(file: h5py.File, path: str, count: int, *, needed: bool) -> NDArray[Any] | None:
    dataset = hdf5.found(file, path)
    if dataset is None and not needed:
        return None
    if count and (dataset is None or dataset.size):
        dataset = hdf5.numbers(file, path, rank=1)
    if dataset is None or dataset.shape != (count,):
        shape = "nothing" if dataset is None else str(dataset.shape)
        raise KernelError(
            f"The input {file.filename!r} is not usable: {path} has {shape} for {count} spots.", Exit.BAD_INPUT
        )
    units = dataset.attrs.get("units", "")
    units = units.decode("ascii", "replace") if isinstance(units, bytes) else str(units)
    values = np.asarray(dataset[()])
    return values * _TO_RAD[units] if "deg" in units and units in _TO_RAD else values
