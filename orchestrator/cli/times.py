"""Times as people say them when they look back."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

from orchestrator.definition.units import duration_s
from orchestrator.errors import ArgumentError


def past(text: str, now: float, *, whole_day: bool = False) -> float:
    """Epoch seconds of `2h` (ago), `14:00` (the last one), a date, or an ISO 8601 time, in the zone of the reader.

    A date is its begin, or with `whole_day` its end. Raises ArgumentError.
    """
    text = text.strip()
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}", text):
            hours, minutes = map(int, text.split(":"))
            at = datetime.fromtimestamp(now).astimezone().replace(hour=hours, minute=minutes, second=0, microsecond=0)
            return at.timestamp() if at.timestamp() <= now else (at - timedelta(days=1)).timestamp()
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            day = date.fromisoformat(text) + timedelta(days=1 if whole_day else 0)
            return datetime(day.year, day.month, day.day).astimezone().timestamp()
        if "-" in text:
            return datetime.fromisoformat(text).timestamp()
        return now - duration_s(text)
    except (ValueError, OverflowError):
        raise ArgumentError(f"{text!r} is no time.", "Say 2h (ago), 14:00, 2026-11-24 or 2026-11-24T14:00.") from None
