"""Dead letters: look at them, fix what was at fault, send again, or dismiss."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from orchestrator import protocol, records
from orchestrator.engine.resending import in_place_of
from orchestrator.model import Run
from orchestrator.service import permission
from orchestrator.service.http import shapes
from orchestrator.service.http.context import Context, Here, Permit, Who, run_id_of, run_of
from orchestrator.service.permission import Action, Principal
from orchestrator.store import letters

router = APIRouter(tags=["dead letters"])
Reads = Depends(Permit(Action.READ))
Changes = Depends(Permit(Action.CHANGE_OWN))


@router.get("/dead", dependencies=[Reads], response_model=list[shapes.LetterShape])
def listing(
    here: Here,
    asking: Who,
    workflow: str = "",
    experiment: str = "",
    site: str = "",
    since: float = 0.0,
    limit: Annotated[int, Query(ge=1, le=1_000_000)] = 50,
) -> list[dict[str, Any]]:
    """The runs that failed for good and that nobody has dealt with, the newest first."""
    wanted = {"workflow": workflow, "experiment": experiment, "site": site}
    seen_by = permission.seen_by(asking)
    found = letters.ls(here.database, **wanted, since=since, limit=limit, seen_by=seen_by)
    return [records.letter_record(letter) for letter in found]


@router.get("/dead/{run_id}", dependencies=[Reads], response_model=shapes.LetterShape)
def letter(run_id: str, here: Here, asking: Who) -> dict[str, Any]:
    """One of them."""
    return records.letter_record(letters.get(here.database, run_id_of(here, asking, run_id)))


@router.post("/dead/{run_id}/fix", dependencies=[Changes], response_model=shapes.LetterShape)
def fix(run_id: str, asked: shapes.FixRequest, here: Here, asking: Who) -> dict[str, Any]:
    """Write down arguments that another run in its place is to have; they are checked now."""
    found = _mine(here, asking, run_id)
    here.planner.changed(found.plan, letters.get(here.database, run_id).fixes | asked.arguments)
    return records.letter_record(letters.fix(here.database, run_id, asked.arguments))


@router.post("/dead/{run_id}/resend", status_code=202, dependencies=[Changes], response_model=shapes.Changed)
def resend(run_id: str, here: Here, asking: Who) -> shapes.Changed:
    """Run again what did not pass; where arguments were fixed, begin another run in its place."""
    found = _mine(here, asking, run_id)
    letter = letters.get(here.database, run_id)
    wish: protocol.Retry | protocol.Submit = protocol.Retry(run_id)
    if letter.fixes:
        wish = in_place_of(found, letter, here.planner, username=asking.name, host="")
    return shapes.Changed(id=here.ask(wish, protocol.Accepted).run_id)


@router.post("/dead/{run_id}/dismiss", dependencies=[Changes], response_model=shapes.Changed)
def dismiss(run_id: str, here: Here, asking: Who) -> shapes.Changed:
    """Take it off the list; it stays failed."""
    _mine(here, asking, run_id)
    letters.dismiss(here.database, run_id, who=asking.name, now=time.time())
    return shapes.Changed(id=run_id)


def _mine(here: Context, asking: Principal, run_id: str) -> Run:
    """The run, which is the asker's own unless they may change anyone's. Raises NotFound, Denied."""
    found = run_of(here, asking, run_id)
    permission.check(asking, Action.CHANGE_OWN, owner=found.username)
    return found
