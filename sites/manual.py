"""The list of every key, for `docs/sites.md`: `python -m sites.manual` prints it."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sites.schema import Part, SiteProfile


def text() -> str:
    """A table a part, in the order of the profile."""
    return "\n".join(_part(heading, model) for heading, model in _parts(SiteProfile, "")) + "\n"


def _parts(model: type[Part], above: str) -> Iterator[tuple[str, type[Part]]]:
    for name, field in model.model_fields.items():
        inner, many = _inner(field.annotation)
        if inner is None or (above == "queues" and name == "node"):
            continue
        key = f"{above}.{name}" if above else name
        yield (f"[[{key}]]" if many else f"[{key}]"), inner
        yield from _parts(inner, key)


def _inner(annotation: Any) -> tuple[type[Part] | None, bool]:
    """The table that stands there, and whether there may be several."""
    many = get_origin(annotation) is list
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Part):
            return candidate, many
    return None, many


def _part(heading: str, model: type[Part]) -> str:
    lines = [f"### `{heading}`", "", "| key | type | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        inner, _ = _inner(field.annotation)
        if inner is not None and not (heading == "[[queues]]" and name == "node"):
            continue  # a table of its own
        shown = "table, as `[node]`" if inner is not None else _type(field.annotation)
        description = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{field.alias or name}` | {shown} | {_default(field)} | {description} |")
    return "\n".join([*lines, ""])


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, types.UnionType):
        return _type(next(a for a in arguments if a is not type(None)))
    if origin is Literal:
        return ", ".join(f"`{a}`" for a in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}s"
    if origin is dict:
        return "table of texts"
    names = {"str": "text", "int": "integer", "float": "number", "bool": "boolean", "datetime": "moment"}
    return names.get(annotation.__name__, str(annotation.__name__))


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "has to be given"
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and value.is_integer():
        return f"`{int(value)}`"
    return f"`{value}`" if not isinstance(value, list | dict) else f"`{str(value).replace(chr(39), chr(34))}`"


if __name__ == "__main__":
    print(text(), end="")
