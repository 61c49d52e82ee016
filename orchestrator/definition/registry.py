"""The one door to the list of kernels, so that a test can put another list in its place."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast


class Registry(Protocol):
    """`get(name).arguments` maps names to records with `required`, `type` and `choices`."""

    def names(self) -> list[str]: ...

    def get(self, name: str) -> Any: ...


def kernels() -> Registry | None:
    """The registry of this installation, or None where the kernels are not installed. Imported when first
    asked."""
    try:
        return cast(Registry, importlib.import_module("kernels.registry"))
    except ModuleNotFoundError:
        return None


def problems(kernel: str, given: Mapping[str, Any], known: Registry | None) -> list[str]:
    """What is wrong with a call of `kernel`, one sentence each. Values that hold `$names` are not looked
    at."""
    from orchestrator.definition.arguments import is_type
    from orchestrator.definition.variables import names
    from orchestrator.errors import nearest

    if known is None:
        return ["The kernels are not installed here, so no kernel stage can run."]
    if kernel not in known.names():
        close = nearest(kernel, known.names())
        return [f"There is no kernel {kernel!r}.{close} Known: {', '.join(known.names()) or 'none'}."]
    schema = known.get(kernel).arguments
    found = [
        f"Kernel {kernel!r} has no argument {name!r}.{nearest(name, schema)} It takes: {', '.join(schema)}."
        for name in given
        if name not in schema
    ]
    for name, argument in schema.items():
        value = given.get(name)
        if value is None or value == "":
            if argument.required:
                found.append(f"Kernel {kernel!r} needs the argument {name!r}.")
            continue
        if isinstance(value, dict | list):
            found.append(f"Argument {name!r} of kernel {kernel!r} must be one value.")
            continue
        text = str(value)
        if names(text):
            continue
        choices = [str(c) for c in argument.choices or ()]
        if choices and text not in choices:
            found.append(
                f"Argument {name!r} of kernel {kernel!r} cannot be {text!r}.{nearest(text, choices)}"
                f" It is one of: {', '.join(choices)}."
            )
        elif not is_type(text, argument.type):
            found.append(f"Argument {name!r} of kernel {kernel!r} must be of type {argument.type}, not {text!r}.")
    return found
