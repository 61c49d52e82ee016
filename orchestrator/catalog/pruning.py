"""Copies removed, each only when as many others as its rule says have just been read and found right.

    note      the removal is on the disk before anything is touched; one at a time for each file
    look      at the copies that it rests on, then at the copy itself: size and checksum, read afresh
    aside     the copy gets another name in its folder, by rename. It must be what was looked at, and the others must
              still be there: one that goes with it was the same file by another way
    record    in one transaction with a last look at who uses the file: the copy is pruned, with the evidence
    remove    what was set aside

The files of a scan take each step together, so that at a place they are recorded as pruned all or none. Killed at any
point, the next one goes on: what is recorded is removed, what is not gets its name back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from orchestrator.catalog import servers
from orchestrator.catalog.archiving import Archiving
from orchestrator.catalog.book import Book, Done, done
from orchestrator.catalog.content import TELLING
from orchestrator.catalog.copies import Copies, Look, Trouble
from orchestrator.catalog.copies import aside as aside_name
from orchestrator.catalog.retention import THERE, Decision, Planning, Verdict, facts_of, in_use, of_scan
from orchestrator.errors import BeamwayError, Unavailable
from orchestrator.outside import effect
from orchestrator.store import catalog, scans
from orchestrator.store import retention as store
from orchestrator.store.catalog import CatalogFile, Replica, ReplicaState
from orchestrator.store.retention import Removal
from orchestrator.transfer import checksums
from orchestrator.transfer.base import TransferCancelled


class Going(Struct):
    """A copy on its way out, with what was seen of it and of those that it rests on."""

    file: CatalogFile
    replica: Replica
    decision: Decision | None = None
    shared: Sequence[Decision] = ()  # about other files, of another experiment perhaps, whose copy is this very one
    looks: list[Look] = []
    own: Look | None = None

    @property
    def spot(self) -> tuple[str, str, int]:
        return self.replica.place, self.replica.address, self.file.id

    @property
    def reason(self) -> str:
        return self.decision.reason if self.decision else ""

    def done(self, verdict: str, reason: str, *, size: int = 0) -> Done:
        return done(self.file, *self.spot[:2], verdict, reason, looks=self.looks, size=size)


class Pruning:
    def __init__(
        self, book: Book, planning: Planning, copies: Copies, archiving: Archiving, cancelled: Callable[[], bool]
    ) -> None:
        self._book, self._planning, self._copies, self._archiving = book, planning, copies, archiving
        self._cancelled = cancelled
        self._stuck: set[int] = set()  # files with an earlier removal that cannot go on

    def apply(self, *, experiment: str = "", site: str = "", rehearse: bool = False) -> Iterator[Done]:
        """What became of each copy that was to go or to be archived. With `rehearse` all is looked at and nothing
        removed or copied. Raises SettingsError for a wrong rule."""
        if not rehearse:
            yield from self.go_on()
        for decisions in self._planning.rounds(experiment=experiment, site=site, now=self._book.clock()):
            if self._cancelled():
                return
            scan = [each for each in decisions if each.verdict is not Verdict.KEEP]
            if self._stuck.intersection(each.file.id for each in scan):
                continue
            if rehearse:
                yield from self._rehearsed(scan)
                continue
            archived = [self._archived(each) for each in scan if each.verdict is Verdict.ARCHIVE]
            yield from archived
            if scan and all(each.good for each in archived):
                yield from self._prune([Going(each.file, each.replica) for each in scan])

    def go_on(self) -> Iterator[Done]:
        """What an earlier one was killed over."""
        for removal in store.removals(self._book.database, self._book.holder):
            settled = self._settled(removal)
            if not settled.good:
                self._stuck.add(removal.file_id)
            yield settled

    # ---- the copies of a scan at one place, most often of one file

    def _prune(self, scan: Sequence[Going]) -> list[Done]:
        if taken := self._note(scan):
            which, other = taken
            reason = f"its copy at {other.place!r} is being removed by {other.holder}"
            return self._refused(scan, reason, which, noted=False)
        # Since the plan was made a run may have begun, or another copy may have gone.
        if against := self._against(scan):
            return self._kept(scan, *against)
        try:
            bad = self._look(scan)
        except TransferCancelled:
            self._end(scan)
            raise
        if bad is not None:
            return self._refused(scan, _why(_bad(bad.looks), bad.replica), bad)
        for number, each in enumerate(scan):
            try:
                self._copies.set_aside(*each.spot)
            except BeamwayError as error:  # a lost answer may hide that it has its new name
                return self._back(scan, f"it cannot be removed: {error.sentence}", each, renamed=number + 1)
        which = scan[0]
        try:
            reason, which = self._differs(scan) or self._record(scan) or ("", which)
        except Unavailable as error:  # it may be recorded all the same
            return [each.done("unfinished", f"{error.sentence} The next one goes on.") for each in scan]
        except BeamwayError as error:
            reason = error.sentence.rstrip(".")
        if reason:
            return self._back(scan, reason, which)
        return self._removed(scan)

    def _note(self, scan: Sequence[Going]) -> tuple[Going, Removal] | None:
        book = self._book
        with effect("removal.note"), book.database.write() as connection:
            for number, each in enumerate(sorted(scan, key=lambda e: e.file.id)):  # two that meet do so at the first
                place, at, file_id = each.spot
                other = store.begin_removal(connection, Removal(file_id, place, at, book.holder, book.clock()))
                if other is not None:
                    for before in sorted(e.file.id for e in scan)[:number]:
                        store.end_removal(connection, before)
                    return each, other
        return None

    def _against(self, scan: Sequence[Going]) -> tuple[str, Going] | None:
        """Why one of these is to stay by now, and which."""
        now = self._book.clock()
        decided = self._planning.of([each.file for each in scan], now=now)
        others = {each.file.id: self._same_copy(each) for each in scan}
        there = [other for some in others.values() for other in some]
        shared = self._planning.of(there, now=now) if there else {}
        for each in scan:
            again = next((d for d in decided.get(each.file.id, ()) if _same(d, each.replica)), None)
            if again is None or again.verdict is not Verdict.PRUNE:
                return again.reason if again else "it is not there any more", each
            each.decision = again
            each.shared = [d for o in others[each.file.id] for d in shared.get(o.id, ()) if _same(d, each.replica)]
            if other := next((d for d in each.shared if d.verdict is not Verdict.PRUNE), None):
                reason = f"file {other.file.id} of {other.file.experiment!r} has its copy there too: {other.reason}"
                return reason, each
        return None

    def _same_copy(self, each: Going) -> list[CatalogFile]:
        """Other files of the catalog whose copy is this very one."""
        found = catalog.at(self._book.database, each.replica.place, each.replica.address)
        return [other for other in found if other.id != each.file.id and other.checksum == each.file.checksum]

    def _look(self, scan: Sequence[Going]) -> Going | None:
        """At all that these rest on, up to the first that is not right: that is given."""
        for each in scan:
            assert each.decision is not None
            each.looks, each.own = self._looks(each.decision)
            if each.own is not None and not each.own.trouble:
                each.looks += self._looks_of_others(each.shared, each.looks)
            if any(look.trouble for look in each.looks):
                return each
        return None

    def _looks_of_others(self, shared: Sequence[Decision], looks: Sequence[Look]) -> list[Look]:
        """At the copies that those rest on, as far as nobody has looked."""
        seen = {(look.place, look.address) for look in looks}
        wanted = {_key(r): d.file for d in shared for r in _rested_on(d) if _key(r) not in seen}
        return [self._copies.look(file, place, at) for (place, at), file in wanted.items()]

    def _archived(self, decision: Decision) -> Done:
        assert decision.rule is not None
        return self._archiving.archive(decision.file, decision.rule.archive)

    def _rehearsed(self, decisions: Sequence[Decision]) -> list[Done]:
        scan = [Going(d.file, d.replica, d) for d in decisions]
        told = [
            each.done("would archive", d.reason, size=d.file.size)
            for each, d in zip(scan, decisions, strict=True)
            if d.verdict is Verdict.ARCHIVE
        ]
        going = [each for each in scan if each.decision and each.decision.verdict is Verdict.PRUNE]
        if bad := self._look(going):
            return told + self._refused(going, _why(_bad(bad.looks), bad.replica), bad, noted=False)
        with self._book.database.write() as connection:
            for each in going:
                self._book.looked(connection, each.file, each.looks)
        return told + [each.done("would prune", each.reason, size=each.file.size) for each in going]

    def _looks(self, decision: Decision) -> tuple[list[Look], Look | None]:
        """At the copies that it rests on, and at the copy itself where those are right.

        A server that does not tell the file's kind of checksum is asked for another kind, which is taken of the copy
        itself while that is compared: so it need not be read over the wire.
        """
        file, replica, copies = decision.file, decision.replica, self._copies
        own_kind = checksums.kind_of(file.checksum)
        later: dict[tuple[str, str], str] = {}
        for other in _rested_on(decision):
            told = [kind for kind in TELLING if kind in copies.kinds(other.place, other.address)]
            if told and own_kind not in told:
                later[_key(other)] = told[0]
        first = [other for other in _rested_on(decision) if _key(other) not in later]
        looks = [copies.look(file, other.place, other.address) for other in first]
        if any(look.trouble for look in looks):
            return looks, None
        own, twins = copies.look_here(file, replica.place, replica.address, sorted(set(later.values())))
        looks.append(own)
        if own.trouble:
            return looks, None
        for other in _rested_on(decision):
            if _key(other) in later:
                looks.append(copies.look(file, other.place, other.address, twins=twins))
        return [_of_its_own(look, looks) for look in looks], own

    def _differs(self, scan: Sequence[Going]) -> tuple[str, Going] | None:
        """What is not as it was looked at, now that the copies are set aside."""
        copies = self._copies
        for each in scan:
            assert each.own is not None
            if copies.aside(*each.spot) != each.own.stamp:
                return "it was written or replaced while it was compared: it is not the file any more", each
            for look in each.looks:
                if look is not each.own and not copies.still(look):
                    reason = f"the copy at {look.place!r} was not to be seen any more with it away"
                    return f"{reason}: it may be the same file", each
        return None

    def _record(self, scan: Sequence[Going]) -> tuple[str, Going] | None:
        """All are pruned, unless somebody has begun to use one: then the reason."""
        book = self._book
        gone = [(each, d) for each in scan for d in (each.decision, *each.shared) if d is not None]
        with book.database.read() as connection:
            files = [f for whole in scans.whole(connection, (d.file for _, d in gone)).values() for f in whole]
        copies = {file.id: book.copies(file) for file in files}
        with effect("removal.record"), book.database.write() as connection:
            facts = facts_of(connection, files, copies)
            for each, d in gone:
                if reason := in_use(facts[d.file.id].uses) or facts[d.file.id].pinned:
                    return reason, each
            for each, d in gone:
                assert each.own is not None
                assert d.rule is not None
                book.looked(connection, d.file, each.looks)
                own = each.own.record
                state = replace(d.replica, state=ReplicaState.PRUNED, verified_at=book.clock(), seen=own)
                catalog.put_replica(connection, state)
                seen = [look.record for look in each.looks]
                evidence = {"address": d.replica.address, "policy": d.rule.text, "looks": seen}
                book.write(connection, d.file, d.replica.place, "pruned", d.reason, evidence)
        return None

    def _removed(self, scan: Sequence[Going], reason: str = "") -> list[Done]:
        told, gone = [], []
        for each in scan:
            try:
                self._copies.remove(*each.spot)
            except BeamwayError as error:
                left = aside_name(each.replica.address, each.file.id)
                words = f"it is recorded as pruned, and what is left of it at '{left}' could not be removed: {error}"
                told.append(each.done("unfinished", words))
                continue
            gone.append(each)
            told.append(each.done("pruned", reason or each.reason, size=each.file.size))
        self._end(gone)
        return told

    # ---- what does not go

    def _refused(
        self, scan: Sequence[Going], reason: str, which: Going, *, noted: bool = True, verdict: str = "refused"
    ) -> list[Done]:
        """`which` of them the reason is about; it is that of all."""
        book, told = self._book, []
        with effect("removal.note"), book.database.write() as connection:
            for each in scan:
                why = of_scan(each.file, which.file, reason)
                evidence = {"address": each.replica.address, "looks": [look.record for look in each.looks]}
                book.looked(connection, each.file, each.looks)
                book.write(connection, each.file, each.replica.place, verdict, why, evidence)
                if noted:
                    store.end_removal(connection, each.file.id)
                told.append(each.done(verdict, why))
        return told

    def _kept(self, scan: Sequence[Going], reason: str, which: Going) -> list[Done]:
        return self._refused(scan, reason, which, verdict="kept")

    def _back(
        self, scan: Sequence[Going], reason: str, which: Going, *, renamed: int = -1, verdict: str = "refused"
    ) -> list[Done]:
        """Those of them that are set aside, which are among the first `renamed`, get their names again."""
        back, told = [], []
        for each in scan if renamed < 0 else scan[:renamed]:
            why, left = of_scan(each.file, which.file, reason), aside_name(each.replica.address, each.file.id)
            try:
                if not self._copies.aside(*each.spot) or self._copies.put_back(*each.spot):
                    back.append(each)
                    continue
                more = f"it is now at '{left}', because another file has its name"
            except BeamwayError as error:
                more = f"it is still at '{left}': {error.sentence}"
            told.append(each.done("unfinished", f"{why}; {more}"))
        back += scan[renamed:] if renamed >= 0 else ()
        return told + self._refused(back, reason, which, verdict=verdict)

    # ---- going on

    def _settled(self, removal: Removal) -> Done:
        book, place, at = self._book, removal.place, removal.address
        file = catalog.get(book.database, removal.file_id)
        known = next((r for r in book.copies(file) if _key(r) == (place, at)), Replica(file.id, place, at))
        each = Going(file, known)
        try:
            left = self._copies.aside(*each.spot)
            if known.state is ReplicaState.PRUNED:
                [told] = self._removed([each], "begun before, and recorded then")
            elif left:
                reason = "an earlier removal was cut off before it was recorded"
                [told] = self._back([each], reason, each, verdict="put back")
            else:
                [told] = self._kept([each], "an earlier removal was cut off before anything was touched", each)
        except BeamwayError as error:
            return each.done("unfinished", f"an earlier removal cannot go on: {error.sentence}")
        return told

    def _end(self, scan: Sequence[Going]) -> None:
        with effect("removal.note"), self._book.database.write() as connection:
            for each in scan:
                store.end_removal(connection, each.file.id)


def _bad(looks: Sequence[Look]) -> Look:
    return next(look for look in looks if look.trouble)


def _key(replica: Replica) -> tuple[str, str]:
    return replica.place, replica.address


def _same(decision: Decision, replica: Replica) -> bool:
    return _key(decision.replica) == _key(replica) and decision.replica.state in THERE


def _rested_on(decision: Decision) -> list[Replica]:
    """As few copies as the rule wants, one a place, the most trusted."""
    rule = decision.rule
    assert rule is not None
    best = {other.place: other for other in reversed(decision.others)}
    chosen = {place: best[place] for place in rule.each}
    for other in decision.others:
        counted = sum(not rule.elsewhere or place in rule.elsewhere for place in chosen)
        if counted >= rule.copies:
            break
        if not rule.elsewhere or other.place in rule.elsewhere:
            chosen.setdefault(other.place, best[other.place])
    return list(chosen.values())


def _of_its_own(look: Look, looks: Sequence[Look]) -> Look:
    """The look; with the trouble when the same file was looked at by another name."""
    for other in looks[: looks.index(look)]:
        if look.trouble or other.trouble:
            continue
        if (_server(other), other.stamp) == (_server(look), look.stamp):
            return replace(look, trouble=Trouble.REFUSED, why=f"it is the same file as '{other.address}'")
    return look


def _server(look: Look) -> str:
    return servers.server_and_path(look.address)[0]


def _why(look: Look, replica: Replica) -> str:
    which = "the copy itself" if (look.place, look.address) == _key(replica) else f"the copy at {look.place!r}"
    assert look.trouble is not None
    return f"{which} ({look.address}) is {look.trouble.value}: {look.why}"
