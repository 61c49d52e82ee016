"""The catalog: which files there are, with which content, and which copies of them where.

A file is known by experiment, name and checksum. So the same file told twice is one row, and another content under its
name is a new row, which supersedes the one before. A name is a path where it was first seen. At sites that share their
disks one path is one file; what a site sees alone, it is known by its site as well, unless it is a copy of another one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from orchestrator import codec
from orchestrator.errors import NotFound
from orchestrator.store import catalog_values, schema
from orchestrator.store.database import Database
from orchestrator.store.texts import key, storable

_f = schema.catalog_files
_r = schema.replicas
AT_ONCE = 500
TURNS = 0x66696C65  # PostgreSQL's locks of that number


class FileKind(StrEnum):
    RAW = "raw"  # from a detector
    PRODUCT = "product"  # made by a run
    CALIBRATION = "calibration"  # a mask, a dark, a geometry: what other files are computed with
    OTHER = "other"


class ReplicaState(StrEnum):
    UNVERIFIED = "unverified"  # said to be there; nobody has compared it
    VERIFIED = "verified"  # size and checksum were those of the file, at `verified_at`
    CORRUPTED = "corrupted"  # they were not
    MISSING = "missing"  # nothing was there
    PRUNED = "pruned"  # taken away by retention


class CatalogFile(Struct, frozen=True):
    experiment: str
    name: str  # its path where it was first seen
    size: int
    checksum: str  # `algorithm:digest`
    kind: FileKind = FileKind.RAW
    added_at: float = 0.0
    superseded_at: float = 0.0
    maker: str = ""  # run that made it
    part_of: int = 0  # the master of the scan that it is a part of
    metadata: dict[str, Any] = {}
    id: int = 0
    site: str = ""  # that sees it alone under its name


class Replica(Struct, frozen=True):
    """A copy. `address`: a path on the site `place`, or a URL."""

    file_id: int
    place: str
    address: str
    state: ReplicaState = ReplicaState.UNVERIFIED
    pinned: bool = False
    verified_at: float = 0.0
    seen: dict[str, Any] = {}  # what the last look at it found: size, checksum, why not


class _Doc(Struct, frozen=True, omit_defaults=True):
    experiment: str
    metadata: dict[str, Any] = {}
    site: str = ""


def name_key(experiment: str, name: str, checksum: str, site: str = "") -> bytes:
    """16 bytes that stand for a content under its name. `site`: that sees it alone under this name."""
    return _digest(experiment, name, checksum, *([site] if site else []))


def path_key(experiment: str, name: str, site: str = "") -> bytes:
    """16 bytes that stand for a name, whatever its content."""
    return _digest(experiment, name, *([site] if site else []))


def _digest(*parts: str) -> bytes:
    return hashlib.blake2b(b"\0".join(map(os.fsencode, parts)), digest_size=16).digest()


def address_key(address: str) -> bytes:
    return hashlib.blake2b(os.fsencode(address), digest_size=16).digest()


# -------------------------------------------------------------------------------------------------------- writing


def put(connection: Connection, files: Sequence[CatalogFile]) -> list[int]:
    """Their ids, in order, within the caller's transaction. One that is known keeps its id, and its metadata."""
    ids: list[int] = []
    _in_turn(connection, files)
    for start in range(0, len(files), AT_ONCE):
        some = [_row(_as_known(connection, file)) for file in files[start : start + AT_ONCE]]
        known = _known(connection, some)
        fresh: dict[bytes, tuple[dict[str, Any], CatalogFile]] = {}
        for row, file in zip(some, files[start:], strict=False):
            if row["name_key"] not in known:
                fresh.setdefault(row["name_key"], (row, file))
        _bring_back(connection, some, known)
        if fresh:
            add = insert(_f).returning(_f.c.name_key, _f.c.id)
            added = {bytes(k): int(n) for k, n in connection.execute(add, [row for row, _ in fresh.values()])}
            _supersede(connection, [fresh[k][0] | {"id": n} for k, n in added.items()], _f.c.id < bindparam("number"))
            _index(connection, {n: fresh[k][1] for k, n in added.items()})
            known |= {k: (n, 0.0) for k, n in added.items()}
        ids += [known[row["name_key"]][0] for row in some]
    return ids


