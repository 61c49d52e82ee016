"""A whole run as one JSON document, for clients that are elsewhere."""

from __future__ import annotations

from immutables import Map
from msgspec import Struct

from orchestrator import codec
from orchestrator.model import Plan, Run, RunStatus, StageState, Task


class Document(Struct, frozen=True):
    id: str
    plan: Plan
    created_at: float
    status: RunStatus
    started_at: float
    ended_at: float
    error: str
    stage: str
    variables: dict[str, str]
    captured: tuple[tuple[str, str, str], ...]  # item, name, value
    stages: tuple[StageState, ...]
    tasks: tuple[Task, ...]
    next_number: int
    files: tuple[str, ...]
    parent: str
    username: str
    host: str
    instead_of: str = ""


def pack(run: Run) -> str:
    document = Document(
        run.id,
        run.plan,
        run.created_at,
        run.status,
        run.started_at,
        run.ended_at,
        run.error,
        run.stage,
        dict(run.variables),
        tuple((item, name, value) for (item, name), value in run.item_variables.items()),
        tuple(run.stages.values()),
        tuple(run.tasks.values()),
        run.next_number,
        run.files,
        run.parent,
        run.username,
        run.host,
        run.instead_of,
    )
    return codec.dumps(document)


def unpack(text: str) -> Run:
    """Raises ValueError on what is no such document."""
    found = codec.loads(text, Document)
    return Run(
        found.id,
        found.plan,
        found.created_at,
        status=found.status,
        started_at=found.started_at,
        ended_at=found.ended_at,
        error=found.error,
        stage=found.stage,
        variables=Map(found.variables),
        item_variables=Map({(item, name): value for item, name, value in found.captured}),
        stages=Map({s.name: s for s in found.stages}),
        tasks=Map({t.number: t for t in found.tasks}),
        next_number=found.next_number,
        files=found.files,
        parent=found.parent,
        username=found.username,
        host=found.host,
        instead_of=found.instead_of,
    )
