"""Runs in the store: one function per need, one transaction per function."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
import structlog
from immutables import Map
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import NoResultFound

from orchestrator import codec
from orchestrator.errors import NotFound
from orchestrator.model import RUN_ENDED, FileSpec, Plan, Run, RunStatus, StageState, Task, TaskStatus
from orchestrator.store import leases, schema
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease
from orchestrator.store.letters import Box, Letter
from orchestrator.store.texts import storable

log = structlog.get_logger()


class Request(Struct, frozen=True):
    """What was asked of a run; written once."""

    variables: dict[str, str]
    supplied: tuple[str, ...]
    spec: FileSpec
    directory: str
    files: tuple[str, ...]
    username: str
    host: str
    instead_of: str = ""


class Learned(Struct, frozen=True):
    """What a run has learned so far, beside its tasks."""

    variables: dict[str, str]
    next_number: int


class EventRow(Struct, frozen=True):
    run_id: str
    at: float
    kind: str
    stage: str = ""
    number: int = -1
    attempt: int = 0
    text: str = ""
    seq: int = 0


class Changed(Struct, frozen=True):
    """A run and what of it differs from the store."""

    run: Run
    new: bool
    stages: tuple[str, ...]
    tasks: tuple[int, ...]
    letter: Letter | None = None  # it has failed for good
    dealt_with: tuple[str, ...] = ()  # runs that need no letter any more


class Summary(Struct, frozen=True):
    """A line of the list of runs."""

    id: str
    workflow: str
    owner: str
    status: RunStatus
    stage: str
    error: str
    created_at: float
    started_at: float
    ended_at: float
    parent: str = ""


# -------------------------------------------------------------------------------------------------------- writing


class Writer:
    """Writes batches of changed runs; remembers which plans the store holds already."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._plans: dict[str, str] = {}  # text -> digest
        dialect_insert: Any = postgresql_insert if database.url.startswith("postgresql") else sqlite_insert
        put_stage = dialect_insert(schema.stages)
        put_task = dialect_insert(schema.tasks)
        self._put_plan = database.prepare(dialect_insert(schema.plans).on_conflict_do_nothing(), schema.plans)
        self._new_run = database.prepare(insert(schema.runs), schema.runs)
        self._update_run = database.prepare(
            update(schema.runs)
            .where(schema.runs.c.id == bindparam("run"))
            .values({c: bindparam(c) for c in ("status", "stage", "error", "started_at", "ended_at", "doc")})
        )
        self._put_stage = database.prepare(
            put_stage.on_conflict_do_update(
                index_elements=["run_id", "name"],
                set_={"status": put_stage.excluded.status, "doc": put_stage.excluded.doc},
            ),
            schema.stages,
        )
        self._put_task = database.prepare(
            put_task.on_conflict_do_update(
                index_elements=["run_id", "number"],
                set_={c: put_task.excluded[c] for c in ("status", "attempt", "doc")},
            ),
            schema.tasks,
        )
        self._letters = Box(database)
        self._put_event = database.prepare(insert(schema.events), schema.events, without=("seq",))

    def save(self, changes: Sequence[Changed], events: Sequence[EventRow], *, fence: Lease | None = None) -> None:
        """Write everything or nothing; when this returns it is on the disk.

        With `fence` only as long as that lease stands. Raises Stale when another has taken it over, and Unavailable.
        """
        plans: list[dict[str, Any]] = []
        new = [self._new_row(c.run, plans) for c in changes if c.new]
        old = [
            {
                "run": c.run.id,
                "status": c.run.status.value,
                "stage": storable(c.run.stage),
                "error": storable(c.run.error),
                "started_at": c.run.started_at,
                "ended_at": c.run.ended_at,
                "doc": _learned(c.run),
            }
            for c in changes
            if not c.new
        ]
        stages = [_stage_row(c.run.id, c.run.stages[name]) for c in changes for name in c.stages]
        tasks = [_task_row(c.run.id, c.run.tasks[number]) for c in changes for number in c.tasks]
        try:
            with self._database.write() as connection:
                if fence is not None:
                    leases.prove(connection, fence)
                self._put_plan(connection, plans)
                self._new_run(connection, new)
                self._update_run(connection, old)
                self._put_stage(connection, stages)
                self._put_task(connection, tasks)
                self._put_event(connection, [_event_row(e) for e in events])
                self._letters.save(
                    connection,
                    [c.letter for c in changes if c.letter is not None],
                    [run_id for c in changes for run_id in c.dealt_with],
                )
        except BaseException:
            self._plans.clear()  # those of this batch may not be there
            raise

    def _new_row(self, run: Run, plans: list[dict[str, Any]]) -> dict[str, Any]:
        plan = run.plan
        shared = codec.dumps(replace(plan, variables={}, supplied=(), files=FileSpec(), directory=""))
        digest = self._plans.get(shared)
        if digest is None:
            digest = hashlib.sha256(shared.encode()).hexdigest()
            if len(self._plans) >= 256:
                self._plans.clear()
            self._plans[shared] = digest
            plans.append({"digest": digest, "doc": shared})
        request = Request(
            plan.variables, plan.supplied, plan.files, plan.directory, run.files, run.username, run.host, run.instead_of
        )
        return {
            "id": run.id,
            "workflow": storable(plan.workflow),
            "owner": storable(plan.owner),
            "status": run.status.value,
            "stage": storable(run.stage),
            "error": storable(run.error),
            "parent": storable(run.parent),
            "created_at": run.created_at,
            "started_at": run.started_at,
            "ended_at": run.ended_at,
            "plan": digest,
            "request": codec.dumps(request),
            "doc": _learned(run),
        }


