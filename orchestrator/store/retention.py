"""What retention needs of the store: who uses a file, what is pinned, which removals are on their way, and the log.

A removal is noted before the copy is touched, one at a time for each file: so two that rely on each other's copies
cannot go together, and one that was cut off is found again. Rows of the log are only added.
"""

from __future__ import annotations

import json
import os
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from orchestrator import codec
from orchestrator.errors import NotFound
from orchestrator.model import RunStatus
from orchestrator.store import files as run_files
from orchestrator.store import scans, schema
from orchestrator.store.catalog import CatalogFile, _file, address_key
from orchestrator.store.database import Database
from orchestrator.store.runs import Request
from orchestrator.store.texts import key, storable

PAGE = 500
_f, _r, _u, _log, _pins = schema.catalog_files, schema.replicas, schema.uses, schema.retention_log, schema.pins
_removals = schema.removals


class Use(Struct, frozen=True):
    """A run that read or made a file."""

    run_id: str
    workflow: str
    status: str
    created_at: float
    ended_at: float
    dismissed: bool = False  # it failed, and somebody has dealt with that


class Removal(Struct, frozen=True):
    file_id: int
    place: str
    address: str
    holder: str  # who began it: the host and its home
    at: float


class Pin(Struct, frozen=True):
    """`what`: `file` with its number as `target`, `collection` with its name, or `experiment` with an empty one."""

    what: str
    experiment: str
    target: str
    who: str = ""
    at: float = 0.0
    reason: str = ""


class LogRow(Struct, frozen=True):
    at: float
    experiment: str
    file_id: int
    place: str
    verdict: str
    reason: str
    evidence: dict[str, Any] = {}
    id: int = 0


# -------------------------------------------------------------------------------------------------------- files


def pages(database: Database, experiment: str = "") -> Iterator[list[CatalogFile]]:
    """All files, or those of an experiment, some at a time, in the order of their numbers; each scan as a whole."""
    after = 0
    while True:
        query = select(_f).where(_f.c.id > after, _f.c.part_of == 0).order_by(_f.c.id).limit(PAGE)
        if experiment:
            query = query.where(_f.c.experiment == key(experiment))
        with database.read() as connection:
            page = [_file(row) for row in connection.execute(query).mappings()]
            masters = scans.masters(connection, [file.id for file in page])
        if single := [file for file in page if file.id not in masters]:
            yield single
        for master in masters:  # of very many parts, perhaps
            with database.read() as connection:
                yield from scans.whole(connection, scans.several(connection, [master])).values()
        if len(page) < PAGE:
            return
        after = page[-1].id


def find(database: Database, text: str, *, experiment: str = "") -> list[CatalogFile]:
    """The file of this number; or the newest under this name or at this address; or a collection. Raises NotFound."""
    with database.read() as connection:
        chosen = _f.c.experiment == key(experiment) if experiment else _f.c.id > 0
        if text.isdecimal():
            found = connection.execute(select(_f).where(_f.c.id == int(text), chosen)).mappings().all()
        else:
            found = connection.execute(_named(text, chosen)).mappings().all()
        if not found:
            there = schema.collection_files
            ours = [there.c.name == key(text), *([there.c.experiment == key(experiment)] if experiment else [])]
            ids = select(there.c.file_id).where(*ours)
            found = connection.execute(select(_f).where(_f.c.id.in_(ids)).order_by(_f.c.id)).mappings().all()
    if not found:
        hint = "Name a file by its number or its path, or a collection with its experiment."
        raise NotFound(f"The catalog has no file or collection {text!r}.", hint)
    return [_file(row) for row in found]


def find_collection(database: Database, experiment: str, name: str) -> None:
    """Raises NotFound when there is none."""
    table = schema.collection_files
    with database.read() as connection:
        query = select(table.c.file_id).where(table.c.experiment == key(experiment), table.c.name == key(name)).limit(1)
        if connection.execute(query).first() is None:
            raise NotFound(f"The experiment {experiment!r} has no collection {name!r}.")


def _named(text: str, chosen: ColumnElement[bool]) -> Any:
    """The newest that has had a copy at this address."""
    places = select(_r.c.place).distinct()
    there = select(_r.c.file_id).where(_r.c.place.in_(places), _r.c.address_key == address_key(text))
    return select(_f).where(_f.c.id.in_(there), chosen).order_by(_f.c.superseded_at > 0, _f.c.id.desc()).limit(1)


# --------------------------------------------------------------------------------------------------------- uses


