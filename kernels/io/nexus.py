"""NeXus files that silx view and h5web open as they are: slices, curves and how they came about.

https://manual.nexusformat.org/classes/base_classes/NXdata.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels.cautions import Caution
from kernels.errors import Exit, KernelError


@contextmanager
def new_file(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to fill at a staged part. The part's own lock stands for HDF5's, which would see it as foreign."""
    try:
        with h5py.File(path, "w", locking=False) as file:
            yield file
    except RuntimeError as error:
        raise OSError(None, str(error), str(path)) from error


def add_entry(file: h5py.File, title: str, default: str) -> h5py.Group:
    """The NXentry `entry`, shown first; `default` names the plot in it that is shown first."""
    file.attrs.update({"NX_class": "NXroot", "default": "entry", "file_time": datetime.now(UTC).isoformat()})
    entry = file.create_group("entry")
    entry.attrs.update({"NX_class": "NXentry", "default": default})
    entry["title"] = title
    return entry


def add_image(
    entry: h5py.Group,
    name: str,
    values: NDArray[np.float32],
    axes: tuple[str, str],
    title: str,
    step: float,
    unit: str,
) -> None:
    """An image (rows, columns) as NXdata, with axes that count from the middle in steps of `step` `unit`."""
    group = entry.create_group(name)
    group.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": list(axes), "title": title})
    data = group.create_dataset("data", data=values, compression="gzip", compression_opts=1, shuffle=True)
    data.attrs.update({"units": "1/pixel", "long_name": "attenuation per pixel", "interpretation": "image"})
    for axis, length in zip(axes, values.shape, strict=True):
        positions = group.create_dataset(axis, data=(np.arange(length) - 0.5 * (length - 1)) * step)
        positions.attrs["units"] = unit


def add_curve(
    entry: h5py.Group, name: str, x: NDArray[np.float64], y: NDArray[np.float64], x_name: str, title: str
) -> None:
    """A curve as NXdata."""
    group = entry.create_group(name)
    group.attrs.update({"NX_class": "NXdata", "signal": "value", "axes": [x_name], "title": title})
    group["value"] = y
    group[x_name] = x
    group[x_name].attrs["units"] = "pixel"


def add_process(
    entry: h5py.Group,
    program: str,
    version: str,
    parameters: Mapping[str, object],
    warnings: Iterable[Caution] = (),
) -> None:
    """What made the data, as NXprocess with its parameters and `warnings`, a line `CODE: SENTENCE` each.

    File names that are not UTF-8 are escaped.
    """
    process = entry.create_group("process")
    process.attrs["NX_class"] = "NXprocess"
    process["program"], process["version"] = program, version
    process["date"] = datetime.now(UTC).isoformat()
    note = process.create_group("parameters")
    note.attrs["NX_class"] = "NXparameters"
    for name, value in parameters.items():
        if isinstance(value, str):
            value = value.encode("utf-8", "backslashreplace").decode()
        if value is not None:
            note[name] = value
    if lines := [str(caution) for caution in warnings]:
        process["warnings"] = lines


def check_nexus(path: Path) -> None:
    """Raise `KernelError` (exit 3) when the default plot of the file cannot be found."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            entry = file[file.attrs["default"]]
            plot = entry[entry.attrs["default"]]
            plot[plot.attrs["signal"]][()]
    except (OSError, KeyError, RuntimeError) as error:
        raise KernelError(f"The written file {str(path)!r} has no default plot.", Exit.BAD_OUTPUT) from error
