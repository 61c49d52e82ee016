"""Leases: of several who could act, one may; another takes over when it has been silent for too long.

A lease alone cannot stop its last holder, who may have slept through the end of it and not know. So each change of
hands raises a number, the *fence*, and whoever writes proves in the same transaction that the number is still theirs
(`prove`). On PostgreSQL the proof locks the lease's row until that transaction ends, so that taking over waits for a
write that has begun, and a write that begins later meets the new number. On SQLite writers follow one another anyway.

All times are by the clock of the database: the machines of the holders need not agree. Whoever holds a lease must count
the time from *before* they asked, by a clock of their own that never steps back.
"""

from __future__ import annotations

import time
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, and_, case, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from orchestrator.errors import Stale
from orchestrator.store import schema
from orchestrator.store.database import Database
from orchestrator.store.texts import storable

ENGINE = "engine"  # of the one service that moves runs on
_t = schema.leases
# In each transaction of the engine: as plain text a fifth of what it costs to be built.
_HELD = {
    "sqlite": "SELECT 1 FROM leases WHERE name = ? AND holder = ? AND fence = ?",
    "postgresql": "SELECT 1 FROM leases WHERE name = %s AND holder = %s AND fence = %s FOR SHARE",
}


class Lease(Struct, frozen=True):
    """Who may act as `name`. `holder` is empty when it was given back."""

    name: str
    holder: str
    fence: int
    left_s: float  # when this was asked, by the database's clock; 0: it has run out
    doc: str = ""


def acquire(database: Database, name: str, holder: str, *, lease_s: float, doc: str = "") -> Lease | None:
    """Take the lease; None while someone else holds it and it has not run out.

    `holder` must be of one process alone. One that asks again gets a new fence, and its earlier lease is void.
    """
    holder, doc = storable(holder), storable(doc)
    with database.write() as connection:
        now = _now(connection)
        first = {"name": name, "holder": holder, "fence": 1, "until": now + lease_s, "doc": doc}
        dialect_insert: Any = postgresql_insert if database.postgresql else sqlite_insert
        take = dialect_insert(_t).values(**first)
        taken = take.on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": holder, "fence": _t.c.fence + 1, "until": now + lease_s, "doc": doc},
            where=or_(_t.c.until <= now, _t.c.holder == holder),
        ).returning(_t.c.fence)
        fence = connection.execute(taken).scalar()
    return None if fence is None else Lease(name, holder, fence, lease_s, doc)


def renew(database: Database, lease: Lease, *, lease_s: float) -> bool:
    """Hold it for `lease_s` from now; False when another has it, or it was given back. One that ran out and that
    nobody took is held again."""
    with database.write() as connection:
        done = connection.execute(update(_t).where(_same(lease)).values(until=_now(connection) + lease_s))
        return done.rowcount == 1


def release(database: Database, lease: Lease) -> bool:
    """Give it back, so that nobody has to wait for its end; False when it was another's already."""
    with database.write() as connection:
        done = connection.execute(update(_t).where(_same(lease)).values(until=0.0, holder=""))
        return done.rowcount == 1


def read(database: Database, name: str) -> Lease | None:
    """Who had it last; None when nobody ever did."""
    found = _read(database, _t.c.name == name)
    return found[0] if found else None


def ls(database: Database) -> list[Lease]:
    """Every lease that there ever was, by name."""
    return _read(database, literal(True))


def prove(connection: Connection, lease: Lease) -> None:
    """Hold up a takeover until this transaction ends. Raises Stale when there was one already."""
    held = _HELD[connection.dialect.name]
    if connection.exec_driver_sql(held, (lease.name, lease.holder, lease.fence)).first() is None:
        raise Stale(
            f"The lease {lease.name!r} with fence {lease.fence} is no longer of {lease.holder!r}: another has it.",
            "Nothing was written; the one that took over goes on with the work.",
        )


def hold_up(connection: Connection, name: str) -> None:
    """Let nobody who proves this lease write until this transaction ends; waits for a write of theirs that has begun.

    For a write beside the holder's whose events are to have numbers in the order in which they are seen.
    """
    connection.execute(select(_t.c.fence).where(_t.c.name == name).with_for_update())


def _same(lease: Lease) -> ColumnElement[bool]:
    return and_(_t.c.name == lease.name, _t.c.holder == lease.holder, _t.c.fence == lease.fence)


def _read(database: Database, which: ColumnElement[bool]) -> list[Lease]:
    with database.read() as connection:
        left = _t.c.until - _now(connection)
        left_s = case((left > 0.0, left), else_=0.0).label("left_s")
        rows = connection.execute(
            select(_t.c.name, _t.c.holder, _t.c.fence, left_s, _t.c.doc).where(which).order_by(_t.c.name)
        )
        return [Lease(**row) for row in rows.mappings()]


def _now(connection: Connection) -> Any:
    """Now, by the database: read when the row is changed and not before a wait for it."""
    if connection.dialect.name == "postgresql":
        return func.extract("epoch", func.clock_timestamp())
    return time.time()  # SQLite has no other clock than ours; within a transaction, after any wait for it
