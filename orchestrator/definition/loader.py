"""Text, file or dict to `Definition`: everything that can be wrong with it is found here, with file, line,
stage and key.

Unknown keys of the workflow and of a stage are kept and never refused, as in DM. Stages are sorted as
strings.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.definition import arguments, pyspec, stages
from orchestrator.definition.place import Place
from orchestrator.errors import DefinitionError, NotFound, nearest
from orchestrator.model import Definition

WORKFLOW_KEYS = ("name", "owner", "stages", "description", "id", "userAccount", "version", "arguments")


def load(source: str | os.PathLike[str] | Mapping[str, Any]) -> Definition:
    """The definition in a file (`.py`, `.json`, or either) or in a dict.

    Raises NotFound when there is no such file, and DefinitionError for anything wrong with what it says.
    """
    if isinstance(source, Mapping):
        place = Place("<dict>")
        return _definition(pyspec.clean(source, place), place)
    path = os.fspath(source)
    try:
        seen = os.stat(path)
        if not stat.S_ISREG(seen.st_mode):
            raise DefinitionError("This is not a regular file.", file=path)
        if seen.st_size > pyspec.MAX_BYTES:
            raise DefinitionError(
                f"The file has {seen.st_size / 1e6:.1f} MB; a definition has at most {pyspec.MAX_BYTES / 1e6:.0f} MB.",
                file=path,
            )
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}.") from None
    except (OSError, ValueError) as e:
        raise DefinitionError(f"The file cannot be read: {getattr(e, 'strerror', e)}.", file=path) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise DefinitionError(
            f"Byte {data[e.start]:#04x} is not UTF-8.", "Save the file as UTF-8.", file=path, line=line
        ) from None
    return loads(text, source=path)


def loads(text: str, *, source: str = "<text>") -> Definition:
    """The definition in `text`. Raises DefinitionError, and nothing else, for any text."""
    raw, lines = pyspec.read(text, source=source)
    return _definition(raw, Place(source, lines))


def find(name_or_path: str, directories: Iterable[str | os.PathLike[str]]) -> Definition:
    """The definition in the file of that name, else in `NAME.py` or `NAME.json` of the first directory that
    has one.

    Raises NotFound, with the nearest names, when there is none.
    """
    if os.path.isfile(name_or_path):
        return load(name_or_path)
    places = [Path(d) for d in directories]
    known: list[str] = []
    for directory in places:
        files = sorted(directory.glob("*.py")) + sorted(directory.glob("*.json"))
        for path in files:
            if path.name.startswith(("_", ".")):
                continue
            if path.stem == name_or_path:
                return load(path)
            known.append(path.stem)
    listing = ", ".join(dict.fromkeys(known)) or "none"
    raise NotFound(
        f"There is no workflow {name_or_path!r}, as a file or by name.{nearest(name_or_path, known)}",
        f"Known by name: {listing}.",
    )


def _definition(raw: dict[str, Any], place: Place) -> Definition:
    for key in ("name", "owner", "stages"):
        if raw.get(key) is None:
            unknown = [k for k in raw if k not in WORKFLOW_KEYS]
            close = next((k for k in unknown if nearest(k, (key,))), "")
            raise place.error(f"The workflow has no {key!r}.", f"Was {close!r} meant to be {key!r}?" if close else "")
    for key in ("name", "owner", "description", "userAccount"):
        if not isinstance(raw.get(key) or "", str):
            raise place.at(key=key).error("The value must be text.")
    for key in ("name", "owner"):
        if not raw[key].strip() or not raw[key].isprintable():
            raise place.at(key=key).error("The value must be printable text and not empty.")
    if not isinstance(raw.get("version"), str | int | float | None):
        raise place.at(key="version").error("The value must be text or a number.")
    stages.check_account(raw.get("userAccount") or "", place.at(key="userAccount"))
    written = raw["stages"]
    if not isinstance(written, dict):
        raise place.at(key="stages").error(
            "The value must be a dict of stages.", "Write {'01-first': {...}, '02-second': {...}}."
        )
    if not written:
        raise place.at(key="stages").error("The workflow has no stage.", "Add one, for example {'01-run': {...}}.")
    for name, body in written.items():
        if not name.strip() or not name.isprintable():
            raise place.at(key="stages").error(f"{name!r} cannot be the name of a stage.")
        if not isinstance(body, dict):
            raise place.at(stage=name).error("A stage must be a dict.")
    ordered = {name: written[name] for name in sorted(written)}
    for name, body in ordered.items():
        stages.read(name, body, place)
        _check_after(name, body, ordered, place.at(stage=name, key="after"))
    declared = raw.get("arguments")
    return Definition(
        name=raw["name"],
        owner=raw["owner"],
        raw=raw,
        stages=ordered,
        arguments=None if declared is None else arguments.read_schema(declared, place),
        description=raw.get("description") or "",
        source=place.file,
        lines=dict(place.lines),
    )


def _check_after(name: str, body: dict[str, Any], known: Mapping[str, Any], place: Place) -> None:
    after = body.get("after")
    for other in [after] if isinstance(after, str) else after or []:
        if other == name:
            raise place.error("A stage cannot wait for itself.")
        if other not in known:
            raise place.error(f"There is no stage {other!r}.{nearest(other, known)}", f"Known: {', '.join(known)}.")
