"""Runs: begin, list, look at, cancel, try again."""

from __future__ import annotations

import re
import time
import uuid
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from orchestrator import codec, protocol, records, wire, written
from orchestrator.definition import loader
from orchestrator.engine import facts
from orchestrator.engine.opening import submission
from orchestrator.engine.why import Facts, why
from orchestrator.errors import ArgumentError, Conflict, NotFound, Unavailable, UserError, nearest
from orchestrator.model import Plan, Run, RunStatus
from orchestrator.service import permission
from orchestrator.service.http import shapes
from orchestrator.service.http.context import Context, Here, Permit, Who, answer, run_id_of, run_of
from orchestrator.service.permission import Action, Principal
from orchestrator.store import runs as store
from orchestrator.store import search
from orchestrator.store.search import Place, Wanted

KEYS = uuid.UUID("0c3f2a52-3c5e-4a55-9f0c-8f6f0b1c9b7e")  # namespace of the ids made from idempotency keys
RUN_ID = re.compile(r"[A-Za-z0-9-]{1,64}")

router = APIRouter(tags=["runs"])
Reads = Depends(Permit(Action.READ))
Runs = Depends(Permit(Action.RUN))
Key = Annotated[str, Header(alias="Idempotency-Key", max_length=200)]


@router.post("/runs", status_code=201, dependencies=[Runs], response_model=shapes.Begun)
def begin(asked: shapes.RunRequest, here: Here, asking: Who, idempotency_key: Key = "") -> shapes.Begun:
    """Begin a run. It is on the disk when this answers; asking again with the same key begins no second one."""
    return shapes.Begun(id=_begin(here, asking, asked, idempotency_key))


@router.post("/runs/batch", status_code=201, dependencies=[Runs], response_model=list[shapes.Begun])
def begin_all(asked: list[shapes.RunRequest], here: Here, asking: Who, idempotency_key: Key = "") -> list[shapes.Begun]:
    """Begin many runs; each is on the disk when this answers. A mistake in one begins none."""
    wishes = [
        _wish(here, asking, each, f"{idempotency_key}.{number}" if idempotency_key else "")
        for number, each in enumerate(asked)
    ]
    gate = here.gate()
    answers = [gate.ask(wish) for wish in wishes]
    return [shapes.Begun(id=answer(each, protocol.Accepted).run_id) for each in answers]


def _begin(here: Context, asking: Principal, asked: shapes.RunRequest, key: str) -> str:
    return here.ask(_wish(here, asking, asked, key), protocol.Accepted).run_id


def _wish(here: Context, asking: Principal, asked: shapes.RunRequest, key: str) -> protocol.Submit:
    run_id = asked.id
    if run_id and not RUN_ID.fullmatch(run_id):
        raise ArgumentError(f"{run_id!r} cannot be the id of a run: letters, digits and dashes only.")
    if key:
        run_id = str(uuid.uuid5(KEYS, f"{asking.name}\0{key}"))
    plan = compiled(here, asking, asked)
    if run_id:
        _not_another(here, asking, run_id, plan)
    return submission(plan, run_id or str(uuid.uuid4()), asking.name, "")


def _not_another(here: Context, asking: Principal, run_id: str, plan: Plan) -> None:
    """The same id or key twice is the same wish twice. Raises Conflict when it is another one."""
    if not search.known(here.database, [run_id]):
        return
    there = store.load(here.database, run_id)
    if (there.plan.workflow, there.plan.variables, there.username) != (plan.workflow, plan.variables, asking.name):
        raise Conflict(f"Run {run_id} was begun with other arguments.", "Another run needs another id or key.")


def compiled(here: Context, asking: Principal, asked: shapes.PlanRequest) -> Plan:
    if asked.definition is not None:
        permission.check(asking, Action.DEFINE)
        definition = loader.load(asked.definition)
    elif not asked.workflow or "/" in asked.workflow or asked.workflow.endswith((".py", ".toml", ".json")):
        raise UserError("Name a workflow that the service has.", "GET /api/v1/workflows lists them.")
    else:
        definition = here.planner.definition(asked.workflow)
    return here.planner.plan(
        definition,
        asked.arguments,
        directory=asked.directory or "/",
        strict=asked.strict,
        placing=asked.placing.placing(),
    )


@router.get("/runs", dependencies=[Reads], response_model=shapes.Page)
def listing(
    here: Here,
    asking: Who,
    status: str = "",
    workflow: str = "",
    experiment: str = "",
    file: Annotated[str, Query(description="The beginning of a path, of a name, or of a word in a name.")] = "",
    since: Annotated[float, Query(ge=0.0, description="Epoch seconds.")] = 0.0,
    until: Annotated[float, Query(ge=0.0, description="Epoch seconds; before this moment.")] = 0.0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 50,
    before: Annotated[str, Query(max_length=100, description="What the page before said.")] = "",
) -> dict[str, Any]:
    """The newest runs first, of those that one may see."""
    states = [s.value for s in RunStatus]
    if status and status not in states:
        raise ArgumentError(f"There is no state {status!r}.{nearest(status, states)}", f"States: {', '.join(states)}.")
    wanted = Wanted(status, workflow, experiment, file, since, until, _place(before), permission.seen_by(asking))
    found = search.listing(here.database, wanted, limit=limit)
    more = "{!r},{}".format(*found[-1].place) if len(found) == limit else ""
    return {"runs": [records.summary_record(line) for line in found], "before": more}


