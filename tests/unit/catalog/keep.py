"""A small beamline for the tests of retention: a store, files, and copies of them at places of this host."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import xxhash
from msgspec.structs import replace
from sqlalchemy import insert

from orchestrator import codec
from orchestrator.catalog import policy
from orchestrator.catalog.book import Done
from orchestrator.catalog.keeping import Keeping
from orchestrator.catalog.retention import Decision
from orchestrator.model import FileSpec
from orchestrator.settings import Settings
from orchestrator.store import catalog, files, schema
from orchestrator.store.catalog import CatalogFile, Replica, ReplicaState
from orchestrator.store.database import Database
from orchestrator.store.runs import Request

DAY = 86_400.0
NOW = 2_000_000_000.0
E = "2026-3-smith"


class Beamline:
    def __init__(self, home: Path, database: Database) -> None:
        self.home, self.database, self.now = home, database, NOW
        for place in ("raw", "disk", "tape"):
            (home / place).mkdir(parents=True)
        self.rules = '[[rule]]\nname = "raw"\nplaces = "beamline"\nkeep = "90 days"\n'
        self.places = "".join(f'[place.{p}]\naddress = "{home / p}"\n' for p in ("disk", "tape"))
        self.settings = Settings(home=home, site="beamline")

    def keeping(self, **more: Any) -> Keeping:
        chosen = policy.parse(self.places + self.rules, "retention.toml")
        return Keeping(self.settings, self.database, who="rita", policy=chosen, clock=lambda: self.now, **more)

    def file(self, name: str = "a.h5", *places: str, kind: str = "xxh3", content: bytes = b"frames") -> CatalogFile:
        """A file of a hundred days ago at the beamline, with a verified copy at each of `places`."""
        path = self.home / "raw" / name
        path.write_bytes(content)
        file = self.known(CatalogFile(E, str(path), len(content), sum_of(content, kind), added_at=NOW - 100 * DAY))
        self.copy(file, "beamline", str(path))
        for place in places:
            (self.home / place / name).write_bytes(content)
            self.copy(file, place, str(self.home / place / name))
        return file

    def known(self, file: CatalogFile) -> CatalogFile:
        with self.database.write() as connection:
            [number] = catalog.put(connection, [file])
        return replace(file, id=number)

    def copy(self, file: CatalogFile, place: str, at: str, state: ReplicaState = ReplicaState.VERIFIED) -> None:
        with self.database.write() as connection:
            catalog.put_replica(connection, Replica(file.id, place, at, state, verified_at=NOW - 50 * DAY))

    def run(self, file: CatalogFile, status: str, *, told: bool = True, ended_at: float = 0.0, number: int = 1) -> str:
        """A run that was given the file; `told`: it is written among the uses."""
        run_id = f"run-{number}"
        at = NOW - 20 * DAY + number
        asked = Request({}, (), FileSpec(), "/", () if told else (file.name,), "ann", "")
        values = {
            "id": run_id, "workflow": "tomo", "owner": "o", "status": status, "stage": "", "error": "", "parent": "",
            "created_at": at, "started_at": at, "ended_at": ended_at, "plan": "", "doc": "",
            "request": codec.dumps(asked),
        }  # fmt: skip
        with self.database.write() as connection:
            connection.execute(insert(schema.runs).values(**values))
            if status == "failed":  # with the letter that each has until somebody deals with it
                letter = dict.fromkeys(("workflow", "experiment", "site", "stage", "failure", "reason"), "")
                connection.execute(insert(schema.dead_letters).values(**letter, run_id=run_id, at=at, doc="{}"))
            if told:
                connection.execute(insert(schema.uses).values(run_id=run_id, role="input", file_id=file.id, doc="{}"))
            else:
                connection.execute(insert(schema.run_files), files.rows(run_id, at, [file.name]))
        return run_id

    def plan(self, **which: str) -> dict[str, Decision]:
        """By place, of a store with one file."""
        return {d.replica.place: d for d in self.keeping().plan(**which)}

    def apply(self, **more: Any) -> list[Done]:
        return list(self.keeping(**more).apply(rehearse=False))

    def states(self, file: CatalogFile) -> dict[str, str]:
        return {r.place: r.state.value for r in catalog.replicas(self.database, [file.id])}

    def raw(self) -> list[str]:
        return sorted(p.name for p in (self.home / "raw").iterdir())


def sum_of(content: bytes, kind: str) -> str:
    if kind == "xxh3":
        return f"xxh3:{xxhash.xxh3_128_hexdigest(content)}"
    return f"{kind}:{hashlib.new(kind, content).hexdigest()}"
