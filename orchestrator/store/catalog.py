"""The catalog: which files there are, with which content, and which copies of them where.

A file is known by experiment, name and checksum. So the same file told twice is one row, and another content under its
name is a new row, which supersedes the one before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from orchestrator import codec
from orchestrator.errors import NotFound
from orchestrator.store import schema
from orchestrator.store.database import Database
from orchestrator.store.texts import key

_f = schema.catalog_files
_r = schema.replicas


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
    metadata: dict[str, Any] = {}
    id: int = 0


class Replica(Struct, frozen=True):
    """A copy. `address`: a path on the site `place`, or a URL."""

    file_id: int
    place: str
    address: str
    state: ReplicaState = ReplicaState.UNVERIFIED
    pinned: bool = False
    verified_at: float = 0.0
    seen: dict[str, Any] = {}  # what the last look at it found: size, checksum, why not


class _Doc(Struct, frozen=True):
    experiment: str
    metadata: dict[str, Any] = {}


def name_key(experiment: str, name: str, checksum: str) -> bytes:
    """16 bytes that stand for a content under its name."""
    parts = (os.fsencode(experiment), os.fsencode(name), checksum.encode())
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).digest()


def address_key(address: str) -> bytes:
    return hashlib.blake2b(os.fsencode(address), digest_size=16).digest()


# -------------------------------------------------------------------------------------------------------- writing


def put(connection: Connection, files: Sequence[CatalogFile]) -> list[int]:
    """Their ids, in order, within the caller's transaction. One that is known keeps its id."""
    insert: Any = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    ids: list[int] = []
    for file in files:
        row = _row(file)
        added = insert(_f).values(**row).on_conflict_do_nothing(index_elements=["name_key"]).returning(_f.c.id)
        number = connection.execute(added).scalar()
        if number is None:
            number = connection.execute(select(_f.c.id).where(_f.c.name_key == row["name_key"])).scalar_one()
        else:
            older = (_f.c.experiment == row["experiment"]) & (_f.c.name == row["name"]) & (_f.c.id != number)
            connection.execute(update(_f).where(older, _f.c.superseded_at == 0).values(superseded_at=file.added_at))
        ids.append(int(number))
    return ids


def put_replica(connection: Connection, replica: Replica) -> None:
    """New, or as it is now, within the caller's transaction."""
    insert: Any = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    row = {
        "file_id": replica.file_id,
        "place": replica.place,
        "address_key": address_key(replica.address),
        "address": os.fsencode(replica.address),
        "state": replica.state.value,
        "pinned": int(replica.pinned),
        "verified_at": replica.verified_at,
        "doc": codec.dumps(replica.seen),
    }
    keys = ["file_id", "place", "address_key"]
    connection.execute(insert(_r).values(**row).on_conflict_do_update(index_elements=keys, set_=row))


# -------------------------------------------------------------------------------------------------------- reading


def get(database: Database, number: int) -> CatalogFile:
    """Raises NotFound."""
    with database.read() as connection:
        row = connection.execute(select(_f).where(_f.c.id == number)).mappings().first()
    if row is None:
        raise NotFound(f"The catalog has no file {number}.", "`beamway file ls` lists them.")
    return _file(row)


def replicas(database: Database, file_ids: Sequence[int]) -> list[Replica]:
    """All copies of these files, those of each by place."""
    with database.read() as connection:
        query = select(_r).where(_r.c.file_id.in_(file_ids)).order_by(_r.c.file_id, _r.c.place, _r.c.address_key)
        return [_replica(row) for row in connection.execute(query).mappings()]


def several(connection: Connection, ids: Iterable[int]) -> list[CatalogFile]:
    """Those of these ids that are there, the newest first, within the caller's transaction."""
    rows = connection.execute(select(_f).where(_f.c.id.in_(list(ids))).order_by(_f.c.id.desc())).mappings()
    return [_file(row) for row in rows]


def at(database: Database, place: str, address: str) -> list[CatalogFile]:
    """The files that have had a copy at an address, the newest first."""
    there = select(_r.c.file_id).where(_r.c.place == place, _r.c.address_key == address_key(address))
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
        "name_key": name_key(file.experiment, file.name, file.checksum),
        "kind": file.kind.value,
        "size": file.size,
        "checksum": file.checksum,
        "added_at": file.added_at,
        "superseded_at": file.superseded_at,
        "maker": file.maker,
        "doc": codec.dumps(_Doc(file.experiment, file.metadata)),
    }


def _file(row: Any) -> CatalogFile:
    doc = codec.loads(row["doc"], _Doc)
    plain = ("size", "checksum", "added_at", "superseded_at", "maker", "id")
    return CatalogFile(
        **{n: row[n] for n in plain},
        experiment=doc.experiment,
        name=os.fsdecode(bytes(row["name"])),
        kind=FileKind(row["kind"]),
        metadata=doc.metadata,
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