def _learned(run: Run) -> str:
    return codec.dumps(Learned(dict(run.variables), run.next_number))


def _stage_row(run_id: str, stage: StageState) -> dict[str, Any]:
    return {"run_id": run_id, "name": storable(stage.name), "status": stage.status.value, "doc": codec.dumps(stage)}


def _task_row(run_id: str, task: Task) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "number": task.number,
        "stage": storable(task.stage),
        "status": task.status.value,
        "attempt": task.attempt,
        "doc": codec.dumps(task),
    }


def _event_row(event: EventRow) -> dict[str, Any]:
    return {
        "run_id": event.run_id,
        "at": event.at,
        "kind": event.kind,
        "stage": storable(event.stage),
        "number": event.number,
        "attempt": event.attempt,
        "text": storable(event.text),
    }


# -------------------------------------------------------------------------------------------------------- reading


def load(database: Database, run_id: str) -> Run:
    with database.read() as connection:
        return _load(connection, run_id)


def load_unfinished(database: Database) -> list[Run]:
    """Every run that is not over, oldest first."""
    ended = [s.value for s in RUN_ENDED]
    with database.read() as connection:
        query = select(schema.runs.c.id).where(schema.runs.c.status.not_in(ended)).order_by(schema.runs.c.created_at)
        found = []
        for run_id in list(connection.execute(query).scalars()):
            try:
                found.append(_load(connection, run_id))
            except (msgspec.MsgspecError, LookupError, ValueError, NoResultFound) as error:
                log.error("store.run_unreadable", run=run_id, reason=str(error))
        return found


