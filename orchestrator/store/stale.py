"""Products that were made of what has another content now: directly, or through other products.

A run is tainted when a file that it read, or a part of its scan, is superseded or stale; a product is stale when
every run that has made it is tainted. So one that is made anew is stale no more: another content supersedes it, and the
same content has a run that is not tainted. Of an input whose content nobody knew, nobody can say that it has changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from msgspec import Struct
from sqlalchemy import Connection, literal_column, select

from orchestrator.store import catalog, lineage, schema
from orchestrator.store.catalog import CatalogFile
from orchestrator.store.database import Database
from orchestrator.store.lineage import READ, Role

GENERATIONS = 50

_f, _u, _r = schema.catalog_files, schema.uses, schema.runs


class Cause(Struct, frozen=True):
    """A file that a run read and that is not what it was. `now`: the file that has its name; 0: it is stale itself."""

    file: CatalogFile
    now: int = 0


class StaleProduct(Struct, frozen=True):
    file: CatalogFile
    run_id: str  # the last one that has made it
    causes: tuple[Cause, ...]

    @property
    def ready(self) -> bool:
        """Can its run be done again now? Else what that reads is stale, and has to be made anew before."""
        return all(cause.now for cause in self.causes)


def ls(database: Database, *, experiment: str = "", limit: int = 1000) -> list[StaleProduct]:
    """Those that stand, of one experiment or of all; what has to be made anew first comes first."""
    with database.read() as connection:
        tainted, stale = _spread(connection)
        files = lineage.files(connection, stale)
        listed = [n for n, f in files.items() if not f.superseded_at and experiment in ("", f.experiment)]
        makers = _makers(connection, listed)
        read = {number for n in listed for run in makers[n] for number in tainted[run]}
        causes = lineage.files(connection, read)
        now = {number: _now(connection, file) for number, file in causes.items()}
        found = []
        for number in listed:
            run_id = makers[number][-1]
            why = [n for n in sorted(tainted[run_id]) if n in causes]
            because = tuple(Cause(causes[n], 0 if now[n] in stale else now[n]) for n in why)
            found.append(StaleProduct(files[number], run_id, because))
    found.sort(key=lambda each: (not each.ready, each.file.added_at, each.file.id))
    return found[:limit]


def _spread(connection: Connection) -> tuple[dict[str, set[int]], set[int]]:
    """The tainted runs with what taints them, and all stale products."""
    tainted: dict[str, set[int]] = defaultdict(set)
    changed = (_f.c.superseded_at > literal_column("0")) & (_f.c.checksum != "")  # literal: as the index says it
    read = _u.c.role.in_([role.value for role in READ])
    own = select(_u.c.run_id, _f.c.id).join(_f, _f.c.id == _u.c.file_id).where(changed, read)
    # A part is read by way of its master, which may be the same to the byte before and after.
    parts = select(_u.c.run_id, _f.c.id).join(_f, _f.c.part_of == _u.c.file_id).join(_r, _r.c.id == _u.c.run_id)
    before = parts.where(changed, _f.c.part_of > literal_column("0"), read, _r.c.started_at < _f.c.superseded_at)
    for query in (own, before):
        for run_id, number in connection.execute(query):
            tainted[run_id].add(number)
    fresh, stale = set(tainted), set[int]()
    for _ in range(GENERATIONS):
        made = {use.file_id for use in lineage.uses_of_runs(connection, fresh, [Role.PRODUCT])} - stale
        makers = _makers(connection, made)
        more = {number for number in made if all(run in tainted for run in makers[number])}
        stale |= more
        fresh = set()
        for use in lineage.uses_of_files(connection, more, READ):
            if use.run_id not in tainted:
                fresh.add(use.run_id)
            tainted[use.run_id].add(use.file_id)
        if not fresh:
            break
    return tainted, stale


def _makers(connection: Connection, files: Iterable[int]) -> dict[int, list[str]]:
    """Which runs have made each of them, the last one last."""
    uses = lineage.uses_of_files(connection, files, [Role.PRODUCT])
    ids = {use.run_id for use in uses}
    ended = dict.fromkeys(ids, 0.0)
    for part in _parts(sorted(ids)):
        query = select(schema.runs.c.id, schema.runs.c.ended_at).where(schema.runs.c.id.in_(part))
        ended |= {row.id: row.ended_at for row in connection.execute(query)}
    found: dict[int, list[str]] = defaultdict(list)
    for use in sorted(uses, key=lambda u: (ended[u.run_id], u.run_id)):
        found[use.file_id].append(use.run_id)
    return found


def _parts(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + lineage.AT_ONCE] for start in range(0, len(ids), lineage.AT_ONCE))


def _now(connection: Connection, file: CatalogFile) -> int:
    """The file that has this one's name now."""
    if not file.superseded_at:
        return file.id
    same = _f.c.path_key == catalog.path_key(file.experiment, file.name, file.site)
    query = select(_f.c.id).where(same, _f.c.superseded_at == 0.0).order_by(_f.c.id.desc()).limit(1)
    return int(connection.execute(query).scalar() or 0)
