"""One watched directory: its scans, the files that wait to become whole, and what was decided about the others.

Only fingerprints and a clock that never steps decide; the times that files and machines carry do not. What waits is
kept in memory only, and no more than `MOST_WAITING` files of it: whatever is forgotten the next scan finds again.
"""

from __future__ import annotations

import heapq
import itertools
import math
import posixpath
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import structlog

from orchestrator.arrival import trigger
from orchestrator.arrival.contents import Reader
from orchestrator.arrival.evidence import Evidence
from orchestrator.arrival.known import Known
from orchestrator.arrival.rules import WatchFile
from orchestrator.arrival.scan import BATCH, Batch, Found, Root
from orchestrator.arrival.trigger import Claim, Rule
from orchestrator.errors import BeamwayError, SettingsError
from orchestrator.store.arrivals import BEFORE, Arrival, ArrivalState, digest_of, keyed
from orchestrator.store.scans import PartFile, together
from orchestrator.store.watches import Watch

MOST_WAITING = 50_000
FOLLOWED = 1000  # folders, about
HINTED = 5  # batches of a folder that a hint names; the next scan finds the rest
STEP_S = 0.25  # after so long a step ends, so that other trees have theirs
DECISIONS = 2000  # that one step hands over, about
PAUSE_S = 1.0  # between scans, and three times what the last one took
AGAIN_S, AGAIN_MOST_S, LISTED_MOST_S = 0.1, 10.0, 300.0
SLACK_S = 2.0  # between our clock and that of a file system
BIG = 16 << 20  # bytes; the sum of such a file is made aside

log = structlog.get_logger()


@dataclass(slots=True)
class Waiting:
    found: Found
    since: float  # unchanged, as far as we saw
    scan: int  # the last that saw it
    look: float = 0.0  # when it is looked at next
    fresh: bool = True  # it was not looked at yet
    listed: bool = False  # as incomplete
    scanned: Future[tuple[str, tuple[PartFile, ...]]] | None = None


def opened(watch: Watch) -> Root:
    """The root of a watch. Numbers of devices change when a machine is started again; a file system whose root is the
    same as before keeps the number by which its files are known. Raises SettingsError."""
    root = Root(watch.directory)
    if watch.device and root.inode == watch.inode:
        root.device = watch.device
    return root


