"""Text, file or dict → `Definition`: everything that can be said of a workflow before its arguments are known."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.definition import keys, literal
from orchestrator.errors import DefinitionError, NotFound, nearest
from orchestrator.model import ArgumentSpec, Definition, StageKind

SUFFIXES = (".py", ".json", "")


def load(source: str | Path | Mapping[str, Any]) -> Definition:
    """A definition from a dict, or from a file. Raises DefinitionError, which names file, line, stage and key."""
    if isinstance(source, Mapping):
        return _define(_plain(source), "<dict>", {})
    path = Path(source)
    try:
        if path.stat().st_size > literal.MOST_BYTES:
            raise DefinitionError(f"The file is larger than {literal.MOST_BYTES} bytes.", file=str(path))
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DefinitionError(f"It cannot be read: {error.strerror}.", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise DefinitionError(f"It is not UTF-8 text (byte {error.start}).", file=str(path)) from error
    return loads(text, source=str(path))


def loads(text: str, *, source: str = "<text>") -> Definition:
    """A definition from text: JSON, or one Python expression (py-spec)."""
    if source.endswith(".json"):
        return _define(_from_json(text, source), source, {})
    try:
        value, lines = literal.read(text, source)
    except DefinitionError:
        try:  # JSON that is no Python: true, false, null
            return _define(_from_json(text, source), source, {})
        except DefinitionError:
            pass
        raise
    return _define(value, source, lines)


def find(name_or_path: str, directories: Sequence[Path]) -> Definition:
    """A definition by file, or by name in these directories. Raises NotFound with near names, DefinitionError."""
    path = Path(name_or_path)
    if path.is_file():
        return load(path)
    known: dict[str, Path] = {}
    for directory in reversed(directories):
        known.update({p.stem: p for p in _definitions_in(directory)})
    if re.fullmatch(r"[\w.-]+", name_or_path) and name_or_path in known:
        return load(known[name_or_path])
    names = ", ".join(sorted(known)) or "none"
    raise NotFound(
        f"There is no workflow {name_or_path!r}, neither as a file nor by name.{nearest(name_or_path, known)}",
        f"Known by name: {names}.",
    )


def names(directories: Sequence[Path]) -> dict[str, Path]:
    """name → file of every definition in these directories; the first directory wins."""
    known: dict[str, Path] = {}
    for directory in reversed(directories):
        known.update({p.stem: p for p in _definitions_in(directory)})
    return dict(sorted(known.items()))


def _definitions_in(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return [p for p in sorted(directory.iterdir()) if p.suffix in (".py", ".json") and p.stem != "__init__"]


def _from_json(text: str, source: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in items:
            if key in made:
                raise DefinitionError(f"The key {key!r} stands twice in one object.", file=source)
            made[key] = value
        return made

    try:
        return json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise DefinitionError(f"This is not JSON: {error.msg}.", file=source, line=error.lineno) from None
    except RecursionError:
        raise DefinitionError("It is nested too deeply.", file=source) from None


def _plain(value: Any, depth: int = 0) -> Any:
    """A copy of plain data; refuses what could not have been written in a file."""
    if depth > literal.MOST_DEPTH:
        raise DefinitionError(f"The definition is nested more than {literal.MOST_DEPTH} deep.")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise DefinitionError(f"The key {key!r} must be a string.")
        return {k: _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, depth + 1) for v in value]
    raise DefinitionError(f"A {type(value).__name__} is not plain data.")


class _Where:
    """Builds errors that say where in the definition they are."""

    def __init__(self, source: str, lines: dict[tuple[str, str], int]) -> None:
        self.source, self.lines = source, lines

    def refuse(self, sentence: str, hint: str = "", *, stage: str = "", key: str = "") -> DefinitionError:
        line = self.lines.get((stage, key)) or self.lines.get((stage, ""), 0)
        return DefinitionError(sentence, hint, file=self.source, line=line, stage=stage, key=key)


def _define(raw: Any, source: str, by_id: literal.Lines) -> Definition:
    if not isinstance(raw, dict):
        raise DefinitionError(f"A workflow definition is a dict, not a {type(raw).__name__}.", file=source)
    lines = _lines(raw, by_id)
    where = _Where(source, lines)
    for key in ("name", "owner", "stages"):
        if key not in raw:
            similar = nearest(key, raw)
            raise where.refuse(f"The required key {key!r} is missing.", similar.replace("mean", "write").strip())
    for key in ("name", "owner"):
        if not isinstance(raw[key], str) or not raw[key].strip():
            raise where.refuse("It must be a text that is not empty.", key=key)
    for key, value in raw.items():
        keys.check_type(keys.WORKFLOW, key, value, partial(where.refuse, key=key))
    stages = raw["stages"]
    if not isinstance(stages, dict) or not stages:
        raise where.refuse("There must be at least one stage, in a dict.", key="stages")
    for name in stages:
        _check_stage(name, stages, where)
    return Definition(
        raw["name"],
        raw["owner"],
        raw,
        {name: stages[name] for name in sorted(stages)},
        arguments=_arguments(raw.get("arguments"), where),
        description=str(raw.get("description") or ""),
        source=source,
        lines=lines,
    )


def _lines(raw: dict[str, Any], by_id: literal.Lines) -> dict[tuple[str, str], int]:
    lines = {("", key): line for key, line in by_id.get(id(raw), {}).items()}
    stages = raw.get("stages")
    if isinstance(stages, dict):
        for name, line in by_id.get(id(stages), {}).items():
            lines[name, ""] = line
            lines.update({(name, key): at for key, at in by_id.get(id(stages[name]), {}).items()})
    return lines


def _check_stage(name: str, stages: dict[str, Any], where: _Where) -> None:
    stage = stages[name]
    if not name.strip() or not name.isprintable():
        raise where.refuse("The name of a stage must be printable and not empty.", stage=name)
    if not isinstance(stage, dict):
        raise where.refuse(f"A stage is a dict, not a {type(stage).__name__}.", stage=name)
    for key, value in stage.items():
        keys.check_type(keys.STAGE, key, value, partial(where.refuse, stage=name, key=key))
    kinds = [k.value for k in StageKind if k.value in stage]
    if not kinds:
        wanted = ", ".join(repr(k.value) for k in StageKind)
        similar = next((hint for key in stage if (hint := nearest(key, [k.value for k in StageKind]))), "")
        raise where.refuse(f"A stage needs one of {wanted}.{similar}", stage=name)
    if len(kinds) > 1:
        raise where.refuse(f"A stage is of one kind, but this has {' and '.join(map(repr, kinds))}.", stage=name)
    _check_repeat(name, stage, where)
    for pattern in stage.get("outputVariableRegexList") or []:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            at = f" at character {error.pos}" if isinstance(error, re.error) and error.pos is not None else ""
            sentence = f"The regular expression {pattern!r} is wrong{at}: {getattr(error, 'msg', error)}."
            raise where.refuse(sentence, stage=name, key="outputVariableRegexList") from None
    for other in stage.get("after") or []:
        if other not in stages:
            raise where.refuse(f"There is no stage {other!r}.{nearest(other, stages)}", stage=name, key="after")


def _check_repeat(name: str, stage: dict[str, Any], where: _Where) -> None:
    given = [k for k in keys.REPEAT if stage.get(k) is not None]
    missing = [k for k in keys.REPEAT if k not in given]
    if given and missing:
        raise where.refuse(
            f"{', '.join(keys.REPEAT)} go together; {' and '.join(missing)} is missing.", stage=name, key=given[0]
        )
    if given and int(stage["maxRepeats"]) < 1:
        raise where.refuse("It must be at least 1.", stage=name, key="maxRepeats")


def _arguments(raw: Any, where: _Where) -> dict[str, ArgumentSpec] | None:
    if raw is None:
        return None
    specs = {}
    for name, given in raw.items():
        if not isinstance(given, dict):
            raise where.refuse(f"The argument {name!r} is described by a dict.", key="arguments")
        known = ArgumentSpec.__struct_fields__
        for key in given:
            if key not in known:
                raise where.refuse(
                    f"The argument {name!r} has no property {key!r}.{nearest(key, known)}", key="arguments"
                )
        kind = str(given.get("type") or "string")
        kind = keys.TYPE_NAMES.get(kind, kind)
        if kind not in keys.ARGUMENT_TYPES:
            wanted = ", ".join(keys.ARGUMENT_TYPES)
            raise where.refuse(f"The type {kind!r} of {name!r} is none of {wanted}.", key="arguments")
        default = given.get("default")
        specs[name] = ArgumentSpec(
            required=bool(given.get("required", False)),
            type=kind,
            choices=tuple(str(c) for c in given.get("choices") or ()),
            default=None if default is None else str(default),
            description=str(given.get("description") or ""),
        )
    return specs
