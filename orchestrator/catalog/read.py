"""A file of this host, read for the catalog: its checksum, and what it says of itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from orchestrator.arrival.contents import Reader
from orchestrator.catalog import metadata
from orchestrator.catalog.content import Far, checksum
from orchestrator.catalog.entries import Entry
from orchestrator.errors import InputError
from orchestrator.store import catalog_values


def entry(
    path: str,
    experiment: str,
    kind: str,
    given: Mapping[str, Any],
    algorithm: str,
    place: str,
    *,
    tree: bool = False,
    reader: Reader | None = None,
    progress: Far | None = None,
) -> Entry:
    """`given`: metadata that goes before the file's own. Raises InputError when it cannot be read or is a directory."""
    absolute = os.path.abspath(path)
    said: dict[str, Any] = {}
    if os.path.isdir(absolute):
        if not tree:
            hint = "--tree takes it as one thing; for its files name them, as in `beamway file add DIR/*`."
            raise InputError(f"'{path}' is a directory. {hint}")
    else:
        said = catalog_values.plain(metadata.extract(absolute, reader=reader), repr(path))
    found = checksum(absolute, algorithm, progress=progress)
    return Entry(experiment, absolute, found.size, found.checksum, kind, {**said, **given}, place)
