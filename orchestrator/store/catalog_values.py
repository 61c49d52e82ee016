"""By which values and words a file of the catalog is found: its metadata made flat.

`{"entry": {"energy": 25.5}}` has the key `entry/energy`. What reads as a number, or as a date in ISO 8601, is compared
as a number (dates as epoch seconds, in UTC where they name no zone); all else is compared as text. Of a list each
element is a value of its key. What every file has besides its metadata is here under keys that begin with `file.`, so
that a search asks for everything in one way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator import codec
from orchestrator.errors import ArgumentError
from orchestrator.store import files
from orchestrator.store.texts import key, storable

PART = 8192  # files that lie together
KEYS_MOST = 1000  # values of a file that can be searched; those behind them are kept, and shown
ELEMENTS_MOST = 16  # of a list
DEPTH_MOST = 16
VALUE_MOST = 64 << 10  # bytes of one text
METADATA_MOST = 1 << 20  # bytes of all of a file
WORDS_MOST = 4  # of one value: the beginnings of its first words
TEXTS_MOST = 32  # values of a file whose words are found
ADDED, SIZE, KIND, EXPERIMENT = "file.added", "file.size", "file.kind", "file.experiment"
NAME, TEXT = b"n", b"t"  # in front of a word: where it stands

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?([zZ]|[+-]\d\d:?\d\d)?)?")
_LETTERS = re.compile(r"[^\W_]*[^\W\d_][^\W_]*")

Value = tuple[str, float | None, str]  # key, number, text


def part(file_id: int) -> int:
    return file_id // PART


def plain(metadata: Mapping[str, Any], what: str = "the file") -> dict[str, Any]:
    """The same as JSON can hold it: NaN and infinities as texts. Raises ArgumentError for what is too large."""
    made = {str(name).strip("/"): _plain(name, value, DEPTH_MOST) for name, value in metadata.items()}
    if "" in made:
        raise ArgumentError(f"A key of the metadata of {what} is empty.", "Say KEY:VALUE.")
    size = len(codec.dumps(made))
    if size > METADATA_MOST:
        raise ArgumentError(
            f"The metadata of {what} has {size:,} bytes; at most {METADATA_MOST:,} are kept.",
            "What is larger belongs into a file of its own.",
        )
    return made


def _plain(name: str, value: Any, depth: int) -> Any:
    if isinstance(value, str):
        size = len(value.encode("utf-8", "surrogatepass"))
        if size > VALUE_MOST:
            raise ArgumentError(
                f"The value of {name[:100]!r} has {size:,} bytes; at most {VALUE_MOST:,} are kept.",
                "What is larger belongs into a file of its own.",
            )
        return value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)[:100]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping) and depth:
        return {str(n): _plain(str(n), v, depth - 1) for n, v in value.items()}
    if isinstance(value, list | tuple) and depth:
        return [_plain(name, v, depth - 1) for v in value]
    return _plain(name, str(value), 0)


def number(text: str) -> float | None:
    """What a text says as a number or a date; None when it is neither."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        found = float(text)
        return found if math.isfinite(found) else None
    if _DATE.fullmatch(text):
        try:
            at = datetime.fromisoformat(text.replace(",", "."))
        except ValueError:
            return None
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return None


def spelled(name: str) -> str:
    """A key as it is stored, of one as it is written."""
    return key(name.strip().strip("/"))


def flat(metadata: Mapping[str, Any]) -> list[Value]:
    """The values that can be searched, each once."""
    found: dict[Value, None] = {}
    for value in _flat("", metadata, DEPTH_MOST):
        found[value] = None
        if len(found) == KEYS_MOST:
            break
    return list(found)


def _flat(above: str, value: Any, depth: int) -> Iterator[Value]:
    if isinstance(value, Mapping):
        for name, below in value.items() if depth else ():
            yield from _flat(f"{above}/{str(name).strip('/')}" if above else str(name).strip("/"), below, depth - 1)
    elif isinstance(value, list | tuple):
        for below in value[:ELEMENTS_MOST] if depth else ():
            if not isinstance(below, Mapping):
                yield from _flat(above, below, 0)
    elif isinstance(value, bool):
        yield key(above), None, "true" if value else "false"
    elif isinstance(value, int | float):
        yield (key(above), float(value), "") if math.isfinite(value) else (key(above), None, str(value))
    elif isinstance(value, str):
        said = number(value)
        yield key(above), said, key(value.strip()) if said is None else ""


def rows(file_id: int, values: list[Value]) -> list[dict[str, Any]]:
    """Of numbers the text is theirs, as the rows of one key differ by it."""
    return [
        {"file_id": file_id, "key": name, "text": text if n is None else repr(n), "number": n, "part": part(file_id)}
        for name, n, text in values
    ]


def word_rows(file_id: int, name: str, values: list[Value]) -> list[dict[str, Any]]:
    found = {NAME + word for word in files.words_of(name)}
    texts = [text for _, n, text in values if n is None and _LETTERS.search(text)]
    for text in texts[:TEXTS_MOST]:
        starts = [match.start() for match in _LETTERS.finditer(text)][:WORDS_MOST]
        found.update(TEXT + files.beginning(text[at:])[0] for at in starts)
    return [{"file_id": file_id, "word": word, "part": part(file_id)} for word in sorted(found)]


def beginning(where: bytes, text: str) -> tuple[bytes, bytes]:
    """The words there that begin with `text`: from the first on, and before the second."""
    low, high = files.beginning(storable(text) if where == TEXT else text)
    return where + low, where + high
