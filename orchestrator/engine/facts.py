"""What `why` has to know beside the run itself, gathered from the service, the store and the profiles."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from orchestrator import protocol
from orchestrator.engine.loop import CHILDREN
from orchestrator.engine.why import Facts
from orchestrator.errors import BeamwayError
from orchestrator.model import Run, RunStatus, StageKind, TaskStatus, token
from orchestrator.store.runs import EventRow
from sites import loader

Events: TypeAlias = Callable[[str, int], list[EventRow]]  # of a run, after the one of that number


def gather(
    run: Run,
    *,
    now: float,
    live: protocol.Live | None,
    site: str,
    directories: Sequence[Path],
    events: Events,
) -> Facts:
    """`live`: what the service says at the moment, None when it does not answer; `site`: that of stages that name none;
    `directories`: where profiles are looked for; `events`: what happened to it."""
    contacts = {}
    for name in {site} | {s.site for s in run.stages.values() if s.site}:
        try:
            contacts[name] = loader.load(name, directories).identity.contact
        except BeamwayError:
            continue  # a profile that is gone must not hide why the run waits
    return Facts(
        now,
        service=live is not None,
        agents=live.agents if live else (),
        site=site,
        contacts=contacts,
        progress=live.progress if live else {},
        waits=live.waits if live else {},
        shut=live.shut if live else {},
        children=_children(run),
        cancelled_at=_cancelled_at(events, run.id) if run.status is RunStatus.ABORTING else 0.0,
    )


def _cancelled_at(events: Events, run_id: str) -> float:
    seen, at = 0, 0.0
    while page := events(run_id, seen):
        seen = page[-1].seq
        at = max([at, *(e.at for e in page if e.kind == "cancel asked")])
    return at


def _children(run: Run) -> dict[int, str]:
    """number of a task → the child run it has started. The engine makes their ids from the attempt's token."""
    stages = {p.name for p in run.plan.stages if p.kind is StageKind.WORKFLOW}
    begun = [t for t in run.tasks.values() if t.stage in stages and t.status is not TaskStatus.PENDING]
    return {t.number: str(uuid.uuid5(CHILDREN, token(run.id, t.number, t.attempt))) for t in begun}