def _place(text: str) -> Place | None:
    if not text:
        return None
    at, _, run_id = text.partition(",")
    try:
        return float(at), run_id
    except ValueError:
        raise ArgumentError(f"{text!r} is not what a page gives as `before`.") from None


@router.get("/counts", dependencies=[Reads], response_model=dict[str, int])
def counts(here: Here) -> dict[str, int]:
    """How many runs are in each state, of all."""
    return search.counts(here.database)


@router.post("/runs/ended", dependencies=[Reads], response_model=list[str])
def ended(ids: list[str], here: Here, asking: Who) -> list[str]:
    """Those of these runs that are over."""
    return sorted(search.ended(here.database, ids, seen_by=permission.seen_by(asking)))


@router.get("/runs/{run_id}", dependencies=[Reads])
def run(run_id: str, here: Here, asking: Who) -> dict[str, Any]:
    """A run, its stages, what they cost and what came out. `run_id`: the beginning of an id, or `last`."""
    return records.run_record(run_of(here, asking, run_id))


@router.get("/runs/{run_id}/document", dependencies=[Reads], include_in_schema=False)
def document(run_id: str, here: Here, asking: Who) -> Response:
    """The whole record, for our own client."""
    return Response(wire.pack(run_of(here, asking, run_id)), media_type="application/json")


@router.get("/runs/{run_id}/id", dependencies=[Reads], response_model=str)
def full_id(run_id: str, here: Here, asking: Who) -> str:
    """The full id for the beginning of one, or for `last`."""
    return run_id_of(here, asking, run_id)


@router.get("/runs/{run_id}/tasks/{number}/output", dependencies=[Reads], response_class=Response)
def output(
    run_id: str,
    number: Annotated[int, Path(ge=0)],
    here: Here,
    asking: Who,
    attempt: Annotated[int, Query(ge=0, description="0: the newest.")] = 0,
    stderr: Annotated[bool, Query(description="What it wrote to stderr, instead of stdout.")] = False,
    after: Annotated[int, Query(ge=0, description="Bytes that are known already.")] = 0,
) -> Response:
    """The next piece of what a task has written, as bytes; empty when there is no more yet."""
    found = run_of(here, asking, run_id)
    if number not in found.tasks:
        raise NotFound(f"Run {found.id} has no task {number}; it has {len(found.tasks)}.")
    which = attempt or found.tasks[number].attempt
    body = written.piece(here.settings.runs_directory, found.id, number, which, stderr=stderr, after=after)
    return Response(body, media_type="application/octet-stream")


@router.get("/runs/{run_id}/live", dependencies=[Reads], include_in_schema=False)
def live(run_id: str, here: Here, asking: Who) -> Response:
    return Response(
        codec.dumps(here.ask(protocol.Peek(run_id_of(here, asking, run_id)), protocol.Live)),
        media_type="application/json",
    )


@router.get("/runs/{run_id}/why", dependencies=[Reads], response_model=shapes.WhyShape)
def explain(run_id: str, here: Here, asking: Who) -> dict[str, Any]:
    """What it waits for or why it failed, since when, whom to call, what to do next."""
    found = run_of(here, asking, run_id)
    said = why(found, gathered(here, found))
    return {
        "sentence": said.sentence,
        "since": codec.iso(said.since),
        "contact": said.contact,
        "next": said.next,
        "details": list(said.details),
    }


def gathered(here: Context, run: Run) -> Facts:
    try:
        live = here.ask(protocol.Peek(run.id), protocol.Live)
    except Unavailable:
        live = None
    return facts.gather(
        run,
        now=time.time(),
        live=live,
        site=here.settings.site,
        directories=here.settings.site_directories,
        events=partial(store.events_after, here.database),
    )


@router.post("/runs/{run_id}/cancel", status_code=202, dependencies=[Depends(Permit(Action.CHANGE_OWN))])
def cancel(run_id: str, asked: shapes.CancelRequest, here: Here, asking: Who) -> shapes.Changed:
    """Ask for its end; it is `aborted` when no process of it is left."""
    found = run_of(here, asking, run_id)
    permission.check(asking, Action.CHANGE_OWN, owner=found.username)
    here.ask(protocol.Cancel(found.id, asked.reason), protocol.Accepted)
    return shapes.Changed(id=found.id)


@router.post("/runs/{run_id}/retry", status_code=202, dependencies=[Depends(Permit(Action.CHANGE_OWN))])
def retry(run_id: str, asked: shapes.RetryRequest, here: Here, asking: Who) -> shapes.Changed:
    """Run again what did not pass, or one stage and all after it."""
    found = run_of(here, asking, run_id)
    permission.check(asking, Action.CHANGE_OWN, owner=found.username)
    here.ask(protocol.Retry(found.id, asked.stage), protocol.Accepted)
    return shapes.Changed(id=found.id)


@router.post("/runs/{run_id}/resume", status_code=202, dependencies=[Depends(Permit(Action.CHANGE_OWN))])
def resume(run_id: str, here: Here, asking: Who) -> shapes.Resumed:
    """Try at once what of it is on hold."""
    found = run_of(here, asking, run_id)
    permission.check(asking, Action.CHANGE_OWN, owner=found.username)
    return shapes.Resumed(runs=list(here.ask(protocol.Resume(found.id), protocol.Resumed).runs))
