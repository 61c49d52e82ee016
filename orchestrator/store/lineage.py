"""What came from what: which files each run read and made, written once, and asked for both ways.

A run that ended well and has to do with files leaves an event of kind `FILES` in the transaction of its end. Whoever
has the engine's lease takes these events in their order and writes what they mean, with how far it has come
(`cursors`), in one transaction. So what is killed in between is written by the next one, and nothing is written twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, delete, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from orchestrator import codec
from orchestrator.store import catalog, leases, scans, schema
from orchestrator.store.catalog import CatalogFile, FileKind, ReplicaState
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease
from orchestrator.store.texts import key

FILES = "files"  # kind of the event
CURSOR = "lineage"
SLOP_S = 2.0  # a file that was changed no later than this after it was looked at has not been changed since
AT_ONCE = 5000

_f, _r, _u, _e, _c = schema.catalog_files, schema.replicas, schema.uses, schema.events, schema.cursors


class Role(StrEnum):
    INPUT = "input"
    CALIBRATION = "calibration"
    PRODUCT = "product"


READ = (Role.INPUT, Role.CALIBRATION)


class Facts(Struct, frozen=True):
    """How a run has used a file."""

    stage: str = ""
    site: str = ""
    address: str = ""  # where it was read or written
    call: str = ""  # kernel, function or command line
    software: dict[str, str] = {}


class Use(Struct, frozen=True):
    run_id: str
    role: Role
    file_id: int
    facts: Facts = Facts()


class Step(Struct, frozen=True):
    """A file that was read or made at `place`, or with `source` a copy of that one, which was there or elsewhere."""

    place: str
    address: str
    facts: Facts
    at: float = 0.0
    bytes: int = -1  # -1: nobody has looked
    checksum: str = ""
    modified_at: float = 0.0
    made: bool = False
    kind: FileKind = FileKind.OTHER  # of one that is read and that the catalog does not have
    source: tuple[str, str] | None = None  # place and address
    site: str = ""  # that sees it alone under its address


class Account(Struct, frozen=True):
    """What a run has read, copied and made, in this order."""

    run_id: str
    experiment: str
    steps: tuple[Step, ...]


# -------------------------------------------------------------------------------------------------------- writing


def due(database: Database, *, limit: int) -> tuple[int, list[tuple[int, str]]]:
    """How far the catalog has come, and what is next: the numbers of events and their runs."""
    with database.read() as connection:
        cursor = _cursor(connection)
        query = select(_e.c.seq, _e.c.run_id).where(_e.c.seq > cursor, _e.c.kind == FILES)
        return cursor, [(seq, run_id) for seq, run_id in connection.execute(query.order_by(_e.c.seq).limit(limit))]


def write(
    database: Database, cursor: int, accounts: Sequence[Account], upto: int, *, now: float, fence: Lease | None = None
) -> bool:
    """Write these down and that the catalog has come as far as `upto`; all or nothing.

    False when it was not where `cursor` says any more: then nothing is written. Raises Stale, Unavailable.
    """
    with database.write() as connection:
        if fence is not None:
            leases.prove(connection, fence)
        if _cursor(connection) != cursor:
            return False
        places = sorted({*_places(connection), *(step.place for account in accounts for step in account.steps)})
        for account in accounts:
            _account(connection, account, places)
        upsert: Any = postgresql_insert if database.postgresql else sqlite_insert
        where = {"at": now, "seq": upto}
        put = upsert(_c).values(name=CURSOR, **where)
        connection.execute(put.on_conflict_do_update(index_elements=["name"], set_=where))
    return True


def _cursor(connection: Connection) -> int:
    return int(connection.execute(select(_c.c.seq).where(_c.c.name == CURSOR)).scalar() or 0)


def _account(connection: Connection, account: Account, places: Sequence[str]) -> None:
    """What the run says now is what it has done: one that was partly run again has other products than before."""
    here: dict[tuple[str, str], int] = {}  # what the run has put there
    uses: dict[tuple[Role, int], Facts] = {}
    for step in account.steps:
        spot = (step.place, step.address)
        if step.made:
            here[spot] = _made(connection, account, step)
            uses[Role.PRODUCT, here[spot]] = step.facts
        elif step.source is not None:
            number = here.get(step.source)
            if number is not None:
                here[spot] = number
                _copy_is_there(connection, number, step)
        elif spot not in here:
            number, kind = _read(connection, account, step, places)
            here[spot] = number
            role = Role.CALIBRATION if kind is FileKind.CALIBRATION else Role.INPUT
            uses.setdefault((role, number), step.facts)
    connection.execute(delete(_u).where(_u.c.run_id == account.run_id))
    rows = [
        {"run_id": account.run_id, "role": role.value, "file_id": number, "doc": codec.dumps(facts)}
        for (role, number), facts in uses.items()
    ]
    for start in range(0, len(rows), AT_ONCE):
        connection.execute(insert(_u), rows[start : start + AT_ONCE])


def _made(connection: Connection, account: Account, step: Step) -> int:
    size = max(0, step.bytes)
    checksum = step.checksum or _unread(step)
    product = CatalogFile(
        *(account.experiment, step.address, size, checksum, FileKind.PRODUCT),
        added_at=step.at,
        maker=account.run_id,
        site=step.site,
    )
    [number] = catalog.put(connection, [product])
    _copy_is_there(connection, number, step)
    return number


def _read(connection: Connection, account: Account, step: Step, places: Sequence[str]) -> tuple[int, FileKind]:
    """The file that was read: one of the catalog, or a new one."""
    checksum = step.checksum or _unread(step)
    own = catalog.name_key(account.experiment, step.address, checksum, step.site)
    under_its_name = None
    if checksum:
        under_its_name = connection.execute(select(_f.c.id, _f.c.kind).where(_f.c.name_key == own)).first()
    found = under_its_name or _elsewhere(connection, account, step, places)
    kind = FileKind(found.kind) if found is not None else step.kind
    if found is None or under_its_name is not None:  # one that is known, too: it may have been superseded in between
        size = max(0, step.bytes)
        file = CatalogFile(account.experiment, step.address, size, checksum, kind, added_at=step.at, site=step.site)
        [number] = catalog.put(connection, [file])
        if found is None:
            scans.inherit(connection, [number])
    else:
        number = int(found.id)
    _copy_is_there(connection, number, step)
    return number, kind


def _elsewhere(connection: Connection, account: Account, step: Step, places: Sequence[str]) -> Any:
    """One that has or had a copy there, under whatever name."""
    there = (_r.c.place.in_([step.place] if step.site else places)) & (
        _r.c.address_key == catalog.address_key(step.address)
    )
    ours = or_(_r.c.place == step.place, _f.c.experiment == key(account.experiment))  # sites may share their disks
    columns = (_f.c.id, _f.c.kind, _f.c.size, _f.c.checksum, _f.c.added_at, _r.c.verified_at)
    query = select(*columns).join(_r, _r.c.file_id == _f.c.id).where(there, ours).order_by(_f.c.id.desc())
    for row in connection.execute(query):
        if _is_same(step, row):
            return row
    return None


def _is_same(step: Step, row: Any) -> bool:
    """Is what was read the content of this row? By its checksum where both are of one kind, else by whether the file
    has been changed since it was looked at."""
    ours, _, _ = step.checksum.partition(":")
    theirs, _, _ = row.checksum.partition(":")
    if step.checksum and ours == theirs:
        return bool(step.checksum == row.checksum)
    if step.bytes < 0:
        return True
    unchanged = step.modified_at <= max(row.added_at, row.verified_at) + SLOP_S
    return bool(step.bytes == row.size and unchanged)


def _unread(step: Step) -> str:
    """Stands for the content of a file that nobody has read; empty when nobody has even looked at it."""
    return f"stat:{step.bytes}-{step.modified_at or step.at:.6f}" if step.bytes >= 0 else ""


def _copy_is_there(connection: Connection, number: int, step: Step) -> None:
    """A pinned copy stays pinned. Nothing else can have this address now: an earlier content is not there any more."""
    verified = bool(step.checksum)
    row = {
        "state": (ReplicaState.VERIFIED if verified else ReplicaState.UNVERIFIED).value,
        "verified_at": step.at if verified else 0.0,
        "doc": codec.dumps({"size": step.bytes, "checksum": step.checksum}),
    }
    this = {"file_id": number, "place": step.place, "address_key": catalog.address_key(step.address)}
    upsert: Any = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    put = upsert(_r).values(**this, **row, address=os.fsencode(step.address), pinned=0)
    if not (verified or step.made):  # it says less than what may be known
        connection.execute(put.on_conflict_do_nothing())
        return
    connection.execute(put.on_conflict_do_update(index_elements=list(this), set_=row))
    same_spot = (_r.c.place == step.place) & (_r.c.address_key == this["address_key"]) & (_r.c.file_id != number)
    was_there = _r.c.state.in_([ReplicaState.VERIFIED.value, ReplicaState.UNVERIFIED.value])
    gone = update(_r).where(same_spot, was_there, _r.c.verified_at <= step.at)
    connection.execute(gone.values(state=ReplicaState.MISSING.value))


# -------------------------------------------------------------------------------------------------------- reading


def uses_of_runs(connection: Connection, runs: Iterable[str], roles: Sequence[Role] = tuple(Role)) -> list[Use]:
    return _uses(connection, _u.c.run_id, list(runs), roles)


def uses_of_files(connection: Connection, files: Iterable[int], roles: Sequence[Role] = tuple(Role)) -> list[Use]:
    return _uses(connection, _u.c.file_id, list(files), roles)


def _uses(connection: Connection, column: Any, wanted: list[Any], roles: Sequence[Role]) -> list[Use]:
    found: list[Use] = []
    for start in range(0, len(wanted), AT_ONCE):
        some = column.in_(wanted[start : start + AT_ONCE])
        query = select(_u).where(some, _u.c.role.in_([role.value for role in roles]))
        for row in connection.execute(query.order_by(_u.c.run_id, _u.c.role, _u.c.file_id)).mappings():
            found.append(Use(row["run_id"], Role(row["role"]), row["file_id"], codec.loads(row["doc"], Facts)))
    return found


def files(connection: Connection, ids: Iterable[int]) -> dict[int, CatalogFile]:
    wanted = list(ids)
    some = (catalog.several(connection, wanted[n : n + AT_ONCE]) for n in range(0, len(wanted), AT_ONCE))
    return {file.id: file for part in some for file in part}


def number_of(database: Database, text: str) -> int:
    """The file that a person means: by its number, or the newest at this path or address. 0: none."""
    with database.read() as connection:
        if text.isascii() and text.isdecimal() and len(text) < 19:
            return int(connection.execute(select(_f.c.id).where(_f.c.id == int(text))).scalar() or 0)
        there = (_r.c.place.in_(_places(connection))) & (_r.c.address_key == catalog.address_key(text))
        return int(connection.execute(select(func.max(_r.c.file_id)).where(there)).scalar() or 0)


def _places(connection: Connection) -> list[str]:
    """Where copies are; each is one look into the index, and there are few."""
    found: list[str] = []
    while True:
        further = [_r.c.place > found[-1]] if found else []
        place = connection.execute(select(func.min(_r.c.place)).where(*further)).scalar()
        if place is None:
            return found
        found.append(place)
