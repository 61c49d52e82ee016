"""What came from what: the history of files and runs, RO-Crates, and products that are stale."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from orchestrator import codec, protocol
from orchestrator.catalog import crate, provenance
from orchestrator.catalog.provenance import Story
from orchestrator.engine import again
from orchestrator.errors import ArgumentError, Denied
from orchestrator.service import permission
from orchestrator.service.http.context import Context, Here, Permit, Who
from orchestrator.service.http.shapes import Strict
from orchestrator.service.permission import Action, Principal
from orchestrator.store import descent, experiments, runs, sight, stale
from orchestrator.store.experiments import Part
from orchestrator.store.stale import StaleProduct

router = APIRouter(tags=["provenance"])
Reads = Depends(Permit(Action.READ))
What = Annotated[str, Query(description="A run, a file's number, path or address, or `collection:NAME`.")]
Generations = Annotated[int, Query(ge=0, le=1000, description="So many generations; 0: none.")]


class RerunRequest(Strict):
    experiment: str = ""
    files: list[int] = Field(default=[], description="Only the runs behind these products.")
    dry_run: bool = False


@router.get("/lineage", dependencies=[Reads])
def lineage(
    here: Here,
    asking: Who,
    what: What,
    up: Generations = descent.DEPTH,
    down: Generations = descent.DEPTH,
    experiment: str = "",
) -> Response:
    """What it was made of (up) and what was made with it (down)."""
    return _json(provenance.record(_story(here, asking, what, up, down, experiment)))


@router.get("/lineage/document", dependencies=[Reads], include_in_schema=False)
def document(here: Here, asking: Who, what: str, up: int, down: int, experiment: str) -> Response:
    """The same for our own client. Names are JSON: they may not be UTF-8."""
    return _json(_story(here, asking, _name(what), up, down, _name(experiment)))


@router.get("/crate", dependencies=[Reads])
def rocrate(here: Here, asking: Who, what: What, experiment: str = "") -> Response:
    """Its RO-Crate: the document `ro-crate-metadata.json`, without data."""
    found = provenance.for_crate(lambda down: _story(here, asking, what, descent.DEPTH, down, experiment))
    return _json(crate.document(found, at=time.time()))


@router.get("/stale", dependencies=[Reads])
def listing(
    here: Here, asking: Who, experiment: str = "", limit: Annotated[int, Query(ge=1, le=100_000)] = 1000
) -> Response:
    """The products that were made of what has another content now, and why."""
    return _json([provenance.stale_record(each) for each in _stale(here, asking, experiment, limit)])


@router.get("/stale/document", dependencies=[Reads], include_in_schema=False)
def stale_document(here: Here, asking: Who, experiment: str, limit: int) -> Response:
    return _json(_stale(here, asking, _name(experiment), limit))


@router.post("/stale/rerun", status_code=202, dependencies=[Depends(Permit(Action.CHANGE_OWN))])
def rerun(asked: RerunRequest, here: Here, asking: Who) -> Response:
    """Do the runs behind them again on the new contents; asked twice, each is begun once. All or, where one may not be
    begun by who asks, none."""
    found = again.wanted(here.database, experiment=asked.experiment, files=asked.files)
    person = permission.seen_by(asking)
    hidden = set() if person is None else sight.unseen(here.database, person, [each.run_id for each in found])
    found = [each for each in found if each.run_id not in hidden]
    due = [] if asked.dry_run else [each for each in found if each.again and not each.there]
    for each in due:
        _check(here, asking, each.run_id)
    for each in due:
        wish = again.wish(here.database, here.planner, each, username=asking.name, host="")
        here.ask(wish, protocol.Accepted)
    return _json(found, 202)


def _json(found: Any, status: int = 200) -> Response:
    """As the codec writes it: in ASCII, so that no name of a file can break it."""
    return Response(codec.dumps(found), status, media_type="application/json")


def _story(here: Context, asking: Principal, what: str, up: int, down: int, experiment: str) -> Story:
    """As far as who asks may see it: an operator all, others the files of the experiments in which they have a part."""
    person = permission.seen_by(asking)
    found = provenance.story(here.database, what, up=up, down=down, experiment=experiment, person=person)
    if person is None:
        return found
    parts = experiments.of(here.database, asking.name)
    for file in found.graph.files:
        if file.id in found.graph.of_files:
            permission.check_part(asking, parts.get(file.experiment), Part.VIEWER, file.experiment)
    hidden = sight.unseen(here.database, person, [run.id for run in found.graph.runs])
    return provenance.seen_by(found, parts, hidden)


def _stale(here: Context, asking: Principal, experiment: str, limit: int) -> list[StaleProduct]:
    if permission.sees_all(asking):
        return stale.ls(here.database, experiment=experiment, limit=limit)
    parts = experiments.of(here.database, asking.name)
    found = stale.ls(here.database, experiment=experiment, limit=1_000_000)
    return [x for x in found if {x.file.experiment, *(c.file.experiment for c in x.causes)} <= parts.keys()][:limit]


def _check(here: Context, asking: Principal, run_id: str) -> None:
    try:
        permission.check(asking, Action.CHANGE_OWN, owner=runs.load(here.database, run_id).username)
    except Denied as error:
        raise Denied(f"Run {run_id} is another's: {error.sentence}", error.hint) from None


def _name(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError:
        raise ArgumentError(f"{text!r} is not a name written as JSON.") from None
    return str(found)
