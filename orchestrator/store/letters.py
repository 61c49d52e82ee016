"""Dead letters: the runs that failed for good and that nobody has dealt with yet.

A run comes onto the list in the transaction that ends it, and leaves it in the one that runs it again, begins another
in its place, or dismisses it. Child runs are not on it: their parent is.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, bindparam, delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from orchestrator import codec
from orchestrator.errors import NotFound
from orchestrator.model import FailureClass, Run, RunStatus, StageStatus, TaskStatus
from orchestrator.store import leases, schema, sight
from orchestrator.store.database import Database
from orchestrator.store.texts import storable


class Letter(Struct, frozen=True):
    run_id: str
    at: float  # when it failed
    workflow: str
    experiment: str
    site: str
    stage: str
    failure: str  # its class
    reason: str
    fixes: dict[str, str] = {}  # arguments that another run in its place is to have


def of(run: Run, default_site: str) -> Letter | None:
    """The letter of a run as it is; None when it needs none."""
    if run.status is not RunStatus.FAILED or run.parent:
        return None
    broken = [s for s in run.stages.values() if s.status is StageStatus.FAILED]
    stage = min(broken, key=lambda s: s.ended_at, default=None)
    name = stage.name if stage is not None else run.stage
    failed = (TaskStatus.FAILED, TaskStatus.TIMEOUT)
    outcomes = [(t.site, t.outcome) for t in run.tasks.values() if t.stage == name and t.status in failed]
    site, outcome = next(((s, o) for s, o in outcomes if o is not None), (stage.site if stage else "", None))
    return Letter(
        run.id,
        run.ended_at,
        run.plan.workflow,
        run.plan.variables.get("experimentName", ""),
        default_site if site in ("", "auto") else site,
        name,
        str((outcome.failure if outcome else None) or FailureClass.USER),
        run.error,
    )


class Box:
    """Writes letters within the transaction of what they are about."""

    def __init__(self, database: Database) -> None:
        dialect_insert: Any = postgresql_insert if database.url.startswith("postgresql") else sqlite_insert
        letter = dialect_insert(schema.dead_letters)
        changed = {c.name: letter.excluded[c.name] for c in schema.dead_letters.columns if c.name != "run_id"}
        self._put = database.prepare(
            letter.on_conflict_do_update(index_elements=["run_id"], set_=changed), schema.dead_letters
        )
        self._drop = database.prepare(
            delete(schema.dead_letters).where(schema.dead_letters.c.run_id == bindparam("run"))
        )

    def save(self, connection: Connection, letters: list[Letter], gone: list[str]) -> None:
        self._put(connection, [_row(letter) for letter in letters])
        self._drop(connection, [{"run": run_id} for run_id in gone])


def _row(letter: Letter) -> dict[str, Any]:
    texts = ("workflow", "experiment", "site", "stage", "reason")
    row = {n: getattr(letter, n) for n in Letter.__struct_fields__ if n != "fixes"}
    return row | {n: storable(row[n]) for n in texts} | {"doc": codec.dumps(letter.fixes)}


def _letter(row: Any) -> Letter:
    values = {n: row[n] for n in Letter.__struct_fields__ if n != "fixes"}
    return Letter(**values, fixes=codec.loads(row["doc"], dict[str, str]))


def ls(
    database: Database,
    *,
    workflow: str = "",
    experiment: str = "",
    site: str = "",
    since: float = 0.0,
    limit: int = 1_000_000,
    seen_by: str | None = None,
) -> list[Letter]:
    """The newest first; `since`: those that failed at this moment or later; `seen_by`: that this person may see."""
    table = schema.dead_letters.c
    wanted = {table.workflow: workflow, table.experiment: experiment, table.site: site}
    conditions: list[ColumnElement[bool]] = [column == storable(text) for column, text in wanted.items() if text]
    if seen_by is not None:
        run = schema.runs.c
        seen = select(run.id).where(run.id == table.run_id, sight.allowed(seen_by, run.experiment, run.username))
        conditions.append(seen.exists())
    query = select(schema.dead_letters).where(table.at >= since, *conditions).order_by(table.at.desc()).limit(limit)
    with database.read() as connection:
        return [_letter(row) for row in connection.execute(query).mappings()]


def get(database: Database, run_id: str) -> Letter:
    """Raises NotFound."""
    with database.read() as connection:
        return _get(connection, run_id)


def _get(connection: Connection, run_id: str) -> Letter:
    query = select(schema.dead_letters).where(schema.dead_letters.c.run_id == run_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFound(f"Run {run_id} is not on the list of dead letters.", "`beamway dead ls` lists them.")
    return _letter(row)


def fix(database: Database, run_id: str, arguments: dict[str, str]) -> Letter:
    """Write down arguments that another run in its place is to have, beside those written before. Raises NotFound."""
    with database.write() as connection:
        before = _get(connection, run_id)
        letter = replace(before, fixes=before.fixes | arguments)
        this = schema.dead_letters.c.run_id == run_id
        connection.execute(update(schema.dead_letters).where(this).values(doc=codec.dumps(letter.fixes)))
    return letter


def dismiss(database: Database, run_id: str, *, who: str, now: float) -> None:
    """Take it off the list; the run stays failed. Raises NotFound."""
    with database.write() as connection:
        leases.hold_up(connection, leases.ENGINE)  # an event of an earlier number that is seen later would be missed
        _get(connection, run_id)
        connection.execute(delete(schema.dead_letters).where(schema.dead_letters.c.run_id == run_id))
        said = {"run_id": run_id, "at": now, "kind": "dismissed", "text": storable(f"by {who}")}
        connection.execute(insert(schema.events).values(**said, stage="", number=-1, attempt=0))
