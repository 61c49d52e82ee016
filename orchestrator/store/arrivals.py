"""What was seen in watched directories, and what became of it: each file once, each content run once.

A file that is to run is `due` in the transaction that claims its keys, and `run` when the run is there; whoever starts
again finds what is due and asks for it again under the same key. Nothing else is needed to lose and repeat nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, bindparam, func, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from orchestrator import codec
from orchestrator.errors import Conflict, NotFound
from orchestrator.store import leases, scans, schema
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease
from orchestrator.store.scans import PartFile
from orchestrator.store.texts import key, storable

_t = schema.arrivals
_l = schema.dead_letters
PAGE = 50_000  # rows that one reading transaction gives
KEYS_AT_ONCE = 512  # each number of them is a statement of its own, so that there are powers of two only
LETTERS = 2000
FLOOD = 100  # rows written at once, after which the database is to know how many there are
Key = TypeVar("Key", str, bytes)
BEFORE = "it was there before the watch began"  # why it is ignored, whatever the rules


class ArrivalState(StrEnum):
    DUE = "due"  # it is to run; whether its run is there already is not known yet
    RUN = "run"  # its run is there
    DUPLICATE = "duplicate"  # the same file or the same content has run with this workflow version
    IGNORED = "ignored"  # nothing is to be done with it; `reason` says why
    INCOMPLETE = "incomplete"  # it is not whole and does not change; taken up when it becomes whole, or by hand


class Arrival(Struct, frozen=True):
    watch: str
    experiment: str
    place: bytes
    name: str  # relative to the directory
    fingerprint: tuple[int, int, int, int]  # device, inode, size, mtime_ns
    state: ArrivalState
    reason: str = ""
    rule: str = ""
    workflow: str = ""  # with its version
    arguments: dict[str, str] = {}
    checksum: str = ""
    parts: str = ""  # checksum of the other files of the scan, together
    part_files: tuple[PartFile, ...] = ()  # those, while it is decided; then they are in `arrival_parts`
    run_key: str = ""
    content_key: str = ""
    same_as: str = ""
    run_id: str = ""
    seen_at: float = 0.0
    decided_at: float = 0.0
    id: int = 0


class _Doc(Struct, frozen=True):
    experiment: str
    arguments: dict[str, str] = {}
    checksum: str = ""
    parts: str = ""


def digest_of(name: str, fingerprint: tuple[int, int, int, int]) -> bytes:
    """16 bytes that stand for a file under its name, as it is now."""
    return hashlib.blake2b(b"%d:%d:%d:%d:" % fingerprint + os.fsencode(name), digest_size=16).digest()


def keyed(arrival: Arrival) -> Arrival:
    """With the keys that make it run once."""
    common = (arrival.experiment, arrival.workflow)
    sums = [s for s in (arrival.checksum, arrival.parts) if s]
    content = _key(*common, "content", str(arrival.fingerprint[2]), *sums) if arrival.checksum else ""
    return replace(arrival, run_key=_key(*common, "file", _written(arrival.fingerprint)), content_key=content)


# -------------------------------------------------------------------------------------------------------- writing


def decide(database: Database, arrivals: Sequence[Arrival], *, fence: Lease | None = None) -> Counter[ArrivalState]:
    """Write down what becomes of these, all or nothing. One that is due is a duplicate when its keys are taken; one
    that was incomplete is what it is now; what was decided otherwise before stays as it was."""
    with database.write() as connection:
        if fence is not None:
            leases.prove(connection, fence)
        taken = _taken(connection, [k for a in arrivals for k in _keys(a)])
        decided = _decided(connection, arrivals)
        rows, states = [], Counter[ArrivalState]()
        for at, arrival in {(a.watch, a.place): a for a in arrivals}.items():  # the last that is said of each
            if at in decided:
                continue
            arrival = _told_apart(arrival, taken.get(arrival.run_key))
            first = next((taken[k] for k in _keys(arrival) if k in taken), None)
            if first is not None:
                arrival = _duplicate(arrival, first)
            taken |= dict.fromkeys(_keys(arrival), replace(arrival, part_files=()))
            rows.append(_row(arrival))
            if arrival.part_files:
                scans.keep(connection, arrival.watch, arrival.place, arrival.part_files)
            states[arrival.state] += 1
        dialect_insert: Any = postgresql_insert if database.postgresql else sqlite_insert
        put = dialect_insert(_t)
        changed = {c.name: put.excluded[c.name] for c in _t.columns if c.name not in ("id", "seen_at")}
        put = put.on_conflict_do_update(
            index_elements=["watch", "place"], set_=changed, where=_t.c.state == literal_column("'incomplete'")
        )
        database.prepare(put, _t, without=("id",))(connection, rows)
    if len(rows) >= FLOOD:
        database.has_grown(_t)
    return states


def started(database: Database, runs: Sequence[tuple[int, str]], *, fence: Lease | None = None) -> None:
    """The runs of these arrivals are there."""
    with database.write() as connection:
        if fence is not None:
            leases.prove(connection, fence)
        still_due = update(_t).where(_t.c.id == bindparam("arrival"), _t.c.state == literal_column("'due'"))
        now_run = still_due.values(state=bindparam("now"), run_id=bindparam("run"))
        rows = [{"arrival": number, "run": run_id, "now": ArrivalState.RUN.value} for number, run_id in runs]
        database.prepare(now_run)(connection, rows)


def refused(database: Database, arrival: Arrival, reason: str, *, fence: Lease | None = None) -> None:
    """Its run cannot be begun as asked: it waits for somebody to release it, and its keys are free.

    The first of its duplicates has its place: a file that was renamed before its run began is there under that name.
    """
    with database.write() as connection:
        if fence is not None:
            leases.prove(connection, fence)
        this = (_t.c.id == arrival.id) & (_t.c.state == ArrivalState.DUE.value)
        free = {"state": ArrivalState.INCOMPLETE.value, "run_key": None, "content_key": None}
        if not connection.execute(update(_t).where(this).values(reason=storable(reason), **free)).rowcount:
            return
        same = (_t.c.same_as == arrival.run_key) & (_t.c.state == ArrivalState.DUPLICATE.value)
        row = connection.execute(select(_t).where(same).order_by(_t.c.id).limit(1)).mappings().first()
        if row is None:
            return
        heir = keyed(replace(_arrival(row), state=ArrivalState.DUE, reason="", same_as=""))
        if not _taken(connection, _keys(heir)):
            connection.execute(update(_t).where(_t.c.id == heir.id).values(**_row(heir)))
            others = (_t.c.same_as == arrival.run_key) & (_t.c.id != heir.id)
            connection.execute(update(_t).where(others).values(same_as=heir.run_key))


def inherit(database: Database, arrival: Arrival, heir: Arrival, reason: str, *, fence: Lease | None = None) -> None:
    """The run of `arrival` has failed, and its duplicate runs in its place."""
    free = {"run_key": None, "content_key": None}
    taking = replace(heir, state=ArrivalState.DUE, reason=reason, same_as="")
    taking = replace(keyed(taking), run_key=_key(arrival.run_key, "again", str(heir.id)))
    with database.write() as connection:
        if fence is not None:
            leases.prove(connection, fence)
        as_found = (_t.c.id == heir.id) & (_t.c.state == ArrivalState.DUPLICATE.value)
        if connection.execute(select(_t.c.id).where(as_found)).first() is None:
            return  # somebody has released it meanwhile
        connection.execute(update(_t).where(_t.c.id == arrival.id).values(**free))
        connection.execute(update(_t).where(_t.c.id == heir.id).values(**_row(taking)))
        others = (_t.c.same_as == arrival.run_key) & (_t.c.id != heir.id)
        connection.execute(update(_t).where(others).values(same_as=taking.run_key))


def release(
    database: Database,
    number: int,
    *,
    who: str,
    now: float,
    workflow: str = "",
    arguments: dict[str, str] | None = None,
) -> Arrival:
    """Run one that did not, whatever was against it. `workflow` (with its version) where no rule has named one.

    Raises NotFound, and Conflict when it runs already or nobody has said what is to run.
    """
    with database.write() as connection:
        row = connection.execute(select(_t).where(_t.c.id == number)).mappings().first()
        if row is None:
            raise NotFound(f"There is no arrival {number}.")
        arrival = _arrival(row)
        if arrival.state in (ArrivalState.DUE, ArrivalState.RUN):
            raise Conflict(f"The arrival {number} runs already ({arrival.run_id or 'about to begin'}).")
        arrival = replace(
            arrival,
            workflow=workflow or arrival.workflow,
            arguments=arguments or arrival.arguments,
            **dict.fromkeys(("checksum", "same_as"), ""),
        )
        if not arrival.workflow:
            raise Conflict(f"No rule has chosen a workflow for arrival {number}.", "Name the workflow to run.")
        free = keyed(arrival)
        if _taken(connection, [free.run_key]):
            free = replace(free, run_key=_key(free.run_key, "again", str(number)))
        free = replace(free, state=ArrivalState.DUE, reason=f"released by {who}", decided_at=now)
        connection.execute(update(_t).where(_t.c.id == number).values(**_row(free)))
    return free


# -------------------------------------------------------------------------------------------------------- reading


def known(database: Database, watch: str) -> Iterator[tuple[bytes, bool]]:
    """The places of a watch, and whether each is decided for good; in pages, so that nobody waits for a million."""
    last = b""
    while True:
        query = select(_t.c.place, _t.c.state).where(_t.c.watch == watch, _t.c.place > last)
        with database.read() as connection:
            rows = connection.execute(query.order_by(_t.c.place).limit(PAGE)).all()
        for place, state in rows:
            yield bytes(place), state != ArrivalState.INCOMPLETE.value
        if len(rows) < PAGE:
            return
        last = bytes(rows[-1].place)


def due(
    database: Database, experiment: str, *, limit: int, after: int = 0, of: Collection[str] | None = None
) -> list[Arrival]:
    """Of an experiment, those that are to run, in the order in which they were decided. `after`: the number of the last
    one that was given; `of`: these watches only."""
    query = select(_t).where(_t.c.state == ArrivalState.DUE.value, _t.c.experiment == key(experiment), _t.c.id > after)
    if of is not None:
        query = query.where(_t.c.watch.in_(of))
    with database.read() as connection:
        return [_arrival(row) for row in connection.execute(query.order_by(_t.c.id).limit(limit)).mappings()]


def failed_with_duplicates(database: Database) -> list[Arrival]:
    """Those whose run is among the last that have failed and nobody has dealt with, and that others duplicate."""
    others = _t.alias()
    has = select(others.c.id).where(others.c.same_as == _t.c.run_key).exists()
    with database.read() as connection:
        newest = connection.execute(select(_l.c.run_id).order_by(_l.c.at.desc()).limit(LETTERS)).scalars().all()
        if not newest:
            return []
        begun = (_t.c.run_id != literal_column("''")) & _t.c.run_id.in_(newest)  # the first is as the index says it
        query = select(_t).where(begun, _t.c.run_key.is_not(None), has)
        return [_arrival(row) for row in connection.execute(query).mappings()]


def duplicates(database: Database, run_key: str, *, limit: int) -> list[Arrival]:
    """Of the one with this key, from the first on."""
    query = select(_t).where(_t.c.same_as == run_key, _t.c.state == ArrivalState.DUPLICATE.value)
    with database.read() as connection:
        return [_arrival(row) for row in connection.execute(query.order_by(_t.c.id).limit(limit)).mappings()]


def due_experiments(database: Database) -> list[str]:
    """The experiments that have something due, in the order of their names; each is one look into the index."""
    found: list[str] = []
    with database.read() as connection:
        while True:
            further = [_t.c.experiment > found[-1]] if found else []
            query = select(func.min(_t.c.experiment)).where(_t.c.state == ArrivalState.DUE.value, *further)
            name = connection.execute(query).scalar()
            if name is None:
                return sorted(found)
            found.append(name)


def oldest_due(database: Database) -> float:
    """Since when the one that is due for longest is; 0 when none is."""
    with database.read() as connection:
        oldest = select(func.min(_t.c.decided_at)).where(_t.c.state == ArrivalState.DUE.value)
        return connection.execute(oldest).scalar() or 0.0


def ls(
    database: Database,
    *,
    watch: str = "",
    experiment: str = "",
    state: ArrivalState | None = None,
    after: int = 0,
    before: int = 0,
    newest: bool = False,
    limit: int = 1000,
) -> list[Arrival]:
    """The oldest first, or the `newest`; `after`, or `before`: the number of the last one on the page before."""
    wanted = such(watch=watch, experiment=experiment, state=state, after=after, before=before)
    with database.read() as connection:
        order = _t.c.id.desc() if newest else _t.c.id
        rows = connection.execute(select(_t).where(*wanted).order_by(order).limit(limit)).mappings()
        return [_arrival(row) for row in rows]


def such(
    *, watch: str, experiment: str, state: ArrivalState | None, after: int, before: int
) -> list[ColumnElement[bool]]:
    """The conditions of `ls`."""
    wanted: list[ColumnElement[bool]] = [_t.c.id > after]
    wanted += [_t.c.id < before] if before else []
    wanted += [_t.c.watch == watch] if watch else []
    wanted += [_t.c.experiment == key(experiment)] if experiment else []
    wanted += [_t.c.state == state.value] if state else []
    return wanted


def get(database: Database, numbers: Sequence[int]) -> list[Arrival]:
    """Those of these numbers that there are, by number."""
    with database.read() as connection:
        rows = connection.execute(select(_t).where(_t.c.id.in_(numbers)).order_by(_t.c.id)).mappings()
        return [_arrival(row) for row in rows]


def counts(database: Database, watch: str = "") -> Counter[ArrivalState]:
    """How many there are in each state."""
    query = select(_t.c.state, func.count()).group_by(_t.c.state)
    if watch:
        query = query.where(_t.c.watch == watch)
    with database.read() as connection:
        return Counter({ArrivalState(state): number for state, number in connection.execute(query)})


# ------------------------------------------------------------------------------------------------------------ rows


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _keys(arrival: Arrival) -> list[str]:
    if arrival.state is not ArrivalState.DUE:
        return []
    return [k for k in (arrival.run_key, arrival.content_key) if k]


def _taken(connection: Connection, keys: Sequence[str]) -> dict[str, Arrival]:
    """Which of the keys somebody has, and who."""
    found: dict[str, Arrival] = {}
    for some in _some_at_once(keys):
        having = select(_t).where(or_(_t.c.run_key.in_(some), _t.c.content_key.in_(some)))
        for row in connection.execute(having).mappings():
            who = _arrival(row)
            found |= dict.fromkeys([k for k in (row["run_key"], row["content_key"]) if k], who)
    return found


def _decided(connection: Connection, arrivals: Sequence[Arrival]) -> set[tuple[str, bytes]]:
    """Which of these were decided for good."""
    found: set[tuple[str, bytes]] = set()
    watches = {a.watch for a in arrivals}
    for places in _some_at_once([a.place for a in arrivals]):
        final = _t.c.state != ArrivalState.INCOMPLETE.value
        query = select(_t.c.watch, _t.c.place).where(_t.c.watch.in_(watches), _t.c.place.in_(places), final)
        found |= {(watch, bytes(place)) for watch, place in connection.execute(query)}
    return found


def _some_at_once(values: Sequence[Key]) -> Iterator[list[Key]]:
    """In pieces of a few lengths, the last value as often as it takes. The database keeps a hundred statements, and one
    that names thousands of values takes megabytes."""
    for start in range(0, len(values), KEYS_AT_ONCE):
        some = list(values[start : start + KEYS_AT_ONCE])
        yield some + some[-1:] * ((1 << (len(some) - 1).bit_length()) - len(some))


def _told_apart(arrival: Arrival, holder: Arrival | None) -> Arrival:
    """With a key of its own when the holder of its key had other content: an inode is used again at once, and copies
    keep whole seconds."""
    if holder is None or not arrival.checksum or not holder.checksum:
        return arrival
    if (arrival.checksum, arrival.parts) == (holder.checksum, holder.parts):
        return arrival
    return replace(arrival, run_key=_key(arrival.run_key, arrival.checksum, arrival.parts))


def _duplicate(arrival: Arrival, first: Arrival) -> Arrival:
    same = "file" if first.fingerprint == arrival.fingerprint else "content"
    reason = f"the same {same} as {first.name!r}, which runs with this workflow already"
    as_such = {"state": ArrivalState.DUPLICATE, "reason": reason, "run_key": "", "content_key": ""}
    return replace(arrival, **as_such, same_as=first.run_key)


def _written(fingerprint: tuple[int, int, int, int]) -> str:
    return ":".join(map(str, fingerprint))


def _read(text: str) -> tuple[int, int, int, int]:
    device, inode, size, mtime_ns = map(int, text.split(":"))
    return device, inode, size, mtime_ns


def _row(arrival: Arrival) -> dict[str, Any]:
    return {
        "watch": arrival.watch,
        "place": arrival.place,
        "experiment": key(arrival.experiment),
        "name": os.fsencode(arrival.name),
        "fingerprint": _written(arrival.fingerprint),
        "size": arrival.fingerprint[2],
        "state": arrival.state.value,
        "reason": storable(arrival.reason),
        "rule": storable(arrival.rule),
        "workflow": storable(arrival.workflow),
        "run_key": arrival.run_key or None,
        "content_key": arrival.content_key or None,
        "same_as": arrival.same_as or None,
        "run_id": arrival.run_id,
        "seen_at": arrival.seen_at,
        "decided_at": arrival.decided_at,
        "doc": codec.dumps(_Doc(arrival.experiment, arrival.arguments, arrival.checksum, arrival.parts)),
    }


def _arrival(row: Any) -> Arrival:
    doc = codec.loads(row["doc"], _Doc)
    texts = ("watch", "reason", "rule", "workflow", "run_id", "seen_at", "decided_at", "id")
    return Arrival(
        **{n: row[n] for n in texts},
        experiment=doc.experiment,
        place=bytes(row["place"]),
        name=os.fsdecode(bytes(row["name"])),
        fingerprint=_read(row["fingerprint"]),
        state=ArrivalState(row["state"]),
        arguments=doc.arguments,
        checksum=doc.checksum,
        parts=doc.parts,
        run_key=row["run_key"] or "",
        content_key=row["content_key"] or "",
        same_as=row["same_as"] or "",
    )
