"""Conditions on metadata as people write them: `energy>=20`, `energy=20..30`, `sample=bone`, `start>=2026-11-21`."""

from __future__ import annotations

import math
import re

from msgspec import Struct

from orchestrator.catalog import entries
from orchestrator.errors import ArgumentError
from orchestrator.store import catalog_values
from orchestrator.store.catalog_search import Match, Wanted

DAY_S = 86_400.0
_OPERATOR = re.compile(r"(>=|<=|==|!=|>|<|=)")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
HOW = "Say KEY=VALUE, KEY=LOW..HIGH, KEY>=VALUE, KEY>VALUE, KEY<=VALUE or KEY<VALUE."


class Asked(Struct, frozen=True):
    """Which files, in the words of who asks; an empty field leaves it open. Times are epoch seconds."""

    experiment: str = ""
    kind: str = ""
    name: str = ""
    text: tuple[str, ...] = ()
    meta: tuple[str, ...] = ()  # conditions
    checksum: str = ""
    copies: str = ""
    place: str = ""
    collection: str = ""
    since: float = 0.0
    until: float = 0.0
    superseded: bool = False
    before: int = 0


def wanted(asked: Asked, only: tuple[str, ...] | None = None) -> Wanted:
    """What the store is to look for; `only`: in these experiments. Raises ArgumentError."""
    if asked.kind:
        entries.kind(asked.kind)
    if asked.copies:
        entries.state(asked.copies)
    return Wanted(
        experiments=(asked.experiment,) if asked.experiment else only,
        kind=asked.kind,
        name=asked.name,
        texts=tuple(text.strip() for text in asked.text if text.strip()),
        matches=tuple(match(text) for text in asked.meta),
        checksum=asked.checksum,
        copies=asked.copies,
        place=asked.place,
        collection=asked.collection,
        since=asked.since,
        until=asked.until,
        superseded=asked.superseded,
        before=asked.before,
    )


def match(text: str) -> Match:
    """Raises ArgumentError, which says at which character."""
    found = _OPERATOR.search(text)
    if found is None:
        raise _wrong(text, len(text), "a sign such as = or >= is missing")
    name, sign, said = text[: found.start()].strip(), found[1], text[found.end() :].strip()
    at = found.end() + len(text[found.end() :]) - len(text[found.end() :].lstrip())
    if not name.strip("/"):
        raise _wrong(text, 0, "the key is missing")
    if sign == "!=":
        raise _wrong(text, found.start(), "!= is not among the signs")
    if not said:
        raise _wrong(text, len(text), "the value is missing")
    if _OPERATOR.match(said):
        raise _wrong(text, at, "there is a second sign")
    name = catalog_values.spelled(name)
    if sign in ("=", "=="):
        return _equal(text, name, said, at)
    number = catalog_values.number(said)
    if number is None:
        raise _wrong(text, at, f"{said!r} is neither a number nor a date")
    if sign == ">=":
        return Match(name, low=number)
    if sign == ">":
        return Match(name, low=_end(said, number), open_low=not _is_day(said))
    if sign == "<":
        return Match(name, high=number, open_high=True)
    return Match(name, high=_end(said, number), open_high=_is_day(said))


def _equal(text: str, name: str, said: str, at: int) -> Match:
    low, dots, high = said.partition("..")
    ends = [catalog_values.number(end) for end in (low, high)]
    if dots and ends != [None, None]:
        for end, number in zip((low, high), ends, strict=True):
            if end.strip() and number is None:
                raise _wrong(text, text.index(end, at), f"{end.strip()!r} is neither a number nor a date")
        first = -math.inf if ends[0] is None else ends[0]
        last = math.inf if ends[1] is None else _end(high, ends[1])
        if first > last:
            raise _wrong(text, at, "the range ends before it begins")
        return Match(name, low=first, high=last, open_high=_is_day(high))
    number = catalog_values.number(said)
    if number is None:
        return Match(name, text=said)
    return Match(name, low=number, high=_end(said, number), open_high=_is_day(said))


def _is_day(said: str) -> bool:
    return _DAY.fullmatch(said.strip()) is not None


def _end(said: str, number: float) -> float:
    """Of a day its end."""
    return number + DAY_S if _is_day(said) else number


def _wrong(text: str, at: int, why: str) -> ArgumentError:
    return ArgumentError(f"The condition {text[:200]!r} cannot be read at character {at + 1}: {why}.", HOW)


def value(text: str) -> str | int | float | bool:
    """What is written as a value of metadata: a number or true or false where it reads as one, else the text."""
    if text in ("true", "false"):
        return text == "true"
    try:
        whole = int(text)
        return whole if str(whole) == text else text
    except ValueError:
        pass
    number = catalog_values.number(text)
    return text if number is None or re.match(r"\+|0\d|\d{4}-", text) else number
