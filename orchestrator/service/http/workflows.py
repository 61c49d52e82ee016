"""Workflows that the service has, and plans of them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Response

from orchestrator import codec
from orchestrator.errors import BeamwayError, UserError
from orchestrator.model import Plan
from orchestrator.service.http import runs, shapes
from orchestrator.service.http.context import Here, Permit, Who
from orchestrator.service.permission import Action

router = APIRouter(tags=["workflows"])
Reads = Depends(Permit(Action.READ))


@router.get("/workflows", dependencies=[Reads])
def workflows(here: Here) -> list[dict[str, str]]:
    """Names and descriptions."""
    found: dict[str, str] = {}
    for directory in here.settings.workflow_directories:
        for path in sorted(directory.glob("*.py")):
            if path.stem.startswith("_") or path.stem in found:
                continue
            try:
                found[path.stem] = here.planner.definition(path.stem).description
            except BeamwayError:
                continue  # one that cannot be read hides no other
    return [{"name": name, "description": text} for name, text in found.items()]


@router.get("/workflows/{name}", dependencies=[Reads])
def workflow(name: str, here: Here) -> Response:
    """The definition, as written."""
    if "/" in name or "." in name:
        raise UserError(f"{name!r} is no name of a workflow.")
    return Response(codec.dumps(here.planner.definition(name).raw), media_type="application/json")


@router.post("/plans", dependencies=[Depends(Permit(Action.RUN))])
def plan(asked: shapes.PlanRequest, here: Here, asking: Who) -> Response:
    """What a workflow means for these arguments; nothing begins."""
    made: Plan = runs.compiled(here, asking, asked)
    return Response(codec.dumps(made), media_type="application/json")


@router.post("/placements", dependencies=[Depends(Permit(Action.RUN))])
def placements(asked: shapes.PlanRequest, here: Here, asking: Who) -> Response:
    """Where each stage whose site is `auto` would go now, and why."""
    found: list[Any] = list(here.planner.placements(runs.compiled(here, asking, asked)))
    return Response(codec.dumps(found), media_type="application/json")
