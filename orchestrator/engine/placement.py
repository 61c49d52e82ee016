"""Where a stage with `site: auto` goes: to the site with the least predicted turnaround. Pure: no I/O, no clock.

Predicted turnaround = transfer of the input + wait in the queue + computing. Every queue and reservation that could
take the stage is a candidate, and so is, with the reason, what could not: the table is kept, so that the choice can be
read afterwards and compared with what came of it. Rules:

* The job is handed in when its data are there; what is asked of a queue's or a reservation's window counts from then.
* Nothing runs into a maintenance: what would be cut by one starts after it. A reservation cannot wait, so it is out.
* Totals within 5 s or 2 % are as good as equal: then the cheaper one wins, then the one named first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from orchestrator import codec
from orchestrator.engine.place_estimates import (
    Correction,
    Estimate,
    compute,
    corrected,
    correction,
    transfer,
    wait,
)
from orchestrator.engine.place_facts import (
    Closed,
    Need,
    NodeFacts,
    QueueFacts,
    ReservationFacts,
    SiteFacts,
    queue_of,
    walltime_s,
)
from orchestrator.engine.place_limits import (
    closed_now,
    fits,
    limit,
    policy,
    queues_for,
    reservation_limit,
    reservations_for,
    unknown_words,
)
from orchestrator.engine.place_words import duration, moment
from orchestrator.store.measured import PlacementRow, Rate, Timing, Wait

EQUAL_S = 5.0
EQUAL = 0.02


class Candidate(Struct, frozen=True):
    """One way to run the stage. `excluded` says why it is none; its times count for nothing then."""

    site: str
    queue: str = ""
    reservation: str = ""
    transfer_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0
    total_s: float = 0.0
    transfer_basis: str = ""
    queue_basis: str = ""
    compute_basis: str = ""
    walltime_s: float = 0.0  # what the job asks for
    cost: float = 1.0
    note: str = ""  # what a person should know of it
    excluded: str = ""
    again_at: float = 0.0  # when the exclusion ends by itself; 0: not known
    raw_queue_s: float = -1.0  # the wait before its correction; below 0: set by a window, nothing to learn from it


class Placement(Struct, frozen=True):
    """What was chosen, and all that was looked at: the chosen one first, then by total, the excluded ones last."""

    at: float
    chosen: Candidate | None = None
    table: tuple[Candidate, ...] = ()
    workflow: str = ""
    stage: str = ""
    again_at: float = 0.0  # nothing could be chosen: when it is worth asking again; 0: not known


# ------------------------------------------------------------------------------------------------------------ choice


def choose(
    need: Need,
    sites: Sequence[SiteFacts],
    *,
    now: float,
    history: Sequence[Timing] = (),
    rates: Mapping[tuple[str, str], Rate] | None = None,
    corrections: Mapping[str, Correction] | None = None,
) -> Placement:
    """The best candidate and the table. Raises nothing: where none is possible, `chosen` is None."""
    found: list[Candidate] = []
    for site in sites:
        if need.site in ("", "auto", site.name):
            by = (corrections or {}).get(site.name, Correction())
            found += _candidates(_Asked(need, site, history, rates or {}, by, now))
    return _ranked(Placement(now, workflow=need.workflow, stage=need.stage), found)


def fallback(placement: Placement, failed: Collection[str]) -> Placement:
    """The choice among the rest. `failed` names sites, or one queue or reservation of a site as `site/name`."""
    left = [_without(c, failed) for c in placement.table]
    return _ranked(placement, left)


def _without(c: Candidate, failed: Collection[str]) -> Candidate:
    names = {c.site, f"{c.site}/{c.reservation or c.queue}"}
    return replace(c, excluded="was tried and failed") if not c.excluded and names & set(failed) else c


def _ranked(placement: Placement, candidates: Iterable[Candidate]) -> Placement:
    listed = list(candidates)
    possible = sorted((c for c in listed if not c.excluded), key=_total)
    excluded = [c for c in listed if c.excluded]
    if not possible:
        ends = [c.again_at for c in excluded if c.again_at > 0]
        return replace(placement, chosen=None, table=tuple(excluded), again_at=min(ends, default=0.0))
    least = possible[0].total_s
    near = [c for c in listed if not c.excluded and c.total_s <= least + max(EQUAL_S, EQUAL * least)]
    chosen = min(near, key=lambda c: c.cost)  # the first of the cheapest, in the order given
    rest = [c for c in possible if c is not chosen]
    return replace(placement, chosen=chosen, table=(chosen, *rest, *excluded), again_at=0.0)


def _total(c: Candidate) -> float:
    return c.total_s


# -------------------------------------------------------------------------------------------------------- candidates


class _Asked(Struct, frozen=True):
    """One question: this need, at this site."""

    need: Need
    site: SiteFacts
    history: Sequence[Timing]
    rates: Mapping[tuple[str, str], Rate]
    correction: Correction
    now: float


def _candidates(asked: _Asked) -> list[Candidate]:
    need, site = asked.need, asked.site
    refused = policy(need, site) or unknown_words(need, site)
    if refused:
        return [Candidate(site.name, excluded=refused)]
    refused, again_at = closed_now(site, asked.now)
    if refused:
        return [Candidate(site.name, excluded=refused, again_at=again_at)]
    moved = transfer(need, site, asked.rates)
    if moved is None:
        return [Candidate(site.name, excluded="does not see the input files, and its profile has no door for data")]
    listed = [_in_reservation(asked, moved, r) for r in reservations_for(need, site)]
    if need.reservation in ("", "auto", "none"):
        listed += [_in_queue(asked, moved, q) for q in queues_for(need, site)]
    return listed


def _in_queue(asked: _Asked, moved: Estimate, queue: QueueFacts | None) -> Candidate:
    need, site, now = asked.need, asked.site, asked.now
    candidate = Candidate(
        site.name,
        queue.name if queue is not None else "",
        cost=queue.cost if queue is not None else 1.0,
        walltime_s=walltime_s(need, queue),
    )
    refused = limit(need, site, queue)
    if not refused and queue is not None and not queue.open:
        refused = f"{queue.name} takes no jobs now"
    if refused:
        return replace(candidate, excluded=refused)
    raw = wait(need, site, queue, asked.history, now=now)
    waits = corrected(raw, asked.correction)
    ready = now + moved.seconds + waits.seconds
    took = compute(need, site, asked.history, queue)
    start, closed = _outside(site.maintenance, ready, candidate.walltime_s or took.seconds)
    learn = raw.seconds if site.scheduler or queue is not None else -1.0
    if closed is not None:
        learn = -1.0
        why = f"{waits.basis}; cannot end before maintenance, so after {moment(closed.until_at, now)}"
        waits = Estimate(waits.seconds + start - ready, why)
    return _timed(replace(candidate, raw_queue_s=learn), moved, waits, took)


def _in_reservation(asked: _Asked, moved: Estimate, reservation: ReservationFacts) -> Candidate:
    need, site, now = asked.need, asked.site, asked.now
    queue = queue_of(site, reservation.queue) if reservation.queue else None
    candidate = Candidate(
        site.name,
        reservation.queue,
        reservation.name,
        cost=queue.cost if queue is not None else 1.0,
        walltime_s=walltime_s(need, queue),
    )
    took = compute(need, site, asked.history, queue)
    wall, name = candidate.walltime_s or took.seconds, reservation.name
    refused = limit(need, site, queue) if queue is not None else fits(need, site)  # without: the site's usual queue
    refused = refused or reservation_limit(need, reservation)
    ready = now + moved.seconds
    start = max(ready, reservation.from_at)
    if not refused and reservation.until_at and start + wall > reservation.until_at:
        closes = moment(reservation.until_at, now)
        if reservation.until_at <= now:
            refused = f"reservation {name} was over at {closes}"
        else:
            late = f" after {duration(moved.seconds)} of transfer" if moved.seconds >= 1 else ""
            refused = f"reservation {name} closes at {closes}; {duration(wall)} do not fit{late}"
    closed = _outside(site.maintenance, start, wall)[1]
    if not refused and closed is not None:
        refused = f"reservation {name} would be cut by maintenance at {moment(closed.from_at, now)}"
    if refused:
        return replace(candidate, excluded=refused)
    opens = f"reservation {name} opens at {moment(start, now)}"
    basis = opens if start > ready else f"reservation {name} is open"
    return _timed(candidate, moved, Estimate(start - ready, basis), took)


def _timed(candidate: Candidate, moved: Estimate, waits: Estimate, took: Estimate) -> Candidate:
    note = ""
    if candidate.walltime_s and took.seconds > candidate.walltime_s:
        note = f"may be cut: {duration(took.seconds)} predicted, {duration(candidate.walltime_s)} of walltime"
    return replace(
        candidate,
        transfer_s=moved.seconds,
        queue_s=waits.seconds,
        compute_s=took.seconds,
        total_s=moved.seconds + waits.seconds + took.seconds,
        transfer_basis=moved.basis,
        queue_basis=waits.basis,
        compute_basis=took.basis,
        note=note,
    )


def _outside(closed: Sequence[Closed], start: float, length: float) -> tuple[float, Closed | None]:
    """The first moment from `start` on with `length` outside every maintenance, and the last one waited for."""
    waited = None
    for window in sorted(closed, key=_begin):
        if window.from_at < start + length and start < window.until_at:
            start, waited = window.until_at, window
    return start, waited


def _begin(closed: Closed) -> float:
    return closed.from_at


# ---------------------------------------------------------------------------------------------------------- learning


def row(placement: Placement, run_id: str, attempt: int) -> PlacementRow:
    """The choice as the store keeps it."""
    c = placement.chosen or Candidate("")
    return PlacementRow(
        run_id,
        placement.stage,
        attempt,
        placement.at,
        c.site,
        codec.dumps(placement),
        queue=c.queue,
        reservation=c.reservation,
        predicted_transfer_s=c.transfer_s,
        predicted_queue_s=c.queue_s,
        predicted_compute_s=c.compute_s,
        raw_queue_s=c.raw_queue_s,
    )


def read(stored: PlacementRow) -> Placement:
    return codec.loads(stored.doc, Placement)


def corrections(waits: Mapping[str, Sequence[Wait]]) -> dict[str, Correction]:
    """Per site, from `history.waits`."""
    return {site: correction(some) for site, some in waits.items()}


__all__ = [
    "Candidate",
    "Closed",
    "Correction",
    "Need",
    "NodeFacts",
    "Placement",
    "QueueFacts",
    "Rate",
    "ReservationFacts",
    "SiteFacts",
    "Timing",
    "choose",
    "corrections",
    "fallback",
    "fits",
    "read",
    "row",
]
