"""Which copies stay and which go: the plan, its execution, archive, restore, pins, and the log.

What takes long is answered line by line (`application/x-ndjson`) while it is done: `{"record": …}` for each copy,
`{"moved": [name, bytes, of]}`, `{}` as a sign of life, and at the end `{"end": true}` or `{"error": …}`. Whoever goes
away ends it, between two copies or within one that is being read.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from orchestrator import codec
from orchestrator.catalog.archiving import Moved
from orchestrator.catalog.keeping import Keeping
from orchestrator.errors import BeamwayError
from orchestrator.service.http import shapes
from orchestrator.service.http.context import Context, Here, Permit, Who
from orchestrator.service.permission import Action, Principal

ALIVE_S = 10.0  # between two signs of life
MOVED_S = 0.5  # between two words on how far a file has come
AHEAD = 1000  # lines made before they are taken
NDJSON = "application/x-ndjson"

router = APIRouter(tags=["retention"], prefix="/retention")
Reads = Depends(Permit(Action.READ))
Retains = Depends(Permit(Action.RETAIN))


class ApplyRequest(shapes.Strict):
    experiment: str = ""
    site: str = Field(default="", description="Only copies of this site.")
    dry_run: bool = Field(default=True, description="Look at every copy, and remove none.")


class FilesRequest(shapes.Strict):
    what: str = Field(default="", description="A file's number or path, or a collection; empty: all of the experiment.")
    experiment: str = ""


class ArchiveRequest(FilesRequest):
    to: str = Field(min_length=1, description="A place of the policy.")


class RestoreRequest(FilesRequest):
    to: str = Field(default="", description="A folder of the service's host; empty: where each file was.")


class UnpinRequest(FilesRequest):
    collection: bool = False


class PinRequest(UnpinRequest):
    reason: str = Field(default="", max_length=2000)


@router.get("/plan", dependencies=[Reads], response_class=StreamingResponse)
def plan(here: Here, asking: Who, experiment: str = "", site: str = "") -> StreamingResponse:
    """What would become of each copy, and why, from the records alone; line by line."""

    def work(keeping: Keeping) -> Iterator[Any]:
        return (decision.planned for decision in keeping.plan(experiment=experiment, site=site))

    return _told(here, asking, work)


@router.post("/apply", dependencies=[Retains], response_class=StreamingResponse)
def apply(asked: ApplyRequest, here: Here, asking: Who) -> StreamingResponse:
    """Remove the copies that may go, each when the others have just been found right; line by line."""
    which = {"experiment": asked.experiment, "site": asked.site}
    return _told(here, asking, lambda keeping: keeping.apply(**which, rehearse=asked.dry_run))


@router.post("/archive", dependencies=[Retains], response_class=StreamingResponse)
def archive(asked: ArchiveRequest, here: Here, asking: Who) -> StreamingResponse:
    """Copy files to a place of the policy; line by line."""
    return _told(here, asking, lambda keeping: keeping.archive(asked.what, experiment=asked.experiment, to=asked.to))


@router.post("/restore", dependencies=[Retains], response_class=StreamingResponse)
def restore(asked: RestoreRequest, here: Here, asking: Who) -> StreamingResponse:
    """Bring files back from the first copy that is right; line by line."""
    return _told(here, asking, lambda keeping: keeping.restore(asked.what, experiment=asked.experiment, to=asked.to))


@router.get("/log", dependencies=[Reads], response_class=Response)
def log(
    here: Here,
    asking: Who,
    file: str = "",
    experiment: str = "",
    before: Annotated[int, Query(ge=0, description="Rows before the one with this id.")] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 50,
) -> Response:
    """Each decision with its evidence, the newest first; times are epoch seconds."""
    return _json(_keeping(here, asking).log(file=file, experiment=experiment, before=before, limit=limit))


@router.get("/pins", dependencies=[Reads], response_class=Response)
def pins(here: Here, asking: Who, experiment: str = "") -> Response:
    """What no rule removes."""
    return _json(_keeping(here, asking).pins(experiment))


@router.post("/pins", dependencies=[Retains], response_class=Response)
def pin(asked: PinRequest, here: Here, asking: Who) -> Response:
    """Pin a file, a collection or an experiment."""
    return _json(_keeping(here, asking).pin(**asked.model_dump()))


@router.post("/unpin", dependencies=[Retains], response_class=Response)
def unpin(asked: UnpinRequest, here: Here, asking: Who) -> Response:
    """Take a pin away."""
    return _json(_keeping(here, asking).unpin(**asked.model_dump()))


def _json(record: Any) -> Response:
    return Response(codec.dumps(record), media_type="application/json")


def _keeping(here: Context, asking: Principal, **more: Any) -> Keeping:
    return Keeping(here.settings, here.database, who=asking.name, **more)


class _Work:
    """Done in a thread of its own, told through a queue, ended when nobody listens any more."""

    def __init__(self, here: Context, asking: Principal, work: Callable[[Keeping], Iterator[Any]]) -> None:
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue(AHEAD)
        self._gone = threading.Event()
        self._moved_at = 0.0
        moved: Moved = self._moved
        self._work: Callable[[], Iterator[Any]] = lambda: work(
            _keeping(here, asking, moved=moved, cancelled=self._gone.is_set)
        )

    def _moved(self, name: str, done: int, total: int) -> None:
        if done >= total or time.monotonic() > self._moved_at + MOVED_S:
            self._moved_at = time.monotonic()
            self._put({"moved": [name, done, total]})

    def _put(self, line: dict[str, Any]) -> None:
        while not self._gone.is_set():
            with suppress(queue.Full):
                self._lines.put(line, timeout=0.2)
                return

    def _run(self) -> None:
        last: dict[str, Any] = _error(BeamwayError("Something of the service is broken.", "Its log says what."))
        try:
            for record in self._work():
                self._put({"record": record})
                if self._gone.is_set():
                    return
            last = {"end": True}
        except BeamwayError as error:
            last = _error(error)
        finally:
            self._put(last)

    def _next(self) -> dict[str, Any]:
        try:
            return self._lines.get(timeout=ALIVE_S)
        except queue.Empty:
            return {}

    async def lines(self) -> AsyncIterator[str]:
        threading.Thread(target=self._run, name="retention", daemon=True).start()
        try:
            while True:
                line = await run_in_threadpool(self._next)
                yield codec.dumps(line) + "\n"
                if "end" in line or "error" in line:
                    return
        finally:
            self._gone.set()


def _error(error: BeamwayError) -> dict[str, Any]:
    return {"error": {"sentence": error.sentence, "hint": error.hint, "exit_code": error.exit_code}}


def _told(here: Context, asking: Principal, work: Callable[[Keeping], Iterator[Any]]) -> StreamingResponse:
    lines = _Work(here, asking, work).lines()
    return StreamingResponse(lines, media_type=NDJSON, headers={"cache-control": "no-store"})
