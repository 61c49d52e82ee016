"""Records to JSON text and back, without losing a file name.

A file name that is not UTF-8 reaches Python as a string with lone surrogates. The fast encoder refuses those, so such a
record takes the standard library's way, which writes them as `\\udcXX` escapes: the text in the store is ASCII then.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")
_encoder = msgspec.json.Encoder()


@cache
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def dumps(record: Any) -> str:
    try:
        return _encoder.encode(record).decode()
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(record, str_keys=True), separators=(",", ":"))


def loads(text: str, kind: type[T]) -> T:
    if "\\ud" in text:
        return msgspec.convert(json.loads(text), kind, strict=False)
    record: T = _decoder(cast(Hashable, kind)).decode(text)
    return record


def iso(at: float) -> str | None:
    """UTC, to the millisecond; None for a time that has not come."""
    return datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="milliseconds") if at else None
