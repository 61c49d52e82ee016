"""Durations and sizes as people write them: `90`, `'10 min'`, `'01:30:00'`, `'1-12:00:00'`, `'16 GB'`, `'2
GiB'`."""

from __future__ import annotations

import math
import re

_SECONDS = {"": 1, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
_BYTES = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def duration_s(value: object) -> float:
    """Seconds. Two-part clock times are refused: `10:00` is minutes to Slurm and hours to people."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        text = str(value).strip()
        clock = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,5}):(\d\d):(\d\d)", text, re.ASCII)
        count = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)\s*([a-z]*)", text.lower(), re.ASCII)
        if clock:
            days, hours, minutes, rest = (int(part or 0) for part in clock.groups())
            seconds = float(((days * 24 + hours) * 60 + minutes) * 60 + rest)
        elif count and (unit := count[2] if count[2] in _SECONDS else count[2].rstrip("s")) in _SECONDS:
            seconds = float(count[1]) * _SECONDS[unit]
        else:
            raise ValueError("Write seconds, '10 min', '2 h' or 'HH:MM:SS'.")
    if not 0 <= seconds < 1e9 or not math.isfinite(seconds):
        raise ValueError("A duration is at least 0 and less than 30 years.")
    return seconds


def size_bytes(value: object) -> int:
    """Bytes. `MB` is a million, `MiB` 2**20."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        size = float(value)
    else:
        m = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([kmgt]?)(i?)b?", str(value).strip().lower(), re.ASCII)
        if not m or (m[3] and not m[2]):
            raise ValueError("Write bytes, '500 MB' or '16 GiB'.")
        size = float(m[1]) * (_BINARY if m[3] else _BYTES)[m[2]]
    if not 0 <= size < 2**62:
        raise ValueError("A size is at least 0 and less than 4 EiB.")
    return int(size)
