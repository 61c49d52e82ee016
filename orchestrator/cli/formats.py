"""Text for people and JSON for programs: tables, local times, durations, sizes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from orchestrator.errors import printable

COLOURS = {
    "done": "green",
    "running": "cyan",
    "opening": "cyan",
    "failed": "red",
    "timeout": "red",
    "aborting": "yellow",
    "aborted": "yellow",
    "skipped": "bright_black",
    "pending": "bright_black",
}


def emit(record: Any) -> None:
    """One JSON value on stdout, ASCII, so that no file name can break it."""
    click.echo(json.dumps(record, indent=2))


def iso(at: float) -> str | None:
    """UTC, to the millisecond; None for a time that has not come."""
    return datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="milliseconds") if at else None


def local(at: float) -> str:
    """The time in the zone of the reader, short when it is today."""
    if not at:
        return "-"
    when = datetime.fromtimestamp(at, tz=UTC).astimezone()
    today = datetime.now(tz=UTC).astimezone().date()
    return when.strftime("%H:%M:%S" if when.date() == today else "%Y-%m-%d %H:%M:%S")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def coloured(status: str) -> str:
    return click.style(status, fg=COLOURS.get(status))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> str:
    """Columns as wide as their content; those named in `right` are aligned there. Cells may be styled."""
    cells = [[str(c) for c in row] for row in rows]
    plain = [[printable(click.unstyle(c)) for c in row] for row in cells]
    widths = [max([len(h), *(len(row[i]) for row in plain)]) for i, h in enumerate(headings)]
    to_right = set(right)
    lines = []
    for shown, bare in [(list(headings), list(headings)), *zip(cells, plain, strict=True)]:
        parts = []
        for heading, text, known, width in zip(headings, shown, bare, widths, strict=True):
            gap = " " * (width - len(known))
            safe = text if click.unstyle(text) == known else known
            parts.append(gap + safe if heading in to_right else safe + gap)
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
