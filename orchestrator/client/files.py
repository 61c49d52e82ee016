"""The catalog: experiments, files and collections, of the store of this home or over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from msgspec.structs import replace

from orchestrator.catalog import entries
from orchestrator.catalog.entries import Entry, Look
from orchestrator.catalog.query import Asked, wanted
from orchestrator.store import catalog, catalog_search, experiments, filesets, scans
from orchestrator.store.catalog import CatalogFile, Replica
from orchestrator.store.catalog_search import Page
from orchestrator.store.database import Database
from orchestrator.store.experiments import Experiment, Part
from orchestrator.store.filesets import Collection, Stats
from orchestrator.transfer import places


class Files(Protocol):
    # ---- experiments; all raise NotFound for one that is not there

    def experiments(self) -> list[Experiment]:
        """The newest first, as far as one may see them."""
        ...

    def experiment(self, name: str) -> Experiment: ...

    def create(self, experiment: Experiment) -> Experiment:
        """Raises Conflict when there is one of that name, ArgumentError."""
        ...

    def set(self, name: str, changes: Mapping[str, Any]) -> Experiment:
        """`title`, `proposal`, and keys of `metadata`, of which None takes one away."""
        ...

    def put_person(self, name: str, person: str, part: Part) -> Experiment:
        """Raises Conflict when it would have no owner any more."""
        ...

    def remove_person(self, name: str, person: str) -> Experiment: ...

    def delete(self, name: str) -> None:
        """Raises Conflict while it has files."""
        ...

    # ---- files

    def add(self, some: Sequence[Entry]) -> list[int]:
        """Their numbers, in order. Raises NotFound for an experiment that is not there, ArgumentError."""
        ...

    def page(self, asked: Asked, limit: int) -> Page:
        """The newest first; a page may end before it is full, `before` says whether there are more.

        Raises NotFound when it is empty as there is no such experiment, ArgumentError for what cannot be read.
        """
        ...

    def get(self, number: int) -> tuple[CatalogFile, list[Replica]]:
        """With its copies. Raises NotFound."""
        ...

    def parts(self, number: int) -> list[CatalogFile]:
        """The other files of the scan whose master it is."""
        ...

    def at(self, place: str, address: str) -> list[CatalogFile]:
        """The files that have had a copy there, the newest first."""
        ...

    def change(self, number: int, changes: dict[str, Any]) -> CatalogFile:
        """Set keys of its metadata; None takes one away. Raises NotFound, ArgumentError."""
        ...

    def looked(self, looks: Sequence[Look]) -> None:
        """Write down what was found of copies."""
        ...

    # ---- collections

    def collections(self, experiment: str) -> list[Collection]: ...

    def create_collection(self, collection: Collection) -> Collection: ...

    def collect(self, experiment: str, name: str, *, add: Sequence[int], remove: Sequence[int]) -> tuple[int, int]:
        """(how many came in, how many went out)"""
        ...

    def delete_collection(self, experiment: str, name: str) -> None:
        """Its files stay."""
        ...

    def stats(self, experiment: str, name: str = "") -> Stats:
        """Of a collection, or of all files of the experiment."""
        ...


def found(files: Files, asked: Asked, limit: int = 0) -> Iterator[CatalogFile]:
    """The files one after another, page by page; with a limit no more than so many."""
    count = 0
    while True:
        page = files.page(asked, min(limit - count, 500) if limit else 500)
        yield from page.files
        count += len(page.files)
        if not page.before or (limit and count >= limit):
            return
        asked = replace(asked, before=page.before)


class LocalFiles:
    def __init__(self, database: Database, site_directories: Sequence[Path]) -> None:
        self._database, self._site_directories = database, site_directories

    def experiments(self) -> list[Experiment]:
        return experiments.ls(self._database)

    def experiment(self, name: str) -> Experiment:
        return experiments.get(self._database, name)

    def create(self, experiment: Experiment) -> Experiment:
        return experiments.create(self._database, replace(experiment, created_at=time.time()))

    def set(self, name: str, changes: Mapping[str, Any]) -> Experiment:
        return experiments.change(self._database, name, changes)

    def put_person(self, name: str, person: str, part: Part) -> Experiment:
        return experiments.put_person(self._database, name, person, part)

    def remove_person(self, name: str, person: str) -> Experiment:
        return experiments.remove_person(self._database, name, person)

    def delete(self, name: str) -> None:
        experiments.remove(self._database, name)

    def add(self, some: Sequence[Entry]) -> list[int]:
        from sites import loader

        apart = places.apart(partial(loader.load, directories=self._site_directories))
        return entries.add(self._database, some, now=time.time(), apart=apart)

    def page(self, asked: Asked, limit: int) -> Page:
        page = catalog_search.listing(self._database, wanted(asked), limit=limit)
        if asked.experiment and not (page.files or page.before or asked.before):
            experiments.get(self._database, asked.experiment)
        return page

    def get(self, number: int) -> tuple[CatalogFile, list[Replica]]:
        return catalog.get(self._database, number), catalog.replicas(self._database, [number])

    def parts(self, number: int) -> list[CatalogFile]:
        return scans.standing_parts(self._database, number)

    def at(self, place: str, address: str) -> list[CatalogFile]:
        return catalog.at(self._database, place, address)

    def change(self, number: int, changes: dict[str, Any]) -> CatalogFile:
        return entries.change(self._database, number, changes)

    def looked(self, looks: Sequence[Look]) -> None:
        entries.looked(self._database, looks, now=time.time())

    def collections(self, experiment: str) -> list[Collection]:
        return filesets.ls(self._database, experiment)

    def create_collection(self, collection: Collection) -> Collection:
        return filesets.create(self._database, replace(collection, created_at=time.time()))

    def collect(self, experiment: str, name: str, *, add: Sequence[int], remove: Sequence[int]) -> tuple[int, int]:
        new = filesets.add(self._database, experiment, name, add)
        return new, filesets.remove(self._database, experiment, name, remove)

    def delete_collection(self, experiment: str, name: str) -> None:
        filesets.remove(self._database, experiment, name, None)

    def stats(self, experiment: str, name: str = "") -> Stats:
        return filesets.stats(self._database, experiment, name)
