"""Sites, as their profiles describe them."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from orchestrator import protocol
from orchestrator.engine import place_sites
from orchestrator.errors import Unavailable, UserError
from orchestrator.service.http import shapes
from orchestrator.service.http.context import Context, Here, Permit
from orchestrator.service.permission import Action
from sites import loader
from sites.schema import SiteProfile

router = APIRouter(tags=["sites"])
Reads = Depends(Permit(Action.READ))


@router.get("/sites", dependencies=[Reads], response_model=list[shapes.SiteShape])
def sites(here: Here) -> list[shapes.SiteShape]:
    """The sites that work can go to, and whether their agent is there."""
    connected = _connected(here)
    found = place_sites.candidates(here.settings.site, here.settings.site_directories[0])
    return [_shape(profile, connected) for profile in found]


@router.get("/sites/{name}", dependencies=[Reads], response_model=shapes.SiteShape)
def site(name: str, here: Here) -> shapes.SiteShape:
    """One site."""
    if "/" in name or name.endswith(".toml"):
        raise UserError(f"{name!r} is no name of a site.", "GET /api/v1/sites lists them.")
    return _shape(loader.load(name, here.settings.site_directories), _connected(here))


@router.post("/sites/{name}/resume", status_code=202, dependencies=[Depends(Permit(Action.CHANGE_ANY))])
def resume(name: str, here: Here) -> shapes.Resumed:
    """Try at once everything that is on hold there."""
    return shapes.Resumed(runs=list(here.ask(protocol.Resume(site=name), protocol.Resumed).runs))


def _connected(here: Context) -> set[str]:
    try:
        return set(here.ask(protocol.Ping(), protocol.Pong).agents)
    except Unavailable:
        return set()


def _shape(profile: SiteProfile, connected: set[str]) -> shapes.SiteShape:
    who = profile.identity
    return shapes.SiteShape(
        name=profile.name,
        title=who.title,
        contact=who.contact,
        scheduler=profile.scheduler.kind,
        connected=profile.name in connected,
    )
