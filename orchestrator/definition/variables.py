"""`$name` in the texts of a workflow.

Substitution is literal, in one pass, of known names only: a name that was never set stays in the text, and the shell,
in a clean environment, makes it empty (DM's definitions count on it). `$$`, `$1`, `${4:-x}`, `$(…)` are the shell's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import ArgumentError

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_NAME = re.compile(rf"\$(?:({NAME})|\{{({NAME})\}})")

AUTOMATIC = ("id", "username", "execHost", "startTime", "endTime", "experimentName", "filePath", "workingDir")

# The top-level keys of DM's job record: an argument of this name would change what clients read there.
RESERVED = frozenset(
    {
        "id", "owner", "workflow", "status", "stage", "submissionTime", "submissionTimestamp", "startTime",
        "startTimestamp", "endTime", "endTimestamp", "runTime", "countFiles", "errorMessage", "username", "execHost",
    }
)  # fmt: skip

# What a shell acts on even inside the author's double quotes, or what ends the author's own quoting.
_SHELL_TEXT = {
    "\n": "a line break", "\r": "a carriage return", "\0": "a NUL", ";": "';'", "`": "a backtick", "|": "'|'",
    "&": "'&'", "<": "'<'", ">": "'>'", '"': "a double quote", "'": "a single quote", "$(": "'$('", "${": "'${'",
    "$[": "'$['", "\\": "a backslash",
}  # fmt: skip


def names(text: str) -> tuple[str, ...]:
    """The names a text uses, in order of first use; the longest identifier counts (`$fileDataDir` is not `$file`)."""
    return tuple(dict.fromkeys(m[1] or m[2] for m in _NAME.finditer(text)))


def names_in(value: Any) -> tuple[str, ...]:
    """The names used anywhere in a nested value."""
    return tuple(dict.fromkeys(name for text in _texts(value) for name in names(text)))


def substitute(text: str, values: Mapping[str, str]) -> str:
    """`text` with the known names replaced; what is put in is not looked at again."""
    return _NAME.sub(lambda m: values.get(m[1] or m[2], m[0]), text) if "$" in text else text


def substitute_in(value: Any, values: Mapping[str, str]) -> Any:
    """The same in every string of a nested value, keys included."""
    if isinstance(value, str):
        return substitute(value, values)
    if isinstance(value, Mapping):
        return {substitute(k, values): substitute_in(v, values) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [substitute_in(v, values) for v in value]
    return value


def check_supplied(name: str, value: str) -> None:
    """Refuse a value from outside that a shell would act on. Raises ArgumentError.

    Quoting it would not help: the author's own quotes are around it already.
    """
    for text, called in _SHELL_TEXT.items():
        if text in value:
            raise ArgumentError(
                f"${name} = {value!r} holds {called}, which a shell would act on.",
                "Rename the file or change the value; a kernel stage takes any name, and a site may allow shell text.",
            )


def check_name(name: str) -> None:
    """Refuse an argument whose name the job record needs for itself. Raises ArgumentError."""
    if name in RESERVED:
        raise ArgumentError(f"The argument {name!r} has the name of a key of the job record.", "Give it another name.")
    if not re.fullmatch(NAME, name):
        raise ArgumentError(
            f"{name!r} cannot be the name of an argument.",
            "Letters, digits and underscores, not beginning with a digit.",
        )


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [t for k, v in value.items() for t in (*_texts(k), *_texts(v))]
    if isinstance(value, list | tuple):
        return [t for v in value for t in _texts(v)]
    return []
