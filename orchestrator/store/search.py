"""Runs found: by id, and listed by what they are. A search reads about as much as it answers, whatever the store holds.

It does so along an index, in the order of the answer, and asks in a way that makes both databases take it. Each index
has the state in front of the time, so that a rare state is found at once; a search for any state asks once for each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, Select, and_, func, literal_column, or_, select, union_all

from orchestrator import codec
from orchestrator.errors import NotFound
from orchestrator.model import RUN_ENDED, RunStatus
from orchestrator.store import files, schema
from orchestrator.store.database import Database
from orchestrator.store.runs import Request
from orchestrator.store.texts import key, storable

IDS_AT_ONCE = 500
MANY = 3000  # files

Place = tuple[float, str]  # `created_at` and id of a run: where a page ended, for the next

_r, _f = schema.runs.c, schema.run_files.c


class Summary(Struct, frozen=True):
    """A line of the list of runs."""

    id: str
    workflow: str
    owner: str
    status: RunStatus
    stage: str
    error: str
    created_at: float
    started_at: float
    ended_at: float
    parent: str = ""
    experiment: str = ""

    @property
    def place(self) -> Place:
        return self.created_at, self.id


class Wanted(Struct, frozen=True):
    """Which runs; an empty field leaves it open. Times are epoch seconds: from `since` on, and before `until`."""

    status: str = ""
    workflow: str = ""
    experiment: str = ""
    file: str = ""  # the beginning of a path, of a name, or of a word in a name
    since: float = 0.0
    until: float = 0.0
    before: Place | None = None  # after this one in the list, which goes back in time


def listing(database: Database, wanted: Wanted | None = None, *, limit: int = 50) -> list[Summary]:
    """The newest runs first; `place` of the last is the `before` of the next page."""
    wanted = wanted or Wanted()
    with database.read() as connection:
        if database.postgresql:  # a plan made for any parameters can be a bad one for these
            connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_custom_plan")
        ids = list(_by_file(connection, wanted, limit)) if wanted.file else _newest(connection, wanted, limit)
        columns = [_r[name] for name in Summary.__struct_fields__]
        rows = (
            r for some in _batches(ids) for r in connection.execute(select(*columns).where(_r.id.in_(some))).mappings()
        )
        found = [Summary(**{**row, "status": RunStatus(row["status"])}) for row in rows]
    return sorted(found, key=lambda line: line.place, reverse=True)


def _newest(connection: Connection, wanted: Wanted, limit: int) -> Sequence[str]:
    states = [wanted.status] if wanted.status else list(RunStatus)
    times = list(_times(wanted, _r.created_at, _r.id))
    every: Any = [_first(select(_r.id, _r.created_at).where(*_what(wanted, s), *times), _r, limit) for s in states]
    if len(every) > 1:
        together = union_all(*(select(part.subquery()) for part in every)).subquery()
        every = [_first(select(together), together.c, limit)]
    return [row.id for row in connection.execute(every[0])]


def _first(query: Select[Any], columns: Any, limit: int) -> Select[Any]:
    return query.order_by(columns.created_at.desc(), columns.id.desc()).limit(limit)


def _what(wanted: Wanted, state: str) -> list[ColumnElement[bool]]:
    found = [_r.status == state] if state else []
    if wanted.workflow:
        found.append(_r.workflow == key(wanted.workflow))
    if wanted.experiment:
        found += [
            _r.experiment == key(wanted.experiment),
            _r.experiment != literal_column("''"),
        ]  # as the index says it
    return found


def _times(wanted: Wanted, at: Any, run_id: Any) -> Iterator[ColumnElement[bool]]:
    if wanted.since:
        yield at >= wanted.since
    if wanted.until:
        yield at < wanted.until
    if wanted.before is not None:
        when, last = wanted.before
        yield and_(at <= when, or_(at < when, run_id < last))  # said so that an index on the time alone serves


# ---------------------------------------------------------------------------------------------------------- by file


def _by_file(connection: Connection, wanted: Wanted, limit: int) -> Iterator[str]:
    """The newest of these runs: first the parts that have such a file, then as many of them as it takes."""
    low, high = files.beginning(wanted.file)
    named = and_(_f.word >= low, _f.word < high)
    others = _what(wanted, wanted.status)
    parts = _parts(connection, wanted, named)
    if others and _many(connection, parts, named):
        yield from _by_request(connection, wanted, limit)
        return
    at_once = 1
    while parts and limit > 0:
        now, parts = parts[:at_once], parts[at_once:]
        at_once *= 2
        query = select(_f.run_id, _f.created_at).distinct().where(_f.part.in_(now), named)
        query = query.where(*_times(wanted, _f.created_at, _f.run_id))
        if others:
            query = query.join(schema.runs, _r.id == _f.run_id).where(*others)
        found = connection.execute(query.order_by(_f.created_at.desc(), _f.run_id.desc()).limit(limit)).all()
        limit -= len(found)
        yield from (row[0] for row in found)


def _many(connection: Connection, parts: Sequence[int], named: ColumnElement[bool]) -> bool:
    """Are there so many such files that looking at the run of each would take long?"""
    some = select(_f.run_id).where(_f.part.in_(parts), named).limit(MANY).subquery()
    return connection.execute(select(func.count()).select_from(some)).scalar() == MANY


def _by_request(connection: Connection, wanted: Wanted, limit: int) -> Iterator[str]:
    """The other way round: the runs that are all else that is wanted, and of each what files it was given."""
    low, high = files.beginning(wanted.file)
    wanted, at_once = replace(wanted, file=""), 4 * limit
    while ids := _newest(connection, wanted, at_once):
        query = select(_r.id, _r.created_at, _r.request)
        rows = [row for some in _batches(ids) for row in connection.execute(query.where(_r.id.in_(some)))]
        rows.sort(key=lambda row: (row.created_at, row.id), reverse=True)
        for row in rows:
            asked = codec.loads(row.request, Request)
            paths = files.paths(asked.files, asked.variables, asked.directory)
            if any(low <= word < high for path in paths for word in files.words_of(path)):
                yield row.id
                limit -= 1
                if limit == 0:
                    return
        wanted = replace(wanted, before=(rows[-1].created_at, rows[-1].id))


def _parts(connection: Connection, wanted: Wanted, named: ColumnElement[bool]) -> list[int]:
    """The parts of the table with such a file, the newest first.

    From each part that there is to the one before, with one look in each: asked in a shorter way, PostgreSQL may read
    everything.
    """
    bounds = _bounds(wanted)
    parts = select(select(func.max(_f.part)).where(*bounds).scalar_subquery().label("part")).cte(
        "parts", recursive=True
    )
    before = select(func.max(_f.part)).where(_f.part < parts.c.part, *bounds).scalar_subquery()
    parts = parts.union_all(select(before).where(parts.c.part.is_not(None)))
    look = select(_f.word).where(_f.part == parts.c.part, named).order_by(_f.word).limit(1).scalar_subquery()
    query = select(parts.c.part).where(parts.c.part.is_not(None), look.is_not(None)).order_by(parts.c.part.desc())
    return list(connection.execute(query).scalars())


def _bounds(wanted: Wanted) -> list[ColumnElement[bool]]:
    ends = [at for at in (wanted.until, wanted.before[0] if wanted.before else 0.0) if at]
    found = [_f.part <= files.part(min(ends))] if ends else []
    return [*found, _f.part >= files.part(wanted.since)] if wanted.since else found


# ------------------------------------------------------------------------------------------------------------ by id


def known(database: Database, ids: Collection[str]) -> set[str]:
    """Those of these ids that are runs."""
    return _ids(database, ids)


def ended(database: Database, ids: Collection[str]) -> set[str]:
    """Those of these runs that are over."""
    return _ids(database, ids, _r.status.in_([s.value for s in RUN_ENDED]))


def _ids(database: Database, ids: Collection[str], *conditions: ColumnElement[bool]) -> set[str]:
    found: set[str] = set()
    with database.read() as connection:
        for some in _batches(list(ids)):
            found.update(connection.execute(select(_r.id).where(_r.id.in_(some), *conditions)).scalars())
    return found


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield ids[start : start + IDS_AT_ONCE]


def find(database: Database, prefix: str) -> str:
    """The id of the one run whose id begins with `prefix`; `last` is the newest run."""
    if not prefix:
        raise NotFound("A run is named by its id, the beginning of one, or `last`.", "`beamway ls` lists the runs.")
    with database.read() as connection:
        low = storable(prefix)
        query = select(_r.id).where(_r.id >= low, _r.id < low + "\U0010ffff").order_by(_r.id).limit(2)
        last = prefix == "last"
        found = _newest(connection, Wanted(), 1) if last else list(connection.execute(query).scalars())
    if len(found) == 1 or (found and found[0] == prefix):
        return str(found[0])
    if found:
        raise NotFound(f"More than one run begins with {prefix!r}.", "Give more of its id; `beamway ls` lists them.")
    raise NotFound(f"There is no run {prefix!r}.", "`beamway ls` lists the runs.")


def counts(database: Database) -> dict[str, int]:
    """How many runs are in each state."""
    with database.read() as connection:
        rows = connection.execute(select(_r.status, func.count()).group_by(_r.status))
        return {row[0]: row[1] for row in rows}
