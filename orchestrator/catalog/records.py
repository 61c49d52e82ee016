"""Files, experiments and collections as JSON has them, and back. Times are ISO 8601 in UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from orchestrator.codec import iso
from orchestrator.store.catalog import CatalogFile, FileKind, Replica, ReplicaState
from orchestrator.store.experiments import Experiment, Part
from orchestrator.store.filesets import Collection, Stats, Sum

Record = dict[str, Any]


def file(found: CatalogFile, replicas: Sequence[Replica] | None = None) -> Record:
    """`replicas`: its copies, where they are to be shown."""
    made = msgspec.structs.asdict(found)
    made |= {
        "kind": found.kind.value,
        "added_at": iso(found.added_at),
        "superseded_at": iso(found.superseded_at),
        "maker": found.maker or None,
        "part_of": found.part_of or None,
    }
    return made if replicas is None else made | {"copies": [copy(replica) for replica in replicas]}


def copy(replica: Replica) -> Record:
    return {
        "place": replica.place,
        "address": replica.address,
        "state": replica.state.value,
        "pinned": replica.pinned,
        "verified_at": iso(replica.verified_at),
        "seen": replica.seen,
    }


def file_of(record: Mapping[str, Any]) -> tuple[CatalogFile, list[Replica]]:
    own = {name: record[name] for name in CatalogFile.__struct_fields__ if name in record}
    times = {name: epoch(record[name]) for name in ("added_at", "superseded_at")}
    told = {"kind": FileKind(record["kind"]), "maker": record["maker"] or "", "part_of": record["part_of"] or 0}
    found = CatalogFile(**(own | times | told))
    return found, [_copy_of(found.id, each) for each in record.get("copies", ())]


def _copy_of(number: int, record: Mapping[str, Any]) -> Replica:
    told = {"state": ReplicaState(record["state"]), "verified_at": epoch(record["verified_at"])}
    return Replica(**{"file_id": number, **record, **told})


def experiment(found: Experiment) -> Record:
    people = {person: part.value for person, part in found.people.items()}
    return msgspec.structs.asdict(found) | {"created_at": iso(found.created_at), "people": people}


def experiment_of(record: Mapping[str, Any]) -> Experiment:
    people = {person: Part(part) for person, part in record["people"].items()}
    return Experiment(**{**record, "created_at": epoch(record["created_at"]), "people": people})


def collection(found: Collection) -> Record:
    return msgspec.structs.asdict(found) | {"created_at": iso(found.created_at)}


def collection_of(record: Mapping[str, Any]) -> Collection:
    return Collection(**{**record, "created_at": epoch(record["created_at"])})


def stats(found: Stats) -> Record:
    kinds = {name: msgspec.structs.asdict(each) for name, each in found.kinds.items()}
    return {
        "files": found.files,
        "bytes": found.bytes,
        "first_at": iso(found.first_at),
        "last_at": iso(found.last_at),
        "smallest": found.smallest,
        "largest": found.largest,
        "mean": found.mean,
        "deviation": found.deviation,
        "kinds": kinds,
    }


def stats_of(record: Mapping[str, Any]) -> Stats:
    kinds = {name: Sum(**each) for name, each in record["kinds"].items()}
    times = {name: epoch(record[name]) for name in ("first_at", "last_at")}
    return Stats(**{**record, **times, "kinds": kinds})


def epoch(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
