"""Rules as the words of a command line say them, written as the text of a rule file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.arrival.rules import ALIASES, DAQ, RULE, WATCH
from orchestrator.errors import ArgumentError, nearest

YES, NO = ("true", "yes", "1"), ("false", "no", "0")
TABLES = {"ready", "parts", "when", "arguments_from"}  # for a rule file: they do not fit into one word


def text_of(pairs: Sequence[str], **said: Any) -> str:
    """One rule, of KEY:VALUE words (with the names of DM's options, too) and of what options said.

    Raises ArgumentError.
    """
    given = {key: value for key, value in said.items() if value not in (None, "", (), {})}
    for pair in pairs:
        key, colon, text = pair.partition(":")
        name = ALIASES.get(key, key).removeprefix("!")
        known = {**WATCH, **DAQ, **RULE}
        if not colon or name not in known or name in TABLES:
            names = [n for n in (*known, *ALIASES) if n not in TABLES]
            raise ArgumentError(
                f"{pair!r} is no KEY:VALUE of a rule.{nearest(key, names)}", "A rule file may say more: --rules FILE."
            )
        if key in given or name in given:
            raise ArgumentError(f"{key!r} is said twice.", "Leave one of them out.")
        given[key] = text if name == "arguments" else _value(key, text, known[name])
    return "".join(f"{key} = {_toml(value)}\n" for key, value in given.items())


def arguments_of(pairs: Sequence[str]) -> dict[str, str]:
    """Raises ArgumentError."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon or not name:
            raise ArgumentError(f"{pair!r} is not of the form name:value.")
        found[name] = value
    return found


def _value(key: str, text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() not in YES + NO:
            raise ArgumentError(f"{key!r} is yes or no, not {text!r}.")
        return text.lower() in YES
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise ArgumentError(f"{key!r} is a number, not {text!r}.") from None
    if kind is int and text.isdigit():
        return int(text)
    return text.split(",") if kind is tuple else text


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_quoted(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else _quoted(value)


def _quoted(text: str) -> str:
    """A half character, of a name that is not UTF-8, stays as it is: TOML has no escape for it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
