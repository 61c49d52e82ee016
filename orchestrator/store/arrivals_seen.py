"""The arrivals that a person may see, in pages.

Of the next `NEAR` those are taken that the person may see; where these fill no page, the others are read from the
index of the experiments that the person may see, which are few then or have few arrivals.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, literal, or_, select, union

from orchestrator.store import arrivals, schema, sight
from orchestrator.store.arrivals import Arrival, ArrivalState
from orchestrator.store.database import Database
from orchestrator.store.texts import key

NEAR = 10_000

_t = schema.arrivals.c


def get(database: Database, numbers: Sequence[int], person: str, own: Collection[str]) -> list[Arrival]:
    """Those of these numbers, as `arrivals.get`. `own`: watches that the person has asked for."""
    found = arrivals.get(database, numbers)
    closed = sight.closed_to(database, person, {each.experiment for each in found})
    return [each for each in found if each.experiment not in closed or each.watch in own]


def ls(
    database: Database, person: str, own: Collection[str], *, newest: bool = False, limit: int = 1000, **wanted: Any
) -> list[Arrival]:
    """As `arrivals.ls`. `own`: watches that the person has asked for."""
    such = arrivals.such(**wanted)
    most = max(NEAR, limit)
    with database.read() as connection:
        near = select(_t.id).where(*such).order_by(_in_order(_t.id, newest)).limit(most).subquery()
        count, *ends = connection.execute(select(func.count(), func.min(near.c.id), func.max(near.c.id))).one()
        within = [_t.id.between(*ends)] if count == most else []
        seen = or_(sight.has_part(person, _t.experiment), _t.watch.in_(own))
        found = select(_t.id).where(*such, *within, seen)
        ids = _page(connection, found, newest, limit)
        if within and len(ids) < limit:
            ids = _page(connection, _by_experiment(connection, person, own, such), newest, limit)
    page = arrivals.get(database, ids)
    return page[::-1] if newest else page


def _in_order(number: Any, newest: bool) -> Any:
    return number.desc() if newest else number


def _page(connection: Connection, query: Any, newest: bool, limit: int) -> list[int]:
    found = query.subquery().c.id
    return list(connection.execute(select(found).order_by(_in_order(found, newest)).limit(limit)).scalars())


def _by_experiment(
    connection: Connection, person: str, own: Collection[str], such: Sequence[ColumnElement[bool]]
) -> Any:
    states = [state.value for state in ArrivalState]
    names = {name for state in states for name in connection.execute(_experiments(state)).scalars() if name}
    seen = [key(name) for name in names - sight.closed(connection, names, but_for=person)]
    return union(
        select(_t.id).where(_t.state.in_(states), _t.experiment.in_(seen), *such),
        select(_t.id).where(_t.state.in_(states), _t.watch.in_(own), *such),
    )


def _experiments(state: str) -> Any:
    """Those that have arrivals in this state: each one look into the index."""
    name = select(literal("").label("name")).cte(recursive=True)
    later = select(func.min(_t.experiment)).where(_t.state == state, _t.experiment > name.c.name).scalar_subquery()
    return select(name.union_all(select(later).where(name.c.name.is_not(None))).c.name)