def _load(connection: Connection, run_id: str) -> Run:
    row = connection.execute(select(schema.runs).where(schema.runs.c.id == run_id)).mappings().first()
    if row is None:
        raise NotFound(f"There is no run {run_id!r}.", "`beamway ls` lists the runs.")
    doc = connection.execute(select(schema.plans.c.doc).where(schema.plans.c.digest == row["plan"])).scalar_one()
    stage_docs = connection.execute(select(schema.stages.c.doc).where(schema.stages.c.run_id == run_id)).scalars()
    stages = {s.name: s for s in (codec.loads(d, StageState) for d in stage_docs)}
    task_docs = connection.execute(
        select(schema.tasks.c.doc).where(schema.tasks.c.run_id == run_id).order_by(schema.tasks.c.number)
    ).scalars()
    tasks = [codec.loads(d, Task) for d in task_docs]
    request = codec.loads(row["request"], Request)
    learned = codec.loads(row["doc"], Learned)
    plan = replace(
        codec.loads(doc, Plan),
        variables=request.variables,
        supplied=request.supplied,
        files=request.spec,
        directory=request.directory,
    )
    return Run(
        row["id"],
        plan,
        row["created_at"],
        status=RunStatus(row["status"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        error=row["error"],
        stage=row["stage"],
        variables=Map(learned.variables),
        item_variables=Map(_captured_per_item(tasks)),
        stages=Map({p.name: stages[p.name] for p in plan.stages if p.name in stages}),
        tasks=Map({t.number: t for t in tasks}),
        next_number=learned.next_number,
        files=request.files,
        parent=row["parent"],
        username=request.username,
        host=request.host,
        instead_of=request.instead_of,
    )


def _captured_per_item(tasks: Iterable[Task]) -> dict[tuple[str, str], str]:
    """The values captured for one file: the last that ended wins, as while the run was going."""
    values: dict[tuple[str, str], str] = {}
    for task in sorted(tasks, key=lambda t: t.ended_at):
        if task.item is not None and task.status is TaskStatus.DONE and task.outcome is not None:
            values.update({(task.item, name): value for name, value in task.outcome.captures.items()})
    return values


def known(database: Database, ids: Collection[str]) -> set[str]:
    """Those of these ids that are runs."""
    return _ids(database, ids)


def find(database: Database, prefix: str) -> str:
    """The id of the one run whose id begins with `prefix`; `last` is the newest run."""
    if not prefix:
        raise NotFound("A run is named by its id, the beginning of one, or `last`.", "`beamway ls` lists the runs.")
    with database.read() as connection:
        if prefix == "last":
            query = select(schema.runs.c.id).order_by(schema.runs.c.created_at.desc()).limit(1)
        else:
            query = select(schema.runs.c.id).where(schema.runs.c.id.startswith(prefix, autoescape=True)).limit(2)
        found = list(connection.execute(query).scalars())
    if len(found) == 1:
        return str(found[0])
    if found:
        raise NotFound(f"More than one run begins with {prefix!r}.", "Give more of its id; `beamway ls` lists them.")
    raise NotFound(f"There is no run {prefix!r}.", "`beamway ls` lists the runs.")


def listing(
    database: Database, *, status: str = "", workflow: str = "", limit: int = 50, before: float = 0.0
) -> list[Summary]:
    """The newest runs first; `before` (a `created_at`) pages on."""
    names = Summary.__struct_fields__
    query = select(*(schema.runs.c[n] for n in names)).order_by(schema.runs.c.created_at.desc()).limit(limit)
    if status:
        query = query.where(schema.runs.c.status == status)
    if workflow:
        query = query.where(schema.runs.c.workflow == workflow)
    if before:
        query = query.where(schema.runs.c.created_at < before)
    with database.read() as connection:
        rows = connection.execute(query).mappings()
        return [Summary(**{**row, "status": RunStatus(row["status"])}) for row in rows]


def ended(database: Database, ids: Collection[str]) -> set[str]:
    """Those of these runs that are over."""
    return _ids(database, ids, schema.runs.c.status.in_([s.value for s in RUN_ENDED]))


def _ids(database: Database, ids: Collection[str], *conditions: ColumnElement[bool]) -> set[str]:
    wanted = list(ids)
    found: set[str] = set()
    with database.read() as connection:
        for start in range(0, len(wanted), 500):
            some = schema.runs.c.id.in_(wanted[start : start + 500])
            found.update(connection.execute(select(schema.runs.c.id).where(some, *conditions)).scalars())
    return found


def counts(database: Database) -> dict[str, int]:
    """How many runs are in each state."""
    with database.read() as connection:
        rows = connection.execute(select(schema.runs.c.status, func.count()).group_by(schema.runs.c.status))
        return {row[0]: row[1] for row in rows}


def events_after(database: Database, run_id: str, seq: int = 0, limit: int = 1000) -> list[EventRow]:
    """What happened to a run after that event; without a run, to all of them."""
    query = select(schema.events).where(schema.events.c.seq > seq).order_by(schema.events.c.seq).limit(limit)
    if run_id:
        query = query.where(schema.events.c.run_id == run_id)
    with database.read() as connection:
        return [EventRow(**row) for row in connection.execute(query).mappings()]


def last_event(database: Database, run_id: str) -> int:
    """The number of the newest event of a run; it grows with every change that a reader may want to see."""
    with database.read() as connection:
        query = select(func.max(schema.events.c.seq)).where(schema.events.c.run_id == run_id)
        return connection.execute(query).scalar() or 0


def newest_event(database: Database) -> int:
    """The number of the newest event of all runs."""
    with database.read() as connection:
        return connection.execute(select(func.max(schema.events.c.seq))).scalar() or 0
