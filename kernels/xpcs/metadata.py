"""What is known of a measurement besides its frames: the `*_metadata.hdf` that APS 8-ID writes beside them.

A result file begins as a copy of it. What this reads and writes are the fields that boost-corr, pySimpleMask and
pyXPCSViewer read: /entry/schema_version, /entry/start_time, /entry/instrument/detector_1 (frame_time, count_time in
seconds; x_pixel_size, y_pixel_size, distance in metres; beam_center_x, beam_center_y in pixels) and
/entry/instrument/incident_beam/incident_energy in keV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from kernels.errors import Exit, KernelError
from kernels.io import hdf5

ENDING = "_metadata.hdf"
SCHEMA_VERSION = "1.0"
_DETECTOR, _BEAM = "/entry/instrument/detector_1", "/entry/instrument/incident_beam"


@dataclass(frozen=True)
class Metadata:
    """Times in seconds, lengths in metres, energy in keV, the centre of the beam in pixels from the first's middle."""

    frame_time_s: float
    count_time_s: float | None = None
    energy_kev: float | None = None
    pixel_size_m: tuple[float, float] | None = None  # x, y
    distance_m: float | None = None
    beam_center: tuple[float, float] | None = None  # x, y
    start_time: str = ""


def read_metadata(path: str) -> Metadata:
    """The metadata file at `path`.

    Raises
    ------
    KernelError
        Exit 66 when it is missing, 65 when it is no such file: the schema's version or the time of a frame is missing,
        or a number cannot be.
    """
    with hdf5.open_file(path) as file:
        if hdf5.found(file, "/entry/schema_version") is None:
            raise _bad(path, "/entry/schema_version is missing, which every metadata file has")
        frame_time = _number(file, path, f"{_DETECTOR}/frame_time", positive=True)
        if frame_time is None:
            raise _bad(path, f"{_DETECTOR}/frame_time is missing")
        pixel_x = _number(file, path, f"{_DETECTOR}/x_pixel_size", positive=True)
        pixel_y = _number(file, path, f"{_DETECTOR}/y_pixel_size", positive=True)
        x, y = (_number(file, path, f"{_DETECTOR}/beam_center_{axis}") for axis in "xy")
        return Metadata(
            frame_time_s=frame_time,
            count_time_s=_number(file, path, f"{_DETECTOR}/count_time", positive=True),
            energy_kev=_number(file, path, f"{_BEAM}/incident_energy", positive=True),
            pixel_size_m=None if pixel_x is None else (pixel_x, pixel_x if pixel_y is None else pixel_y),
            distance_m=_number(file, path, f"{_DETECTOR}/distance", positive=True),
            beam_center=None if x is None or y is None else (x, y),
            start_time=_text(file, "/entry/start_time"),
        )


def find_metadata(path: str) -> str:
    """The one metadata file that belongs to the frames `path`: `<stem>_metadata.hdf`, or the only one beside them.

    Raises
    ------
    KernelError
        Exit 66 when there is none, or there are several.
    """
    folder, stem = Path(path).parent, Path(path).name
    while True:
        own = folder / f"{stem}{ENDING}"
        if own.is_file():
            return str(own)
        if not Path(stem).suffix:
            break
        stem = Path(stem).stem
    there = sorted(p for p in folder.glob(f"*{ENDING}") if p.is_file()) if folder.is_dir() else []
    if len(there) == 1:
        return str(there[0])
    what = f"{len(there)} files *{ENDING}" if there else f"no file *{ENDING}"
    raise KernelError(f"There is {what} beside {path!r}: name one.", Exit.NO_INPUT)


def write_metadata(file: h5py.File, known: Metadata, *, title: str = "") -> None:
    """Fill a new file with what is known, as `read_metadata` reads it."""
    file.attrs.update({"NX_class": "NXroot", "default": "entry"})
    entry = file.create_group("entry")
    entry.attrs["NX_class"] = "NXentry"
    entry["schema_version"] = SCHEMA_VERSION
    entry["definition"] = "NXxpcs"
    entry["title"] = title
    entry["start_time"] = known.start_time or "1970-01-01T00:00:00+00:00"
    instrument = entry.create_group("instrument")
    instrument.attrs["NX_class"] = "NXinstrument"
    detector, beam = instrument.create_group("detector_1"), instrument.create_group("incident_beam")
    detector.attrs["NX_class"], beam.attrs["NX_class"] = "NXdetector", "NXbeam"
    x, y = known.beam_center or (None, None)
    pixel_x, pixel_y = known.pixel_size_m or (None, None)
    count_time = known.frame_time_s if known.count_time_s is None else known.count_time_s
    for group, name, value, unit in (
        (detector, "frame_time", known.frame_time_s, "s"),
        (detector, "count_time", count_time, "s"),
        (detector, "x_pixel_size", pixel_x, "m"),
        (detector, "y_pixel_size", pixel_y, "m"),
        (detector, "distance", known.distance_m, "m"),
        (detector, "beam_center_x", x, "pixel"),
        (detector, "beam_center_y", y, "pixel"),
        (beam, "incident_energy", known.energy_kev, "keV"),
    ):
        if value is not None:
            group[name] = float(value)
            group[name].attrs["units"] = unit


def _number(file: h5py.File, path: str, name: str, *, positive: bool = False) -> float | None:
    dataset = hdf5.found(file, name)
    if dataset is None:
        return None
    if dataset.dtype.kind not in "iuf" or dataset.size != 1:
        raise _bad(path, f"{name} is not one number")
    value = float(dataset[()].reshape(-1)[0] if dataset.ndim else dataset[()])
    if not math.isfinite(value) or (positive and value <= 0):
        raise _bad(path, f"{name} is {value:g}")
    return value


def _text(file: h5py.File, name: str) -> str:
    dataset = hdf5.found(file, name)
    value: Any = dataset[()] if dataset is not None and dataset.size == 1 else b""
    value = value.reshape(-1)[0] if getattr(value, "ndim", 0) else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _bad(path: str, what: str) -> KernelError:
    return KernelError(f"The metadata {path!r} are not usable: {what}.", Exit.BAD_INPUT)
