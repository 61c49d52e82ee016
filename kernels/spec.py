"""What a kernel says about itself: its name, its arguments and where its function is.

Named tuples, not dataclasses: importing `dataclasses` alone would double the time that the registry takes to import.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from kernels.errors import KernelError, nearest, printable

Value = str | int | float | bool | None

_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class KernelArgument(NamedTuple):
    """One argument, in a workflow, on the command line and (in snake case) of the function.

    `default` None means "not given": the kernel decides, as `description` says.
    """

    name: str
    type: Literal["path", "string", "integer", "number", "boolean"]
    description: str
    required: bool = False
    default: Value = None
    choices: tuple[Value, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    role: Literal["input", "output", "value"] = "value"

    @property
    def parameter(self) -> str:
        """The name in Python: `rotationAxis` is `rotation_axis`."""
        return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", self.name).lower()

    def cast(self, kernel: str, value: Any) -> Value:
        """`value` as this argument's type.

        Raises
        ------
        KernelError
            Exit 2 when the value does not fit the type, the choices or the limits.
        """
        said = f"{kernel}: argument {self.name!r}"
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, bytes):
            value = os.fsdecode(value)
        try:
            result = self._convert(value)
        except (ValueError, TypeError, KeyError, OverflowError):
            shown = printable(value)[:80]
            raise KernelError(f"{said} must be {_A[self.type]}, not {shown!r}.") from None
        if self.choices and result not in self.choices:
            among = ", ".join(str(c) for c in self.choices)
            raise KernelError(
                f"{said} must be one of {among}, not {printable(result)!r}."
                + nearest(str(result), [str(c) for c in self.choices])
            )
        if isinstance(result, int | float) and not isinstance(result, bool):
            if self.minimum is not None and result < self.minimum:
                raise KernelError(f"{said} must be at least {self.minimum:g}, not {result:g}.")
            if self.maximum is not None and result > self.maximum:
                raise KernelError(f"{said} must be at most {self.maximum:g}, not {result:g}.")
        return result

    def _convert(self, value: Any) -> Value:
        if self.type == "boolean":
            return value if isinstance(value, bool) else _WORDS[_text(value)]
        if isinstance(value, bool):
            raise TypeError
        if self.type == "integer":
            return value if isinstance(value, int) else int(_text(value))
        if self.type == "number":
            number = float(value) if isinstance(value, int | float) else float(_text(value))
            if not math.isfinite(number):
                raise ValueError
            return number
        if not isinstance(value, str):
            value = str(value)
        if "\0" in value:
            raise ValueError
        return str(value)


_A = {
    "path": "a path",
    "string": "text",
    "integer": "a whole number",
    "number": "a finite number",
    "boolean": "true or false",
}


def _text(value: Any) -> str:
    text = str(value).strip().lower()
    if text not in _WORDS and not re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", text):
        raise ValueError
    return text


class KernelSpec(NamedTuple):
    """A registered kernel. `call` is `module:function`, imported only when the kernel runs."""

    name: str
    summary: str
    call: str
    version: str
    schema: tuple[KernelArgument, ...]
    parallel: bool = False  # can be run by several ranks together

    @property
    def arguments(self) -> dict[str, KernelArgument]:
        return {a.name: a for a in self.schema}

    def bind(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Every argument of the schema with its checked value, defaults filled in.

        Strings are accepted for every type, since they come from `$name` substitution and from the command line. An
        empty string (or None) for an optional argument means that it was not given.

        Raises
        ------
        KernelError
            Exit 2 for an unknown, missing or wrong argument; the sentence names it and the nearest known one.
        """
        known = self.arguments
        for name in arguments:
            if name not in known:
                raise KernelError(
                    f"{self.name} has no argument {printable(name)!r}.{nearest(str(name), known)}"
                    f" It takes: {', '.join(known)}."
                )
        bound: dict[str, Any] = {}
        for name, argument in known.items():
            value = arguments.get(name)
            if value is None or value == "":
                if argument.required:
                    state = "is empty" if name in arguments else "is missing"
                    raise KernelError(f"{self.name}: argument {name!r} {state}. It is {argument.description}")
                bound[name] = argument.default
            else:
                bound[name] = argument.cast(self.name, value)
        return bound
