"""The application: all routes below /api/v1, denied unless they say what permission they need."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator import codec, protocol
from orchestrator.errors import Unavailable
from orchestrator.service.http import (
    agents,
    catalog,
    dead,
    events,
    lineage,
    metrics,
    problems,
    retention,
    runs,
    shapes,
    sites,
    tokens,
    watches,
    workflows,
)
from orchestrator.service.http.context import Context, Here, Permit
from orchestrator.service.permission import Action
from orchestrator.store import search

BODY_MOST = 64 * 2**20  # bytes of one request
OPEN = {"/health/live", "/health/ready"}  # of these nobody is asked who they are

status_router = APIRouter(tags=["status"])


@status_router.get("/status", dependencies=[Depends(Permit(Action.READ))], response_model=shapes.Status)
def status(here: Here) -> shapes.Status:
    """This service, its agents, and how many runs are in each state."""
    from orchestrator.service.server import VERSION

    try:
        pong = here.ask(protocol.Ping(), protocol.Pong)
    except Unavailable:
        pong = None
    return shapes.Status(
        version=VERSION,
        active=pong is not None,
        agents=list(pong.agents) if pong else [],
        shut=[
            shapes.Shut(site=name, since=codec.iso(since), why=text)
            for name, (since, text) in (pong.shut if pong else {}).items()
        ],
        unfinished=pong.active if pong else 0,
        runs=search.counts(here.database),
        site=here.settings.site,
    )


def create(context: Context) -> FastAPI:
    app = FastAPI(
        title="Beamway",
        version="1",
        description="Runs of workflows at light sources and supercomputers: begin, follow, know why they wait.",
        openapi_url=f"{protocol.API}/openapi.json",
        docs_url=None,  # those pages fetch scripts from elsewhere
        redoc_url=None,
    )
    app.state.context = context
    for router in (
        runs.router,
        dead.router,
        lineage.router,
        workflows.router,
        events.router,
        sites.router,
        agents.router,
        retention.router,
        tokens.router,
        watches.router,
        catalog.router,
    ):
        app.include_router(router, prefix=protocol.API)
    for router in (status_router, tokens.own_router):
        app.include_router(router, prefix=protocol.API)
    app.include_router(metrics.router(context))
    _add_health(app)
    problems.install(app)
    app.add_middleware(Bounded)
    open_to_all = [r.path for r in _routes(app) if not _permits(r) and r.path not in OPEN]
    if open_to_all:
        raise AssertionError(f"routes without a permission: {open_to_all}")
    return app


def _routes(app: FastAPI) -> Iterator[APIRoute]:
    return (route for route in app.routes if isinstance(route, APIRoute))


def _permits(route: APIRoute) -> bool:
    return any(isinstance(d.call, Permit) for d in route.dependant.dependencies)


def _add_health(app: FastAPI) -> None:
    @app.get("/health/live", tags=["status"])
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @app.get("/health/ready", tags=["status"])
    def ready(here: Here) -> Response:
        """This service has the engine, and the engine answers: a load balancer sends wishes here."""
        try:
            here.ask(protocol.Ping(), protocol.Pong)
        except Unavailable as error:
            return JSONResponse({"status": "stands by", "detail": error.sentence}, 503)
        return JSONResponse({"status": "ready", "at": time.time()})


class Bounded:
    """No request's body is larger than `BODY_MOST`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > BODY_MOST:
            detail = f"The body of a request may have {BODY_MOST} bytes."
            await problems.problem(413, "UserError", detail, exit_code=2)(scope, receive, send)
            return
        got = 0

        async def bounded() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > BODY_MOST:
                raise ClientDisconnect
            return message

        await self._app(scope, bounded, send)
