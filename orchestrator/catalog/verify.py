"""Copies looked at where they are: is there still what the catalog says?"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from orchestrator.catalog.content import Far, checksum
from orchestrator.catalog.entries import Look
from orchestrator.errors import InputError
from orchestrator.store.catalog import CatalogFile, Replica, ReplicaState
from orchestrator.transfer.checksums import kind_of
from orchestrator.transfer.survey import survey


class Looked(Struct, frozen=True):
    """A copy of a file, and what was found. Without a look nothing could be said, and `why` has the reason."""

    file: CatalogFile
    replica: Replica
    look: Look | None
    why: str = ""


def copies(
    file: CatalogFile,
    replicas: Sequence[Replica],
    place: str,
    *,
    progress: Callable[[CatalogFile], Far | None] | None = None,
) -> Iterator[Looked]:
    """Of a file, those at this place, one after another. What was pruned is not looked for."""
    for replica in replicas:
        if replica.place != place or replica.state is ReplicaState.PRUNED or not replica.address.startswith("/"):
            continue
        try:
            state, seen = _found(file, replica.address, progress(file) if progress else None)
        except InputError as error:
            yield Looked(file, replica, None, error.sentence)
            continue
        look = Look(file.id, replica.place, replica.address, state.value, seen)
        yield Looked(file, replica, look, str(seen.get("why", "")))


def _found(file: CatalogFile, path: str, progress: Far | None) -> tuple[ReplicaState, dict[str, Any]]:
    """Raises InputError when nothing can be said of it."""
    algorithm = kind_of(file.checksum)
    if not algorithm:
        raise InputError(f"The checksum '{file.checksum}' cannot be compared here.")
    try:
        size = _size(path)
    except (FileNotFoundError, NotADirectoryError):
        return ReplicaState.MISSING, {"why": "there is nothing"}
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' cannot be looked at: {error}.") from None
    if size != file.size:
        why = f"it has {size:,} bytes, not {file.size:,}"
        return ReplicaState.CORRUPTED, {"size": size, "why": why}
    found = checksum(path, algorithm, progress=progress)
    seen: dict[str, Any] = {"size": found.size, "checksum": found.checksum}
    if found.checksum != file.checksum:
        return ReplicaState.CORRUPTED, seen | {"why": f"its checksum is {found.checksum}"}
    return ReplicaState.VERIFIED, seen


def _size(path: str) -> int:
    found = os.stat(path)
    return survey(path).bytes if stat.S_ISDIR(found.st_mode) else found.st_size
