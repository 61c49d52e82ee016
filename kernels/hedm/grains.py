"""The table of grains, and its file: NeXus, so that silx and h5web show the map of grains when they open it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels.cautions import Caution
from kernels.errors import Exit, KernelError
from kernels.hedm.crystals import Atom, Crystal
from kernels.io import hdf5
from kernels.io.nexus import add_entry, add_process, check_nexus, new_file

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class _Column(NamedTuple):
    """What a column is: the shape of one grain's value, what stands where it is not known, its unit, and in words."""

    shape: tuple[int, ...]
    unknown: float
    unit: str
    says: str


COLUMNS = {
    "orientation": _Column((3, 3), np.nan, "", "rotation from crystal (x along a, z along c*) to sample axes"),
    "position_um": _Column((3,), 0.0, "um", "centre of mass in sample axes (x along the beam at omega 0, z up)"),
    "strain": _Column((6,), 0.0, "", "in sample axes: 11, 22, 33, 23, 13, 12"),
    "number": _Column((), 0, "", "by which the grain is called"),
    "crystal": _Column((), 0, "", "which of the crystals it is, from 0"),
    "completeness": _Column((), np.nan, "", "spots that were found of those that were expected"),
    "spots": _Column((), 0, "", "spots that belong to it"),
    "unique": _Column((), 0, "", "spots that belong to no other grain"),
    "expected": _Column((), 0, "", "spots that it should have on the detector"),
    "log_false": _Column((), np.nan, "", "decimal logarithm of how many grains as good as this one chance would make"),
    "intensity": _Column((), np.nan, "", "of its median spot; in proportion to its volume in a table of the far field"),
    "radius_um": _Column((), np.nan, "um", "radius of the sphere of its volume"),
    "residual_um": _Column((), np.nan, "um", "how far spots lie from where they should be, on the detector"),
    "residual_omega": _Column((), np.nan, "rad", "how far spots lie from where they should be, in omega"),
    "residual_angle": _Column((), np.nan, "rad", "angle between measured and expected reciprocal vectors"),
}
_WHOLE = ("number", "crystal", "spots", "unique", "expected")
_COVARIANCE = _Column((12, 12), np.nan, "", "of rotation vector (rad), position (um) and strain, in this order")
_ROUNDED = 1e-4  # off a rotation, as far as numbers in files are rounded
_FORMAT = "kernels.hedm.grains 1"


@dataclass(frozen=True, eq=False)
class Grains:
    """Grains (n), a value of each column for each; see `COLUMNS` for units and frames.

    What is not known is NaN, or 0 where it counts. `covariance` (n, 12, 12) is of rotation vector, position and strain,
    in this order, or None.
    """

    crystals: tuple[Crystal, ...]
    orientation: Floats
    position_um: Floats
    strain: Floats
    number: Ints
    crystal: Ints
    completeness: Floats
    spots: Ints
    unique: Ints
    expected: Ints
    log_false: Floats
    intensity: Floats
    radius_um: Floats
    residual_um: Floats
    residual_omega: Floats
    residual_angle: Floats
    covariance: Floats | None = None

    def __post_init__(self) -> None:
        for name, column in COLUMNS.items() | {("covariance", _COVARIANCE)}:
            values = getattr(self, name)
            if values is not None and values.shape != (len(self), *column.shape):
                wanted = (len(self), *column.shape)
                raise KernelError(f"The column {name} of {len(self)} grains has shape {values.shape}, not {wanted}.")
        if len(self) and (self.crystal.min() < 0 or self.crystal.max() >= len(self.crystals)):
            there = f"{self.crystal.min()} to {self.crystal.max()}"
            raise KernelError(f"Grains are of crystals {there}, and there are {len(self.crystals)} from 0 on.")
        off = np.abs(self.orientation @ np.swapaxes(self.orientation, -1, -2) - np.eye(3)).max((-1, -2), initial=0)
        x, y, z = np.moveaxis(self.orientation, 1, 0)
        bad = np.flatnonzero(~((off < _ROUNDED) & ((np.cross(x, y) * z).sum(1) > 0)))
        if len(bad):
            grain = f"grain {self.number[bad[0]]} (of {len(bad)})"
            raise KernelError(
                f"The orientation of {grain} is no rotation: {self.orientation[bad[0]].tolist()}.", Exit.BAD_INPUT
            )
        lost = np.flatnonzero(~np.isfinite(self.position_um).all(1))
        if len(lost):
            raise KernelError(
                f"The position of grain {self.number[lost[0]]} (of {len(lost)}) is not finite.", Exit.BAD_INPUT
            )

    def __len__(self) -> int:
        return len(self.orientation)

    def take(self, which: Ints | NDArray[np.bool_] | slice) -> Grains:
        """Only those grains, in that order."""
        covariance = None if self.covariance is None else self.covariance[which]
        return replace(self, covariance=covariance, **{name: getattr(self, name)[which] for name in COLUMNS})


def new_grains(
    crystals: Crystal | Sequence[Crystal], orientation: Floats, *, covariance: Floats | None = None, **columns: Any
) -> Grains:
    """A table of the orientations (n, 3, 3) and of those other columns of `Grains` that are given. Positions and
    strains that are not are 0; grains are called 1, 2, 3, …

    Raises
    ------
    KernelError
        A column is unknown, or not as long as the others; an orientation is no rotation, a position not finite.
    """
    if unknown := columns.keys() - COLUMNS.keys():
        raise KernelError(f"Grains have no column {sorted(unknown)[0]!r}; they have {', '.join(COLUMNS)}.")
    n = len(orientation)
    given = {"orientation": orientation, "number": np.arange(1, n + 1)} | columns
    filled: dict[str, Any] = {
        name: np.ascontiguousarray(
            given.get(name, np.full((n, *column.shape), column.unknown)), np.int64 if name in _WHOLE else np.float64
        )
        for name, column in COLUMNS.items()
    }
    every = (crystals,) if isinstance(crystals, Crystal) else tuple(crystals)
    return Grains(every, covariance=covariance, **filled)


