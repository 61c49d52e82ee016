"""What the routes work with, and the two questions each of them asks first: who is it, and may they?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from typing import TYPE_CHECKING, Annotated, TypeVar

from fastapi import Depends, Request

from orchestrator import protocol
from orchestrator.engine.planner import Planner
from orchestrator.errors import Denied, Unavailable, of_exit_code
from orchestrator.model import Run
from orchestrator.service import permission
from orchestrator.service.gate import Gate
from orchestrator.service.peers import RemoteAgent
from orchestrator.service.permission import Action, Principal
from orchestrator.settings import Settings
from orchestrator.store import runs, search, tokens
from orchestrator.store.database import Database

if TYPE_CHECKING:
    from orchestrator.service.server import Server

ANSWER_S = 60.0  # the engine answers within this, or it is said not to
KNOWN_S = 5.0  # for so long a token that was good is good without a look: a revoked one works no longer than this
AWAY_S = 300.0  # and for so long while the store does not answer: what happens then can still be watched
KNOWN_MOST = 1000

M = TypeVar("M", bound=protocol.Message)


class Bell:
    """Rung by the engine's thread after each write; the streams of events wait for it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()

    def ring(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        for event in self._waiting:
            event.set()

    async def wait(self, at_most_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(event.wait(), at_most_s)
        finally:
            self._waiting.discard(event)


class Context:
    def __init__(self, settings: Settings, database: Database, server: Callable[[], Server | None]) -> None:
        """`server`: the engine in this process, None while it stands by."""
        self.settings = settings
        self.database = database
        self.planner = Planner(settings, database)
        self.agents: dict[str, RemoteAgent] = {}  # by session
        self.bell = Bell()
        self.server = server
        self._known: dict[str, tuple[float, Principal]] = {}

    def gate(self) -> Gate:
        """Raises Unavailable while this service only stands by."""
        server = self.server()
        if server is None:
            raise Unavailable("This service stands by: another one has the engine.", "Ask the other one.")
        return server.gate

    def ask(self, message: protocol.AnyMessage, expected: type[M]) -> M:
        """What the engine answers, when it is on the disk. Raises what it refuses with, and Unavailable."""
        return answer(self.gate().ask(message), expected)

    def principal(self, header: str) -> Principal:
        """Whose token this is. Raises Denied."""
        text = bearer(header)
        now = time.monotonic()
        known = self._known.get(text)
        if known is not None and now - known[0] < KNOWN_S:
            return known[1]
        try:
            token = tokens.find(self.database, text, now=time.time())
        except Unavailable:
            if known is None or now - known[0] > AWAY_S:
                raise
            return known[1]
        if token is None:
            self._known.pop(text, None)
            raise Denied("This token is not known here, or it is over.", "Ask whoever runs this service for a new one.")
        found = permission.of(token)
        if len(self._known) >= KNOWN_MOST:
            self._known.clear()
        self._known[text] = (now, found)
        return found


def bearer(header: str) -> str:
    """The token in a header. Raises Denied."""
    kind, _, text = header.partition(" ")
    if kind.lower() != "bearer" or not text:
        raise Denied("This needs a token.", "Set BEAMWAY_TOKEN; `beamway token create` makes one.")
    return text.strip()


def answer(future: Future[protocol.Message], expected: type[M]) -> M:
    try:
        said = future.result(ANSWER_S)
    except TimeoutError:
        future.cancel()
        raise Unavailable("The engine does not answer.", "What was accepted goes on; `beamway status`.") from None
    if isinstance(said, expected):
        return said
    if isinstance(said, protocol.Refused):
        raise of_exit_code(said.exit_code)(said.sentence, said.hint)
    raise Unavailable(f"The engine answered {type(said).__name__}.")


def run_id_of(here: Context, asking: Principal, text: str) -> str:
    """The id of a run that begins so. Raises NotFound, also for one that is not theirs to see."""
    return search.find(here.database, text, seen_by=permission.seen_by(asking))


def run_of(here: Context, asking: Principal, text: str) -> Run:
    """Raises NotFound."""
    return runs.load(here.database, run_id_of(here, asking, text))


def context_of(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


Here = Annotated[Context, Depends(context_of)]


def who(request: Request) -> Principal:
    return context_of(request).principal(request.headers.get("authorization", ""))


Who = Annotated[Principal, Depends(who)]


class Permit:
    """The permission a route needs. One without such a dependency is denied to everybody: see `app.create`."""

    def __init__(self, action: Action) -> None:
        self.action = action

    def __call__(self, asking: Who, request: Request) -> Principal:
        site = request.path_params.get("site", "") if self.action is Action.SERVE else ""
        permission.check(asking, self.action, owner=asking.name, site=site)
        return asking
