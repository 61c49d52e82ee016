"""Runs in the store: written in batches, read whole. One function per need, one transaction per function."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
import structlog
from immutables import Map
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, RowMapping, bindparam, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from orchestrator import codec
from orchestrator.errors import NotFound
from orchestrator.model import RUN_ENDED, FileSpec, Plan, Run, RunStatus, StageState, Task, TaskStatus
from orchestrator.store import files, leases, schema, sight
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease
from orchestrator.store.letters import Box, Letter
from orchestrator.store.texts import key, storable

AT_ONCE = 1000  # runs that one query reads the stages of; the databases take some 30,000 parameters

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


# -------------------------------------------------------------------------------------------------------- writing


class Writer:
    """Writes batches of changed runs; remembers which plans the store holds already."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._plans: dict[str, str] = {}  # text -> digest
        self._unsure: list[
            tuple[frozenset[str], tuple[EventRow, ...]]
        ] = []  # new runs and events of unanswered commits
        dialect_insert: Any = postgresql_insert if database.postgresql else sqlite_insert
        put_stage = dialect_insert(schema.stages)
        put_task = dialect_insert(schema.tasks)
        self._put_plan = database.prepare(dialect_insert(schema.plans).on_conflict_do_nothing(), schema.plans)
        self._new_run = database.prepare(insert(schema.runs), schema.runs)
        self._put_file = database.prepare(insert(schema.run_files), schema.run_files)
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
        committing = False
        try:
            with self._database.write() as connection:
                if fence is not None:
                    leases.prove(connection, fence)
                if self._unsure:
                    changes, events = self._settled(connection, changes, events)
                self._write(connection, changes, events)
                committing = True
        except BaseException:
            self._plans.clear()  # those of this batch may not be there
            if committing:
                self._unsure.append((frozenset(c.run.id for c in changes if c.new), tuple(events)))
            raise
        self._unsure.clear()

    def _settled(
        self, connection: Connection, changes: Sequence[Changed], events: Sequence[EventRow]
    ) -> tuple[Sequence[Changed], Sequence[EventRow]]:
        """What is left to write of a batch when an earlier one failed and may have been committed all the same, because
        only the answer was lost: its runs are not new then, and its events are there."""
        begun = frozenset[str]().union(*(ids for ids, _ in self._unsure))
        there = set(connection.execute(select(schema.runs.c.id).where(schema.runs.c.id.in_(begun))).scalars())
        written = {e for _, some in self._unsure if some and _is_there(connection, some[-1]) for e in some}
        changes = [replace(c, new=c.new and c.run.id not in there) for c in changes]
        return changes, [e for e in events if e not in written]

    def _write(self, connection: Connection, changes: Sequence[Changed], events: Sequence[EventRow]) -> None:
        plans: list[dict[str, Any]] = []
        begun = [c.run for c in changes if c.new]
        closed = sight.closed(connection, {_experiment(run) for run in begun})
        new = [self._new_row(run, plans, closed) for run in begun]
        self._put_plan(connection, plans)
        self._new_run(connection, new)
        self._put_file(connection, [row for run in begun for row in _file_rows(run)])
        self._update_run(connection, [_changed_row(c.run) for c in changes if not c.new])
        stages = [_stage_row(c.run.id, c.run.stages[name]) for c in changes for name in c.stages]
        self._put_stage(connection, stages)
        tasks = [_task_row(c.run.id, c.run.tasks[number]) for c in changes for number in c.tasks]
        self._put_task(connection, tasks)
        self._put_event(connection, [_event_row(e) for e in events])
        self._letters.save(
            connection,
            [c.letter for c in changes if c.letter is not None],
            [run_id for c in changes for run_id in c.dealt_with],
        )

    def _new_row(self, run: Run, plans: list[dict[str, Any]], closed: Collection[str]) -> dict[str, Any]:
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
            "workflow": key(plan.workflow),
            "experiment": key(_experiment(run)),
            "owner": storable(plan.owner),
            "username": key(run.username),
            "open": int(_experiment(run) not in closed),
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


def _experiment(run: Run) -> str:
    return run.plan.variables.get("experimentName", "")


