"""Watched directories in the store: what is asked for, by people, and how each stands, by its watcher.

Both change a watch at the same time: each sets its own fields only.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from orchestrator import codec
from orchestrator.errors import NotFound
from orchestrator.store import leases, schema
from orchestrator.store.arrivals import BEFORE, ArrivalState
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease
from orchestrator.store.texts import storable

_w = schema.watches
_p = schema.watch_reports
_t = schema.arrivals


class Watch(Struct, frozen=True):
    """A directory that is watched. `device` and `inode` are its root's as it was first seen."""

    name: str
    experiment: str
    directory: str
    rules: str  # text of the rule file
    device: int = 0
    inode: int = 0
    created_at: float = 0.0
    baseline_at: float = 0.0
    stopped_at: float = 0.0
    site: str = "local"  # whose watcher looks at it
    base: str = "/"  # what relative paths in its runs are resolved against
    owner: str = ""  # who asked for it: its runs are theirs
    followed: str = ""  # digest of the rules that its watcher follows


class Report(Struct, frozen=True):
    """How a watch stands, as its watcher last said."""

    at: float = 0.0
    error: str = ""  # why it cannot be watched, or its runs not be begun
    scans: int = 0  # whole ones, since the watcher began
    scanned_at: float = 0.0
    scan_s: float = 0.0  # what looking took in the last one
    waiting: int = 0  # files that are not whole yet
    polls: str = ""  # why the kernel does not tell of changes
    troubles: dict[str, str] = {}  # places that could not be looked at; some of them


class Wish(Struct, frozen=True):
    """A directory to be watched. `directory` and `experiment` where the rules do not say them."""

    rules: str
    directory: str = ""
    experiment: str = ""
    name: str = ""  # empty: made of the experiment
    site: str = "local"
    base: str = "/"
    change: bool = False  # a watch that is there may get other rules
    source: str = ""  # file that the rules are in, for what is said about them


class Watched(Struct, frozen=True):
    """A watch, how it stands, and what has become of its files."""

    watch: Watch
    report: Report | None
    arrivals: dict[str, int]


def add(database: Database, watch: Watch) -> bool:
    """A new one; False when there is one of its name."""
    with database.write() as connection:
        added = _insert(database, _w).values(**_row(watch)).on_conflict_do_nothing(index_elements=["name"])
        return connection.execute(added.returning(_w.c.name)).first() is not None


def put(database: Database, watch: Watch, *, fence: Lease | None = None) -> None:
    """New, or as it is now."""
    with database.write() as connection:
        if fence is not None:
            leases.prove(connection, fence)
        _put(database, connection, watch)


def change(database: Database, name: str, *, fence: Lease | None = None, **changes: Any) -> Watch:
    """Set these fields and no other: what somebody else changes meanwhile stays. Raises NotFound."""
    with database.write() as connection:
        if fence is not None:
            leases.prove(connection, fence)
        watch = replace(_locked(connection, name), **changes)
        _put(database, connection, watch)
    return watch


def stop(database: Database, name: str, at: float, *, fence: Lease | None = None) -> None:
    """It is watched no more; one that was stopped before stays as it was. Raises NotFound."""
    with database.write() as connection:
        if fence is not None:
            leases.prove(connection, fence)
        watch = _locked(connection, name)
        _put(database, connection, replace(watch, stopped_at=watch.stopped_at or at))


def follow(database: Database, watch: Watch, device: int, inode: int, *, fence: Lease | None = None) -> Watch:
    """Its watcher follows these rules from now. What others ignored by former ones is to be looked at again."""
    followed = hashlib.sha256(watch.rules.encode("utf-8", "surrogatepass")).hexdigest()
    with database.write() as connection:
        if fence is not None:
            leases.prove(connection, fence)
        before = _locked(connection, watch.name)
        watch = replace(before, device=device, inode=inode, followed=followed)
        if watch == before:
            return watch
        if before.followed not in ("", followed):
            ignored = (_t.c.watch == watch.name) & (_t.c.state == ArrivalState.IGNORED.value) & (_t.c.reason != BEFORE)
            again = {"state": ArrivalState.INCOMPLETE.value, "reason": "the rules that it was ignored by were changed"}
            connection.execute(update(_t).where(ignored).values(**again))
        _put(database, connection, watch)
    return watch


def put_reports(database: Database, reports: dict[str, Report], *, fence: Lease | None = None) -> None:
    """How these watches stand now."""
    with database.write() as connection:
        if fence is not None:
            leases.prove(connection, fence)
        for name, report in reports.items():
            row = {"watch": name, "at": report.at, "doc": codec.dumps(report)}
            put = _insert(database, _p).values(**row)
            connection.execute(put.on_conflict_do_update(index_elements=["watch"], set_=row))


def ls(database: Database) -> list[Watch]:
    """All of them, by name."""
    with database.read() as connection:
        docs = connection.execute(select(_w.c.doc).order_by(_w.c.name)).scalars()
        return [codec.loads(doc, Watch) for doc in docs]


def get(database: Database, name: str) -> Watch:
    """Raises NotFound."""
    with database.read() as connection:
        doc = connection.execute(select(_w.c.doc).where(_w.c.name == name)).scalar()
    if doc is None:
        raise none(name)
    return codec.loads(doc, Watch)


def none(name: str) -> NotFound:
    return NotFound(f"There is no watch {name!r}.", "`beamway watch ls` lists them.")


def reports(database: Database) -> dict[str, Report]:
    """How each watch stood when its watcher last said so."""
    with database.read() as connection:
        return {name: codec.loads(doc, Report) for name, doc in connection.execute(select(_p.c.watch, _p.c.doc))}


def standing(database: Database, *, count: bool = True) -> list[Watched]:
    """All of them, by name; with the numbers of their arrivals when they are to be counted."""
    query = select(_t.c.watch, _t.c.state, func.count()).group_by(_t.c.watch, _t.c.state)
    counted: dict[str, dict[str, int]] = {}
    with database.read() as connection:
        for name, state, number in connection.execute(query) if count else ():
            counted.setdefault(name, {})[state] = number
    said = reports(database)
    return [Watched(w, said.get(w.name), counted.get(w.name, {})) for w in ls(database)]


def busy(database: Database, site: str) -> bool:
    """Whether a watcher of this site has something to do: a watch that was not stopped, or a run to begin."""
    with database.read() as connection:
        docs = connection.execute(select(_w.c.doc).where(_w.c.stopped_at == 0)).scalars()
        if any(codec.loads(doc, Watch).site == site for doc in docs):
            return True
        due = select(_t.c.id).where(_t.c.state == literal_column("'due'")).limit(1)
        return connection.execute(due).first() is not None


def _locked(connection: Connection, name: str) -> Watch:
    doc = connection.execute(select(_w.c.doc).where(_w.c.name == name).with_for_update()).scalar()
    if doc is None:
        raise none(name)
    return codec.loads(doc, Watch)


def _put(database: Database, connection: Connection, watch: Watch) -> None:
    row = _row(watch)
    connection.execute(_insert(database, _w).values(**row).on_conflict_do_update(index_elements=["name"], set_=row))


def _row(watch: Watch) -> dict[str, Any]:
    return {
        "name": watch.name,
        "experiment": storable(watch.experiment),
        "directory": os.fsencode(watch.directory),
        "created_at": watch.created_at,
        "baseline_at": watch.baseline_at,
        "stopped_at": watch.stopped_at,
        "doc": codec.dumps(watch),
    }


def _insert(database: Database, table: Any) -> Any:
    return postgresql_insert(table) if database.postgresql else sqlite_insert(table)
