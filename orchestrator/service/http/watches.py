"""Watched directories, and the files that have arrived in them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from orchestrator import codec, records
from orchestrator.arrival import rule_text
from orchestrator.engine import watching
from orchestrator.errors import ArgumentError, NotFound
from orchestrator.model import Definition
from orchestrator.service import permission
from orchestrator.service.http import shapes
from orchestrator.service.http.context import Context, Here, Permit, Who
from orchestrator.service.permission import Action, Principal
from orchestrator.store import arrivals, arrivals_seen, sight, watches
from orchestrator.store.arrivals import Arrival, ArrivalState
from orchestrator.store.watches import Watch, Wish

router = APIRouter(tags=["watches"])
Reads = Depends(Permit(Action.READ))
Makes = Depends(Permit(Action.WATCH))
Changes = Depends(Permit(Action.CHANGE_OWN))


class WatchRequest(shapes.Strict):
    """A directory of the site, and either `rules` or what one rule says."""

    directory: str = Field(default="", description="Where the watcher of the site sees it; or the rules say it.")
    experiment: str = Field(default="", description="Whose files these are; or the rules say it.")
    name: str = Field(default="", description="Of the watch; empty: that of the experiment.")
    site: str = Field(default="", description="Whose watcher sees the directory; empty: the service's default site.")
    rules: str = Field(default="", description="The text of a rule file; docs/arrival.md.")
    workflow: str = Field(default="", description="Name of a workflow of the service, without `rules`.")
    match: list[str] = Field(default=[], description="Globs, without `rules`.")
    arguments: dict[str, str] = Field(default={}, description="Of the runs, without `rules`; may hold {words}.")
    existing: bool | None = Field(default=None, description="Take up what is there already, without `rules`.")
    once: bool = Field(default=False, description="Only until all that is there is decided, without `rules`.")
    change: bool = Field(default=False, description="A watch of that name may be given these rules.")


class WatchShape(BaseModel):
    name: str
    state: str = Field(description="`watched`, `wrong`, `unseen` by any watcher, or `stopped`.")
    experiment: str
    directory: str
    site: str
    owner: str
    created_at: str | None
    stopped_at: str | None
    error: str = Field(description="Why it cannot be watched, or its runs not be begun.")
    seen_at: str | None = Field(description="When its watcher last said how it stands.")
    scanned_at: str | None
    scan_s: float
    waiting: int = Field(description="Files that are not whole yet.")
    polls: str = Field(description="Why the kernel does not tell of changes.")
    troubles: dict[str, str] = Field(description="Places that could not be looked at; some of them.")
    arrivals: dict[str, int] = Field(description="How many files are in each state.")
    rules: str
    base: str


class ArrivalShape(BaseModel):
    id: int
    watch: str
    experiment: str
    name: str = Field(description="Relative to the directory.")
    state: str = Field(description="due, run, duplicate, ignored or incomplete.")
    reason: str
    rule: str
    workflow: str = Field(description="With its version.")
    arguments: dict[str, str]
    bytes: int
    checksum: str
    run: str | None
    seen_at: str | None
    decided_at: str | None
    why: str
    next: str


class ReleaseRequest(shapes.Strict):
    workflow: str = Field(default="", description="What is to run, where no rule has said it, or something else.")
    arguments: dict[str, str] = Field(default={}, description="Of the run, beside those it has.")


@router.post("/watches", status_code=201, dependencies=[Makes], response_model=WatchShape)
def put(asked: WatchRequest, here: Here, asking: Who) -> Response:
    """Watch a directory; asked again it is the same watch."""
    site = asked.site or here.settings.site
    text = asked.rules
    one = {"workflow": asked.workflow, "match": asked.match, "arguments": asked.arguments, "existing": asked.existing}
    one["once"] = asked.once or None
    if not text:
        text = rule_text.text_of((), **one)
    elif any(value not in (None, "", [], {}) for value in one.values()):
        raise ArgumentError("Give either rules, or what one rule says.")
    source = "rules" if asked.rules else ""
    wish = Wish(text, asked.directory, asked.experiment, asked.name, site, "/", asked.change, source)
    name = watching.name_of(wish)
    if name in {watch.name for watch in watches.ls(here.database)}:
        _mine(here, asking, name)
    made = watching.put(
        here.database,
        wish,
        _load(here),
        owner=asking.name,
        now=time.time(),
        here=site == here.settings.site and not here.database.postgresql,
    )
    return _shown(here, made.name, 201)


@router.get("/watches", dependencies=[Reads], response_model=list[WatchShape])
def listing(here: Here, asking: Who) -> Response:
    """The watches that one may see, by name, as each stands."""
    now, found = time.time(), watches.standing(here.database)
    hidden = _hidden(here, asking, [w.watch for w in found])
    return _json([records.watch_record(w, now) for w in found if w.watch.name not in hidden])


@router.delete("/watches/{name}", dependencies=[Changes], response_model=WatchShape)
def stop(name: str, here: Here, asking: Who) -> Response:
    """Watch it no more. Runs that are due still begin; what has arrived stays listed."""
    _mine(here, asking, name)
    watches.stop(here.database, name, time.time())
    return _shown(here, name)


@router.post("/watches/{name}/start", dependencies=[Changes], response_model=WatchShape)
def start(name: str, here: Here, asking: Who) -> Response:
    """Go on with one that was stopped."""
    _mine(here, asking, name)
    watches.change(here.database, name, stopped_at=0.0)
    return _shown(here, name)


@router.get("/arrivals", dependencies=[Reads], response_model=list[ArrivalShape])
def arrived(
    here: Here,
    asking: Who,
    watch: str = "",
    experiment: str = "",
    state: str = "",
    ids: Annotated[list[int] | None, Query(max_length=1000, description="These and no others.")] = None,
    after: Annotated[int, Query(ge=0, description="Only later ones: the id of the last on the page before.")] = 0,
    before: Annotated[int, Query(ge=0, description="Only earlier ones; 0: all.")] = 0,
    newest: Annotated[bool, Query(description="The newest first, instead of the oldest.")] = False,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
) -> Response:
    """The files that have arrived, of those that one may see."""
    if state and state not in list(ArrivalState):
        raise ArgumentError(f"There is no state {state!r}.", f"States: {', '.join(ArrivalState)}.")
    if ids is not None:
        found = _arrivals(here, asking, ids)
    else:
        wanted = {"watch": watch, "experiment": experiment, "state": ArrivalState(state) if state else None}
        which: dict[str, Any] = {**wanted, "after": after, "before": before, "newest": newest, "limit": limit}
        person = permission.seen_by(asking)
        if person is None:
            found = arrivals.ls(here.database, **which)
        else:
            found = arrivals_seen.ls(here.database, person, _own(here, person), **which)
    return _json([_arrival(each) for each in found])


@router.post("/arrivals/{number}/release", status_code=202, dependencies=[Changes], response_model=ArrivalShape)
def release(number: int, asked: ReleaseRequest, here: Here, asking: Who) -> Response:
    """Run one that did not, whatever was against it."""
    found = _arrivals(here, asking, [number])
    if not found:
        raise NotFound(f"There is no arrival {number}.")
    _mine(here, asking, found[0].watch)
    made = watching.release(
        here.database,
        number,
        _load(here),
        who=asking.name,
        now=time.time(),
        workflow=asked.workflow,
        given=asked.arguments,
    )
    return _json(_arrival(made), 202)


def _load(here: Context) -> watching.Load:
    def load(name: str) -> Definition:
        watching.check_name(name)
        return here.planner.definition(name)

    return load


def _mine(here: Context, asking: Principal, name: str) -> None:
    """It is the asker's own watch, unless they may change anyone's. Raises NotFound, Denied."""
    found = watches.get(here.database, name)
    if _hidden(here, asking, [found]):
        raise watches.none(name)
    permission.check(asking, Action.CHANGE_OWN, owner=found.owner)


def _hidden(here: Context, asking: Principal, some: Sequence[Watch]) -> set[str]:
    """The names of those of these watches that are not theirs to see."""
    person = permission.seen_by(asking)
    if person is None:
        return set()
    closed = sight.closed_to(here.database, person, {watch.experiment for watch in some})
    return {watch.name for watch in some if watch.experiment in closed and watch.owner != person}


def _own(here: Context, person: str) -> list[str]:
    return [watch.name for watch in watches.ls(here.database) if watch.owner == person]


def _arrivals(here: Context, asking: Principal, numbers: Sequence[int]) -> list[Arrival]:
    person = permission.seen_by(asking)
    if person is None:
        return arrivals.get(here.database, numbers)
    return arrivals_seen.get(here.database, numbers, person, _own(here, person))


def _shown(here: Context, name: str, status: int = 200) -> Response:
    found = next(w for w in watches.standing(here.database) if w.watch.name == name)
    return _json(records.watch_record(found, time.time()), status)


def _arrival(arrival: Arrival) -> dict[str, Any]:
    why, then = watching.sentence(arrival)
    return {**records.arrival_record(arrival), "why": why, "next": then}


def _json(record: Any, status: int = 200) -> Response:
    """In the one way that loses no file name."""
    return Response(codec.dumps(record), status, media_type="application/json")
