"""Retention as it is asked for: the policy of a home, its catalog, and the copies that this host can reach."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from orchestrator import locks
from orchestrator.catalog import policy as policies
from orchestrator.catalog.archiving import Archiving, Moved
from orchestrator.catalog.book import Book, Done
from orchestrator.catalog.copies import ANSWER_S, Copies
from orchestrator.catalog.pruning import Pruning
from orchestrator.catalog.retention import Decision, Planning
from orchestrator.errors import ArgumentError, Conflict
from orchestrator.settings import Settings
from orchestrator.store import retention as store
from orchestrator.store import scans
from orchestrator.store.catalog import CatalogFile
from orchestrator.store.database import Database
from orchestrator.store.retention import LogRow, Pin
from orchestrator.transfer.base import TransferCancelled


def lock_of(home: Path) -> Path:
    return home / "retention.lock"


class Keeping:
    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        who: str,
        policy: policies.Policy | None = None,
        clock: Callable[[], float] = time.time,
        moved: Moved | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        answer_s: float = ANSWER_S,
    ) -> None:
        """`policy`: instead of that in the home. Raises SettingsError when that is wrong."""
        self._settings, self._database, self._clock, self._cancelled = settings, database, clock, cancelled
        self._policy = policies.load(settings.home) if policy is None else policy
        self._moved, self._answer_s = moved, answer_s
        holder = f"{socket.gethostname()}:{settings.home}"
        self._book = Book(database, who=who, holder=holder, clock=clock)

    def plan(self, *, experiment: str = "", site: str = "") -> Iterator[Decision]:
        with self._copies() as copies:
            yield from self._planning(copies).plan(experiment=experiment, site=site, now=self._clock())

    def apply(self, *, experiment: str = "", site: str = "", rehearse: bool = True) -> Iterator[Done]:
        """Raises Conflict while another one is at work for this home."""
        with suppress(TransferCancelled), self._alone(), self._copies() as copies:
            pruning = Pruning(
                self._book, self._planning(copies), copies, self._archiving(copies), cancelled=self._cancelled
            )
            yield from pruning.apply(experiment=experiment, site=site, rehearse=rehearse)

    def archive(self, what: str, *, experiment: str = "", to: str) -> Iterator[Done]:
        """Raises NotFound, ArgumentError."""
        with suppress(TransferCancelled), self._copies() as copies:
            yield from self._archiving(copies).archive_all(self._files(what, experiment), to)

    def restore(self, what: str, *, experiment: str = "", to: str = "") -> Iterator[Done]:
        """Raises NotFound, ArgumentError."""
        with suppress(TransferCancelled), self._copies() as copies:
            yield from self._archiving(copies).restore_all(self._files(what, experiment), to)

    def log(self, *, file: str = "", experiment: str = "", before: int = 0, limit: int = 50) -> list[LogRow]:
        """The newest first. Raises NotFound for a file that is not known."""
        ids = [found.id for found in store.find(self._database, file, experiment=experiment)] if file else []
        return store.entries(self._database, file_ids=ids, experiment=experiment, before=before, limit=limit)

    # ---- pins

    def pin(self, what: str, *, experiment: str = "", collection: bool = False, reason: str = "") -> Pin:
        """Nobody's rule removes it. Raises NotFound, ArgumentError."""
        pinned = self._pin(what, experiment, collection=collection, reason=reason)
        store.pin(self._database, pinned)
        self._log_pin(pinned, "pinned", reason)
        return pinned

    def unpin(self, what: str, *, experiment: str = "", collection: bool = False) -> Pin:
        """Raises NotFound, ArgumentError."""
        pinned = self._pin(what, experiment, collection=collection, reason="")
        store.unpin(self._database, pinned)
        self._log_pin(pinned, "unpinned", "")
        return pinned

    def pins(self, experiment: str = "") -> list[Pin]:
        return store.pins(self._database, experiment)

    def _pin(self, what: str, experiment: str, *, collection: bool, reason: str) -> Pin:
        who, at = self._book.who, self._clock()
        if collection or not what:
            if not experiment:
                raise ArgumentError("Name a file, a collection with its experiment, or an experiment.")
            kind = "collection" if collection else "experiment"
            if collection:
                store.find_collection(self._database, experiment, what)
            return Pin(kind, experiment, what, who, at, reason)
        [file, *more] = store.find(self._database, what, experiment=experiment)
        if more:
            raise ArgumentError(f"{what!r} is a collection of {len(more) + 1} files.", "Say --collection to pin it.")
        return Pin("file", file.experiment, str(file.id), who, at, reason)

    def _log_pin(self, pinned: Pin, verdict: str, reason: str) -> None:
        number = int(pinned.target) if pinned.what == "file" else 0
        said = {"who": self._book.who, "what": pinned.what, "target": pinned.target}
        row = LogRow(self._clock(), pinned.experiment, number, "", verdict, reason, said)
        with self._database.write() as connection:
            store.log(connection, row)

    # ---- what it is made of

    def _files(self, what: str, experiment: str) -> Sequence[CatalogFile]:
        """Whole scans, of which perhaps one file is named."""
        if what:
            found = {file.id: file for file in store.find(self._database, what, experiment=experiment)}
            with self._database.read() as connection:
                whole = [file for scan in scans.whole(connection, found.values()).values() for file in scan]
            return [file for file in whole if file.id in found or not file.superseded_at]
        if not experiment:
            raise ArgumentError("Name a file, a collection, or an experiment with --experiment.")
        return [file for page in store.pages(self._database, experiment) for file in page if not file.superseded_at]

    def _copies(self) -> Copies:
        return Copies(self._settings.site, self._policy.places, answer_s=self._answer_s, progress=self._read)

    def _read(self, _: int) -> None:
        if self._cancelled():
            raise TransferCancelled("It was cancelled.")

    def _planning(self, copies: Copies) -> Planning:
        return Planning(self._database, self._policy, copies)

    def _archiving(self, copies: Copies) -> Archiving:
        return Archiving(
            self._book,
            copies,
            self._policy.places,
            self._settings.site,
            moved=self._moved,
            cancelled=self._cancelled,
        )

    def _alone(self) -> _Alone:
        return _Alone(lock_of(self._settings.home))


class _Alone:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        handle = locks.lock(self._path)
        if handle is None:
            raise Conflict(
                "Another `retention apply` of this home is at work.", f"Its process: {locks.holder(self._path)}."
            )
        self._handle = handle

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)