def write_grains(
    part: Path,
    grains: Grains,
    *,
    title: str,
    program: str,
    version: str,
    parameters: Mapping[str, object],
    warnings: Iterable[Caution] = (),
) -> None:
    """Write the table as NeXus to a staged `part`; check it with `check_grains` before it is published.

    What is shown first is completeness over the positions x and y.
    """
    with new_file(part) as file:
        entry = add_entry(file, title, "map")
        entry.attrs["format"] = _FORMAT
        table = entry.create_group("grains")
        table.attrs["NX_class"] = "NXcollection"
        for name, column in COLUMNS.items():
            _add(table, name, getattr(grains, name), column)
        if grains.covariance is not None:
            _add(table, "covariance", grains.covariance, _COVARIANCE)
        for n, crystal in enumerate(grains.crystals):
            _add_crystal(entry.create_group(f"crystal_{n}"), crystal)
        shown = entry.create_group("map")
        shown.attrs.update({"NX_class": "NXdata", "signal": "completeness", "axes": ["x", "y"], "title": title})
        shown["completeness"] = table["completeness"]
        for name, values in zip("xyz", grains.position_um.T, strict=True):
            shown[name] = values
            shown[name].attrs["units"] = "um"
        add_process(entry, program, version, parameters, warnings)


def check_grains(path: Path) -> None:
    """Raise `KernelError` (exit 3) when the written file is not a table of grains that can be read again."""
    check_nexus(path)
    try:
        with h5py.File(path, "r", locking=False) as file:  # the part's own lock stands for HDF5's
            _table(file)
    except KernelError as error:
        raise KernelError(f"The written file {str(path)!r} is damaged: {error}", Exit.BAD_OUTPUT) from error


def read_grains(path: str | Path) -> Grains:
    """The table in a file that `write_grains` has written.

    Raises
    ------
    KernelError
        Exit 66 when it is missing or unreadable; 65 when it is no such file, or not whole.
    """
    with hdf5.open_file(str(path)) as file:
        return _table(file)


def _add(group: h5py.Group, name: str, values: NDArray[Any], column: _Column) -> None:
    data = group.create_dataset(name, data=values)
    data.attrs["long_name"] = column.says
    if column.unit:
        data.attrs["units"] = column.unit


def _add_crystal(group: h5py.Group, crystal: Crystal) -> None:
    group.attrs["NX_class"] = "NXsample"
    group["space_group"] = crystal.name
    group["unit_cell_abc"], group["unit_cell_alphabetagamma"] = crystal.lattice[:3], crystal.lattice[3:]
    group["unit_cell_abc"].attrs["units"], group["unit_cell_alphabetagamma"].attrs["units"] = "angstrom", "degree"
    if crystal.atoms:
        group["elements"] = [atom.element for atom in crystal.atoms]
        values = [(atom.x, atom.y, atom.z, atom.occupancy, atom.u_iso_A2) for atom in crystal.atoms]
        group["atoms"] = np.array(values)
        group["atoms"].attrs["long_name"] = "fractional x, y and z, occupancy, U iso in angstrom^2"


def _table(file: h5py.File) -> Grains:
    entry = file.get("entry")
    if not isinstance(entry, h5py.Group) or entry.attrs.get("format") != _FORMAT:
        raise KernelError(f"The file {file.filename!r} holds no table of grains.", Exit.BAD_INPUT)
    columns = {name: _column(file, name, column) for name, column in COLUMNS.items()}
    for name in _WHOLE:
        columns[name] = columns[name].astype(np.int64)
    covariance = None
    if hdf5.found(file, "/entry/grains/covariance") is not None:
        covariance = _column(file, "covariance", _COVARIANCE)
    crystals = [_crystal(file, f"/entry/crystal_{n}") for n in range(_count(entry))]
    return Grains(tuple(crystals), covariance=covariance, **columns)


def _column(file: h5py.File, name: str, column: _Column) -> NDArray[Any]:
    path = f"/entry/grains/{name}"
    data = hdf5.found(file, path)
    if data is None or data.size:
        data = hdf5.numbers(file, path, rank=1 + len(column.shape))
    return np.asarray(data[()], np.float64)


def _count(entry: h5py.Group) -> int:
    return sum(name.startswith("crystal_") for name in entry)


def _crystal(file: h5py.File, path: str) -> Crystal:
    lengths, angles = (hdf5.numbers(file, f"{path}/unit_cell_{part}", rank=1) for part in ("abc", "alphabetagamma"))
    symbol = _texts(file, f"{path}/space_group")[0]
    atoms: tuple[Atom, ...] = ()
    if hdf5.found(file, f"{path}/atoms") is not None:
        values = hdf5.numbers(file, f"{path}/atoms", rank=2)[()].tolist()
        elements = _texts(file, f"{path}/elements")
        atoms = tuple(Atom(element, *site) for element, site in zip(elements, values, strict=True))
    return replace(Crystal.of([*lengths[()], *angles[()]], symbol), atoms=atoms)


def _texts(file: h5py.File, path: str) -> list[str]:
    data = hdf5.found(file, path)
    if data is None or h5py.check_string_dtype(data.dtype) is None:
        raise KernelError(f"The file {file.filename!r} is not usable: {path} is missing.", Exit.BAD_INPUT)
    return [str(text) for text in np.ravel(data.asstr()[()]).tolist()]