def _file_rows(run: Run) -> list[dict[str, Any]]:
    return files.rows(run.id, run.created_at, files.paths(run.files, run.plan.variables, run.plan.directory))


def _changed_row(run: Run) -> dict[str, Any]:
    return {
        "run": run.id,
        "status": run.status.value,
        "stage": storable(run.stage),
        "error": storable(run.error),
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "doc": _learned(run),
    }


def _is_there(connection: Connection, event: EventRow) -> bool:
    t = schema.events.c
    same = [t[name] == value for name, value in _event_row(event).items()]
    return connection.execute(select(t.seq).where(*same).limit(1)).scalar() is not None


def _learned(run: Run) -> str:
    return codec.dumps(Learned(dict(run.variables), run.next_number))


def _stage_row(run_id: str, stage: StageState) -> dict[str, Any]:
    return {"run_id": run_id, "name": key(stage.name), "status": stage.status.value, "doc": codec.dumps(stage)}


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
    """Raises NotFound."""
    with database.read() as connection:
        row = connection.execute(select(schema.runs).where(schema.runs.c.id == run_id)).mappings().first()
        if row is None:
            raise NotFound(f"There is no run {run_id!r}.", "`beamway ls` lists the runs.")
        return _Loader(connection, [row]).run(row)


def load_unfinished(database: Database) -> list[Run]:
    """Every run that is not over, oldest first; one that cannot be read is logged and left out."""
    unfinished = [s.value for s in RunStatus if s not in RUN_ENDED]
    found = []
    with database.read() as connection:
        query = select(schema.runs).where(schema.runs.c.status.in_(unfinished)).order_by(schema.runs.c.created_at)
        rows = connection.execute(query).mappings().all()
        for start in range(0, len(rows), AT_ONCE):
            some = rows[start : start + AT_ONCE]
            loader = _Loader(connection, some)
            for row in some:
                try:
                    found.append(loader.run(row))
                except (msgspec.MsgspecError, LookupError, ValueError) as error:
                    log.error("store.run_unreadable", run=row["id"], reason=str(error))
    return found


class _Loader:
    """Builds runs from what a few queries have found of all of them together."""

    def __init__(self, connection: Connection, rows: Sequence[RowMapping]) -> None:
        ids = [row["id"] for row in rows]
        self._stages: defaultdict[str, list[str]] = defaultdict(list)
        self._tasks: defaultdict[str, list[str]] = defaultdict(list)
        for table, docs in ((schema.stages, self._stages), (schema.tasks, self._tasks)):
            for run_id, doc in connection.execute(select(table.c.run_id, table.c.doc).where(table.c.run_id.in_(ids))):
                docs[run_id].append(doc)
        p = schema.plans.c
        plans = select(p.digest, p.doc).where(p.digest.in_({row["plan"] for row in rows}))
        self._plan_docs: dict[str, str] = {row.digest: row.doc for row in connection.execute(plans)}
        self._plans: dict[str, Plan] = {}

    def run(self, row: RowMapping) -> Run:
        stages = {s.name: s for s in (codec.loads(d, StageState) for d in self._stages[row["id"]])}
        tasks = sorted((codec.loads(d, Task) for d in self._tasks[row["id"]]), key=lambda t: t.number)
        request = codec.loads(row["request"], Request)
        learned = codec.loads(row["doc"], Learned)
        plan = replace(
            self._plan(row["plan"]),
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

    def _plan(self, digest: str) -> Plan:
        if digest not in self._plans:
            self._plans[digest] = codec.loads(self._plan_docs[digest], Plan)
        return self._plans[digest]


def _captured_per_item(tasks: Iterable[Task]) -> dict[tuple[str, str], str]:
    """The values captured for one file: the last that ended wins, as while the run was going."""
    values: dict[tuple[str, str], str] = {}
    for task in sorted(tasks, key=lambda t: t.ended_at):
        if task.item is not None and task.status is TaskStatus.DONE and task.outcome is not None:
            values.update({(task.item, name): value for name, value in task.outcome.captures.items()})
    return values


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
