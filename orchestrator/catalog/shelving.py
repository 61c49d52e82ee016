"""Files that have arrived get their place in the catalog, before anything runs on them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection

from orchestrator.arrival import rules
from orchestrator.arrival.contents import Reader
from orchestrator.catalog import metadata
from orchestrator.errors import BeamwayError
from orchestrator.store import catalog, catalog_values, leases, scans, watches
from orchestrator.store.arrivals import Arrival
from orchestrator.store.catalog import CatalogFile, FileKind, Replica, ReplicaState
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease

FRESH_S = 1.0  # for so long a watch is as it was read
KEPT = 10_000  # numbers of arrivals
PARTS = 200  # of a scan in one transaction, which also others wait for
LIMIT_S = 5.0  # for what a file says of itself: others wait meanwhile

Extract = Callable[[str], dict[str, Any]]


class Shelf:
    """Puts arrivals there, each file with its copy where it lies, of a scan all parts; again without a change.

    `extract`: what a file says of itself, or raises BeamwayError; `apart`: see `places.apart`.
    """

    def __init__(
        self,
        database: Database,
        *,
        extract: Extract | None = None,
        fence: Lease | None = None,
        apart: Callable[[str, str], str] = lambda place, address: "",
    ) -> None:
        self._database, self._fence, self._apart = database, fence, apart
        self._reader = Reader(limit_s=LIMIT_S)
        self._extract = extract or self._said
        self._watches: dict[str, tuple[float, str, str, dict[str, str]]] = {}
        self._there: set[int] = set()  # those that were put last: what waits for its run is handed over at each turn

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def put(self, arrivals: Sequence[Arrival]) -> None:
        """All or none of them; of a scan its parts follow, some at a time."""
        fresh = [arrival for arrival in arrivals if arrival.id not in self._there]
        if not fresh:
            return
        made = [self._made(arrival) for arrival in fresh]
        with self._writing() as connection:
            ids = _put(connection, made)
        for arrival, master, (file, place) in zip(fresh, ids, made, strict=True):
            if arrival.parts:
                self._put_parts(arrival, master, file, place)
        if len(self._there) > KEPT:
            self._there = {arrival.id for arrival in arrivals}
        self._there |= {arrival.id for arrival in fresh}

    def _put_parts(self, arrival: Arrival, master: int, file: CatalogFile, place: str) -> None:
        """What is left of it when this is ended midway the next one puts there, before the run begins."""
        parts = scans.kept(self._database, arrival.watch, arrival.place)
        directory = self._watch(arrival.watch)[0]
        for start in range(0, len(parts), PARTS):
            some = []
            for part in parts[start : start + PARTS]:
                path = os.path.join(directory, part.name)
                seen = {"name": path, "size": part.size, "checksum": part.checksum, "site": self._apart(place, path)}
                some.append(replace(file, **seen, metadata={}))
            with self._writing() as connection:
                scans.join(connection, master, _put(connection, [(each, place) for each in some]))
                if start + PARTS >= len(parts):
                    scans.forget(connection, arrival.watch, arrival.place)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._database.write() as connection:
            if self._fence is not None:
                leases.prove(connection, self._fence)
            yield connection

    def _said(self, path: str) -> dict[str, Any]:
        return catalog_values.plain(metadata.extract(path, reader=self._reader), repr(path))

    def _made(self, arrival: Arrival) -> tuple[CatalogFile, str]:
        directory, place, kinds = self._watch(arrival.watch)
        path = os.path.join(directory, arrival.name)
        try:
            said = self._extract(path)
        except BeamwayError as error:
            said = {"unreadable": error.sentence}
        file = CatalogFile(
            arrival.experiment,
            path,
            arrival.fingerprint[2],
            arrival.checksum or scans.unread(arrival.fingerprint),
            FileKind(kinds.get(arrival.rule, FileKind.RAW)),
            added_at=arrival.decided_at,
            metadata=said,
            site=self._apart(place, path),
        )
        return file, place

    def _watch(self, name: str) -> tuple[str, str, dict[str, str]]:
        """Its directory, its site, and which kind of files each rule is for."""
        kept = self._watches.get(name)
        if kept is None or time.monotonic() > kept[0] + FRESH_S:
            watch = watches.get(self._database, name)
            try:
                file = rules.parse(watch.rules, name, directory=watch.directory, experiment=watch.experiment)
                kinds = {rule.name: rule.kind for rule in file.rules}
            except BeamwayError:  # those that were followed when it arrived could be read
                kinds = {}
            kept = self._watches[name] = (time.monotonic(), os.path.abspath(watch.directory), watch.site, kinds)
        return kept[1], kept[2], kept[3]


def _put(connection: Connection, files: Sequence[tuple[CatalogFile, str]]) -> list[int]:
    """With the copy of each that lies at that place under its name, where no older content can be any more."""
    ids = catalog.put(connection, [file for file, _ in files])
    newest = {file.id for file in catalog.several(connection, ids) if not file.superseded_at}
    for number, (file, place) in zip(ids, files, strict=True):
        summed = not file.checksum.startswith("fingerprint:")
        state = ReplicaState.VERIFIED if summed else ReplicaState.UNVERIFIED
        verified_at = file.added_at if summed else 0.0
        if number in newest:
            catalog.displace(connection, number, place, file.name)
        catalog.put_replica(connection, Replica(number, place, file.name, state, verified_at=verified_at))
    return ids
