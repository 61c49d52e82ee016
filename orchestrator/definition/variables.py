"""`$name` in texts: which names a text holds, and putting values in their place.

`$name` and `${name}` are variables, by the longest identifier that fits. Everything else that starts with a
dollar is the shell's and stays: `$$`, `$1`, `$(...)`, `${4:-x}`, `${name:-x}`. Substitution is one pass and
literal: a value that itself holds `$other` is not looked at again, and no quotes are added. A name without a
value stays in the text, where the shell makes it empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.errors import ArgumentError, nearest, printable

_VARIABLE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$([A-Za-z_][A-Za-z0-9_]*)")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Set by us when a run is accepted, starts or ends. `filePath` is the file of the iteration.
AUTOMATIC = ("filePath", "id", "username", "execHost", "startTime", "endTime", "experimentName")

# The input specification: arguments every workflow accepts, declared or not.
FILE_ARGUMENTS = ("filePath", "filePathList", "filePathPattern", "fileQueryDict")

# Keys of the job record that clients parse, and what we alone know. An argument may not be called like one of
# them.
RESERVED = frozenset(
    [
        "id",
        "owner",
        "status",
        "stage",
        "workflow",
        "submissionTime",
        "submissionTimestamp",
        "startTime",
        "startTimestamp",
        "endTime",
        "endTimestamp",
        "runTime",
        "countFiles",
        "errorMessage",
        "username",
        "execHost",
    ]
)


def names(text: str) -> tuple[str, ...]:
    """The variables in `text`, each once, in the order of their first appearance."""
    found = (m[1] or m[2] for m in _VARIABLE.finditer(text))
    return tuple(dict.fromkeys(name for name in found if name))


def names_in(value: Any) -> tuple[str, ...]:
    """The variables in all texts of a nested structure (values, not keys)."""
    return tuple(dict.fromkeys(name for text in _texts(value) for name in names(text)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def substitute(text: str, values: Mapping[str, str]) -> str:
    """`text` with each known variable replaced by its value, literally and once."""

    def replace(m: re.Match[str]) -> str:
        value = values.get(m[1] or m[2] or "")
        return m[0] if value is None else value

    return _VARIABLE.sub(replace, text) if "$" in text else text


def substitute_in(value: Any, values: Mapping[str, str]) -> Any:
    """A nested structure with `substitute` applied to each of its texts; keys, numbers and None stay."""
    if isinstance(value, str):
        return substitute(value, values)
    if isinstance(value, Mapping):
        return {key: substitute_in(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [substitute_in(item, values) for item in value]
    return value


def only_name(text: str) -> str:
    """The variable that is the whole of `text`, or an empty string."""
    m = _VARIABLE.fullmatch(text)
    return (m[1] or m[2] or "") if m else ""


# What a shell executes or reads again, wherever the author of a command put the variable: bare, in double
# quotes, in single quotes, in the argument of ssh. Each pattern goes with what it is called in the refusal.
# Parentheses are here because `tool $a` with the value `()(true)` defines a function called tool, exits 0 and
# runs nothing, and because a zsh at the other end of ssh executes `*(e:cmd:)`; a `#` because it comments out
# the rest of the line.
_SHELL = (
    (re.compile(r"[\n\r]"), "a line break"),
    (re.compile(r"\0"), "a NUL character"),
    (re.compile(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]"), "a control character"),
    (re.compile(r";"), "a semicolon"),
    (re.compile(r"`"), "a backtick"),
    (re.compile(r"\$"), "a dollar sign"),
    (re.compile(r"\|"), "a pipe"),
    (re.compile(r"&"), "an ampersand"),
    (re.compile(r"[<>]"), "a redirection (< or >)"),
    (re.compile(r"""['"]"""), "a quote"),
    (re.compile(r"\\"), "a backslash"),
    (re.compile(r"[()]"), "a parenthesis"),
    (re.compile(r"(?:^|\s)#"), "a comment sign (#) at the start of a word"),
)


def shell_text(value: str) -> str:
    """What in `value` a shell would execute or read again, in words; empty when there is nothing."""
    return next((word for pattern, word in _SHELL if pattern.search(value)), "")


def check_supplied(name: str, value: str) -> None:
    """Refuse a value from a user, or a file name, that would change the meaning of the shell command it is
    put into.

    Spaces, globs, `~`, braces and leading dashes are fine: they can add words to the author's command, as in
    DM, and nothing else. Raises ArgumentError.
    """
    word = shell_text(value)
    if word:
        shown = printable(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise ArgumentError(
            f"The value of {name!r} holds {word}, which a shell would read as part of the command: {shown}",
            "Rename the file or change the value; a kernel stage takes any value, since it has no shell.",
        )


def check_name(name: str) -> None:
    """Refuse an argument that is called like a key of the job record."""
    if name in RESERVED:
        raise ArgumentError(
            f"The argument {name!r} has the name of a key of the job record.",
            f"Choose another name; reserved are {', '.join(sorted(RESERVED))}.",
        )
    if not name or any(c in name for c in "\0\n\r:="):
        raise ArgumentError(f"{name!r} cannot be the name of an argument.", "Use letters, digits and _.")


def unknown_argument(name: str, known: list[str], workflow: str) -> ArgumentError:
    takes = ", ".join(known) if known else "no arguments"
    return ArgumentError(
        f"Workflow {workflow!r} has no argument {name!r}.{nearest(name, known)}", f"It takes: {takes}."
    )
