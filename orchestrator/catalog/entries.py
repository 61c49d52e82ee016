"""Files put into the catalog, and what a later look at their copies found: checked, then stored."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from orchestrator.errors import ArgumentError, NotFound, nearest
from orchestrator.store import catalog, catalog_values, filesets, scans
from orchestrator.store.catalog import CatalogFile, FileKind, Replica, ReplicaState
from orchestrator.store.database import Database

AT_ONCE = 200  # entries in one transaction, which also others wait for
PATH_MOST = 4096  # bytes, as the file systems have it
_CHECKSUM = re.compile(r"(xxh3|sha256|sha1|sha512|md5)(-tree)?:[0-9a-f]{8,128}")


class Entry(Struct, frozen=True):
    """A file as it was read at `place`, where its address is its name unless it says another."""

    experiment: str
    name: str
    size: int
    checksum: str
    kind: str = FileKind.RAW.value
    metadata: dict[str, Any] = {}
    place: str = "local"
    address: str = ""


class Look(Struct, frozen=True):
    """What was found where a copy should be."""

    file_id: int
    place: str
    address: str
    state: str
    seen: dict[str, Any] = {}


def kind(text: str) -> FileKind:
    """Raises ArgumentError."""
    kinds = [k.value for k in FileKind]
    if text not in kinds:
        raise ArgumentError(f"There is no kind {text!r}.{nearest(text, kinds)}", f"Kinds: {', '.join(kinds)}.")
    return FileKind(text)


def state(text: str) -> ReplicaState:
    """Raises ArgumentError."""
    states = [s.value for s in ReplicaState]
    if text not in states:
        sentence = f"There is no state {text!r} of copies.{nearest(text, states)}"
        raise ArgumentError(sentence, f"States: {', '.join(states)}.")
    return ReplicaState(text)


def add(
    database: Database,
    entries: Sequence[Entry],
    *,
    now: float,
    apart: Callable[[str, str], str] = lambda place, address: "",
) -> list[int]:
    """Their numbers, in order. One that is known gets the metadata that is new. Raises NotFound, ArgumentError; then
    nothing of this call is stored, when it has no more than `AT_ONCE`. `apart`: see `places.apart`."""
    checked = [replace(_checked(entry, now), site=apart(entry.place, entry.name)) for entry in entries]
    numbers: list[int] = []
    for start in range(0, len(entries), AT_ONCE):
        some, files = entries[start : start + AT_ONCE], checked[start : start + AT_ONCE]
        with database.write() as connection:
            for experiment in sorted({entry.experiment for entry in some}):
                filesets.require_experiment(connection, experiment)
            ids = catalog.put(connection, files)
            scans.inherit(connection, ids)
            there = {file.id: file for file in catalog.several(connection, set(ids))}
            for number, entry, file in zip(ids, some, files, strict=True):
                had = there[number].metadata
                if news := {name: value for name, value in file.metadata.items() if had.get(name) != value}:
                    there[number] = catalog.change(connection, number, news)
                seen = {"size": entry.size, "checksum": entry.checksum}
                address = entry.address or entry.name
                catalog.displace(connection, number, entry.place, address)
                catalog.put_replica(
                    connection, Replica(number, entry.place, address, ReplicaState.VERIFIED, False, now, seen)
                )
        numbers += ids
    return numbers


def _checked(entry: Entry, now: float) -> CatalogFile:
    shown = entry.name[:200]
    for path in (entry.name, entry.address or entry.name):
        if not path or "\0" in path or len(path.encode("utf-8", "surrogatepass")) > PATH_MOST:
            raise ArgumentError(f"{shown!r} cannot be the path of a file.", f"It has 1 to {PATH_MOST} bytes.")
    if not _CHECKSUM.fullmatch(entry.checksum):
        raise ArgumentError(f"{entry.checksum[:200]!r} is no checksum.", "It reads ALGORITHM:DIGEST, as xxh3:9fe3….")
    if not 0 <= entry.size < 2**62:
        raise ArgumentError(f"{entry.size} cannot be the size of {shown!r}.")
    if not 0 < len(entry.place) <= 128 or "\0" in entry.place:
        raise ArgumentError(f"{entry.place[:200]!r} cannot be the name of a place.", "It is that of a site.")
    metadata = catalog_values.plain(entry.metadata, repr(shown))
    found = CatalogFile(entry.experiment, entry.name, entry.size, entry.checksum, kind(entry.kind), now)
    return replace(found, metadata=metadata)


def change(database: Database, number: int, changes: dict[str, Any]) -> CatalogFile:
    """Set keys of its metadata; None takes one away. Raises NotFound, ArgumentError."""
    with database.write() as connection:
        return catalog.change(connection, number, changes)


def looked(database: Database, looks: Sequence[Look], *, now: float) -> None:
    """Write down what was found of copies that the catalog has. Raises NotFound."""
    for look in looks:
        state(look.state)
    for start in range(0, len(looks), AT_ONCE):
        with database.write() as connection:
            for look in looks[start : start + AT_ONCE]:
                was = catalog.replica(connection, look.file_id, look.place, look.address)
                if was is None:
                    raise NotFound(f"File {look.file_id} has no copy {look.address!r} at {look.place!r}.")
                now_is = state(look.state)
                at = now if now_is is ReplicaState.VERIFIED else was.verified_at
                catalog.put_replica(connection, replace(was, state=now_is, verified_at=at, seen=look.seen))
