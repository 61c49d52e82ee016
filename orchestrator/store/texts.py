"""Texts as the databases take them.

A name that is not UTF-8 reaches us with lone surrogates, and a text may hold a NUL; SQLite refuses the one, PostgreSQL
both. In `doc` columns JSON has escaped them already (`orchestrator.codec`); in columns of their own they are escaped
here, for reading only: what must come back as it was is in a `doc`.
"""

from __future__ import annotations


def storable(text: str) -> str:
    """`text` with NULs and undecodable bytes escaped."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
