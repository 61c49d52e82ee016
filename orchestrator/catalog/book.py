"""What retention writes down: how each copy was found, and each decision with its evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection

from orchestrator.catalog.copies import Look, Trouble
from orchestrator.store import catalog
from orchestrator.store import retention as store
from orchestrator.store.catalog import CatalogFile, Replica, ReplicaState
from orchestrator.store.database import Database
from orchestrator.store.retention import LogRow

FOUND = {Trouble.CORRUPTED: ReplicaState.CORRUPTED, Trouble.MISSING: ReplicaState.MISSING}


class Done(Struct, frozen=True):
    """What became of one copy."""

    file: int
    experiment: str
    name: str
    place: str
    address: str
    verdict: str  # pruned, archived, restored, kept, refused, unfinished; `would prune` of a rehearsal
    reason: str
    bytes: int = 0  # that got free, or were copied
    trouble: str = ""  # the class, of what was refused
    looks: tuple[dict[str, Any], ...] = ()  # what was seen of each copy

    @property
    def good(self) -> bool:
        return self.verdict not in ("refused", "unfinished")


class Book:
    def __init__(self, database: Database, *, who: str, holder: str, clock: Callable[[], float]) -> None:
        """`holder`: this host and home; `clock`: epoch seconds."""
        self.database, self.who, self.holder, self.clock = database, who, holder, clock

    def copies(self, file: CatalogFile) -> list[Replica]:
        return catalog.replicas(self.database, [file.id])

    def looked(self, connection: Connection, file: CatalogFile, looks: Iterable[Look]) -> None:
        """Copies as they were found; what was not reached stays as it is known."""
        for look in looks:
            if look.trouble is None:
                state, at = ReplicaState.VERIFIED, self.clock()
            elif look.trouble in FOUND:
                state, at = FOUND[look.trouble], 0.0
                others = catalog.at(self.database, look.place, look.address) if file.superseded_at else []
                if any(other.id != file.id and not other.superseded_at for other in others):
                    state = ReplicaState.MISSING  # a newer content has its name: it was replaced
            else:
                continue
            known = catalog.replica(connection, file.id, look.place, look.address)
            if known is not None and known.state is not ReplicaState.PRUNED:
                changed = replace(known, state=state, verified_at=at or known.verified_at, seen=look.record)
                catalog.put_replica(connection, changed)

    def write(
        self, connection: Connection, file: CatalogFile, place: str, verdict: str, reason: str, evidence: dict[str, Any]
    ) -> None:
        said = {"who": self.who, "host": self.holder, "name": file.name, "size": file.size, "checksum": file.checksum}
        row = LogRow(self.clock(), file.experiment, file.id, place, verdict, reason, said | evidence)
        store.log(connection, row)


def done(
    file: CatalogFile, place: str, address: str, verdict: str, reason: str, *, looks: Sequence[Look] = (), size: int = 0
) -> Done:
    trouble = next((look.trouble.value for look in looks if look.trouble), "") if verdict == "refused" else ""
    seen = tuple(look.record for look in looks)
    return Done(file.id, file.experiment, file.name, place, address, verdict, reason, size, trouble, seen)
