"""Scans of several files: a master, and the data files that are part of it.

What a scan that arrives is made of is kept beside its arrival until its parts are in the catalog. There each part is
a file of its own, with the number of its master.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import xxhash
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, delete, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from orchestrator import codec
from orchestrator.store import schema
from orchestrator.store.catalog import CatalogFile, _file
from orchestrator.store.database import Database

AT_ONCE = 5000
_f, _p = schema.catalog_files, schema.arrival_parts


class PartFile(Struct, frozen=True):
    """As it was seen when its scan arrived."""

    name: str  # relative to the watched directory
    size: int
    checksum: str


def unread(fingerprint: Sequence[int]) -> str:
    """Stands for the checksum of a file that is known by device, inode, size and time alone."""
    return "fingerprint:" + "-".join(map(str, fingerprint))


def together(parts: Sequence[PartFile]) -> str:
    """A checksum of all of them: a master may be the same to the byte for other data."""
    total = xxhash.xxh3_128("".join(part.checksum for part in parts).encode())
    return f"xxh3:{total.hexdigest()}" if parts else ""


# ------------------------------------------------------------------------------------------------------- arrivals


def keep(connection: Connection, watch: str, place: bytes, parts: Sequence[PartFile]) -> None:
    """The parts of the scan that arrives there, within the caller's transaction."""
    upsert: Any = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    put = upsert(_p).values(watch=watch, place=place, doc=codec.dumps(parts))
    connection.execute(put.on_conflict_do_update(index_elements=["watch", "place"], set_={"doc": put.excluded.doc}))


def kept(database: Database, watch: str, place: bytes) -> list[PartFile]:
    with database.read() as connection:
        query = select(_p.c.doc).where(_p.c.watch == watch, _p.c.place == place)
        doc = connection.execute(query).scalar()
    return codec.loads(doc, list[PartFile]) if doc else []


def forget(connection: Connection, watch: str, place: bytes) -> None:
    """They are in the catalog."""
    connection.execute(delete(_p).where(_p.c.watch == watch, _p.c.place == place))


# -------------------------------------------------------------------------------------------------------- catalog


def join(connection: Connection, master: int, parts: Sequence[int]) -> None:
    """These are parts of the scan of this master, within the caller's transaction.

    Where another scan has one of them already, both are one scan from now on, of the master that was first: neither
    may go without what they share. A master that is superseded gives up what its successor has as well.
    """
    asked = {master, *parts}
    roots = {file.part_of for file in several(connection, asked) if file.part_of} | {master}
    standing = {file.id for file in several(connection, roots) if not file.superseded_at}
    first = min(standing, default=master)
    for some in slices(asked | standing):
        theirs = or_(_f.c.id.in_(some), _parts_of(some))
        connection.execute(update(_f).where(theirs, _f.c.id != first).values(part_of=first))
    connection.execute(update(_f).where(_f.c.id == first).values(part_of=0))


def inherit(connection: Connection, ids: Sequence[int]) -> None:
    """What has superseded a part is a part in its place; what has superseded a master has its parts."""
    new, old = _f.alias(), _f.alias()
    name = (old.c.path_key == new.c.path_key) & (old.c.id != new.c.id) & (old.c.superseded_at > 0.0)
    query = select(new.c.id, old.c.id.label("old"), old.c.part_of).join(old, name)
    for some in slices(ids):
        fresh = new.c.id.in_(some) & (new.c.superseded_at == 0.0) & (new.c.part_of == 0)
        for row in connection.execute(query.where(fresh).order_by(old.c.superseded_at)).all():
            left = [part.id for part in parts(connection, [row.old]) if not part.superseded_at]
            if row.part_of:
                join(connection, _standing(connection, row.part_of), [row.id, *left])
            elif left:
                join(connection, row.id, left)


def _standing(connection: Connection, number: int) -> int:
    """What has the name of this file now."""
    name = select(_f.c.path_key).where(_f.c.id == number).scalar_subquery()
    query = select(_f.c.id).where(_f.c.path_key == name, _f.c.superseded_at == 0.0)
    return int(connection.execute(query).scalar() or number)


def masters(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Those of these that have parts, in their order."""
    found = [connection.execute(select(_f.c.part_of).where(_parts_of(some)).distinct()) for some in slices(ids)]
    return sorted(number for each in found for number in each.scalars())


def parts(connection: Connection, masters: Iterable[int]) -> list[CatalogFile]:
    """All parts of these, in the order of their numbers; contents that are superseded as well."""
    found: list[CatalogFile] = []
    for some in slices(masters):
        rows = connection.execute(select(_f).where(_parts_of(some)).order_by(_f.c.id)).mappings()
        found += [_file(row) for row in rows]
    return found


def standing_parts(database: Database, master: int) -> list[CatalogFile]:
    """Those that no other content has superseded."""
    with database.read() as connection:
        return [part for part in parts(connection, [master]) if not part.superseded_at]


def whole(connection: Connection, files: Iterable[CatalogFile]) -> dict[int, list[CatalogFile]]:
    """The scans of these files, by the number of the master, which is the first of each; most are of one file."""
    found = {master.id: [master] for master in several(connection, (file.part_of or file.id for file in files))}
    for part in parts(connection, found):
        found[part.part_of].append(part)
    return found


def several(connection: Connection, ids: Iterable[int]) -> list[CatalogFile]:
    """Those of these numbers that are there, in their order."""
    found: list[CatalogFile] = []
    for some in slices(ids):
        rows = connection.execute(select(_f).where(_f.c.id.in_(some)).order_by(_f.c.id)).mappings()
        found += [_file(row) for row in rows]
    return found


def slices(ids: Iterable[int]) -> Iterator[list[int]]:
    """As many as one statement takes."""
    each = sorted(set(ids))
    return (each[start : start + AT_ONCE] for start in range(0, len(each), AT_ONCE))


def _parts_of(masters: Sequence[int]) -> ColumnElement[bool]:
    return (_f.c.part_of > literal_column("0")) & _f.c.part_of.in_(masters)  # literal: as the index says it
