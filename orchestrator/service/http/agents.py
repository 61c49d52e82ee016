"""The agents' way to the service: hello, then fetch messages and bring reports. An agent only ever connects outwards.

Fetching is its heartbeat: an agent that has not asked for longer than its lease has lost its site, and what it brings
afterwards is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from orchestrator import codec, protocol
from orchestrator.errors import NotFound, Unavailable, UserError, of_exit_code
from orchestrator.service.http.context import Context, Here, Permit
from orchestrator.service.peers import RemoteAgent
from orchestrator.service.permission import Action

WAIT_MOST_S = protocol.AGENT_LEASE_S / 3
HELLO_S = 10.0

router = APIRouter(tags=["agents"], dependencies=[Depends(Permit(Action.SERVE))], include_in_schema=True)
SiteName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
_LIST: Any = list[protocol.AnyMessage]


@router.post("/sites/{site}/agents", status_code=201)
async def hello(site: SiteName, request: Request, here: Here) -> Response:
    """Ask for the site. 409: another agent has it, and this one stands by."""
    said = _decoded(await request.body())
    if len(said) != 1 or not isinstance(said[0], protocol.Hello) or said[0].site != site:
        raise UserError("An agent says hello first, for its own site.")
    agent = RemoteAgent(secrets.token_urlsafe(16))
    here.gate().put(agent, said[0])
    kept = await _fetched(agent, 0, HELLO_S)
    if not kept:
        raise Unavailable("The engine does not answer.")
    first = kept[0][1]
    if isinstance(first, protocol.Refused):
        raise of_exit_code(first.exit_code)(first.sentence, first.hint)
    for session in [s for s, known in here.agents.items() if known.over]:
        del here.agents[session]
    here.agents[agent.session] = agent
    return _encoded(kept, status=201)


@router.get("/sites/{site}/agents/{session}/messages")
async def fetch(
    site: SiteName,
    session: str,
    here: Here,
    after: Annotated[int, Query(ge=0)] = 0,
    wait_s: Annotated[float, Query(ge=0.0, le=WAIT_MOST_S)] = WAIT_MOST_S,
) -> Response:
    """The messages after this number, as soon as there are any; those up to it are forgotten."""
    return _encoded(await _fetched(_agent(here, session), after, wait_s))


@router.post("/sites/{site}/agents/{session}/messages", status_code=202)
async def bring(site: SiteName, session: str, request: Request, here: Here) -> Response:
    """Reports. `Stored` comes back among the messages when they are on the disk; until then they are kept."""
    agent = _agent(here, session)
    said = await run_in_threadpool(_decoded, await request.body())
    if not all(isinstance(m, protocol.Report | protocol.Estimated) for m in said):
        raise UserError("An agent brings reports and estimates only.")
    gate = here.gate()
    for message in said:
        gate.put(agent, message)
    return Response(status_code=202)


def _agent(here: Context, session: str) -> RemoteAgent:
    agent = here.agents.get(session)
    if agent is None or agent.over:
        raise NotFound("This session is over; another agent may have the site.", "Say hello again.")
    return agent


async def _fetched(agent: RemoteAgent, after: int, wait_s: float) -> list[tuple[int, protocol.Message]]:
    loop = asyncio.get_running_loop()
    rung = asyncio.Event()

    def ring() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has just ended
            loop.call_soon_threadsafe(rung.set)

    kept = agent.fetch(after, ring)
    if kept or not wait_s:
        return kept
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(rung.wait(), wait_s)
    return agent.fetch(after, ring)


def _decoded(body: bytes) -> list[protocol.AnyMessage]:
    try:
        found: list[protocol.AnyMessage] = codec.loads(body.decode(), _LIST)
    except ValueError as error:
        raise UserError(f"No messages of an agent: {error}") from None
    return found


def _encoded(kept: list[tuple[int, protocol.Message]], *, status: int = 200) -> Response:
    return Response(codec.dumps(kept), status, media_type="application/json")
