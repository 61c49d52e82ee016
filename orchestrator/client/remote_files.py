"""The catalog of a service, over HTTP."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from orchestrator import codec
from orchestrator.catalog import records
from orchestrator.catalog.entries import Entry, Look
from orchestrator.catalog.query import Asked
from orchestrator.store import catalog_values
from orchestrator.store.catalog import CatalogFile, Replica
from orchestrator.store.catalog_search import Page
from orchestrator.store.experiments import Experiment, Part
from orchestrator.store.filesets import Collection, Stats

BATCH = 200  # entries of one request


class RemoteFiles:
    def __init__(self, request: Callable[..., str]) -> None:
        """`request`: (method, path, what else httpx takes) → the text of the answer."""
        self._request = request

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the service answers; None for nothing."""
        more = {"content": codec.dumps(body), "headers": {"content-type": "application/json"}}
        text = self._request(method, path, **(more if body is not None else {}))
        return json.loads(text) if text else None

    def experiments(self) -> list[Experiment]:
        return [records.experiment_of(each) for each in self._ask("GET", "/experiments")]

    def experiment(self, name: str) -> Experiment:
        return records.experiment_of(self._ask("GET", f"/experiments/{_quote(name)}"))

    def create(self, experiment: Experiment) -> Experiment:
        asked = records.experiment(experiment) | {"metadata": catalog_values.plain(experiment.metadata)}
        asked = {name: asked[name] for name in ("name", "title", "proposal", "metadata", "people")}
        return records.experiment_of(self._ask("POST", "/experiments", asked))

    def set(self, name: str, changes: Mapping[str, Any]) -> Experiment:
        asked = {**changes, "metadata": catalog_values.plain(changes.get("metadata", {}))}
        return records.experiment_of(self._ask("PATCH", f"/experiments/{_quote(name)}", asked))

    def put_person(self, name: str, person: str, part: Part) -> Experiment:
        path = f"/experiments/{_quote(name)}/people/{_quote(person)}"
        return records.experiment_of(self._ask("PUT", path, {"role": part.value}))

    def remove_person(self, name: str, person: str) -> Experiment:
        path = f"/experiments/{_quote(name)}/people/{_quote(person)}"
        return records.experiment_of(self._ask("DELETE", path))

    def delete(self, name: str) -> None:
        self._ask("DELETE", f"/experiments/{_quote(name)}")

    def add(self, some: Sequence[Entry]) -> list[int]:
        numbers: list[int] = []
        for start in range(0, len(some), BATCH):
            asked = [_entry(entry) for entry in some[start : start + BATCH]]
            numbers += self._ask("POST", "/files", asked)
        return numbers

    def page(self, asked: Asked, limit: int) -> Page:
        given = {name: value for name, value in msgspec.structs.asdict(asked).items() if value}
        words = urllib.parse.urlencode({**given, "limit": limit}, doseq=True, errors="surrogateescape")
        said = self._ask("GET", f"/files?{words}")
        return Page([records.file_of(each)[0] for each in said["files"]], said["before"])

    def get(self, number: int) -> tuple[CatalogFile, list[Replica]]:
        return records.file_of(self._ask("GET", f"/files/{number}"))

    def parts(self, number: int) -> list[CatalogFile]:
        return [records.file_of(each)[0] for each in self._ask("GET", f"/files/{number}/parts")]

    def at(self, place: str, address: str) -> list[CatalogFile]:
        words = urllib.parse.urlencode({"place": place, "address": address}, errors="surrogateescape")
        return [records.file_of(each)[0] for each in self._ask("GET", f"/files/at?{words}")]

    def change(self, number: int, changes: dict[str, Any]) -> CatalogFile:
        return records.file_of(self._ask("PATCH", f"/files/{number}", {"metadata": catalog_values.plain(changes)}))[0]

    def looked(self, looks: Sequence[Look]) -> None:
        for look in looks:
            asked = msgspec.structs.asdict(look)
            self._ask("POST", f"/files/{asked.pop('file_id')}/looks", asked)

    def collections(self, experiment: str) -> list[Collection]:
        found = self._ask("GET", f"/experiments/{_quote(experiment)}/collections")
        return [records.collection_of(each) for each in found]

    def create_collection(self, collection: Collection) -> Collection:
        path = f"/experiments/{_quote(collection.experiment)}/collections"
        asked = {"name": collection.name, "description": collection.description}
        return records.collection_of(self._ask("POST", path, asked))

    def collect(self, experiment: str, name: str, *, add: Sequence[int], remove: Sequence[int]) -> tuple[int, int]:
        path = f"/experiments/{_quote(experiment)}/collections/{_quote(name)}/files"
        said = self._ask("POST", path, {"add": list(add), "remove": list(remove)})
        return said["added"], said["removed"]

    def delete_collection(self, experiment: str, name: str) -> None:
        self._ask("DELETE", f"/experiments/{_quote(experiment)}/collections/{_quote(name)}")

    def stats(self, experiment: str, name: str = "") -> Stats:
        within = f"/collections/{_quote(name)}" if name else ""
        return records.stats_of(self._ask("GET", f"/experiments/{_quote(experiment)}{within}/stats"))


def _entry(entry: Entry) -> dict[str, Any]:
    return msgspec.structs.asdict(entry) | {"metadata": catalog_values.plain(entry.metadata, repr(entry.name[:200]))}


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="", errors="surrogateescape")
