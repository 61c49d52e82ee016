"""The `arguments` of a workflow: the schema in its definition, and the values of one run checked against
it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

from orchestrator.definition import variables
from orchestrator.definition.place import Place
from orchestrator.errors import ArgumentError, nearest
from orchestrator.model import ArgumentSpec

KEYS = ("required", "choices", "type", "default", "description")
TYPES = {
    **dict.fromkeys(("string", "str", "text"), "string"),
    **dict.fromkeys(("integer", "int"), "integer"),
    **dict.fromkeys(("number", "float", "double"), "number"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    **dict.fromkeys(("path", "file", "directory"), "path"),
}
# Accepted by every workflow, declared or not: where its input is, which content that has, and its experiment.
ALWAYS = (*variables.FILE_ARGUMENTS, "inputChecksum", "dataDir", "workingDir", "experimentName")
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def read_schema(declared: Any, place: Place) -> dict[str, ArgumentSpec]:
    """The declared arguments. A type that we do not know counts as text, and other keys are kept, as in DM
    (lint warns)."""
    place = place.at(key="arguments")
    if not isinstance(declared, dict):
        raise place.error("The value must be a dict of arguments.", "Write {'name': {'required': True}, ...}.")
    schema: dict[str, ArgumentSpec] = {}
    for name, spec in declared.items():
        try:
            variables.check_name(name)
        except ArgumentError as e:
            raise place.error(e.sentence, e.hint) from None
        schema[name] = _read(name, {} if spec is None else spec, place)
    _check_defaults(schema, place)
    return schema


def _read(name: str, spec: Any, place: Place) -> ArgumentSpec:
    if not isinstance(spec, dict):
        raise place.error(f"Argument {name!r} must be a dict.", f"Its keys: {', '.join(KEYS)}.")
    required = spec.get("required") or False
    if str(required).lower() not in ("true", "false", "0", "1"):
        raise place.error(f"'required' of argument {name!r} must be True or False.")
    kind = spec.get("type") or "string"
    if not isinstance(kind, str):
        raise place.error(f"'type' of argument {name!r} must be text.", f"Known: {', '.join(TYPES)}.")
    choices = spec.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(c, str | int | float) for c in choices):
        raise place.error(f"'choices' of argument {name!r} must be a list of texts or numbers.")
    default = spec.get("default")
    if not isinstance(default, str | int | float | None):
        raise place.error(f"'default' of argument {name!r} must be text or a number.")
    description = spec.get("description") or ""
    if not isinstance(description, str):
        raise place.error(f"'description' of argument {name!r} must be text.")
    result = ArgumentSpec(
        required=str(required).lower() in ("true", "1"),
        type=TYPES.get(kind.lower(), "string"),
        choices=tuple(str(c) for c in choices),
        default=None if default is None else str(default),
        description=description,
    )
    if result.default is not None and not variables.names(result.default):
        try:
            check_value(name, result.default, result)
        except ArgumentError as e:
            raise place.error(f"The default is refused: {e.sentence}", e.hint) from None
    return result


def _check_defaults(schema: Mapping[str, ArgumentSpec], place: Place) -> None:
    reads = {name: variables.names(spec.default or "") for name, spec in schema.items()}
    for name, others in reads.items():
        for other in others:
            if other not in schema:
                raise place.error(
                    f"The default of {name!r} reads ${other}, which is no argument.{nearest(other, schema)}",
                    "A default can hold the $names of other arguments only.",
                )
    done: set[str] = set()
    for start in reads:
        path: list[str] = []
        _walk(start, reads, path, done, place)


def _walk(name: str, reads: Mapping[str, tuple[str, ...]], path: list[str], done: set[str], place: Place) -> None:
    if name in path:
        circle = " → ".join([*path[path.index(name) :], name])
        raise place.error(f"Defaults read each other in a circle: {circle}.")
    if name in done:
        return
    if len(path) > 50:
        raise place.error("Defaults read each other more than 50 deep.")
    path.append(name)
    for other in reads[name]:
        _walk(other, reads, path, done, place)
    path.pop()
    done.add(name)


def check_value(name: str, value: str, spec: ArgumentSpec) -> None:
    """Refuse a value that is not of the declared type or not among the choices.

    Empty means "none" for an optional argument without choices, whatever its type: kernels read it so, too.
    """
    if value == "" and not spec.required and not spec.choices:
        return
    if spec.choices and value not in spec.choices:
        raise ArgumentError(
            f"Argument {name!r} cannot be {_short(value)!r}.{nearest(value, spec.choices)}",
            f"It is one of: {', '.join(spec.choices)}.",
        )
    if not is_type(value, spec.type):
        words = {
            "integer": "a whole number",
            "number": "a number",
            "boolean": "true or false",
            "path": "a path",
        }
        raise ArgumentError(f"Argument {name!r} must be {words[spec.type]}, not {_short(value)!r}.")


def is_type(value: str, kind: str) -> bool:
    text = value.strip()
    match kind:
        case "integer":
            return re.fullmatch(r"[-+]?\d{1,18}", text, re.ASCII) is not None
        case "number":
            number = re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?", text[:400], re.ASCII)
            return number is not None and math.isfinite(float(text))
        case "boolean":
            return text.lower() in TRUE + FALSE
        case "path":
            return text != ""
        case _:
            return True


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def supplied(given: Mapping[str, Any]) -> dict[str, str]:
    """The arguments of a request as texts, or ArgumentError for a name or value that no workflow can take."""
    result: dict[str, str] = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise ArgumentError("The name of an argument must be text.")
        variables.check_name(name)
        if not isinstance(value, str | int | float):
            raise ArgumentError(f"The value of {name!r} must be text or a number.")
        if "\0" in str(value):
            raise ArgumentError(f"The value of {name!r} holds a NUL character.")
        try:
            str(value).encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ArgumentError(f"The value of {name!r} holds half a character (a lone surrogate).") from None
        result[name] = str(value)
    return result


def check(
    given: Mapping[str, str],
    schema: Mapping[str, ArgumentSpec] | None,
    *,
    workflow: str,
    open_names: bool = False,
) -> None:
    """Compare the arguments of a run with the schema. With `open_names` a value that holds `$names` is not
    looked at: it is bound, and checked again, when the child run starts."""
    if schema is None:
        return
    for name in given:
        if name not in schema and name not in ALWAYS:
            raise variables.unknown_argument(name, list(schema), workflow)
    for name, spec in schema.items():
        if spec.required and spec.default is None and name not in given:
            text = f" It is {spec.description}" if spec.description else ""
            raise ArgumentError(
                f"Workflow {workflow!r} needs the argument {name!r}.{text}", f"It takes: {', '.join(schema)}."
            )
    for name, value in given.items():
        if name in schema and not (open_names and variables.names(value)):
            check_value(name, value, schema[name])


def fill(given: Mapping[str, str], schema: Mapping[str, ArgumentSpec] | None, directory: str) -> dict[str, str]:
    """The arguments with defaults filled in and paths made absolute. A default that reads an argument without
    a value stays unset."""
    values = dict(given)
    waiting = {n: s.default for n, s in (schema or {}).items() if n not in values and s.default is not None}
    while True:
        ready = [n for n, text in waiting.items() if all(o in values for o in variables.names(text))]
        if not ready:
            break
        bound = {name: variables.substitute(waiting.pop(name), values) for name in ready}
        for name, value in bound.items():
            if schema and variables.names(schema[name].default or ""):
                check_value(name, value, schema[name])
        values.update(bound)
    for name, spec in (schema or {}).items():
        if spec.type == "path" and name in values:
            values[name] = absolute(values[name], directory)
    return values


def absolute(path: str, directory: str) -> str:
    """`path` from `directory`, unless it is absolute, starts with a `$name` or `~`, or names another
    machine."""
    if not path or path.startswith(("/", "$", "~")) or re.match(r"[A-Za-z][\w+.-]*:(//|/)", path):
        return path
    return os.path.normpath(os.path.join(directory, path)) if path == "." else os.path.join(directory, path)


def sources(name: str, given: Mapping[str, str], schema: Mapping[str, ArgumentSpec] | None) -> set[str]:
    """The supplied arguments that the value of `name` is made of: itself, or those its default reads."""
    if name in given:
        return {name}
    spec = (schema or {}).get(name)
    return {s for other in variables.names((spec and spec.default) or "") for s in sources(other, given, schema)}