class Given:
    """What the runs that are not done were given, as it is when this is made: one reading for a whole plan."""

    def __init__(self, connection: Connection) -> None:
        runs, done = schema.runs, RunStatus.DONE
        self._runs: dict[str, set[str]] = defaultdict(set)
        for status in (s.value for s in RunStatus if s is not done):
            after = ""
            while True:
                query = select(runs.c.id, runs.c.request).where(runs.c.status == status, runs.c.id > after)
                page = connection.execute(query.order_by(runs.c.id).limit(PAGE)).all()
                for run_id, request in page:
                    asked = codec.loads(request, Request)
                    for path in run_files.paths(asked.files, asked.variables, asked.directory):
                        self._runs[os.path.normpath(os.path.join(asked.directory, path))].add(run_id)
                if len(page) < PAGE:
                    break
                after = page[-1].id
        self._sorted = sorted(self._runs)

    def of(self, path: str) -> set[str]:
        """Runs that were given the path, a folder above it, or, of a tree, something within."""
        found: set[str] = set()
        above = path
        while above not in ("", "/"):
            found |= self._runs.get(above, set())
            above = os.path.dirname(above)
        for at in range(bisect(self._sorted, path + "/"), len(self._sorted)):
            if not self._sorted[at].startswith(path + "/"):
                break
            found |= self._runs[self._sorted[at]]
        return found


def uses(
    connection: Connection, files: Mapping[int, Sequence[str]], given: Given | None = None
) -> dict[int, list[Use]]:
    """Who uses each of these files, by its number; `files`: the paths under which runs may have found each.

    What a run reads is in `uses` only when somebody has written it there, and the run may have begun this moment: so
    its paths count too, in the search index as it is now, or as they were in `given`.
    """
    told = defaultdict(set)
    for some in scans.slices(files):
        for number, run_id in connection.execute(select(_u.c.file_id, _u.c.run_id).where(_u.c.file_id.in_(some))):
            told[number].add(run_id)
    if given is None and len(files) > PAGE:
        given = Given(connection)
    if given is None:
        for number, run_id in _by_path(connection, files):
            told[number].add(run_id)
    else:
        for number, paths in files.items():
            for path in paths:
                told[number] |= given.of(path)
    runs = _runs(connection, sorted({run_id for ids in told.values() for run_id in ids}))
    return {number: [runs[i] for i in sorted(told[number]) if i in runs] for number in files}


def _by_path(connection: Connection, files: Mapping[int, Sequence[str]]) -> Iterator[tuple[int, str]]:
    """The same as `Given.of`, for a few files."""
    table = schema.run_files
    first, last = connection.execute(select(func.min(table.c.part), func.max(table.c.part))).one()
    if first is None:
        return
    parts = range(first, last + 1)
    whose: dict[bytes, set[int]] = defaultdict(set)
    for number, paths in files.items():
        for path in paths:
            word = run_files.words_of(path)[0]
            whose[word].add(number)
            for end in (i for i, byte in enumerate(word) if byte == ord("/") and i):
                whose[word[:end]].add(number)
            low, high = run_files.beginning(path.rstrip("/") + "/")
            within = select(table.c.run_id).where(table.c.part.in_(parts), table.c.word >= low, table.c.word < high)
            for (run_id,) in connection.execute(within):
                yield number, run_id
    words = sorted(whose)
    for at in range(0, len(words), PAGE):
        some = words[at : at + PAGE]
        query = select(table.c.word, table.c.run_id).where(table.c.part.in_(parts), table.c.word.in_(some))
        for word, run_id in connection.execute(query):
            for number in whose[bytes(word)]:
                yield number, run_id


def _runs(connection: Connection, ids: Sequence[str]) -> dict[str, Use]:
    found: dict[str, Use] = {}
    runs, letters = schema.runs, schema.dead_letters
    for at in range(0, len(ids), PAGE):
        some = ids[at : at + PAGE]
        open_letters = set(connection.execute(select(letters.c.run_id).where(letters.c.run_id.in_(some))).scalars())
        columns = (runs.c.id, runs.c.workflow, runs.c.status, runs.c.created_at, runs.c.ended_at, runs.c.parent)
        for row in connection.execute(select(*columns).where(runs.c.id.in_(some))):
            failed = row.status == RunStatus.FAILED and not row.parent
            dismissed = failed and row.id not in open_letters
            found[row.id] = Use(row.id, row.workflow, row.status, row.created_at, row.ended_at, dismissed)
    return found


# --------------------------------------------------------------------------------------------------------- pins


def pin(database: Database, pinned: Pin) -> None:
    row = _pin_row(pinned) | {"who": storable(pinned.who), "at": pinned.at, "reason": storable(pinned.reason)}
    with database.write() as connection:
        adding: Any = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
        connection.execute(adding(_pins).values(**row).on_conflict_do_nothing())


def unpin(database: Database, pinned: Pin) -> None:
    """Raises NotFound."""
    with database.write() as connection:
        same = [_pins.c[name] == value for name, value in _pin_row(pinned).items()]
        if connection.execute(delete(_pins).where(*same)).rowcount == 0:
            raise NotFound(f"No pin on the {pinned.what} {pinned.target or pinned.experiment!r}.", "`retention pins`")


