"""What is to become of each copy, and why: the plan. It is made of records alone and changes nothing.

Whatever the rules say, a copy stays that is pinned, that a run which is not `done` was given, or that too few other
places hold.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection

from orchestrator.catalog import policy as policies
from orchestrator.catalog.copies import Copies
from orchestrator.catalog.policy import Policy, Rule
from orchestrator.model import RUN_ENDED, RunStatus
from orchestrator.store import catalog, scans
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
    """What is known of a file beside its copies, or of another one of its scan."""

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
        for scan in self._scans(experiment, now):
            yield from (d for d in scan if not site or d.replica.place == site)

    def rounds(self, *, experiment: str = "", site: str = "", now: float) -> Iterator[list[Decision]]:
        """The same, those together that go together: of a scan one copy of each file at a place."""
        for scan in self._scans(experiment, now):
            found: dict[tuple[str, int], list[Decision]] = {}
            seen = Counter[tuple[str, int]]()
            for each in scan:
                if not site or each.replica.place == site:
                    copy = (each.replica.place, each.file.id)
                    found.setdefault((each.replica.place, seen[copy]), []).append(each)
                    seen[copy] += 1
            yield from found.values()

    def of(self, files: Sequence[CatalogFile], *, now: float) -> dict[int, list[Decision]]:
        """Those about the scans of these files, by the number of the file."""
        with self._database.read() as connection:
            all_files = [file for scan in scans.whole(connection, files).values() for file in scan]
        found: dict[int, list[Decision]] = {file.id: [] for file in all_files}
        for scan in self._decided(all_files, now):
            for each in scan:
                found[each.file.id].append(each)
        return found

    def _scans(self, experiment: str, now: float) -> Iterator[list[Decision]]:
        with self._database.read() as connection:
            self._given = store.Given(connection)
        for files in store.pages(self._database, experiment):
            yield from self._decided(files, now)

    def _decided(self, files: Sequence[CatalogFile], now: float) -> Iterator[list[Decision]]:
        """Of each scan; what is superseded does not stay for the sake of what is not."""
        copies: dict[int, list[Replica]] = {file.id: [] for file in files}
        for some in scans.slices(copies):
            for replica in catalog.replicas(self._database, some):
                copies[replica.file_id].append(replica)
        with self._database.read() as connection:
            facts = facts_of(connection, files, copies, self._given)
        together: dict[tuple[int, bool], list[Decision]] = {}
        for file in files:
            together.setdefault((file.part_of or file.id, file.superseded_at > 0), []).extend(
                decide(
                    file,
                    replica,
                    copies=copies[file.id],
                    facts=facts[file.id],
                    policy=self._policy_of(file.experiment),
                    now=now,
                    refused=self._refused,
                )
                for replica in copies[file.id]
                if replica.state in THERE or replica.state is ReplicaState.CORRUPTED
            )
        return (_agreed(scan) for scan in together.values())

    def _policy_of(self, experiment: str) -> Policy:
        if experiment not in self._of:
            said = store.policy_of(self._database, experiment)
            self._of[experiment] = self._policy.before(policies.of_experiment(experiment, said))
        return self._of[experiment]

    def _refused(self, replica: Replica) -> str:
        found = self._copies.refused(replica.place, replica.address)
        return f"{found[0].value}: {found[1]}" if found else ""


def facts_of(
    connection: Connection,
    files: Sequence[CatalogFile],
    copies: Mapping[int, Sequence[Replica]],
    given: store.Given | None = None,
) -> dict[int, Facts]:
    """A run that was given one file of a scan uses all of it, and a pin on one is on all. `files`: whole scans."""
    uses = store.uses(connection, {file.id: paths_of(file, copies[file.id]) for file in files}, given)
    pinned = store.pinned(connection, files)
    uses_of: dict[int, dict[str, Use]] = {}
    pin_of: dict[int, CatalogFile] = {}
    for file in files:
        master = file.part_of or file.id
        uses_of.setdefault(master, {}).update({use.run_id: use for use in uses[file.id]})
        if file.id in pinned:
            pin_of.setdefault(master, file)
    found = {}
    for file in files:
        master = file.part_of or file.id
        pin = pinned.get(file.id, "")
        if not pin and master in pin_of:
            pin = of_scan(file, pin_of[master], pinned[pin_of[master].id])
        found[file.id] = Facts(tuple(uses_of[master].values()), pin)
    return found


def of_scan(file: CatalogFile, other: CatalogFile, reason: str) -> str:
    """A reason of one file of a scan, as it is told of another."""
    return reason if file.id == other.id else f"file {other.id} of its scan ({os.path.basename(other.name)}): {reason}"


def _agreed(scan: Sequence[Decision]) -> list[Decision]:
    """Where one of its files stays, all do."""
    files = {each.file.id for each in scan}
    stays: dict[str, Decision] = {}
    for each in scan if len(files) > 1 else ():
        if each.verdict is Verdict.KEEP:
            stays.setdefault(each.replica.place, each)
    return [
        replace(each, verdict=Verdict.KEEP, reason=of_scan(each.file, one.file, one.reason))
        if each.verdict is not Verdict.KEEP and (one := stays.get(each.replica.place))
        else each
        for each in scan
    ]


def paths_of(file: CatalogFile, copies: Sequence[Replica]) -> list[str]:
    """Under which a run may have been given the file."""
    return sorted({path for path in (file.name, *(copy.address for copy in copies)) if path.startswith("/")})