def _as_known(connection: Connection, file: CatalogFile) -> CatalogFile:
    """As the catalog calls it: when one of this content has had a copy there, it is that one."""
    if not file.site or file.maker:  # what a run has made is no copy
        return file
    there = (_r.c.place == storable(file.site)) & (_r.c.address_key == address_key(file.name))
    same = (_f.c.checksum == file.checksum) & (_f.c.experiment == key(file.experiment))
    query = select(_f).join(_r, _r.c.file_id == _f.c.id).where(there, same).order_by(_f.c.id.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    if row is None:
        return file
    known = _file(row)
    return replace(file, name=known.name, site=known.site)


def _in_turn(connection: Connection, files: Sequence[CatalogFile]) -> None:
    """Of two contents of one name that come at the same time, one comes first: else neither would supersede the other.

    PostgreSQL alone has more than one writer. The names share few locks, which all take in the same order.
    """
    if connection.dialect.name == "postgresql":
        turns = sorted({path_key(file.experiment, file.name, file.site)[0] for file in files})
        query = text("SELECT count(pg_advisory_xact_lock(:what, turn)) FROM unnest(CAST(:turns AS int[])) AS turn")
        connection.execute(query, {"what": TURNS, "turns": turns})


def _known(connection: Connection, rows: Sequence[dict[str, Any]]) -> dict[bytes, tuple[int, float]]:
    """name_key → (id, since when it is superseded)"""
    keys = [row["name_key"] for row in rows]
    query = select(_f.c.name_key, _f.c.id, _f.c.superseded_at).where(_f.c.name_key.in_(keys))
    return {bytes(name): (int(number), float(at)) for name, number, at in connection.execute(query)}


def _bring_back(
    connection: Connection, rows: Sequence[dict[str, Any]], known: Mapping[bytes, tuple[int, float]]
) -> None:
    """Contents that are there again after others had superseded them."""
    again: dict[int, dict[str, Any]] = {}
    for row in rows:
        number, superseded_at = known.get(row["name_key"], (0, 0.0))
        if superseded_at and row["added_at"] > superseded_at:
            again[number] = row | {"id": number}
    if again:
        connection.execute(update(_f).where(_f.c.id.in_(list(again))).values(superseded_at=0.0))
        _supersede(connection, list(again.values()), _f.c.id != bindparam("number"))


def _supersede(connection: Connection, rows: Sequence[dict[str, Any]], which: ColumnElement[bool]) -> None:
    """By these, others under their names."""
    others = (_f.c.path_key == bindparam("path")) & (_f.c.superseded_at == 0.0) & which
    given = [{"path": row["path_key"], "number": row["id"], "at": row["added_at"]} for row in rows]
    connection.execute(update(_f).where(others).values(superseded_at=bindparam("at")), given)


def _index(connection: Connection, files: dict[int, CatalogFile]) -> None:
    """Write down by what they are found."""
    each = [found_by(number, file) for number, file in files.items()]
    for table, rows in ((schema.catalog_values, 0), (schema.catalog_words, 1)):
        if wanted := [row for found in each for row in found[rows]]:
            connection.execute(insert(table), wanted)


def found_by(number: int, file: CatalogFile) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the values and of the words by which a file is found."""
    always = {
        catalog_values.ADDED: file.added_at,
        catalog_values.SIZE: file.size,
        catalog_values.KIND: file.kind.value,
        catalog_values.EXPERIMENT: key(file.experiment),
    }
    ours = [(name, *_of(value)) for name, value in always.items()]
    values = [value for value in catalog_values.flat(file.metadata) if value[0] not in always]
    return catalog_values.rows(number, [*ours, *values]), catalog_values.word_rows(number, file.name, values)


def _of(value: str | float) -> tuple[float | None, str]:
    """As it is, whatever a text looks like: an experiment may be called 2026."""
    return (None, value) if isinstance(value, str) else (float(value), "")


def change(connection: Connection, number: int, changes: Mapping[str, Any]) -> CatalogFile:
    """Set these keys of its metadata; None takes one away. Raises NotFound, and ArgumentError for what is too large."""
    row = connection.execute(select(_f).where(_f.c.id == number).with_for_update()).mappings().first()
    if row is None:
        raise _unknown(number)
    before = _file(row)
    given = before.metadata | catalog_values.plain(changes)
    kept = {name: value for name, value in given.items() if value is not None}
    after = replace(before, metadata=catalog_values.plain(kept, f"file {number}"))
    doc = codec.dumps(_Doc(after.experiment, after.metadata, after.site))
    connection.execute(update(_f).where(_f.c.id == number).values(doc=doc))
    for table in (schema.catalog_values, schema.catalog_words):
        connection.execute(delete(table).where(table.c.file_id == number))
    _index(connection, {number: after})
    return after


def _unknown(number: int) -> NotFound:
    return NotFound(f"The catalog has no file {number}.", "`beamway file ls` lists them.")


def put_replica(connection: Connection, replica: Replica) -> None:
    """New, or as it is now, within the caller's transaction."""
    upsert: Any = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    row = _replica_row(replica)
    keys = ["file_id", "place", "address_key"]
    connection.execute(upsert(_r).values(**row).on_conflict_do_update(index_elements=keys, set_=row))


# -------------------------------------------------------------------------------------------------------- reading


def displace(connection: Connection, number: int, place: str, address: str) -> None:
    """The copies of other files at an address where this one has been read: they are not there any more."""
    there = (_r.c.place == storable(place)) & (_r.c.address_key == address_key(address)) & (_r.c.file_id != number)
    gone = {"state": ReplicaState.MISSING.value, "doc": codec.dumps({"why": f"file {number} is there"})}
    lost = there & _r.c.state.in_([ReplicaState.VERIFIED.value, ReplicaState.UNVERIFIED.value])
    connection.execute(update(_r).where(lost).values(**gone))


def get(database: Database, number: int) -> CatalogFile:
    """Raises NotFound."""
    with database.read() as connection:
        row = connection.execute(select(_f).where(_f.c.id == number)).mappings().first()
    if row is None:
        raise _unknown(number)
    return _file(row)


def replicas(database: Database, file_ids: Sequence[int]) -> list[Replica]:
    """All copies of these files, those of each by place."""
    with database.read() as connection:
        query = select(_r).where(_r.c.file_id.in_(file_ids)).order_by(_r.c.file_id, _r.c.place, _r.c.address_key)
        return [_replica(row) for row in connection.execute(query).mappings()]


def replica(connection: Connection, number: int, place: str, address: str) -> Replica | None:
    """This copy, locked until the end of the caller's transaction."""
    this = (_r.c.file_id == number) & (_r.c.place == storable(place)) & (_r.c.address_key == address_key(address))
    row = connection.execute(select(_r).where(this).with_for_update()).mappings().first()
    return _replica(row) if row is not None else None


def several(connection: Connection, ids: Iterable[int]) -> list[CatalogFile]:
    """Those of these ids that are there, the newest first, within the caller's transaction."""
    rows = connection.execute(select(_f).where(_f.c.id.in_(list(ids))).order_by(_f.c.id.desc())).mappings()
    return [_file(row) for row in rows]


def at(database: Database, place: str, address: str) -> list[CatalogFile]:
    """The files that have had a copy at an address, the newest first."""
    there = select(_r.c.file_id).where(_r.c.place == storable(place), _r.c.address_key == address_key(address))
    with database.read() as connection:
        rows = connection.execute(select(_f).where(_f.c.id.in_(there)).order_by(_f.c.id.desc())).mappings()
        return [_file(row) for row in rows]


def number_of_files(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(_f)).scalar_one())


