"""Quantities as people write them: `10 min`, `01:30:00`, `1.5 GB`."""

from __future__ import annotations

import re
from typing import Any

_SECONDS = {
    "": 1,
    "s": 1,
    "sec": 1,
    "min": 60,
    "m": 60,
    "h": 3600,
    "hour": 3600,
    "hours": 3600,
    "d": 86400,
    "day": 86400,
}
_BYTES = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def seconds(value: Any) -> float:
    """Seconds of a number, of `HH:MM:SS`, or of a text with a unit. Raises ValueError with a sentence."""
    clock = re.fullmatch(r"(\d+):(\d\d):(\d\d)", value) if isinstance(value, str) else None
    if clock:
        hours, minutes, rest = map(int, clock.groups())
        return float(hours * 3600 + minutes * 60 + rest)
    return _quantity(value, _SECONDS, "a time, such as 90, '10 min' or '01:30:00'")


def size_bytes(value: Any) -> int:
    """Bytes of a number or of a text with a unit. Raises ValueError with a sentence."""
    return int(_quantity(value, _BYTES, "a size, such as 1000, '1.5 GB' or '4 GiB'"))


def _quantity(value: Any, units: dict[str, int], wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is not {wanted}.")
    match = _QUANTITY.fullmatch(str(value))
    if match is None or match[2] not in units:
        raise ValueError(f"{value!r} is not {wanted}.")
    return float(match[1]) * units[match[2]]
