"""What is to become of each copy, and why: the plan. It is made of records alone and changes nothing.

Whatever the rules say, a copy stays that is pinned, that a run which is not `done` was given, or that too few other
places hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum

from msgspec import Struct

from orchestrator.catalog import policy as policies
from orchestrator.catalog.copies import Copies
from orchestrator.catalog.policy import Policy, Rule
from orchestrator.model import RUN_ENDED, RunStatus
from orchestrator.store import catalog
from orchestrator.store import retention as store
from orchestrator.store.catalog import CatalogFile, Replica, ReplicaState
from orchestrator.store.database import Database
from orchestrator.store.retention import Use

THERE = frozenset({ReplicaState.VERIFIED, ReplicaState.UNVERIFIED})  # may be looked at, and found right
_ENDED = frozenset(status.value for status in RUN_ENDED)


class Verdict(StrEnum):
    PRUNE = "prune"  # when the other copies are found right at that moment, it is removed
    ARCHIVE = "archive"  # copied to another place first; then as for `prune`
    KEEP = "keep"


class Planned(Struct, frozen=True):
    """A decision as it is told."""

    file: int
    experiment: str
    name: str
    kind: str
    bytes: int  # that get free, of a copy that goes
    place: str
    address: str
    verdict: Verdict
    reason: str
    rule: str = ""


class Decision(Struct, frozen=True):
    file: CatalogFile
    replica: Replica
    verdict: Verdict
    reason: str
    rule: Rule | None = None
    others: tuple[Replica, ...] = ()  # copies elsewhere that may count, the most trusted first

    @property
    def planned(self) -> Planned:
        file, replica = self.file, self.replica
        return Planned(
            file.id,
            file.experiment,
            file.name,
            file.kind.value,
            file.size,
            replica.place,
            replica.address,
            self.verdict,
            self.reason,
            self.rule.name if self.rule else "",
        )


class Facts(Struct, frozen=True):
    """What is known of a file beside its copies."""

    uses: Sequence[Use] = ()
    pinned: str = ""  # by what; empty: it is not


def decide(
    file: CatalogFile,
    replica: Replica,
    *,
    copies: Sequence[Replica],
    facts: Facts,
    policy: Policy,
    now: float,
    refused: Callable[[Replica], str],
) -> Decision:
    """`copies`: all of the file; `refused`: why one cannot be touched from here, empty when it can."""
    rule = policy.rule(file, replica.place)

    def keep(reason: str) -> Decision:
        return Decision(file, replica, Verdict.KEEP, reason, rule)

    if reason := facts.pinned or ("this copy is pinned" if replica.pinned else ""):
        return keep(reason)
    if rule is None:
        return keep("no rule is about it")
    if rule.keep_s is None:
        return keep(f"rule {rule.name!r} keeps it for ever")
    if reason := in_use(facts.uses):
        return keep(reason)
    if reason := _too_young(file, facts.uses, rule, now):
        return keep(reason)
    if replica.state is ReplicaState.CORRUPTED:
        return keep("it was found corrupted: somebody has to look at it")
    if reason := refused(replica):
        return keep(reason)
    others, lacking = _others(replica, copies, rule)
    if not lacking:
        places = ", ".join(dict.fromkeys(other.place for other in others))
        return Decision(file, replica, Verdict.PRUNE, f"{rule.text}: {places}", rule, others)
    if rule.archive and rule.archive not in {other.place for other in others} | {replica.place}:
        reason = f"{lacking}; it is copied to {rule.archive!r} first"
        return Decision(file, replica, Verdict.ARCHIVE, reason, rule, others)
    return keep(lacking)


def in_use(uses: Sequence[Use]) -> str:
    """A failed or aborted run may be tried again, until somebody dismisses it or another run has done its work."""
    for use in uses:
        if use.status == RunStatus.DONE:
            continue
        if use.status not in _ENDED:
            return f"run {use.run_id} uses it and is {use.status}"
        made_good = any(
            other.status == RunStatus.DONE and other.workflow == use.workflow and other.created_at >= use.created_at
            for other in uses
        )
        if not (use.dismissed or made_good):
            return f"run {use.run_id} was given it and is {use.status}, not done"
    return ""


def _too_young(file: CatalogFile, uses: Sequence[Use], rule: Rule, now: float) -> str:
    assert rule.keep_s is not None
    if file.added_at > now:
        return "it came later than it is now by this host's clock: one of the clocks is wrong"
    if (left := file.added_at + rule.keep_s - now) > 0:
        return f"it stays {left / 86400:.1f} days more: keep {rule.keep_s / 86400:g} days"
    last = max((use.ended_at for use in uses), default=0.0)
    if last and (left := last + rule.grace_s - now) > 0:
        return f"it stays {left / 86400:.1f} days more: its last run ended less than {rule.grace_s / 86400:g} days ago"
    return ""


def _others(replica: Replica, copies: Sequence[Replica], rule: Rule) -> tuple[tuple[Replica, ...], str]:
    """The copies elsewhere that may count, and what is lacking."""
    among = [
        copy
        for copy in copies
        if copy.place != replica.place
        and copy.state in THERE
        and (not rule.elsewhere or copy.place in rule.elsewhere or copy.place in rule.each)
    ]
    among.sort(key=lambda c: (c.place not in rule.each, c.state is not ReplicaState.VERIFIED, -c.verified_at))
    places = {copy.place for copy in among}
    if missing := [place for place in rule.each if place not in places]:
        return tuple(among), f"there is no copy at {', '.join(missing)}" + _bad(copies)
    counted = {place for place in places if not rule.elsewhere or place in rule.elsewhere}
    if len(counted) < rule.copies:
        return tuple(among), f"{len(counted)} of {rule.copies} copies elsewhere" + _bad(copies)
    return tuple(among), ""


def _bad(copies: Sequence[Replica]) -> str:
    bad = [f"{c.place} is {c.state.value}" for c in copies if c.state in (ReplicaState.CORRUPTED, ReplicaState.MISSING)]
    return f" ({', '.join(bad)})" if bad else ""


# --------------------------------------------------------------------------------------------------------- plan


class Planning:
    """Decisions about the copies in a store."""

    def __init__(self, database: Database, policy: Policy, copies: Copies) -> None:
        self._database, self._policy, self._copies = database, policy, copies
        self._of: dict[str, Policy] = {}  # by experiment
        self._given: store.Given | None = None

    def plan(self, *, experiment: str = "", site: str = "", now: float) -> Iterator[Decision]:
        """One decision for each copy that is there, some files at a time. Raises SettingsError for a wrong rule."""
        with self._database.read() as connection:
            self._given = store.Given(connection)
        for files in store.pages(self._database, experiment):
            for decisions in self.of(files, now=now).values():
                yield from (d for d in decisions if not site or d.replica.place == site)

    def of(self, files: Sequence[CatalogFile], *, now: float) -> dict[int, list[Decision]]:
        copies: dict[int, list[Replica]] = {file.id: [] for file in files}
        for replica in catalog.replicas(self._database, list(copies)):
            copies[replica.file_id].append(replica)
        with self._database.read() as connection:
            paths = {file.id: paths_of(file, copies[file.id]) for file in files}
            uses = store.uses(connection, paths, self._given)
            pinned = store.pinned(connection, files)
        return {
            file.id: [
                decide(
                    file,
                    replica,
                    copies=copies[file.id],
                    facts=Facts(uses[file.id], pinned.get(file.id, "")),
                    policy=self._policy_of(file.experiment),
                    now=now,
                    refused=self._refused,
                )
                for replica in copies[file.id]
                if replica.state in THERE or replica.state is ReplicaState.CORRUPTED
            ]
            for file in files
        }

    def _policy_of(self, experiment: str) -> Policy:
        if experiment not in self._of:
            said = store.policy_of(self._database, experiment)
            self._of[experiment] = self._policy.before(policies.of_experiment(experiment, said))
        return self._of[experiment]

    def _refused(self, replica: Replica) -> str:
        found = self._copies.refused(replica.place, replica.address)
        return f"{found[0].value}: {found[1]}" if found else ""


def paths_of(file: CatalogFile, copies: Sequence[Replica]) -> list[str]:
    """Under which a run may have been given the file."""
    return sorted({path for path in (file.name, *(copy.address for copy in copies)) if path.startswith("/")})
