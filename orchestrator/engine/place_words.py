"""Durations and moments for people. Total: any number has a text."""

from __future__ import annotations

import math
from datetime import UTC, datetime

LONGEST_S = 3.0e8  # ten years; a longer prediction says nothing more


def bounded(value: float | None) -> float | None:
    """A duration that can be counted with, or None."""
    if value is None or math.isnan(value) or value == math.inf:
        return None
    return min(max(value, 0.0), LONGEST_S)


def duration(seconds: float) -> str:
    s = bounded(seconds)
    if s is None:
        return "?"
    if s < 9.95:
        return f"{s:.1f} s".replace(".0 s", " s")
    for limit, unit, size in ((90, "s", 1.0), (5400, "min", 60.0), (129_600, "h", 3600.0)):
        if round(s) < limit:
            return f"{s / size:.1f} h" if unit == "h" else f"{s / size:.0f} {unit}"
    return f"{s / 86400:.1f} days"


def moment(at: float, now: float) -> str:
    """`14:00 UTC`, with the day when that is not today."""
    try:
        then, today = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(now, UTC)
    except (OverflowError, ValueError, OSError):
        return "an unknown time"
    return f"{then:%H:%M} UTC" if then.date() == today.date() else f"{then:%-d %b %Y %H:%M} UTC"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
