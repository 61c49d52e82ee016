"""Text for people and JSON for programs: tables, local times, durations, sizes."""

from __future__ import annotations

import json
import textwrap
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
    "held": "yellow",
    "aborted": "yellow",
    "skipped": "bright_black",
    "pending": "bright_black",
    "watched": "green",
    "wrong": "red",
    "unseen": "yellow",
    "stopped": "bright_black",
    "run": "green",
    "due": "cyan",
    "incomplete": "yellow",
    "ignored": "bright_black",
    "duplicate": "bright_black",
}


def emit(record: Any) -> None:
    """One JSON value on stdout, ASCII, so that no file name can break it."""
    click.echo(json.dumps(record, indent=2))


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


class Styled(str):
    """Text of ours with terminal codes in it; all other text is escaped before it is shown."""


def coloured(status: str) -> Styled:
    return Styled(click.style(status, fg=COLOURS.get(status)))


def entries(items: Iterable[tuple[str, str, str]], *, width: int = 100) -> str:
    """A name with a note on one line, its description wrapped below: for texts too long for a table."""
    lines = []
    for name, note, description in items:
        lines.append(printable(f"  {name}  ({note})" if note else f"  {name}"))
        lines += textwrap.wrap(printable(description), width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> str:
    """Columns as wide as their content; those named in `right` are aligned there."""
    cells = [list(headings), *([c if isinstance(c, Styled) else printable(c) for c in row] for row in rows)]
    widths = [max(len(click.unstyle(row[i])) for row in cells) for i in range(len(headings))]
    to_right = {i for i, heading in enumerate(headings) if heading in set(right)}
    lines = []
    for row in cells:
        parts = []
        for i, (text, width) in enumerate(zip(row, widths, strict=True)):
            gap = " " * (width - len(click.unstyle(text)))
            parts.append(gap + text if i in to_right else text + gap)
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
