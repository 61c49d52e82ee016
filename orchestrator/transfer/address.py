"""Addresses of files elsewhere, `scheme://authority/path`, and paths, which are none."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote_to_bytes

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/]*)")


def is_one(text: str) -> bool:
    return _ADDRESS.match(text) is not None


def authority(text: str) -> str:
    """Who has what the address names; empty for a path."""
    found = _ADDRESS.match(text)
    return found[1] if found else ""


def below(text: str) -> str:
    """The path in an address, as the file system there has it; a path is one already."""
    found = _ADDRESS.match(text)
    return os.fsdecode(unquote_to_bytes(os.fsencode(text[found.end() :]))) if found else text
