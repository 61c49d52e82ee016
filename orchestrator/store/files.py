"""Which runs worked on a file: the words by which each of a run's files is found.

A file is found by the beginning of its path, of its name, or of a word in its name, in any case: `scan_00042.h5` in
`/data/Smith` by `/data/smith/`, `scan` and `00042`. One table serves them all, in *parts* of some days each, ordered by
word within. So what is written at one time lies together, whatever the names: in an index over all names each new run
would touch pages all over it. The price is that a search looks into each part once; and as a part holds not too many,
the newest of very many are found quickly too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

PART_S = 3 * 86_400.0
WORD_MOST = 512  # bytes; see `texts.KEY_MOST`
WORDS_MOST = 4  # beginnings of words in one name
FILES_MOST = 10_000  # of one run; a larger set is found by its first files

_WORD = re.compile(rb"[a-z\x80-\xff]+|[0-9]+")


def part(at: float) -> int:
    """The part of the table that holds the runs of this time."""
    return int(at // PART_S)


def times(parts: range) -> tuple[float, float]:
    """The times of these parts, which follow one another: from the first on, and before the second."""
    return parts.start * PART_S, parts.stop * PART_S


def rows(run_id: str, created_at: float, named: Sequence[str]) -> list[dict[str, Any]]:
    """What to store of the files of a new run."""
    words = {word for path in named[:FILES_MOST] for word in words_of(path)}
    when = part(created_at)
    return [{"part": when, "word": word, "created_at": created_at, "run_id": run_id} for word in sorted(words)]


def paths(files: Sequence[str], variables: Mapping[str, str], directory: str) -> Sequence[str]:
    """The files of a run's own specification; of a run whose stages do not go file by file, its `filePath`."""
    named = variables.get("filePath", "")
    if files or not named:
        return files
    return (os.path.normpath(os.path.join(directory, variables.get("dataDir", ""), named)),)


def words_of(path: str) -> list[bytes]:
    """The path, the name, and the name from the beginning of each further word on; never of its ending alone."""
    whole = _bytes(path)
    name = whole.rpartition(b"/")[2]
    stem = name[: name.rfind(b".")] if b"." in name[1:] else name
    starts = [found.start() for found in _WORD.finditer(stem)]
    return [whole[:WORD_MOST], *(name[at:][:WORD_MOST] for at in dict.fromkeys([0, *starts[:WORDS_MOST]]))]


def beginning(text: str) -> tuple[bytes, bytes]:
    """The words that begin with `text`: from the first on, and before the second."""
    low = _bytes(text)[:WORD_MOST]
    return low, low + b"\xff" * (WORD_MOST + 1 - len(low))


def _bytes(text: str) -> bytes:
    """As the file system has it, in lower case; texts that no file system has are no names and are just kept."""
    try:
        return text.encode("utf-8", "surrogateescape").lower()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").lower()
