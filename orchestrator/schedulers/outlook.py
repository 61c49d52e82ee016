"""How a site looks for work of some size: what its scheduler says of queues, reservations and the next start."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import structlog

from orchestrator import jobscript
from orchestrator.errors import UserError
from orchestrator.jobs import JobSpec, Queue, Refused, Scheduler, SchedulerSilent
from orchestrator.model import Resources
from orchestrator.protocol import SiteView

if TYPE_CHECKING:
    from sites.schema import SiteProfile

log = structlog.get_logger()


def ask(
    scheduler: Scheduler,
    profile: SiteProfile,
    resources: Resources,
    queues: Sequence[str],
    *,
    warm: Collection[str] = (),
    silent_since: float = 0.0,
) -> SiteView:
    """A few calls of the scheduler; what is asked for is the site's view, whose `silent_since` is set when there was no
    answer. `warm`: queues and reservations in which a worker is free; `silent_since`: since when nothing was heard."""
    now = time.time()
    try:
        found = scheduler.queues()
        reservations = scheduler.reservations()
        starts = {name: _starts_in_s(scheduler, profile, name, resources, now) for name in queues}
    except SchedulerSilent:
        return SiteView(now, silent_since=silent_since or now)
    except UserError as error:
        log.warning("site.view", site=profile.name, reason=error.sentence)
        return SiteView(now)
    return SiteView(
        now,
        queues=tuple(found.get(name, Queue(name, open=False)) for name in queues),
        starts_in_s={name: seconds for name, seconds in starts.items() if seconds is not None},
        reservations=tuple(reservations.values()),
        warm=tuple(sorted(warm)),
    )


def _starts_in_s(
    scheduler: Scheduler, profile: SiteProfile, name: str, resources: Resources, now: float
) -> float | None:
    queue = profile.queue(name)
    spec = JobSpec(
        "bw-estimate",
        "#!/bin/sh\n" + jobscript.body(["true"], record="/dev/null"),
        stdout="/dev/null",
        stderr="/dev/null",
        queue=queue.partition if queue else name,
        qos=queue.qos if queue else "",
        account=profile.accounts.default,
        nodes=resources.nodes,
        ranks_per_node=resources.ranks_per_node,
        cores_per_rank=resources.cores_per_rank,
        gpus_per_node=resources.gpus_per_rank * resources.ranks_per_node,
        walltime_s=resources.walltime_s or (queue.default_walltime_s if queue else 0.0),
        options=(*profile.scheduler.options, *(queue.options if queue else ())),
    )
    try:
        at = scheduler.starts_at(spec)
    except Refused as error:
        log.info("site.estimate_refused", queue=name, reason=error.sentence)
        return None
    return None if at is None else max(0.0, at - now)
