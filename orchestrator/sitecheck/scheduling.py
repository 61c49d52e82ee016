"""Does the scheduler answer, and does it have the queues, accounts and reservations of the profile?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.errors import nearest
from orchestrator.jobs import JobSpec, Queue, Refused, Reservation, Scheduler, SchedulerSilent
from orchestrator.sitecheck.record import Check, NotDone, Result, Wrong, made, skipped

if TYPE_CHECKING:
    from sites import schema
    from sites.schema import SiteProfile

TRIAL_S = 300.0  # walltime of the job that is only asked about; sites refuse shorter ones
_MOST_NAMED = 8


def checks(profile: SiteProfile, scheduler: Scheduler | None, refused: str, now: float) -> Iterator[Check]:
    contact = profile.identity.contact
    later = ["account", *(f"queue {q.name}" for q in profile.queues), *_reservation_names(profile)]
    if scheduler is None:
        seen = refused or f"the scheduler {profile.scheduler.kind!r} is not built yet"
        yield Check("scheduler", Result.FAILED, seen=seen, remedy="Set scheduler.kind to one that is: slurm, sge, pbs.")
        yield from skipped(later, "there is no scheduler to ask")
        return
    remedy = f"Are its commands there (scheduler.bin, scheduler.environment), and is it up? Call {contact}."
    answer = made("scheduler", scheduler.ping, remedy)
    yield answer
    if answer.result is not Result.PASSED:
        yield from skipped(later, "the scheduler does not answer")
        return
    there: dict[str, Queue] | None = None
    try:
        there = scheduler.queues()
    except SchedulerSilent as silent:
        yield from skipped([f"queue {q.name}" for q in profile.queues], silent.sentence)
    account = made("account", lambda: _account(profile, scheduler, there or {}), remedy)
    yield account
    charged = profile.accounts.default if account.result is not Result.FAILED else ""
    for number, queue in enumerate(profile.queues if there is not None else ()):
        yield made(
            f"queue {queue.name}",
            partial(_queue, profile, scheduler, number, queue, there or {}, charged),
            remedy,
        )
    if profile.reservations:
        yield from _reservations(profile, scheduler, now)


def trial(profile: SiteProfile, queue: schema.Queue | None, *, account: str) -> JobSpec:
    """A small job there, as the scheduler would be asked for it."""
    nodes = queue.min_nodes if queue else 1
    most = queue.max_walltime_s if queue else 0.0
    return JobSpec(
        token="beamway-check",
        script="exit 0\n",
        stdout="/dev/null",
        stderr="/dev/null",
        queue=queue.partition if queue else "",
        qos=queue.qos if queue else "",
        account=account,
        nodes=nodes,
        gpus_per_node=profile.node_of(queue).gpus,
        walltime_s=max(min(TRIAL_S, most or TRIAL_S), queue.min_walltime_s if queue else 0.0),
        exclusive=profile.execution.exclusive,
        options=(*profile.scheduler.options, *(queue.options if queue else ())),
    )


def _account(profile: SiteProfile, scheduler: Scheduler, there: dict[str, Queue]) -> str:
    accounts = profile.accounts
    used = {"accounts.default": accounts.default} | {
        f"accounts.allowed[{n}]": a for n, a in enumerate(accounts.allowed)
    }
    used |= {f"reservations[{n}].account": r.account for n, r in enumerate(profile.reservations)}
    used = {key: name for key, name in used.items() if name}
    known = scheduler.accounts()
    if known is None and used:
        return _account_by_trial(profile, scheduler, there)
    missing = {key: name for key, name in used.items() if known is not None and name not in known}
    if missing:
        ours = _few(known or ()) or "none"
        keys = " and ".join(missing)
        words = " and ".join(f"account {name!r}" for name in dict.fromkeys(missing.values()))
        suggestion = nearest(next(iter(missing.values())), known or ())
        raise Wrong(
            f"{words} cannot be charged by this user; {ours} can",
            f"Change {keys}, or ask {profile.identity.contact} to be added.{suggestion}",
        )
    if not used:
        return "none named: the scheduler's default is charged"
    return ", ".join(dict.fromkeys(used.values()))


def _account_by_trial(profile: SiteProfile, scheduler: Scheduler, there: dict[str, Queue]) -> str:
    """The scheduler keeps no list of accounts, but it may refuse a job that names a wrong one."""
    usable = [q for q in profile.queues if not q.partition or (q.partition in there and there[q.partition].open)]
    spec = trial(profile, usable[0] if usable else None, account=profile.accounts.default)  # else its default queue
    try:
        at = scheduler.starts_at(spec)
    except Refused as refused:
        remedy = f"Change accounts.default, or ask {profile.identity.contact} to be added to {spec.account!r}."
        raise Wrong(refused.sentence, remedy) from refused
    if at is None:
        raise NotDone(f"the scheduler lists no accounts; whether {spec.account!r} may be charged shows when a job runs")
    return f"a job for {spec.account} would be taken"


def _queue(
    profile: SiteProfile,
    scheduler: Scheduler,
    number: int,
    queue: schema.Queue,
    there: dict[str, Queue],
    account: str,
) -> str:
    key = f"queues[{number}]"
    contact = profile.identity.contact
    parts = []
    if queue.partition:
        found = there.get(queue.partition)
        if found is None:
            raise Wrong(
                f"the scheduler has no queue {queue.name!r}; it has {_few(there) or 'none'}",
                f"Change {key}.name; where only a QOS is given to the scheduler, set {key}.named to false."
                f"{nearest(queue.name, there)}",
            )
        if not found.open:
            raise Wrong(
                "it is closed: it takes or starts no jobs", f"Call {contact}, or take {key} out of the profile."
            )
        if found.walltime_s and queue.max_walltime_s > found.walltime_s:
            raise Wrong(
                f"its longest job is {found.walltime_s:g} s, and the profile says {queue.max_walltime_s:g}",
                f"Set {key}.max_walltime_s to {found.walltime_s:g} or less.",
            )
        if found.nodes and queue.max_nodes > found.nodes:
            raise Wrong(
                f"it has {found.nodes} nodes, and the profile says a job may have {queue.max_nodes}",
                f"Set {key}.max_nodes to {found.nodes} or less.",
            )
        parts = ["open", f"{found.idle_nodes} of {found.nodes} nodes idle", f"{found.pending} jobs wait"]
    try:
        at = scheduler.starts_at(trial(profile, queue, account=account))
    except Refused as refused:
        words = " ".join(f"{key}.{name}" for name in ("qos", "options") if getattr(queue, name))
        keys = f"Change {words.replace(' ', ' or ')}" if words else "Look at scheduler.options and accounts.default"
        raise Wrong(f"a small job is refused: {refused.sentence}", f"{keys}, or call {contact}.") from refused
    if at is not None:
        parts.append(f"a small job would start {datetime.fromtimestamp(at, tz=UTC):%Y-%m-%d %H:%M} UTC")
    if not parts:
        raise NotDone("its name is only ours, and this scheduler does not say when a job would start")
    return ", ".join(parts)


def _reservation_names(profile: SiteProfile) -> list[str]:
    return [f"reservation {r.name}" for r in profile.reservations]


def _reservations(profile: SiteProfile, scheduler: Scheduler, now: float) -> Iterator[Check]:
    try:
        there = scheduler.reservations()
    except SchedulerSilent as silent:
        yield from skipped(_reservation_names(profile), silent.sentence)
        return
    for number, wanted in enumerate(profile.reservations):
        found = there.get(wanted.name)
        yield made(
            f"reservation {wanted.name}",
            partial(_reservation, profile, number, wanted, found, there, now),
        )


def _reservation(
    profile: SiteProfile,
    number: int,
    wanted: schema.Reservation,
    found: Reservation | None,
    there: dict[str, Reservation],
    now: float,
) -> str:
    key, contact = f"reservations[{number}]", profile.identity.contact
    over = wanted.until is not None and wanted.until.timestamp() <= now
    if found is None:
        if over:
            raise Wrong("it is over", f"Take {key} out of the profile.")
        raise Wrong(
            f"the scheduler does not know it; it has {_few(there) or 'none'}",
            f"Change {key}.name, or ask {contact} to make it.{nearest(wanted.name, there)}",
        )
    window = f"{_when(found.from_at)} to {_when(found.until_at)}"
    for field, stated, real in (
        ("from", wanted.from_, found.from_at),
        ("until", wanted.until, found.until_at),
    ):
        if stated is not None and real and abs(stated.timestamp() - real) > 60:
            raise Wrong(f"it is open {window}, and the profile says otherwise", f"Set {key}.{field} to {_when(real)}.")
    if found.until_at and found.until_at <= now:
        raise Wrong(f"it is over: {window}", f"Take {key} out of the profile.")
    if found.node_count and wanted.nodes > found.node_count:
        raise Wrong(f"it holds {found.node_count} nodes, and the profile says {wanted.nodes}", f"Change {key}.nodes.")
    state = "open now" if found.active else "not open yet"
    return f"{state}, {window}, {found.node_count or wanted.nodes} nodes"


def _when(at: float) -> str:
    return f"{datetime.fromtimestamp(at, tz=UTC):%Y-%m-%dT%H:%M:%SZ}" if at else "an unknown time"


def _few(names: object) -> str:
    listed = sorted(names)  # type: ignore[call-overload]
    more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
    return ", ".join(listed[:_MOST_NAMED]) + more
