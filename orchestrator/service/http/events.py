"""What happened, as it happens: server-sent events, resumed after the last one that was seen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from orchestrator import codec
from orchestrator.service import permission
from orchestrator.service.http import shapes
from orchestrator.service.http.context import Context, Here, Permit, Who, run_id_of
from orchestrator.service.permission import Action
from orchestrator.store import runs as store
from orchestrator.store import sight
from orchestrator.store.runs import EventRow

LOOK_S = 2.0  # without a ring: another service may have written
PAGE = 1000

router = APIRouter(tags=["events"])
Reads = Depends(Permit(Action.READ))


@router.get("/runs/{run_id}/events", dependencies=[Reads], response_model=list[shapes.EventShape])
def of_run(run_id: str, here: Here, asking: Who, after: Annotated[int, Query(ge=0)] = 0) -> list[dict[str, Any]]:
    """What happened to a run after the event of this number, at most 1000 events."""
    found = run_id_of(here, asking, run_id)
    return [record(e) for e in store.events_after(here.database, found, after, PAGE)]


@router.get("/runs/{run_id}/last-event", dependencies=[Reads], response_model=int)
def last(run_id: str, here: Here, asking: Who) -> int:
    """The number of a run's newest event; it grows with every change."""
    return store.last_event(here.database, run_id_of(here, asking, run_id))


@router.get("/events", dependencies=[Reads], response_class=StreamingResponse)
async def stream(
    request: Request,
    here: Here,
    asking: Who,
    run: str = "",
    after: Annotated[int, Query(ge=-1, description="-1: from now on.")] = -1,
    last_event_id: Annotated[str, Header(alias="Last-Event-ID")] = "",
) -> StreamingResponse:
    """All events of the runs that one may see, or of one run, as they happen: `event: run`, `id:` its number, `data:`
    the event. An `id:` alone says how far one has come where others are left out."""
    start = int(last_event_id) if last_event_id.isdecimal() else after
    if start < 0:
        start = await run_in_threadpool(store.newest_event, here.database)
    return StreamingResponse(
        _events(request, here, permission.seen_by(asking), run, start),
        media_type="text/event-stream",
        headers={"cache-control": "no-store"},
    )


async def _events(request: Request, here: Context, seen_by: str | None, run: str, after: int) -> AsyncIterator[str]:
    yield ": connected\n\n"
    while not await request.is_disconnected():
        page = await run_in_threadpool(store.events_after, here.database, run, after, PAGE)
        told = await run_in_threadpool(_seen, here, seen_by, page)
        for event in told:
            yield f"id: {event.seq}\nevent: run\ndata: {json.dumps(record(event))}\n\n"
        if page:
            after = page[-1].seq
            if not told or told[-1].seq < after:
                yield f"id: {after}\n\n"
        else:
            yield ": \n\n"  # keeps the connection, and shows when nobody listens any more
            await here.bell.wait(LOOK_S)


def _seen(here: Context, person: str | None, page: list[EventRow]) -> list[EventRow]:
    """Those of the runs that this person may see, as things are now."""
    hidden = set() if person is None else sight.unseen(here.database, person, {event.run_id for event in page})
    return [event for event in page if event.run_id not in hidden]


def record(event: EventRow) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "run_id": event.run_id,
        "at": codec.iso(event.at),
        "kind": event.kind,
        "stage": event.stage,
        "number": event.number,
        "attempt": event.attempt,
        "text": event.text,
    }
