"""What forbids a stage to run at a site, as a sentence that names the limit. Pure.

A sentence has no subject and no final stop, so that a site's name can stand before it: "needs 4 nodes; debug allows 2".
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from orchestrator.definition.explain import size_text
from orchestrator.engine.place_facts import (
    Need,
    NodeFacts,
    QueueFacts,
    ReservationFacts,
    SiteFacts,
    queue_of,
    walltime_s,
)
from orchestrator.engine.place_words import count, duration, moment
from orchestrator.errors import nearest


def fits(need: Need, site: SiteFacts) -> str:
    """Empty when the site could ever run this, else which limit of its profile forbids it.

    Only what does not change by itself is looked at, so the answer holds when a plan is made.
    """
    refused = unknown_words(need, site) or policy(need, site)
    if refused:
        return refused
    worst: list[tuple[int, float, str]] = []
    for queue in queues_for(need, site):
        found = next(_limits(need, site, queue), None)
        if found is None:
            return ""
        worst.append(found)
    return max(worst)[2]  # of several queues the one that came furthest, then the most generous


def queues_for(need: Need, site: SiteFacts) -> tuple[QueueFacts | None, ...]:
    """The queues that may be chosen; None stands for work that is started without naming one."""
    if not site.queues:
        return (None,)
    if need.queue:
        asked = queue_of(site, need.queue)
        if asked is None:
            return (None,)
        return (asked,) if asked.name == need.queue else tuple(q for q in site.queues if q.use == need.queue)
    if need.reservation not in ("", "auto", "none"):
        return site.queues
    return tuple(q for q in site.queues if q.use != "debug") or site.queues


def limit(need: Need, site: SiteFacts, queue: QueueFacts | None) -> str:
    """Which limit of this queue and its nodes forbids it; empty: none."""
    return next(_limits(need, site, queue), (0, 0.0, ""))[2]


def _limits(need: Need, site: SiteFacts, queue: QueueFacts | None) -> Iterator[tuple[int, float, str]]:
    """Each limit that is broken: how far the checks came, how generous the limit is, the sentence."""
    r = need.resources
    name = queue.name if queue is not None else site.name
    nodes = f"needs {count(r.nodes, 'node')}"
    if queue is not None and queue.max_nodes and r.nodes > queue.max_nodes:
        yield 0, queue.max_nodes, f"{nodes}; {name} allows {queue.max_nodes}"
    if queue is not None and r.nodes < queue.min_nodes:
        yield 0, -queue.min_nodes, f"{nodes}; {name} takes no job of less than {queue.min_nodes}"
    there = (queue.nodes if queue is not None else 0) or site.node_count
    if there and r.nodes > there:
        yield 0, there, f"{nodes}; {name} has {there}"
    node = node_of(site, queue)
    cores = r.ranks_per_node * r.cores_per_rank
    if node.cores and cores > node.cores:
        what = f"{count(r.ranks_per_node, 'rank')} of {count(r.cores_per_rank, 'core')}"
        yield 1, node.cores, f"needs {cores} cores on a node ({what}); a node of {name} has {node.cores}"
    gpus = r.ranks_per_node * r.gpus_per_rank
    if gpus > node.gpus:
        what = f"{count(r.ranks_per_node, 'rank')} of {count(r.gpus_per_rank, 'GPU')}"
        has = f"a node of {name} has {node.gpus or 'none'}"
        yield 2, node.gpus, f"needs {count(gpus, 'GPU')} on a node ({what}); {has}"
    if node.memory_bytes and r.memory_bytes > node.memory_bytes:
        has = f"a node of {name} has {size_text(node.memory_bytes)}"
        yield 3, node.memory_bytes, f"needs {size_text(r.memory_bytes)} of memory; {has}"
    wall = walltime_s(need, queue)
    if queue is not None and queue.max_walltime_s and wall > queue.max_walltime_s:
        most = duration(queue.max_walltime_s)
        yield 4, queue.max_walltime_s, f"needs {duration(wall)} of walltime; {name} allows {most}"


def node_of(site: SiteFacts, queue: QueueFacts | None) -> NodeFacts:
    return queue.node if queue is not None and queue.node is not None else site.node


# ----------------------------------------------------------------------------------------------------- the whole site


def unknown_words(need: Need, site: SiteFacts) -> str:
    """A queue or a reservation that the stage names and the site does not have."""
    if need.queue and queue_of(site, need.queue) is None:
        names = [q.name for q in site.queues]
        has = f"it has {', '.join(names)}" if names else "its profile names none"
        return f"has no queue {need.queue!r}; {has}.{nearest(need.queue, names)}".rstrip(".")
    if need.reservation not in ("", "auto", "none"):
        names = [r.name for r in site.reservations]
        if need.reservation not in names:
            has = f"it has {', '.join(names)}" if names else "it has none for us"
            return f"has no reservation {need.reservation!r}; {has}.{nearest(need.reservation, names)}".rstrip(".")
    return ""


def policy(need: Need, site: SiteFacts) -> str:
    """Whether these data may be there at all."""
    if need.export_controlled and not site.export_control:
        return "export-controlled data may not go there"
    if not any(fnmatchcase(need.experiment, pattern) for pattern in site.experiments):
        whose = f"experiment {need.experiment!r}" if need.experiment else "data of no experiment"
        allowed = f"only {', '.join(site.experiments)}" if site.experiments else "none is allowed"
        return f"{whose} may not be processed there ({allowed})"
    return ""


def closed_now(site: SiteFacts, now: float) -> tuple[str, float]:
    """Why nothing starts there now, and when that ends by itself (0: not known)."""
    call = f" (call {site.contact})" if site.contact else ""
    if site.shut:
        return f"{site.shut}{call}", 0.0
    if not site.answers:
        since = f" since {moment(site.silent_since, now)}" if site.silent_since else ""
        return f"does not answer{since}{call}", 0.0
    for closed in site.maintenance:
        if closed.from_at <= now < closed.until_at:
            why = f" ({closed.reason})" if closed.reason and closed.reason != "maintenance" else ""
            return f"maintenance until {moment(closed.until_at, now)}{why}", closed.until_at
    return "", 0.0


# ------------------------------------------------------------------------------------------------------ reservations


def reservations_for(need: Need, site: SiteFacts) -> tuple[ReservationFacts, ...]:
    """Those that the stage may use, and the named one in any case."""
    if need.reservation == "none":
        return ()
    if need.reservation not in ("", "auto"):
        return tuple(r for r in site.reservations if r.name == need.reservation)
    allowed = [r for r in site.reservations if _allowed(need, r)]
    if not need.queue:
        return tuple(allowed)
    asked = queue_of(site, need.queue)
    return tuple(r for r in allowed if asked is not None and r.queue == asked.name)


def reservation_limit(need: Need, reservation: ReservationFacts) -> str:
    """Which property of the reservation, apart from its window, forbids it."""
    needs, name = f"needs {count(need.resources.nodes, 'node')}", reservation.name
    if not _allowed(need, reservation):
        return f"reservation {name} is for {', '.join(reservation.experiments)}"
    if need.resources.nodes > reservation.nodes:
        return f"{needs}; reservation {name} has {reservation.nodes}"
    if reservation.free_nodes is not None and need.resources.nodes > reservation.free_nodes:
        return f"{needs}; reservation {name} has {max(reservation.free_nodes, 0) or 'none'} free"
    return ""


def _allowed(need: Need, reservation: ReservationFacts) -> bool:
    return not reservation.experiments or any(fnmatchcase(need.experiment, p) for p in reservation.experiments)
