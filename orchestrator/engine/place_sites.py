"""A site's profile, and what its agent has just said, as the facts that placement is made from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from orchestrator.definition import variables
from orchestrator.engine import place_limits, placement
from orchestrator.engine.opening import values_of
from orchestrator.engine.place_facts import Closed, Need, NodeFacts, QueueFacts, ReservationFacts, SiteFacts
from orchestrator.engine.placement import Placement
from orchestrator.errors import BeamwayError
from orchestrator.jobs import Queue as Seen
from orchestrator.model import Placing, Resources, Run, StagePlan
from orchestrator.protocol import SiteView
from orchestrator.store import history
from orchestrator.store.database import Database

if TYPE_CHECKING:
    from sites.schema import Node, Queue, SiteProfile

log = structlog.get_logger()

MOST_FILES = 10_000  # of a folder that is an input: more are not counted
EXPORT_CONTROLLED = "exportControlled"  # argument of a run: true keeps its data to sites that may have them


def facts(profile: SiteProfile, view: SiteView | None = None, reservation: str = "") -> SiteFacts:
    """Without a view: what the profile promises. `reservation`: asked for by name, also where the profile has none."""
    seen = {q.name: q for q in view.queues} if view else {}
    starts = dict(view.starts_in_s) if view else {}
    if view:
        starts |= {q.name: 0.0 for q in profile.queues if q.name in view.warm}
    return SiteFacts(
        profile.name,
        queues=tuple(_queue(q, seen.get(q.name)) for q in profile.queues),
        reservations=_reservations(profile, view, reservation),
        maintenance=tuple(Closed(w.from_.timestamp(), w.until.timestamp(), w.reason) for w in profile.maintenance),
        node=_node(profile.node, here=profile.local),
        node_count=profile.node.count if profile.local else 0,
        scheduler=not profile.local,
        starts_in_s=dict(starts),
        measured_at=view.at if view else 0.0,
        export_control=profile.policies.export_control,
        experiments=tuple(profile.policies.experiments),
        doors=tuple(d.bytes_per_s for d in profile.doors),
        shared=tuple(profile.paths.shared),
        answers=view is None or not view.silent_since,
        silent_since=view.silent_since if view else 0.0,
        shut=view.shut if view else "",
        contact=profile.identity.contact,
    )


def _node(node: Node, *, here: bool) -> NodeFacts:
    if here:
        return NodeFacts(node.cores_here(), node.memory_bytes_here(), node.gpus)
    return NodeFacts(node.cores, node.memory_bytes, node.gpus)


def _queue(queue: Queue, seen: Seen | None) -> QueueFacts:
    return QueueFacts(
        queue.name,
        queue.use,
        max_nodes=queue.max_nodes,
        min_nodes=queue.min_nodes,
        max_walltime_s=queue.max_walltime_s,
        default_walltime_s=queue.default_walltime_s,
        cost=queue.cost,
        node=_node(queue.node, here=False) if queue.node else None,
        open=seen.open if seen else True,
        nodes=seen.nodes if seen else 0,
        idle_nodes=seen.idle_nodes if seen else None,
        pending=seen.pending if seen else 0,
    )


def _reservations(profile: SiteProfile, view: SiteView | None, asked: str) -> tuple[ReservationFacts, ...]:
    """Those of the profile, and the one asked for; with a view only those that the scheduler has, with its window."""
    there = {r.name: r for r in view.reservations} if view else {}
    found = []
    for known in profile.reservations:
        seen = there.get(known.name)
        if view is not None and view.queues and seen is None:
            continue
        found.append(
            ReservationFacts(
                known.name,
                known.queue,
                from_at=seen.from_at if seen else known.from_.timestamp() if known.from_ else 0.0,
                until_at=seen.until_at if seen else known.until.timestamp() if known.until else 0.0,
                nodes=(seen.node_count if seen else 0) or known.nodes,
                experiments=tuple(known.experiments),
            )
        )
    seen = there.get(asked)
    if seen is not None and asked not in {f.name for f in found}:
        queue = seen.queue if profile.queue(seen.queue) is not None else ""
        found.append(ReservationFacts(asked, queue, seen.from_at, seen.until_at, seen.node_count or 1))
    return tuple(found)


def need(run: Run, plan: StagePlan, *, data_at: str = "local") -> Need:
    """What a stage asks for, with the files it reads as they are on the disk now, at the site `data_at`."""
    values = values_of(run)
    paths = tuple(_paths(run, plan, values))
    return Need(
        plan.resources,
        workflow=run.plan.workflow,
        stage=plan.name,
        input_bytes=sum(map(_bytes, paths)),
        paths=paths,
        data_at=data_at,
        experiment=values.get("experimentName", ""),
        export_controlled=values.get(EXPORT_CONTROLLED, "").lower() in ("1", "true", "yes"),
        queue=plan.placing.queue,
        reservation=plan.placing.reservation,
    )


def candidates(default: str, own: Path) -> Iterator[SiteProfile]:
    """The default site and every profile that somebody has added to this home."""
    from sites import loader

    for name in dict.fromkeys([default, *loader.names([own])]):
        try:
            yield loader.load(name, [own])
        except BeamwayError as error:
            log.warning("placing.profile", site=name, reason=error.sentence)


def queues(profile: SiteProfile, placing: Placing) -> tuple[str, ...]:
    """Those of the site that a stage with this placing could go to."""
    asked = profile.queue(placing.queue)
    return tuple(q.name for q in ([asked] if placing.queue and asked else profile.queues))


def predict(
    database: Database,
    run: Run,
    plan: StagePlan,
    sites: Sequence[tuple[SiteProfile, SiteView]],
    *,
    now: float,
    data_at: str = "local",
) -> Placement:
    """The choice among these sites, from what they say and what was measured."""
    asked = need(run, plan, data_at=data_at)
    return placement.choose(
        asked,
        [facts(profile, view, asked.reservation) for profile, view in sites],
        now=now,
        history=history.timings(database, asked.workflow, asked.stage),
        rates=history.rates(database),
        corrections=placement.corrections(history.waits(database)),
    )


def forbidden(profile: SiteProfile, resources: Resources, placing: Placing) -> str:
    """Which limit of the site forbids this for good, as a sentence without a subject; empty: none.

    A reservation that the profile does not list may still be there: the scheduler will say.
    """
    asked = Need(resources, queue=placing.queue, site=profile.name)
    site = facts(profile)
    refused = place_limits.fits(asked, site)
    experiments = place_limits.policy(asked, site)
    return "" if refused == experiments else refused


def _paths(run: Run, plan: StagePlan, values: Mapping[str, str]) -> list[str]:
    found = [variables.substitute(text, values) for text in plan.inputs]
    if plan.per_file:
        found += run.files
    return list(dict.fromkeys(os.path.join(run.plan.directory, path) for path in found if path))


def _bytes(path: str) -> int:
    total = files = 0
    try:
        if not os.path.isdir(path):
            return os.stat(path).st_size
        for parent, _, names in os.walk(path):
            for name in names:
                total += os.lstat(os.path.join(parent, name)).st_size
            files += len(names)
            if files > MOST_FILES:
                break
    except (OSError, ValueError):
        pass
    return total
