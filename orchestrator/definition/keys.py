"""The keys of the language: which there are, and what may stand under each. Unknown keys are kept, as DM keeps them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

REPEAT = ("repeatPeriod", "repeatUntil", "maxRepeats")
ARGUMENT_TYPES = ("string", "integer", "number", "boolean", "path")
TYPE_NAMES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "file": "path"}

Kind = tuple[type, ...]
_TEXT: Kind = (str,)
_NUMBER: Kind = (int, float, str)  # DM's clients send numbers as texts, too
_LIST: Kind = (list,)
_DICT: Kind = (dict,)

WORKFLOW: dict[str, Kind] = {
    "name": _TEXT,
    "owner": _TEXT,
    "stages": _DICT,
    "description": _TEXT,
    "id": (str, int),
    "userAccount": _TEXT,
    "version": (str, int, float),
    "arguments": _DICT,
}

DM_STAGE: dict[str, Kind] = {
    "command": _TEXT,
    "workingDir": _TEXT,
    "dataDir": _TEXT,
    "outputVariableRegexList": _LIST,
    "parallelExec": (bool, int, str),
    "filePath": _TEXT,
    "filePathList": (list, str),
    "filePathPattern": _TEXT,
    "fileQueryDict": _DICT,
    "runIf": (str, bool),
    "repeatPeriod": _NUMBER,
    "repeatUntil": _TEXT,
    "maxRepeats": (int, str),
    "execOutFormat": (str, dict, list, int),
    "monitorCmd": _TEXT,
}

OUR_STAGE: dict[str, Kind] = {
    "kernel": _TEXT,
    "transfer": _DICT,
    "function": _TEXT,
    "workflow": _TEXT,
    "arguments": _DICT,
    "userAccount": _TEXT,
    "description": _TEXT,
    "site": _TEXT,
    "resources": _DICT,
    "retries": (dict, int),
    "reservation": _TEXT,
    "after": _LIST,
    "inputs": _LIST,
    "outputs": _LIST,
    "expect": (dict, list),
    "timeout": _NUMBER,
}

STAGE: dict[str, Kind] = {**DM_STAGE, **OUR_STAGE}

_LISTS_OF_TEXTS = ("outputVariableRegexList", "after", "inputs", "outputs")
_SAID = {str: "a text", int: "a number", float: "a number", list: "a list", dict: "a dict", bool: "true or false"}


def check_type(known: dict[str, Kind], key: str, value: Any, refuse: Callable[[str], Exception]) -> None:
    """Raise what `refuse` makes of a sentence when a known key holds the wrong kind of value."""
    kinds = known.get(key)
    if kinds is None or value is None:
        return
    wrong_bool = isinstance(value, bool) and bool not in kinds
    if not isinstance(value, kinds) or wrong_bool:
        wanted = " or ".join(dict.fromkeys(_SAID[k] for k in kinds))
        raise refuse(f"It must be {wanted}, not {value!r}.")
    if key in _LISTS_OF_TEXTS and isinstance(value, list) and not all(isinstance(v, str) for v in value):
        raise refuse("It must be a list of texts.")
    if key in ("repeatPeriod", "maxRepeats") and isinstance(value, str):
        try:
            float(value) if key == "repeatPeriod" else int(value)
        except ValueError:
            raise refuse(f"It must be a number, not {value!r}.") from None
