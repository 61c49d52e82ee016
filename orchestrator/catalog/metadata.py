"""What files say of themselves: the essentials under names of ours, and attributes and small values under their paths.

An HDF5 file is read by a process of its own (`arrival.contents`), within a time and a memory, so that a hostile one can
harm that process alone. NeXus is known by its classes, DXchange by its paths. Of other files there is nothing to say.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.arrival.contents import Question, Reader
from orchestrator.errors import InputError

KEYS_MOST = 900
LIMIT_S = 20.0
SIGNATURE = b"\x89HDF\r\n\x1a\n"
STARTS = (0, 512, 1024, 2048)  # where it may be, behind what somebody put in front

# our name → where NeXus has it: the class of a group within the entry, and a field of it
NEXUS = {
    "title": ("NXentry/title",),
    "start_time": ("NXentry/start_time",),
    "end_time": ("NXentry/end_time",),
    "proposal": ("NXentry/experiment_identifier", "NXentry/proposal_id"),
    "technique": ("NXentry/definition",),
    "instrument": ("NXinstrument/name",),
    "source": ("NXsource/name",),
    "sample": ("NXsample/name",),
    "sample_description": ("NXsample/description",),
    "temperature": ("NXsample/temperature",),
    "energy": ("NXmonochromator/energy", "NXbeam/incident_energy", "NXentry/incident_energy"),
    "exposure_time": ("NXdetector/count_time", "NXdetector/exposure_time"),
    "detector": ("NXdetector/description", "NXdetector/local_name"),
    "user": ("NXuser/name",),
}
DXCHANGE = {
    "title": ("/exchange/title", "/measurement/sample/description/title"),
    "start_time": ("/process/acquisition/start_date", "/measurement/sample/file/time", "/exchange/start_date"),
    "end_time": ("/process/acquisition/end_date",),
    "proposal": ("/measurement/sample/experiment/proposal", "/measurement/sample/proposal"),
    "technique": ("/measurement/instrument/technique",),
    "instrument": ("/measurement/instrument/name", "/measurement/instrument/instrument_name"),
    "source": ("/measurement/instrument/source/name", "/measurement/instrument/source/source_name"),
    "sample": ("/measurement/sample/name", "/measurement/sample/sample_name"),
    "sample_description": ("/measurement/sample/description", "/measurement/sample/description_1"),
    "temperature": ("/measurement/sample/temperature",),
    "energy": ("/measurement/instrument/monochromator/energy",),
    "exposure_time": (
        "/measurement/instrument/detector/exposure_time",
        "/measurement/instrument/detection_system/detector/exposure_time",
    ),
    "detector": ("/measurement/instrument/detector/model", "/measurement/instrument/detector/manufacturer"),
    "user": ("/measurement/sample/experimenter/name", "/measurement/sample/user/name"),
}
IN_KEV = {"ev": 1e-3, "kev": 1.0, "mev": 1e3}


def extract(path: str | os.PathLike[str], *, reader: Reader | None = None) -> dict[str, Any]:
    """The metadata of a file; empty when it says nothing of itself, `unreadable` in it when it cannot.

    Raises InputError when it is not there, or no file. Many files are read sooner with a reader that is kept.
    """
    handle = opened(path)
    try:
        return of_handle(handle, reader=reader)
    finally:
        os.close(handle)


def opened(path: str | os.PathLike[str]) -> int:
    """A handle to read a regular file, which is waited for by nobody. Raises InputError."""
    shown = os.fspath(path)
    try:
        handle = os.open(shown, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"The file '{shown}' is not there.") from None
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"The file '{shown}' cannot be read: {said}.") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(f"'{shown}' is not a regular file.")
    return handle


def of_handle(handle: int, *, reader: Reader | None = None) -> dict[str, Any]:
    """The same of a file that is open."""
    if not any(os.pread(handle, len(SIGNATURE), at) == SIGNATURE for at in STARTS):
        return {}
    if reader is None:
        with Reader(limit_s=LIMIT_S) as own:
            return of_handle(handle, reader=own)
    contents = reader.ask(handle, Question(metadata=True))
    if contents.broken:
        return {"format": "HDF5", "unreadable": contents.broken[:300]}
    return read(contents.metadata or {})


def read(said: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of what an HDF5 file said. Pure."""
    usable = {name: value for name, value in said.items() if not _is_empty(value)}
    classes = _classes(usable)
    if "NXentry" in classes:
        kind, places = "NeXus", {name: tuple(_places(classes, fields)) for name, fields in NEXUS.items()}
    elif any(name.startswith(("/exchange/data", "/exchange@")) for name in usable):
        kind, places = "DXchange", dict(DXCHANGE)
    else:
        kind, places = "HDF5", {}
    found: dict[str, Any] = {"format": kind}
    for name, paths in places.items():
        path = next((p for p in paths if p in usable), None)
        if path is not None:
            found[name] = _in_kev(usable, path) if name == "energy" else usable[path]
    if frames := _frames(usable, classes):
        found["frames"], found["shape"] = frames[0], frames
    for name, value in usable.items():
        if len(found) >= KEYS_MOST:
            break
        found[name] = value
    return found


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or (isinstance(value, float) and not math.isfinite(value))


def _classes(said: Mapping[str, Any]) -> dict[str, list[str]]:
    """The groups of each class in the first entry, and that entry."""
    entry = next(
        (name.partition("@")[0] for name, v in said.items() if name.endswith("@NX_class") and v == "NXentry"), ""
    )
    found: dict[str, list[str]] = {}
    for name, value in said.items():
        path, at, attribute = name.rpartition("@")
        if at and attribute == "NX_class" and isinstance(value, str) and entry and f"{path}/".startswith(f"{entry}/"):
            found.setdefault(value, []).append(path)
    return found


def _places(classes: Mapping[str, list[str]], fields: tuple[str, ...]) -> Iterator[str]:
    for field in fields:
        group, _, name = field.partition("/")
        for path in classes.get(group, ()):
            yield f"{path}/{name}"


def _in_kev(said: Mapping[str, Any], path: str) -> Any:
    value, units = said[path], str(said.get(f"{path}@units", "")).lower()
    if isinstance(value, int | float) and not isinstance(value, bool) and units in IN_KEV:
        return value * IN_KEV[units]
    return value


def _frames(said: Mapping[str, Any], classes: Mapping[str, list[str]]) -> list[int]:
    """The shape of the images."""
    places = ["/exchange/data", *_places(classes, ("NXdata/data", "NXdetector/data"))]
    shapes = (said[f"{path}#shape"] for path in places if f"{path}#shape" in said)
    return next((list(shape) for shape in shapes if len(shape) > 2), [])