def pins(database: Database, experiment: str = "") -> list[Pin]:
    query = select(_pins).order_by(_pins.c.experiment, _pins.c.what, _pins.c.target)
    if experiment:
        query = query.where(_pins.c.experiment == key(experiment))
    with database.read() as connection:
        return [Pin(**row) for row in connection.execute(query).mappings()]


def pinned(connection: Connection, files: Iterable[CatalogFile]) -> dict[int, str]:
    """Which of these are pinned, and by what."""
    wanted = {file.id: key(file.experiment) for file in files}
    ours = _pins.c.experiment.in_(sorted(set(wanted.values())))
    found = {(p.what, p.experiment, p.target) for p in connection.execute(select(_pins).where(ours))}
    told = {}
    member = schema.collection_files
    for number, experiment in wanted.items():
        if ("experiment", experiment, "") in found:
            told[number] = "its experiment is pinned"
        elif ("file", experiment, str(number)) in found:
            told[number] = "it is pinned"
    if names := sorted(p[2] for p in found if p[0] == "collection"):
        query = select(member.c.experiment, member.c.name, member.c.file_id).where(member.c.name.in_(names))
        for some in scans.slices(wanted):
            for row in connection.execute(query.where(member.c.file_id.in_(some))):
                if ("collection", row.experiment, row.name) in found:
                    told.setdefault(row.file_id, f"its collection {row.name!r} is pinned")
    return told


def _pin_row(pinned: Pin) -> dict[str, Any]:
    return {"what": pinned.what, "experiment": key(pinned.experiment), "target": key(pinned.target)}


def policy_of(database: Database, experiment: str) -> Any:
    """What an experiment's record says about retention; None where it says nothing."""
    table = schema.experiments
    with database.read() as connection:
        doc = connection.execute(select(table.c.doc).where(table.c.name == key(experiment))).scalar()
    return json.loads(doc).get("retention") if doc else None


# ----------------------------------------------------------------------------------------------------- removals


def begin_removal(connection: Connection, removal: Removal) -> Removal | None:
    """Note it; or that which is on its way for this file already, unless it is the same one of the same holder."""
    row = {
        "file_id": removal.file_id,
        "place": removal.place,
        "address": os.fsencode(removal.address),
        "holder": removal.holder,
        "at": removal.at,
    }
    adding: Any = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    # One statement: between two, the other's could end. What it finds there it leaves as it is, and says it.
    noting = adding(_removals).values(**row)
    noting = noting.on_conflict_do_update(index_elements=["file_id"], set_={"file_id": removal.file_id})
    there = _removal(connection.execute(noting.returning(_removals)).mappings().one())
    same = (there.place, there.address, there.holder) == (removal.place, removal.address, removal.holder)
    return None if same else there


def end_removal(connection: Connection, file_id: int) -> None:
    connection.execute(delete(_removals).where(_removals.c.file_id == file_id))


def removals(database: Database, holder: str) -> list[Removal]:
    """Those that this holder has begun and not ended."""
    with database.read() as connection:
        query = select(_removals).where(_removals.c.holder == holder).order_by(_removals.c.file_id)
        return [_removal(row) for row in connection.execute(query).mappings()]


def _removal(row: Any) -> Removal:
    return Removal(row["file_id"], row["place"], os.fsdecode(bytes(row["address"])), row["holder"], row["at"])


# ---------------------------------------------------------------------------------------------------------- log


def log(connection: Connection, row: LogRow) -> None:
    values = {
        "at": row.at,
        "experiment": key(row.experiment),
        "file_id": row.file_id,
        "place": storable(row.place),
        "verdict": row.verdict,
        "reason": storable(row.reason),
        "doc": codec.dumps(row.evidence),
    }
    connection.execute(insert(_log).values(**values))


def entries(
    database: Database, *, file_ids: Sequence[int] = (), experiment: str = "", before: int = 0, limit: int = 50
) -> list[LogRow]:
    """The newest first; the `id` of the last is the `before` of the next page."""
    wanted: list[ColumnElement[bool]] = []
    if file_ids:
        wanted.append(_log.c.file_id.in_(file_ids))
    if experiment:
        wanted.append(_log.c.experiment == key(experiment))
    if before:
        wanted.append(_log.c.id < before)
    query = select(_log).where(*wanted).order_by(_log.c.id.desc()).limit(limit)
    with database.read() as connection:
        return [_log_row(row) for row in connection.execute(query).mappings()]


def _log_row(row: Any) -> LogRow:
    values = {n: row[n] for n in ("at", "experiment", "file_id", "place", "verdict", "reason", "id")}
    return LogRow(**values, evidence=codec.loads(row["doc"], dict))
