"""What one key of a profile says about another: rules that no single field can hold, and the words of fallbacks.

Each broken rule is a pair (key, what is wrong with it); `sites.loader` makes the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.errors import SettingsError, nearest

if TYPE_CHECKING:
    from sites.schema import Queue, SiteProfile

Problem = tuple[str, str]

_UNITS = {
    "s": 1.0,
    "sec": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "days": 86400.0,
}
_WAIT = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*([a-z]+)")
_SITE = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Fallback:
    """One step of what happens when a reservation is gone or full."""

    kind: Literal["wait", "queue", "site"]
    seconds: float = 0.0  # of `wait`
    name: str = ""  # of `queue` (a name or a use) and of `site`


def fallback(text: str) -> Fallback:
    """`wait 10 min`, `queue realtime`, `site NAME`. Raises SettingsError with one clause."""
    kind, _, rest = " ".join(text.split()).partition(" ")
    if kind == "wait":
        match = _WAIT.fullmatch(rest)
        if match is None or match[2] not in _UNITS:
            raise SettingsError(f"{text!r} does not read `wait NUMBER UNIT` with a unit of s, min, h or d")
        return Fallback("wait", seconds=float(match[1]) * _UNITS[match[2]])
    if kind == "queue" and rest and " " not in rest:
        return Fallback("queue", name=rest)
    if kind == "site" and _SITE.fullmatch(rest):
        return Fallback("site", name=rest)
    suggestion = nearest(kind, ("wait", "queue", "site")) if kind not in ("queue", "site") else ""
    raise SettingsError(f"{text!r} is none of `wait 10 min`, `queue NAME_OR_USE` and `site NAME`.{suggestion}")


def broken(profile: SiteProfile) -> Iterator[Problem]:
    """Every rule that the profile breaks."""
    yield from _twice("queues", "name", [q.name for q in profile.queues])
    yield from _twice("reservations", "name", [r.name for r in profile.reservations])
    yield from _twice("paths.map", "here", [p.here for p in profile.paths.map])
    for number, queue in enumerate(profile.queues):
        yield from _queue(f"queues[{number}]", queue)
    yield from _windows(profile)
    yield from _reservations(profile)
    yield from _accounts(profile)
    yield from _blocks(profile)
    yield from _fallbacks(profile)
    for number, door in enumerate(profile.doors):
        if door.kind != "local" and not door.endpoint:
            yield f"doors[{number}].endpoint", f"is missing: a door of kind {door.kind!r} needs one"
        if door.kind == "gridftp" and door.endpoint and not re.fullmatch(r"(ftp://)?[^:/]+:\d{1,5}", door.endpoint):
            yield f"doors[{number}].endpoint", f"does not read HOST:PORT (it is {door.endpoint!r})"


def _twice(table: str, key: str, values: Sequence[str]) -> Iterator[Problem]:
    for number, value in enumerate(values):
        first = values.index(value)
        if first < number:
            yield f"{table}[{number}].{key}", f"is {value!r}, as that of {table}[{first}] is"


def _queue(where: str, queue: Queue) -> Iterator[Problem]:
    if queue.max_nodes and queue.max_nodes < queue.min_nodes:
        yield f"{where}.max_nodes", f"is below min_nodes of the same queue ({queue.max_nodes} < {queue.min_nodes})"
    if queue.max_walltime_s and queue.max_walltime_s < queue.default_walltime_s:
        default, most = queue.default_walltime_s, queue.max_walltime_s
        yield f"{where}.default_walltime_s", f"is above max_walltime_s of the same queue ({default:g} > {most:g})"
    if queue.min_walltime_s > queue.default_walltime_s:
        yield f"{where}.default_walltime_s", f"is below min_walltime_s of the same queue ({queue.min_walltime_s:g})"


def _windows(profile: SiteProfile) -> Iterator[Problem]:
    for number, pause in enumerate(profile.maintenance):
        if pause.until <= pause.from_:
            yield f"maintenance[{number}].until", "is not after its `from`"
    for number, reservation in enumerate(profile.reservations):
        if reservation.from_ and reservation.until and reservation.until <= reservation.from_:
            yield f"reservations[{number}].until", "is not after its `from`"


def _reservations(profile: SiteProfile) -> Iterator[Problem]:
    names = [q.name for q in profile.queues]
    for number, reservation in enumerate(profile.reservations):
        if reservation.queue and names and reservation.queue not in names:
            yield f"reservations[{number}].queue", _unknown("queue", reservation.queue, names)


def _accounts(profile: SiteProfile) -> Iterator[Problem]:
    allowed = profile.accounts.allowed
    named = [("accounts.default", profile.accounts.default)]
    named += [(f"reservations[{n}].account", r.account) for n, r in enumerate(profile.reservations)]
    for key, account in named:
        if account and allowed and account not in allowed:
            yield key, f"is {account!r}, which accounts.allowed does not list.{nearest(account, allowed)}"


def _blocks(profile: SiteProfile) -> Iterator[Problem]:
    queue, execution = profile.queue(), profile.execution
    if profile.local or queue is None or execution.mode != "pilot":
        return
    if queue.max_walltime_s and execution.block_walltime_s > queue.max_walltime_s:
        allowed = f"queue {queue.name!r} allows {queue.max_walltime_s:g}"
        yield "execution.block_walltime_s", f"is {execution.block_walltime_s:g}, and {allowed}"
    if queue.max_nodes and execution.block_nodes > queue.max_nodes:
        yield "execution.block_nodes", f"is {execution.block_nodes}, and queue {queue.name!r} allows {queue.max_nodes}"
    if execution.block_nodes < queue.min_nodes:
        least = f"queue {queue.name!r} takes no job of fewer than {queue.min_nodes} nodes"
        yield "execution.block_nodes", f"is {execution.block_nodes}, and {least}"


def _fallbacks(profile: SiteProfile) -> Iterator[Problem]:
    known = {word for q in profile.queues for word in (q.name, q.use)}
    for number, text in enumerate(profile.policies.fallback):
        where = f"policies.fallback[{number}]"
        try:
            step = fallback(text)
        except SettingsError as error:
            yield where, f"is wrong: {error.sentence}"
            continue
        if step.kind == "queue" and profile.queue(step.name) is None:
            yield where, _unknown("queue or use", step.name, known)
        if step.kind == "site" and step.name == profile.name:
            yield where, "names this site itself"


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    return f"names a {what} that this profile does not have, {name!r}.{nearest(name, known)}"
