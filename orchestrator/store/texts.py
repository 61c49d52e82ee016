"""Texts as the databases take them.

A name that is not UTF-8 reaches us with lone surrogates, and a text may hold a NUL; SQLite refuses the one, PostgreSQL
both. In `doc` columns JSON has escaped them already (`orchestrator.codec`); in columns of their own they are escaped
here, for reading and searching only: what must come back as it was is in a `doc`.
"""

from __future__ import annotations

import hashlib

KEY_MOST = 256  # bytes; PostgreSQL refuses a row whose indexed texts have 2.7 kB or more together


def storable(text: str) -> str:
    """`text` with NULs and undecodable bytes escaped."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def key(text: str) -> str:
    """The same for a column with an index: of a very long text the beginning and a digest, so that it stays itself."""
    text = storable(text)
    if 4 * len(text) <= KEY_MOST or len(text.encode()) <= KEY_MOST:
        return text
    return text.encode()[: KEY_MOST - 65].decode(errors="ignore") + "~" + hashlib.sha256(text.encode()).hexdigest()