class Tree:
    """Does a little at each `step`. `version` says what a rule's workflow is called, `NAME@VERSION`, or raises why it
    cannot run."""

    def __init__(
        self,
        watch: Watch,
        file: WatchFile,
        root: Root,
        *,
        reader: Reader,
        aside: Executor,
        version: Callable[[Rule], str],
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.watch, self.file, self.root = watch, file, root
        self.known = Known()
        self._asleep = Known()  # incomplete ones that are too many to be looked at again
        self.troubles: dict[str, str] = {}  # places that could not be looked at, in the last whole scan
        self.scans = 0  # whole ones
        self.scanned_at, self.scan_s = 0.0, 0.0  # when the last of them was over, and what it took
        self._evidence = Evidence(root, reader)
        self._aside, self._version, self._clock, self._now = aside, version, clock, now
        self._whole = self._room = False  # the last scan, and the one that goes on: there was room for all they found
        self._waiting: dict[bytes, Waiting] = {}
        self._looks: list[tuple[float, bytes]] = []  # a heap of when to look again
        self._listed = self._fresh = 0
        self._gone = ""  # why there is nothing to look at
        self._decided: list[Arrival] = []
        self._scan: Iterator[Batch] | None = None
        self._took_s, self._next_scan, self._first = 0.0, 0.0, clock()
        self._troubles: dict[str, str] = {}
        self.folders: list[tuple[int, str]] = []  # those that changed last; see `hints`
        self._folders: list[tuple[int, str]] = []

    @property
    def waiting(self) -> int:
        """How many files are not decided yet, as far as they are kept in mind."""
        return len(self._waiting)

    @property
    def over(self) -> bool:
        """Whether it has been watched for as long as asked; counted anew by whoever goes on with it."""
        if self.file.once and self._whole and not self._decided and len(self._waiting) == self._listed:
            return True
        return bool(self.file.for_hours) and self._clock() >= self._first + 3600 * self.file.for_hours

    @property
    def next_s(self) -> float:
        """Seconds until there is something to do."""
        if self._scan is not None and not self._behind:
            return 0.0
        scan = self._next_scan if self._scan is None else math.inf
        look = self._looks[0][0] if self._looks and not self._gone else self._next_scan
        return max(0.0, min(look, scan) - self._clock())

    def step(self, hints: Sequence[str] = ()) -> list[Arrival]:
        """Scan on, look at what hints name and at what is due; gives what was decided, to be written down."""
        self._gone = self.root.gone()
        for name in hints if self.scans and not self._gone else ():
            self._hinted(name)
        if self._scan is None and self._clock() >= self._next_scan:
            self._begin_scan()
        if self._scan is not None and len(self._decided) < DECISIONS and not self._behind:
            self._scan_on(self._scan)
        if not self._gone:  # held open it could be looked at, but a run would find nothing under its name
            self._look()
        decided, self._decided = self._decided, []
        return decided

    def written(self, arrivals: Sequence[Arrival]) -> None:
        """These decisions are on the disk."""
        for arrival in arrivals:
            if arrival.state is not ArrivalState.INCOMPLETE:
                self.known.add(arrival.place)

    def missing(self, arrival: Arrival) -> str:
        """Why its run would not find it under its name as it is; empty when it would."""
        if gone := self.root.gone():
            return gone
        there = self.root.look(arrival.name)
        same = there is not None and there.fingerprint == arrival.fingerprint
        return "" if same else "it was changed, renamed or removed before its run began"

    # ---- scans

    def _begin_scan(self) -> None:
        self._took_s = 0.0
        self._troubles, self._folders = {}, []
        if self._gone:
            self.troubles = {"": self._gone}
            self._next_scan = self._clock() + PAUSE_S
            self._reopen()
            return
        self._scan, self._room = self.root.scan(), True

    def _reopen(self) -> None:
        try:
            root = opened(self.watch)
        except SettingsError:
            return
        log.warning("watch.reopened", watch=self.watch.name, directory=self.root.path)
        self.root.close()
        self.root = root
        self._evidence.look_at(root)

    @property
    def _behind(self) -> bool:
        """Whether a scan would find more than can be looked at or kept in mind now. It goes on in any case when each
        that waits was looked at, so that files that do not become whole hide no others, and when nothing can be."""
        if self._gone or not self._fresh:
            return False
        late = bool(self._looks) and self._looks[0][0] <= self._clock() and self._fresh >= DECISIONS
        return late or len(self._waiting) + BATCH > MOST_WAITING

    def _scan_on(self, scan: Iterator[Batch]) -> None:
        begun = self._clock()
        batch = next(scan, None)
        if batch is not None:
            self._take(batch)
            self._folders = heapq.nlargest(FOLLOWED, self._folders + batch.folders)
            self._troubles |= {t.name: t.reason for t in batch.troubles[: 1000 - len(self._troubles)]}
            self._took_s += self._clock() - begun
            return
        self._scan = None
        self.scans += 1
        self._whole = self._room
        self.troubles, self.folders = self._troubles, self._folders
        for place in [p for p, w in self._waiting.items() if w.scan < self.scans]:
            self._forget(place)  # changed, renamed or gone; under its new fingerprint it waits anew
        self.scanned_at, self.scan_s = self._now(), self._took_s
        self._next_scan = self._clock() + max(PAUSE_S, 3 * self.scan_s)

    def _before(self, found: Found) -> bool:
        """Whether it was there before the watch began and is to be left alone: what the first whole scan finds, unless
        it has come since, as the file system says. When clocks differ, rather too much runs than too little."""
        if self.file.existing or self.watch.baseline_at or self.scans:
            return False
        return found.ctime_ns < (self.watch.created_at - SLACK_S) * 1e9

    def _take(self, batch: Batch) -> None:
        places = [digest_of(f.name, f.fingerprint) for f in batch.files]
        for found, place, known in zip(batch.files, places, self.known.of(places), strict=True):
            if not known:
                self._meet(found, place)
        marks = [(odd.device, odd.inode, 0, 0) for odd in batch.odd]
        places = [digest_of(odd.name, mark) for odd, mark in zip(batch.odd, marks, strict=True)]
        for odd, mark, place, known in zip(batch.odd, marks, places, self.known.of(places), strict=True):
            if not known:
                self._ignore(Found(odd.name, *mark), place, odd.reason)

    def _hinted(self, name: str) -> None:
        found = self.root.look(name)
        if found is not None:
            self._take(Batch([found]))
        else:
            for batch in itertools.islice(self.root.scan(name), HINTED):
                self._take(batch)
                newest = {folder: at for at, folder in [*self.folders, *batch.folders]}
                self.folders = heapq.nlargest(FOLLOWED, ((at, folder) for folder, at in newest.items()))

    def _meet(self, found: Found, place: bytes) -> None:
        waiting = self._waiting.get(place)
        if waiting is not None:
            waiting.scan = self.scans + 1
            return
        if len(self._asleep) and self._asleep.of([place])[0]:
            return
        if self._before(found):
            self._ignore(found, place, BEFORE)
            return
        some, reason = trigger.claims(self.file.rules, found.name)
        if not some:
            self._ignore(found, place, reason)
        elif len(self._waiting) < MOST_WAITING:
            waiting = self._waiting[place] = Waiting(found, self._clock(), self.scans + 1)
            self._fresh += 1
            self._look_at(waiting, place, some[0].rule.need.settle_s)
        else:
            self._room = False

    def _forget(self, place: bytes) -> None:
        gone = self._waiting.pop(place, None)
        if gone is not None:
            self._listed -= gone.listed
            self._fresh -= gone.fresh

    # ---- what waits

    def _look(self) -> None:
        begun = now = self._clock()
        while self._looks and self._looks[0][0] <= now < begun + STEP_S and len(self._decided) < DECISIONS:
            at, place = heapq.heappop(self._looks)
            waiting = self._waiting.get(place)
            if waiting is None or waiting.look != at:
                continue
            self._fresh -= waiting.fresh
            waiting.fresh = False
            again_s = self._judge(waiting, place)
            if again_s is None:
                self._forget(place)
            else:
                self._look_at(waiting, place, again_s)
            now = self._clock()

    def _look_at(self, waiting: Waiting, place: bytes, after_s: float) -> None:
        waiting.look = self._clock() + after_s
        heapq.heappush(self._looks, (waiting.look, place))

    def _judge(self, waiting: Waiting, place: bytes) -> float | None:
        """Seconds until the next look at it; None when it waits no more."""
        found = self.root.look(waiting.found.name)
        if found is None or found.fingerprint != waiting.found.fingerprint:
            if found is not None:
                self._forget(place)
                self._take(Batch([found]))
            return None
        still_s = self._clock() - waiting.since
        try:
            reason, wait_s = self._decide(waiting, place, still_s)
        except (BeamwayError, OSError) as error:  # it went away in this moment, it or its workflow may not be read
            waiting.scanned = None
            reason, wait_s = error.sentence if isinstance(error, BeamwayError) else str(error), 0.0
        if not reason:
            return None
        some, _ = trigger.claims(self.file.rules, found.name)
        patience_s = max(claim.rule.need.patience_s for claim in some) - still_s
        if not waiting.listed and patience_s <= 0.0:
            self._add(found, place, ArrivalState.INCOMPLETE, reason=reason, rule=some[0].rule)
            waiting.listed = True
            self._listed += 1
            if self._listed > MOST_WAITING // 2:
                self._asleep.add(place)  # only a change or a hand wakes it
                return None
        most_s = LISTED_MOST_S if waiting.listed else min(AGAIN_MOST_S, patience_s)
        return max(wait_s, min(most_s, max(AGAIN_S, still_s / 4)))

    def _decide(self, waiting: Waiting, place: bytes, still_s: float) -> tuple[str, float]:
        """Why it is not whole and when that may change; both empty when it was decided. Raises InputError."""
        found = waiting.found
        some, _ = trigger.claims(self.file.rules, found.name)
        against = []
        for claim in some:
            verdict = self._evidence.judge(found, claim, still_s, self._part_ready)
            if not verdict.whole:
                return verdict.reason, verdict.wait_s
            if claim.part:
                self._ignore(found, place, f"part of the scan {claim.part!r}, which runs as a whole", claim.rule)
                return "", 0.0
            values, broken = self._evidence.values(found, claim.rule.values)
            if broken:
                return broken, 0.0
            objection = trigger.objection(claim.rule, found.size, values)
            if not objection:
                return self._run(waiting, place, claim, values)
            against.append(objection if len(self.file.rules) == 1 else f"rule {claim.rule.name!r}: {objection}")
        self._ignore(found, place, "; ".join(against))
        return "", 0.0

    def _run(self, waiting: Waiting, place: bytes, claim: Claim, values: dict[str, object]) -> tuple[str, float]:
        found, rule = waiting.found, claim.rule
        if rule.parts is None and (found.size < BIG or not rule.checksum):
            checksum, parts = self._evidence.scan(found, claim)
        else:
            waiting.scanned = waiting.scanned or self._aside.submit(self._evidence.scan, found, claim)
            if not waiting.scanned.done():
                return "its checksum is being made", AGAIN_S
            checksum, parts = waiting.scanned.result()
        path = posixpath.join(self.root.path, found.name)
        arguments, lacking = trigger.arguments(claim, path, values, checksum)
        if lacking:
            return lacking, 0.0
        self._add(found, place, ArrivalState.DUE, rule=rule, arguments=arguments, checksum=checksum, parts=parts)
        return "", 0.0

    def _workflow(self, rule: Rule, state: ArrivalState) -> str:
        """With its version, without which nothing is due: it says what has run before."""
        try:
            return self._version(rule)
        except BeamwayError:
            if state is ArrivalState.DUE:
                raise
            return f"{rule.workflow}@"

    def _part_ready(self, part: Found) -> str:
        """A part is ready when it was decided, as what it is now."""
        place = digest_of(part.name, part.fingerprint)
        if self.known.of([place])[0]:
            return ""
        if any(a.place == place and a.state is not ArrivalState.INCOMPLETE for a in self._decided):
            return ""
        return "not whole yet"

    def _ignore(self, found: Found, place: bytes, reason: str, rule: Rule | None = None) -> None:
        self._add(found, place, ArrivalState.IGNORED, reason=reason, rule=rule)

    def _add(
        self,
        found: Found,
        place: bytes,
        state: ArrivalState,
        *,
        reason: str = "",
        rule: Rule | None = None,
        arguments: dict[str, str] | None = None,
        checksum: str = "",
        parts: tuple[PartFile, ...] = (),
    ) -> None:
        now = self._now()
        arrival = Arrival(
            self.watch.name,
            self.watch.experiment,
            place,
            found.name,
            found.fingerprint,
            state,
            reason=reason,
            rule=rule.name if rule else "",
            workflow=self._workflow(rule, state) if rule else "",
            arguments=arguments or {},
            checksum=checksum,
            parts=together(parts),
            part_files=parts,
            seen_at=now,
            decided_at=now,
        )
        self._decided.append(keyed(arrival) if state is ArrivalState.DUE else arrival)
