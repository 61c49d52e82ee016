"""Runs found: by id, and listed by what they are. A search reads about as much as it answers, whatever the store holds.

It does so along one index, in the order of the answer, and asks in a way that makes both databases take it: a search
for any state, along an index that has the state in front of the time, asks once for each state.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Select, and_, func, literal_column, or_, select, union_all

from orchestrator.errors import NotFound
from orchestrator.model import RUN_ENDED, RunStatus
from orchestrator.store import files, schema
from orchestrator.store.database import Database
from orchestrator.store.texts import key, storable

IDS_AT_ONCE = 500

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
        if wanted.file:
            ids = list(_by_file(connection, wanted, limit))
            rows = [row for some in _batches(ids) for row in _summaries(connection, _r.id.in_(some))]
            rows.sort(key=lambda row: row.place, reverse=True)
            return rows
        states = [wanted.status] if wanted.status or not (wanted.workflow or wanted.experiment) else list(RunStatus)
        parts = [
            _newest([*_what(wanted, state), *_times(wanted, _r.created_at, _r.id)], limit).subquery()
            for state in states
        ]
        query: Any = select(parts[0]) if len(parts) == 1 else union_all(*(select(part) for part in parts))
        every = query.subquery()
        newest = select(every).order_by(every.c.created_at.desc(), every.c.id.desc()).limit(limit)
        return [_summary(row) for row in connection.execute(newest).mappings()]


def _newest(conditions: Sequence[ColumnElement[bool]], limit: int) -> Select[Any]:
    columns = [_r[name] for name in Summary.__struct_fields__]
    return select(*columns).where(*conditions).order_by(_r.created_at.desc(), _r.id.desc()).limit(limit)


def _what(wanted: Wanted, state: str) -> list[ColumnElement[bool]]:
    found = []
    if state:
        found.append(_r.status == state)
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


def _summaries(connection: Connection, condition: ColumnElement[bool]) -> list[Summary]:
    columns = [_r[name] for name in Summary.__struct_fields__]
    return [_summary(row) for row in connection.execute(select(*columns).where(condition)).mappings()]


def _summary(row: Any) -> Summary:
    return Summary(**{**row, "status": RunStatus(row["status"])})


# ---------------------------------------------------------------------------------------------------------- by file


def _by_file(connection: Connection, wanted: Wanted, limit: int) -> Iterator[str]:
    """The newest of these runs: first the days that have such a file, then as many of them as it takes."""
    low, high = files.beginning(wanted.file)
    named = and_(_f.word >= low, _f.word < high)
    others = _what(wanted, wanted.status)
    days = _days(connection, wanted, named)
    at_once = 1
    while days and limit > 0:
        now, days = days[:at_once], days[at_once:]
        at_once *= 2
        query = select(_f.run_id, _f.created_at).distinct().where(_f.day.in_(now), named)
        query = query.where(*_times(wanted, _f.created_at, _f.run_id))
        if others:
            query = query.join(schema.runs, _r.id == _f.run_id).where(*others)
        found = connection.execute(query.order_by(_f.created_at.desc(), _f.run_id.desc()).limit(limit)).all()
        limit -= len(found)
        yield from (row[0] for row in found)


def _days(connection: Connection, wanted: Wanted, named: ColumnElement[bool]) -> list[int]:
    """The days on which runs with such a file began, the newest first.

    From each day that there is to the one before, and in each one look: without this form PostgreSQL may read all.
    """
    first = select(func.max(_f.day)).where(*_day_bounds(wanted)).scalar_subquery()
    days = select(first.label("day")).cte("days", recursive=True)
    other = schema.run_files.alias("other")
    before = select(func.max(other.c.day)).where(other.c.day < days.c.day, *_day_bounds(wanted, other.c.day))
    days = days.union_all(select(before.scalar_subquery()).where(days.c.day.is_not(None)))
    look = select(_f.word).where(_f.day == days.c.day, named).order_by(_f.word).limit(1).scalar_subquery()
    query = select(days.c.day).where(days.c.day.is_not(None), look.is_not(None)).order_by(days.c.day.desc())
    return list(connection.execute(query).scalars())


def _day_bounds(wanted: Wanted, day: Any = _f.day) -> Iterator[ColumnElement[bool]]:
    if wanted.since:
        yield day >= files.day(wanted.since)
    ends = [at for at in (wanted.until, wanted.before[0] if wanted.before else 0.0) if at]
    if ends:
        yield day <= files.day(min(ends))


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
        if prefix == "last":
            query = select(_r.id).order_by(_r.created_at.desc(), _r.id.desc()).limit(1)
        else:
            low = storable(prefix)
            query = select(_r.id).where(_r.id >= low, _r.id < low + "\U0010ffff").order_by(_r.id).limit(2)
        found = list(connection.execute(query).scalars())
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
