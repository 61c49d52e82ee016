"""What was measured: attempts, transfers, and how predictions came out. One function per need.

What is written here only makes predictions better, so it is kept short: of each key the newest rows, the rest goes when
the next is written. Writers take a connection, to be part of the caller's transaction, or a database.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, Table, and_, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from orchestrator.store import schema
from orchestrator.store.database import Database
from orchestrator.store.measured import Moved, PlacementRow, Rate, Timing, Wait
from orchestrator.store.texts import key

KEEP_TIMINGS = 200  # per workflow, stage and site
KEEP_RATES = 100  # per pair of sites
KEEP_PLACEMENTS = 5000  # per site
RECENT_RATES = 30  # transfers that a rate is made from
HALVED_AFTER = 10  # so many transfers later one counts half

Target = Connection | Database


@contextmanager
def _writing(target: Target) -> Iterator[Connection]:
    if isinstance(target, Connection):
        yield target
    else:
        with target.write() as connection:
            yield connection


def _values(row: msgspec.Struct) -> dict[str, Any]:
    """The columns of a record; `doc` is JSON, which is kept as it is."""
    found = msgspec.structs.asdict(row)
    return {name: key(v) if isinstance(v, str) and name != "doc" else v for name, v in found.items()}


def _prune(connection: Connection, table: Table, keep: int, **wanted: Any) -> None:
    same = and_(*(table.c[name] == value for name, value in wanted.items()))
    oldest = select(table.c.id).where(same).order_by(table.c.id.desc()).offset(keep - 1).limit(1).scalar_subquery()
    connection.execute(delete(table).where(same, table.c.id < oldest))


# ----------------------------------------------------------------------------------------------------------- timings


def record(target: Target, rows: Sequence[Timing]) -> None:
    """Attempts that ended well."""
    if not rows:
        return
    with _writing(target) as connection:
        connection.execute(insert(schema.timings), [_values(r) for r in rows])
        for workflow, stage, site in dict.fromkeys((key(r.workflow), key(r.stage), r.site) for r in rows):
            _prune(connection, schema.timings, KEEP_TIMINGS, workflow=workflow, stage=stage, site=site)


def timings(database: Database, workflow: str, stage: str, limit: int = 50) -> list[Timing]:
    """The newest of each site, newest first, at most `limit` a site."""
    t = schema.timings
    place = func.row_number().over(partition_by=t.c.site, order_by=t.c.id.desc())
    ranked = select(t, place.label("place")).where(t.c.workflow == key(workflow), t.c.stage == key(stage)).subquery()
    wanted = _columns(ranked.c, Timing)
    query = select(*wanted).where(ranked.c.place <= limit).order_by(ranked.c.site, ranked.c.id.desc())
    with database.read() as connection:
        return [Timing(**row) for row in connection.execute(query).mappings()]


def _columns(columns: Any, kind: type[msgspec.Struct]) -> list[Column[Any]]:
    return [columns[name] for name in kind.__struct_fields__]


# ------------------------------------------------------------------------------------------------------------- rates


def record_transfers(target: Target, rows: Sequence[Moved]) -> None:
    """Transfers that ended well; those without bytes or duration say nothing and are left out."""
    useful = [r for r in rows if r.bytes > 0 and r.seconds > 0]
    if not useful:
        return
    with _writing(target) as connection:
        connection.execute(insert(schema.rates), [msgspec.structs.asdict(r) for r in useful])
        for from_site, to_site in dict.fromkeys((r.from_site, r.to_site) for r in useful):
            _prune(connection, schema.rates, KEEP_RATES, from_site=from_site, to_site=to_site)


def rate(database: Database, from_site: str, to_site: str) -> Rate | None:
    """How fast data went there of late; None when nothing was measured."""
    return rates(database, from_site).get((from_site, to_site))


def rates(database: Database, from_site: str = "") -> dict[tuple[str, str], Rate]:
    """Of each pair of sites that was measured, or of those that begin at one."""
    t = schema.rates
    place = func.row_number().over(partition_by=(t.c.from_site, t.c.to_site), order_by=t.c.id.desc())
    some = select(t, place.label("place"))
    ranked = (some.where(t.c.from_site == from_site) if from_site else some).subquery()
    query = select(*_columns(ranked.c, Moved)).where(ranked.c.place <= RECENT_RATES).order_by(ranked.c.id.desc())
    by_pair: dict[tuple[str, str], list[Moved]] = {}
    with database.read() as connection:
        for row in connection.execute(query).mappings():
            moved = Moved(**row)
            by_pair.setdefault((moved.from_site, moved.to_site), []).append(moved)
    return {pair: Rate(_weighted_median(some), len(some)) for pair, some in by_pair.items()}


def _weighted_median(newest_first: Sequence[Moved]) -> float:
    """By bytes, because a small transfer measures the start of one and not the rate; and by how recent it is."""
    weighted = sorted(
        (m.bytes / m.seconds, m.bytes * 0.5 ** (place / HALVED_AFTER)) for place, m in enumerate(newest_first)
    )
    half, seen = sum(w for _, w in weighted) / 2, 0.0
    for value, weight in weighted:
        seen += weight
        if seen >= half:
            return value
    return weighted[-1][0]


# -------------------------------------------------------------------------------------------------------- placements


def put_placement(target: Target, row: PlacementRow) -> None:
    """The choice for this attempt of this stage; a later one for the same attempt replaces it."""
    values = _values(row)
    same = ("run_id", "stage", "attempt")
    with _writing(target) as connection:
        dialect_insert: Any = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
        put = dialect_insert(schema.placements).values(**values)
        rest = {name: put.excluded[name] for name in values if name not in same}
        connection.execute(put.on_conflict_do_update(index_elements=same, set_=rest))
        _prune(connection, schema.placements, KEEP_PLACEMENTS, chosen=row.chosen)


def finish_placement(
    target: Target, run_id: str, stage: str, attempt: int, *, transfer_s: float, queue_s: float, compute_s: float
) -> None:
    """What it took. Does nothing for a choice that is not kept any more."""
    t = schema.placements
    this = and_(t.c.run_id == run_id, t.c.stage == key(stage), t.c.attempt == attempt)
    with _writing(target) as connection:
        values = {"transfer_s": transfer_s, "queue_s": queue_s, "compute_s": compute_s}
        connection.execute(update(t).where(this).values(values))


def placements(database: Database, run_id: str) -> list[PlacementRow]:
    """Every choice made for a run, in the order made."""
    t = schema.placements
    query = select(*_columns(t.c, PlacementRow)).where(t.c.run_id == run_id).order_by(t.c.at, t.c.id)
    with database.read() as connection:
        return [PlacementRow(**row) for row in connection.execute(query).mappings()]


def waits(database: Database, limit: int = 20) -> dict[str, list[Wait]]:
    """Per site the newest waits that were predicted and are known by now, newest first."""
    t = schema.placements
    place = func.row_number().over(partition_by=t.c.chosen, order_by=t.c.id.desc())
    known = select(t.c.id, t.c.chosen, t.c.raw_queue_s, t.c.queue_s, place.label("place"))
    ranked = known.where(t.c.queue_s.is_not(None), t.c.raw_queue_s >= 0).subquery()
    query = select(ranked).where(ranked.c.place <= limit).order_by(ranked.c.id.desc())
    found: dict[str, list[Wait]] = {}
    with database.read() as connection:
        for row in connection.execute(query):
            found.setdefault(row.chosen, []).append(Wait(row.chosen, row.raw_queue_s, row.queue_s))
    return found
