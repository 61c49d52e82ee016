"""Who sees what names an experiment: where it has people, they and whoever asked for it; else everybody.

This is asked anew each time, of the people as they are now. `runs.open` only says along which index a run is found:
1 where all could see it when it was begun. It may be 1 of a run whose experiment got its people later, never the other
way round, so that whoever goes through those asks `allowed` of each, and finds few that are not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, not_, or_, select, update

from orchestrator.store import schema
from orchestrator.store.database import Database
from orchestrator.store.texts import key

AT_ONCE = 500

_p, _r = schema.experiment_people.c, schema.runs.c


def allowed(person: str, experiment: Any, owner: Any) -> ColumnElement[bool]:
    """Of columns: may this person see what names this experiment and was asked for by this owner?"""
    return or_(owner == key(person), has_part(person, experiment))


def has_part(person: str, experiment: Any) -> ColumnElement[bool]:
    """Of a column: has this person a part in the experiment, or nobody?"""
    people = select(_p.person).where(_p.experiment == experiment).correlate(experiment.table)
    people = people.offset(0)  # or PostgreSQL gathers everybody in all experiments first, for the few that are asked of
    return or_(not_(people.exists()), people.where(_p.person == key(person)).exists())


def closed(connection: Connection, experiments: Collection[str], *, but_for: str = "") -> set[str]:
    """Those of these experiments that have people, of whom `but_for` is none."""
    names = {key(name): name for name in experiments if name}
    found: set[str] = set()
    for some in _batches(names):
        own = select(_p.experiment).where(_p.experiment.in_(some), _p.person == key(but_for))
        query = select(_p.experiment).where(_p.experiment.in_(some), _p.experiment.not_in(own)).distinct()
        found.update(names[name] for name in connection.execute(query).scalars())
    return found


def closed_to(database: Database, person: str, experiments: Collection[str]) -> set[str]:
    """Those of these experiments whose people this person is none of."""
    with database.read() as connection:
        return closed(connection, experiments, but_for=person)


def unseen(database: Database, person: str, run_ids: Collection[str]) -> set[str]:
    """Those of these runs that this person may not see."""
    found: set[str] = set()
    with database.read() as connection:
        for some in _batches(run_ids):
            query = select(_r.id).where(_r.id.in_(some), not_(allowed(person, _r.experiment, _r.username)))
            found.update(connection.execute(query).scalars())
    return found


def reopen(connection: Connection, experiment: str) -> None:
    """It has no people any more: everybody sees its runs."""
    these = (_r.experiment == key(experiment)) & (_r.experiment != "") & (_r.open == 0)
    connection.execute(update(schema.runs).where(these).values(open=1))


def _batches(names: Collection[str]) -> Iterator[list[str]]:
    every = list(names)
    for start in range(0, len(every), AT_ONCE):
        yield every[start : start + AT_ONCE]
