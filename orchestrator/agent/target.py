"""Where at its site an attempt goes: pilot or batch, which queue, account and reservation, for how long. Pure.

A reservation is used while it is there, large enough and not full. Else the steps of the profile's `policies.fallback`
are taken in turn: wait so long for it to come back, then a queue, then another site. Each says so in a sentence.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from orchestrator.errors import nearest
from orchestrator.jobs import Reservation
from orchestrator.model import FailureClass, Order, Outcome, Resources

if TYPE_CHECKING:
    from sites.schema import Queue, SiteProfile
    from sites.schema import Reservation as Known

MARGIN_S = 30.0  # of a reservation's end, to end in order


class Shape(Struct, frozen=True):
    """What one worker holds."""

    nodes: int = 1
    ranks_per_node: int = 1
    cores: int = 1  # of one node
    gpus: int = 0  # of one node
    memory_bytes: int = 0  # of one node


class Target(Struct, frozen=True):
    mode: str
    shape: Shape
    queue: str = ""  # its name in the profile
    partition: str = ""  # what the submit command is told of it
    qos: str = ""
    options: tuple[str, ...] = ()
    account: str = ""
    reservation: str = ""
    walltime_s: float = 0.0  # of a job of its own
    longest_s: float = 0.0  # that the queue or the reservation allows; 0: no limit known
    from_at: float = 0.0  # when the reservation opens
    until: float = 0.0  # when it closes; 0: none, or not known
    note: str = ""  # why it goes elsewhere than was asked


class Hold(Struct, frozen=True):
    """Not now: `sentence` says what it waits for; look again at `until`."""

    sentence: str
    until: float


def shape_of(resources: Resources) -> Shape:
    per_node = resources.ranks_per_node
    return Shape(
        resources.nodes,
        per_node,
        per_node * resources.cores_per_rank,
        per_node * resources.gpus_per_rank,
        int(resources.memory_bytes * resources.larger),
    )


def resolve(
    order: Order,
    profile: SiteProfile,
    reservations: Mapping[str, Reservation] | None,
    *,
    now: float,
    gone_since: float = 0.0,
    full: Collection[str] = (),
) -> Target | Hold | Outcome:
    """`reservations` as the scheduler has them, None when it has not said yet; `gone_since` when the one that is asked
    for was first missed; `full`: those in which work has waited longer than the policy says. An Outcome says that the
    site cannot have it.
    """
    window = _maintenance(profile, now)
    if window is not None:
        return window
    asked = order.placing.reservation or _own(order, profile, reservations, now, full)
    if not asked:
        return _target(order, profile, order.placing.queue)
    known = next((r for r in profile.reservations if r.name == asked), None)
    there = _seen(asked, known, reservations, now)
    if there is None:
        return Hold(f"asks whether reservation {asked!r} is there", now + 2.0)
    if asked in full:
        return _without(order, profile, f"reservation {asked!r} is full", now=now)
    if there.node_count and order.resources.nodes > there.node_count:
        return _without(order, profile, f"reservation {asked!r} has only {there.node_count} nodes", now=now)
    if not _usable(there, order.resources, now):
        since = gone_since or min(now, there.until_at or now)  # one that is over may still be listed
        return _without(order, profile, f"reservation {asked!r} is gone", now=now, gone_since=since)
    queue = order.placing.queue or (known.queue if known else "") or there.queue
    account = known.account if known else ""
    return _target(order, profile, queue, reservation=there, account=account, now=now)


def _maintenance(profile: SiteProfile, now: float) -> Hold | None:
    for window in profile.maintenance:
        if window.from_.timestamp() <= now < window.until.timestamp():
            until = window.until.timestamp()
            return Hold(f"{window.reason} at {profile.name} until {clock(until, now)}", until)
    return None


def patience_s(profile: SiteProfile) -> float | None:
    """How long work may wait for room in an open reservation before the policy's next step; None: for ever."""
    from sites import rules

    waited_s = 0.0
    for step in [rules.fallback(text) for text in profile.policies.fallback]:
        if step.kind != "wait":
            return waited_s
        waited_s += step.seconds
    return None


