"""Runs found: by id, and listed by what they are. A search reads about as much as it answers, whatever the store holds.

It does so along an index, in the order of the answer, and asks in a way that makes both databases take it. Each index
has the state in front of the time, so that a rare state is found at once; a search for any state asks once for each. It
has the id behind it, so that all but the answer itself is read in indexes, whose neighbours are neighbours in time.

What a person may see is found along three: the runs that were open when they were begun, their own of the others, and
those of each experiment in which they have a part.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    desc,
    func,
    literal,
    literal_column,
    or_,
    select,
    union,
    union_all,
)

from orchestrator import codec
from orchestrator.errors import NotFound
from orchestrator.model import RUN_ENDED, RunStatus
from orchestrator.store import files, schema, sight
from orchestrator.store.database import Database
from orchestrator.store.runs import Request
from orchestrator.store.texts import key, storable

IDS_AT_ONCE = 500
PARTS_MOST = 1024  # at once
FEW = 5000  # words
MANY = 3000  # runs: more are not counted
DEARER = 10  # how much more work it is to read a run's request than to go through a word

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
    seen_by: str | None = None  # only what this person may see


def listing(database: Database, wanted: Wanted | None = None, *, limit: int = 50) -> list[Summary]:
    """The newest runs first; `place` of the last is the `before` of the next page."""
    wanted = wanted or Wanted()
    columns = [_r[name] for name in Summary.__struct_fields__]
    with database.read() as connection:
        if database.postgresql:  # a plan made for any parameters can be a bad one for these
            connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_custom_plan")
        queries: Iterable[Any] = [_newest(connection, wanted, _states(wanted), limit, *columns)]
        if wanted.file:
            ids = list(_by_file(connection, wanted, limit))
            queries = (select(*columns).where(_r.id.in_(some)) for some in _batches(ids))
        rows = (row for query in queries for row in connection.execute(query).mappings())
        found = [Summary(**{**row, "status": RunStatus(row["status"])}) for row in rows]
    return sorted(found, key=lambda line: line.place, reverse=True)


def _newest(
    connection: Connection, wanted: Wanted, states: Sequence[str], limit: int, *columns: ColumnElement[Any]
) -> Any:
    """Their query. Of a search for several states both databases merge what comes along the index of each, and stop."""
    times = list(_times(wanted, _r.created_at, _r.id))
    every: list[Any] = [select(*columns).where(*such, *times) for state in states for such in _lanes(wanted, state)]
    if len(every) > 1 and (_postgresql(connection) or wanted.seen_by is not None):
        every = [select(_first(query, limit).subquery()) for query in every]  # it merges what is ordered and bounded
    if wanted.seen_by is not None and not wanted.experiment:
        every += [_of_theirs(connection, wanted, state, limit, *columns) for state in states]
        return _first(union(*every), limit)
    return _first(union_all(*every) if len(every) > 1 else every[0], limit)


def _lanes(wanted: Wanted, state: str) -> Iterator[list[ColumnElement[bool]]]:
    """What together holds for the runs of this state that are wanted, each along an index in the order of the answer.

    Those in the experiments in which a person has a part are not among them, unless one experiment is wanted.
    """
    such = _what(wanted, state)
    if wanted.experiment:
        yield such
    elif wanted.seen_by is None:
        yield from ([*such, _r.open == value] for value in (0, 1))
    else:
        yield [*such, _r.open == literal_column("1")]
        own = [_r.username == key(wanted.seen_by), _r.username != literal_column("''")]  # as its index says
        yield [*such, _r.open != literal_column("1"), *own]


def _of_theirs(connection: Connection, wanted: Wanted, state: str, limit: int, *columns: ColumnElement[Any]) -> Any:
    """The newest of each experiment in which the person has a part."""
    part, seen = schema.experiment_people, schema.runs.alias()
    such = [*_what(replace(wanted, seen_by=None), state), *_times(wanted, _r.created_at, _r.id)]
    such += [_r.experiment == part.c.experiment, _r.experiment != literal_column("''")]
    theirs = part.c.person == key(wanted.seen_by or "")
    if _postgresql(connection):
        newest = _first(select(*columns).where(*such).correlate(part), limit).lateral()
        return select(*newest.c).select_from(part.join(newest, literal_column("true"))).where(theirs)
    ids = _first(select(_r.id).where(*such).correlate(part), limit)
    return (
        select(*(seen.c[str(column.key)] for column in columns))
        .select_from(part.join(seen, seen.c.id.in_(ids)))
        .where(theirs)
    )


def _postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _first(query: Any, limit: int) -> Any:
    return query.order_by(desc("created_at"), desc("id")).limit(limit)


def _states(wanted: Wanted) -> list[str]:
    return [wanted.status] if wanted.status else [state.value for state in RunStatus]


def _what(wanted: Wanted, state: str) -> list[ColumnElement[bool]]:
    found = [_r.status == state] if state else []
    if wanted.workflow:
        found.append(_r.workflow == key(wanted.workflow))
    if wanted.experiment:
        found += [_r.experiment == key(wanted.experiment), _r.experiment != literal_column("''")]  # as its index says
    if wanted.seen_by is not None:
        found.append(sight.allowed(wanted.seen_by, _r.experiment, _r.username))
    return found


def _times(wanted: Wanted, at: Any, run_id: Any) -> Iterator[ColumnElement[bool]]:
    if wanted.since:
        yield at >= wanted.since
    when, last = wanted.before or (math.inf, "")
    if wanted.until and wanted.until <= when:  # one bound alone: of two SQLite goes by the first
        yield at < wanted.until
    elif wanted.before:
        yield and_(at <= when, or_(at < when, run_id < last))  # said so that an index on the time alone serves


# ---------------------------------------------------------------------------------------------------------- by file


def _by_file(connection: Connection, wanted: Wanted, limit: int) -> Iterator[str]:
    """The newest of these runs: from the newest part of the table back, in more at once the fewer are found."""
    states: Sequence[str] = ()  # nothing else is wanted
    if wanted.status or wanted.workflow or wanted.experiment or wanted.seen_by is not None:
        wanted, states = _narrowed(connection, wanted)
        if not states:
            return
    first, last = _parts(connection, wanted)
    at_once = 1
    while first <= last and limit > 0:
        parts = range(max(first, last + 1 - at_once), last + 1)
        found = _in_parts(connection, wanted, states, parts, limit)
        yield from found
        limit -= len(found)
        last -= at_once
        at_once = min(4 * at_once, PARTS_MOST)


def _narrowed(connection: Connection, wanted: Wanted) -> tuple[Wanted, Sequence[str]]:
    """With the times of the oldest and the newest run that is all else that is wanted; and what states there are.

    So a search in an experiment or for what runs now does not look into the parts of other times.
    """
    ends, times = [], list(_times(wanted, _r.created_at, _r.id))
    for state in _states(wanted):
        for such in _lanes(replace(wanted, seen_by=None), state):  # whoever may see them: times that may be too wide
            both = (select(end(_r.created_at)).where(*such, *times).scalar_subquery() for end in (func.min, func.max))
            ends.append(select(literal(state), *both))
    rows = [row for row in connection.execute(union_all(*ends)) if row[1] is not None]
    if not rows:
        return wanted, ()
    oldest, newest = min(row[1] for row in rows), max(row[2] for row in rows)
    return _between(wanted, oldest, _after(newest)), list({row[0]: None for row in rows})


def _between(wanted: Wanted, since: float, until: float) -> Wanted:
    return replace(wanted, since=max(since, wanted.since), until=min(until, wanted.until or until))


def _after(at: float) -> float:
    return math.nextafter(at, math.inf)


def _parts(connection: Connection, wanted: Wanted) -> tuple[int, int]:
    """The first and the last part of the table that can hold such a file."""
    ends = (select(end(_f.part)).scalar_subquery() for end in (func.min, func.max))
    first, last = connection.execute(select(*ends)).one()
    if first is None:
        return 0, -1
    if wanted.since:
        first = max(first, files.part(wanted.since))
    before = [wanted.until, wanted.before[0] if wanted.before else 0.0]
    return first, min([last, *(files.part(at) for at in before if at)])


def _in_parts(connection: Connection, wanted: Wanted, states: Sequence[str], parts: range, limit: int) -> list[str]:
    """The newest of these runs that have their words in these parts of the table, the less work of two ways.

    The times of few such files narrow the runs, as those of the runs have narrowed the parts.
    """
    low, high = files.beginning(wanted.file)
    words = select(_f.created_at, _f.run_id).where(_f.part.in_(parts), _f.word >= low, _f.word < high)
    if states:
        some = words.limit(FEW).subquery()
        ends = func.min(some.c.created_at), func.max(some.c.created_at)
        count, oldest, newest = connection.execute(select(func.count(), *ends)).one()
        if not count:
            return []
        wanted = _between(wanted, *((oldest, _after(newest)) if count < FEW else files.times(parts)))
        if _fewer_runs(connection, wanted, states, words):
            return list(_by_request(connection, wanted, states, limit))
        words = words.where(_is_such(connection, wanted, states))
    words = words.distinct().where(*_times(wanted, _f.created_at, _f.run_id))
    words = words.order_by(_f.created_at.desc(), _f.run_id.desc()).limit(limit)
    return [row.run_id for row in connection.execute(words)]


def _is_such(connection: Connection, wanted: Wanted, states: Sequence[str]) -> ColumnElement[bool]:
    """Is the run of this file all else that is wanted?

    It is looked for at its time, never by its id: what was asked at one time lies together, ids are all over the disk.
    """
    run_id = _r.id.concat(literal_column("''"))  # written so, no index on ids serves
    same = and_(_r.created_at == _f.created_at, run_id == _f.run_id)
    such = [_r.status.in_(states), *_what(wanted, "")]
    if not wanted.experiment:
        such.append(_r.open.in_((0, 1)))  # as its index has it
    if _postgresql(connection):  # it may gather all such runs first; SQLite would go by these times, not by the one
        such += _times(wanted, _r.created_at, _r.id)
    return select(_r.id).where(*such, same).exists()


def _fewer_runs(connection: Connection, wanted: Wanted, states: Sequence[str], words: Select[Any]) -> bool:
    """Is asking each run that is all else that is wanted for its files less work than going through the words?"""
    runs = _count(connection, _newest(connection, wanted, states, MANY, _r.id, _r.created_at))
    return runs < MANY and _count(connection, words.limit(runs * DEARER + 1)) > runs * DEARER


def _count(connection: Connection, query: Select[Any]) -> int:
    return connection.execute(select(func.count()).select_from(query.subquery())).scalar() or 0


def _by_request(connection: Connection, wanted: Wanted, states: Sequence[str], limit: int) -> Iterator[str]:
    """The other way round: the runs that are all else that is wanted, and of each what files it was given."""
    low, high = files.beginning(wanted.file)
    columns, at_once = (_r.id, _r.created_at, _r.request), 4 * limit
    while rows := connection.execute(_newest(connection, wanted, states, at_once, *columns)).all():
        for row in rows:
            asked = codec.loads(row.request, Request)
            paths = files.paths(asked.files, asked.variables, asked.directory)
            if any(low <= word < high for path in paths for word in files.words_of(path)):
                yield row.id
                limit -= 1
                if limit == 0:
                    return
        wanted = replace(wanted, before=(rows[-1].created_at, rows[-1].id))


# ------------------------------------------------------------------------------------------------------------ by id


def known(database: Database, ids: Collection[str]) -> set[str]:
    """Those of these ids that are runs."""
    return _ids(database, ids)


def ended(database: Database, ids: Collection[str], *, seen_by: str | None = None) -> set[str]:
    """Those of these runs that are over; `seen_by`: and that this person may see."""
    found = _ids(database, ids, _r.status.in_([s.value for s in RUN_ENDED]))
    return found if seen_by is None else found - sight.unseen(database, seen_by, found)


def _ids(database: Database, ids: Collection[str], *conditions: ColumnElement[bool]) -> set[str]:
    found: set[str] = set()
    with database.read() as connection:
        for some in _batches(list(ids)):
            found.update(connection.execute(select(_r.id).where(_r.id.in_(some), *conditions)).scalars())
    return found


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield ids[start : start + IDS_AT_ONCE]


def find(database: Database, prefix: str, *, seen_by: str | None = None) -> str:
    """The id of the one run whose id begins with `prefix`; `last` is the newest run. `seen_by`: of those that this
    person may see."""
    if not prefix:
        raise NotFound("A run is named by its id, the beginning of one, or `last`.", "`beamway ls` lists the runs.")
    with database.read() as connection:
        low = storable(prefix)
        query = select(_r.id).where(_r.id >= low, _r.id < low + "\U0010ffff").order_by(_r.id).limit(2)
        if seen_by is not None:
            query = query.where(sight.allowed(seen_by, _r.experiment, _r.username))
        if prefix == "last":
            wanted = Wanted(seen_by=seen_by)
            query = _newest(connection, wanted, _states(wanted), 1, _r.id, _r.created_at)
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
