"""What the transfers of a run have shown: how fast data go from one site to another. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from orchestrator import states
from orchestrator.model import Run, StageKind, Task, TaskStatus
from orchestrator.store.measured import Moved

if TYPE_CHECKING:
    from sites.schema import SiteProfile

_DOORS = {"ftp": "gridftp", "gsiftp": "gridftp", "globus": "globus", "ssh": "rsync"}  # scheme -> kind
_PORTS = {"ftp": "21", "gsiftp": "2811", "ssh": "22"}

Profiles = Callable[[], "Iterable[SiteProfile]"]


def moved(run: Run, site_of: Callable[[str], str], profiles: Profiles) -> list[Moved]:
    """The transfers between two known sites that ended well and moved something.

    A path is at the site of the stage; an address at the site of which it is a door.
    """
    found: list[Moved] = []
    kinds = {plan.name: states.stage_plan(run, plan.name).kind for plan in run.plan.stages}
    tasks = [t for t in run.tasks.values() if kinds.get(t.stage) is StageKind.TRANSFER and _moved(t)]
    known = list(profiles()) if tasks else []
    for task in tasks:
        outcome, given = task.outcome, task.arguments["from"]
        assert outcome is not None
        here = site_of(task.site)
        to_site = site_at(task.arguments["to"], here, known)
        from_sites = {site_at(source, here, known) for source in ([given] if isinstance(given, str) else given)}
        if len(from_sites) != 1 or not to_site or to_site in from_sites:
            continue
        if from_site := from_sites.pop():
            found.append(Moved(from_site, to_site, outcome.moved_bytes, outcome.transfer_s, task.ended_at))
    return found


def _moved(task: Task) -> bool:
    outcome = task.outcome
    return task.status is TaskStatus.DONE and outcome is not None and bool(outcome.moved_bytes)


def site_at(end: str, here: str, profiles: Iterable[SiteProfile]) -> str:
    """The site that a path or an address belongs to; empty: no profile tells."""
    scheme, is_address, rest = end.partition("://")
    if not is_address:
        return here
    who = rest.partition("/")[0]
    if scheme == "site":
        return who
    kind, who = _DOORS.get(scheme.lower(), ""), _with_port(scheme.lower(), who)
    for profile in profiles:
        for door in profile.doors:
            at = door.endpoint.partition("://")[2] or door.endpoint
            if door.kind == kind and at and _with_port(scheme.lower(), at) == who:
                return profile.name
    return ""


def _with_port(scheme: str, who: str) -> str:
    who = who.rpartition("@")[2].lower()
    port = _PORTS.get(scheme, "")
    return who if not port or who.rpartition(":")[2].isdigit() else f"{who}:{port}"