def _own(
    order: Order, profile: SiteProfile, there: Mapping[str, Reservation] | None, now: float, full: Collection[str]
) -> str:
    """A reservation of the profile that is open, ours, and has room in size and time: nobody has to ask for it."""
    for known in profile.reservations:
        seen = _seen(known.name, known, there, now)
        ours = not known.experiments or order.experiment in known.experiments
        wanted_s = order.resources.walltime_s or 0.0
        open_now = seen is not None and seen.active and (not seen.until_at or now + wanted_s < seen.until_at - MARGIN_S)
        if ours and open_now and known.name not in full and seen is not None and _usable(seen, order.resources, now):
            return known.name
    return ""


def _seen(name: str, known: Known | None, there: Mapping[str, Reservation] | None, now: float) -> Reservation | None:
    """The reservation as the scheduler has it, else as the profile; not active and empty when it is gone."""
    if there is not None:
        return there.get(name, Reservation(name, until_at=now))
    if known is not None and known.from_ and known.until:
        from_at, until_at = known.from_.timestamp(), known.until.timestamp()
        return Reservation(name, from_at, until_at, node_count=known.nodes, active=from_at <= now < until_at)
    return None


def _usable(seen: Reservation, resources: Resources, now: float) -> bool:
    over = bool(seen.until_at) and now >= seen.until_at - MARGIN_S
    return not over and (not seen.node_count or resources.nodes <= seen.node_count)


def _without(
    order: Order, profile: SiteProfile, why: str, *, now: float, gone_since: float = 0.0
) -> Target | Hold | Outcome:
    """The next step of the policy. `gone_since`: when waiting began; 0 when it is of no use, or over."""
    from sites import rules

    waited_until = gone_since
    for step in [rules.fallback(text) for text in profile.policies.fallback]:
        if step.kind == "wait":
            waited_until += step.seconds
            if gone_since and now < waited_until:
                return Hold(f"{why}; waits for it until {clock(waited_until, now)}", waited_until)
        elif step.kind == "site":
            return Outcome(FailureClass.RESERVATION, f"{why}, so it goes to site {step.name!r}", elsewhere=step.name)
        else:
            return _target(order, profile, step.name, note=f"{why}, so it goes to queue {step.name!r}")
    return _target(order, profile, order.placing.queue, note=f"{why}, so it goes to the regular queue")


def _target(
    order: Order,
    profile: SiteProfile,
    wanted: str,
    *,
    reservation: Reservation | None = None,
    account: str = "",
    note: str = "",
    now: float = 0.0,
) -> Target | Outcome:
    queue = profile.queue(wanted)
    theirs = reservation.queue if reservation is not None else ""  # the scheduler has named it: it is there
    if queue is None and wanted and wanted != theirs and profile.queues:
        known = [q.name for q in profile.queues] + sorted({q.use for q in profile.queues})
        sentence = f"site {profile.name!r} has no queue {wanted!r}.{nearest(wanted, known)} It has: {', '.join(known)}"
        return Outcome(FailureClass.USER, sentence)
    longest_s = queue.max_walltime_s if queue is not None else 0.0
    until = reservation.until_at if reservation is not None else 0.0
    if reservation is not None and until:
        # Schedulers count in minutes, and a job that could outlast its reservation never starts in it.
        left_s = max(60.0, (until - MARGIN_S - max(now, reservation.from_at)) // 60 * 60)
        longest_s = min(longest_s, left_s) if longest_s else left_s
    return Target(
        order.placing.mode or profile.execution.mode,
        shape_of(order.resources),
        queue=queue.name if queue is not None else wanted,
        partition=queue.partition if queue is not None else wanted,
        qos=queue.qos if queue is not None else "",
        options=tuple(queue.options) if queue is not None else (),
        account=order.placing.account or account or profile.accounts.default,
        reservation=reservation.name if reservation is not None else "",
        walltime_s=_walltime_s(order.resources, queue, longest_s),
        longest_s=longest_s,
        from_at=reservation.from_at if reservation is not None else 0.0,
        until=until,
        note=note,
    )


def _walltime_s(resources: Resources, queue: Queue | None, longest_s: float) -> float:
    default_s = queue.default_walltime_s if queue is not None else 3600.0
    wanted_s = (resources.walltime_s or default_s) * resources.longer
    return min(wanted_s, longest_s) if longest_s else wanted_s


def clock(at: float, now: float) -> str:
    """`14:00`, or with the day when it is not today, in local time."""
    today = time.localtime(at)[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M" if today else "%d %b %H:%M", time.localtime(at))
