"""Logs are events with fields on stderr: one JSON object a line, or for people. No secret gets into them."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any

import structlog

MASK = "…"
DEEPEST = 20  # of what is nested deeper nothing is shown

_SECRET = r"token|passw|passphrase|secret|authori[sz]ation|credential|cookie|(?:api|private)[_-]?key"
_NAMES_SECRET = re.compile(rf"(?i){_SECRET}")
_ATTEMPT = re.compile(r"[A-Za-z0-9-]{1,64}\.\d+\.\d+")  # the token of an attempt names it and opens nothing
_IN_TEXT = [
    (re.compile(r"\b(bw_[A-Za-z0-9]+_)[A-Za-z0-9_-]+"), rf"\1{MASK}"),
    (re.compile(r"(://[^:/@\s]*:)\S*@"), rf"\1{MASK}@"),
    (re.compile(r"(?i)\b((?:bearer|basic)\s+)[^\s'\",]+"), rf"\1{MASK}"),
]
_NAMED_IN_TEXT = re.compile(rf"(?i)((?:{_SECRET})[\w-]*[\\\"']*\s*[=:]\s*[\\\"'\[({{]*)([^\s\"',;&)\\]+)")


def configure() -> None:
    """For programs."""
    _configure(structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.JSONRenderer())


def configure_for_people(*, warnings_only: bool = False) -> None:
    shown = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), pad_event_to=18, exception_formatter=structlog.dev.plain_traceback
    )
    least = logging.WARNING if warnings_only else logging.NOTSET
    _configure(structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False), shown, least=least)


def _configure(clock: Any, renderer: Any, *, least: int = logging.NOTSET) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            clock,
            structlog.processors.format_exc_info,  # a traceback is text as well, to be redacted
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def redact(_logger: object, _method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The same event without the values of fields whose names say that they are secret, and without tokens and
    passwords in any text."""
    return {str(name): _field(name, value, 0) for name, value in fields.items()}


def without_secrets(text: str) -> str:
    for pattern, shown in _IN_TEXT:
        text = pattern.sub(shown, text)
    return _NAMED_IN_TEXT.sub(lambda found: found[1] + _unless_attempt(found[2]), text)


def _unless_attempt(value: str) -> str:
    return value if _ATTEMPT.fullmatch(value) else MASK


def _field(name: object, value: Any, depth: int) -> Any:
    if not _NAMES_SECRET.search(str(name)) or value is None or isinstance(value, bool):
        return _plain(value, depth)
    return _unless_attempt(value) if isinstance(value, str) else MASK


def _plain(value: Any, depth: int) -> Any:
    """Made of what JSON has, so that no renderer finds text in it that was not looked at."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return without_secrets(value)
    if depth >= DEEPEST:
        return MASK
    if isinstance(value, Mapping):
        return {without_secrets(str(name)): _field(name, each, depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, bytes):
        return without_secrets(value.decode("utf-8", "backslashreplace"))
    return without_secrets(repr(value))