# ------------------------------------------------------------------------------------------------------------ rows


def _row(file: CatalogFile) -> dict[str, Any]:
    return {
        "experiment": key(file.experiment),
        "name": os.fsencode(file.name),
        "name_key": name_key(file.experiment, file.name, file.checksum, file.site),
        "path_key": path_key(file.experiment, file.name, file.site),
        "kind": file.kind.value,
        "size": file.size,
        "checksum": file.checksum,
        "added_at": file.added_at,
        "superseded_at": file.superseded_at,
        "maker": file.maker,
        "part_of": file.part_of,
        "doc": codec.dumps(_Doc(file.experiment, file.metadata, file.site)),
    }


def _file(row: Any) -> CatalogFile:
    doc = codec.loads(row["doc"], _Doc)
    plain = ("size", "checksum", "added_at", "superseded_at", "maker", "part_of", "id")
    return CatalogFile(
        **{n: row[n] for n in plain},
        experiment=doc.experiment,
        name=os.fsdecode(bytes(row["name"])),
        kind=FileKind(row["kind"]),
        metadata=doc.metadata,
        site=doc.site,
    )


def _replica(row: Any) -> Replica:
    return Replica(
        row["file_id"],
        row["place"],
        os.fsdecode(bytes(row["address"])),
        ReplicaState(row["state"]),
        bool(row["pinned"]),
        row["verified_at"],
        codec.loads(row["doc"], dict),
    )


def _replica_row(replica: Replica) -> dict[str, Any]:
    return {
        "file_id": replica.file_id,
        "place": storable(replica.place),
        "address_key": address_key(replica.address),
        "address": os.fsencode(replica.address),
        "state": replica.state.value,
        "pinned": int(replica.pinned),
        "verified_at": replica.verified_at,
        "doc": codec.dumps(replica.seen),
    }
