"""Collections: files of an experiment under one name, and what there is of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Float, cast, delete, func, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from orchestrator import codec
from orchestrator.errors import ArgumentError, Conflict, NotFound, nearest
from orchestrator.store import scans, schema
from orchestrator.store.database import Database
from orchestrator.store.experiments import TEXT_MOST, check_name
from orchestrator.store.texts import key

AT_ONCE = 500
_c, _m, _f = schema.collections, schema.collection_files, schema.catalog_files


class Collection(Struct, frozen=True):
    experiment: str
    name: str
    description: str = ""
    created_at: float = 0.0


class Sum(Struct, frozen=True):
    files: int = 0
    bytes: int = 0


class Stats(Struct, frozen=True):
    """What there is of some files: how many, how much, when the first and the last was added, and of each kind."""

    files: int
    bytes: int
    first_at: float
    last_at: float
    kinds: dict[str, Sum]
    smallest: int = 0  # bytes of a file
    largest: int = 0
    mean: float = 0.0
    deviation: float = 0.0  # standard deviation of their sizes


class _Doc(Struct, frozen=True):
    description: str = ""


def create(database: Database, collection: Collection) -> Collection:
    """Asked again it is the same one. Raises NotFound for an experiment that is not there, Conflict for a name that
    another has, ArgumentError."""
    check_name(collection.name)
    if len(collection.description) > TEXT_MOST:
        raise ArgumentError(f"The description has more than {TEXT_MOST} characters.")
    with database.write() as connection:
        require_experiment(connection, collection.experiment)
        row = {
            "experiment": collection.experiment,
            "name": collection.name,
            "created_at": collection.created_at,
            "doc": codec.dumps(_Doc(collection.description)),
        }
        # One statement: between two, the one that is there could be removed. It is left as it is.
        adding = _insert(connection)(_c).values(**row)
        adding = adding.on_conflict_do_update(index_elements=["experiment", "name"], set_={"name": collection.name})
        there = _collection(connection.execute(adding.returning(_c)).mappings().one())
        if there.description != collection.description:
            raise Conflict(f"There is a collection {collection.name!r} of {collection.experiment!r} already.")
    return there


def require_experiment(connection: Connection, name: str) -> None:
    """Raises NotFound."""
    table = schema.experiments
    if connection.execute(select(table.c.name).where(table.c.name == key(name))).first() is None:
        known = connection.execute(select(table.c.name).limit(1000)).scalars()
        hint = f"`beamway experiment create {name}` makes it."
        raise NotFound(f"There is no experiment {name!r}.{nearest(name, known)}", hint)


def ls(database: Database, experiment: str) -> list[Collection]:
    """Raises NotFound for an experiment that is not there."""
    with database.read() as connection:
        require_experiment(connection, experiment)
        rows = connection.execute(select(_c).where(_c.c.experiment == experiment).order_by(_c.c.name)).mappings()
        return [_collection(row) for row in rows]


def add(database: Database, experiment: str, name: str, ids: Sequence[int]) -> int:
    """With the parts of their scans; how many are new in it. Raises NotFound, and changes nothing then."""
    with database.write() as connection:
        _require(connection, experiment, name)
        ids = [*ids, *(part.id for part in scans.parts(connection, ids) if not part.superseded_at)]
        new = 0
        for start in range(0, len(ids), AT_ONCE):
            some = sorted(set(ids[start : start + AT_ONCE]))
            ours = select(_f.c.id).where(_f.c.id.in_(some), _f.c.experiment == key(experiment))
            unknown = set(some) - set(connection.execute(ours).scalars())
            if unknown:
                raise NotFound(f"The experiment {experiment!r} has no file {min(unknown)}.", "`beamway file ls`")
            rows = [{"experiment": experiment, "name": name, "file_id": number} for number in some]
            added = _insert(connection)(_m).on_conflict_do_nothing().returning(_m.c.file_id)
            new += len(connection.execute(added, rows).all())
    return new


def remove(database: Database, experiment: str, name: str, ids: Sequence[int] | None) -> int:
    """Take these files with the parts of their scans out of it, or with None the collection away; no file goes. How
    many were in it."""
    with database.write() as connection:
        if ids is not None:
            ids = [*ids, *(part.id for part in scans.parts(connection, ids))]
        _require(connection, experiment, name)
        gone = 0
        such = (_m.c.experiment == experiment) & (_m.c.name == name)
        if ids is None:
            gone = connection.execute(delete(_m).where(such)).rowcount
            connection.execute(delete(_c).where(_c.c.experiment == experiment, _c.c.name == name))
        for start in range(0, len(ids or ()), AT_ONCE):
            some = list(ids or ())[start : start + AT_ONCE]
            gone += connection.execute(delete(_m).where(such, _m.c.file_id.in_(some))).rowcount
    return int(gone)


def stats(database: Database, experiment: str, name: str = "") -> Stats:
    """Of a collection, or of all files of an experiment. What is superseded does not count. Raises NotFound."""
    size, at = _f.c.size, _f.c.added_at
    square = cast(size, Float) * cast(size, Float)
    columns = (_f.c.kind, func.count(), func.sum(size), func.min(at), func.max(at), func.sum(square))
    query = select(*columns, func.min(size), func.max(size)).where(_f.c.superseded_at == 0.0).group_by(_f.c.kind)
    with database.read() as connection:
        if name:
            _require(connection, experiment, name)
            ours = (_m.c.experiment == experiment) & (_m.c.name == name)
            query = query.join(_m, _m.c.file_id == _f.c.id).where(ours)
        else:
            require_experiment(connection, experiment)
            query = query.where(_f.c.experiment == key(experiment))
        rows = connection.execute(query).all()
    if not rows:
        return Stats(0, 0, 0.0, 0.0, {})
    count, total = sum(row[1] for row in rows), sum(int(row[2]) for row in rows)
    mean = total / count
    return Stats(
        count,
        total,
        min(row[3] for row in rows),
        max(row[4] for row in rows),
        {row[0]: Sum(row[1], int(row[2])) for row in sorted(rows, key=lambda row: str(row[0]))},
        min(row[6] for row in rows),
        max(row[7] for row in rows),
        mean,
        math.sqrt(max(0.0, sum(row[5] for row in rows) / count - mean * mean)),
    )


def _require(connection: Connection, experiment: str, name: str) -> None:
    there = (_c.c.experiment == key(experiment)) & (_c.c.name == key(name))
    if connection.execute(select(_c.c.name).where(there)).first() is None:
        require_experiment(connection, experiment)
        known = connection.execute(select(_c.c.name).where(_c.c.experiment == key(experiment))).scalars()
        raise NotFound(f"The experiment {experiment!r} has no collection {name!r}.{nearest(name, known)}")


def _collection(row: Any) -> Collection:
    doc = codec.loads(row["doc"], _Doc)
    return Collection(row["experiment"], row["name"], doc.description, row["created_at"])


def _insert(connection: Connection) -> Any:
    return postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
