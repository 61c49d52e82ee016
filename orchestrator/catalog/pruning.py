"""Copies removed, each only when as many others as its rule says have just been read and found right.

    note      the removal is on the disk before anything is touched; one at a time for each file
    look      at the copies that it rests on, then at the copy itself: size and checksum, read afresh
    aside     the copy gets another name in its folder, by rename. It must be what was looked at, and the others must
              still be there: one that goes with it was the same file by another way
    record    in one transaction with a last look at who uses the file: the copy is pruned, with the evidence
    remove    what was set aside

Killed at any point, the next one goes on: what is recorded is removed, what is not gets its name back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from msgspec.structs import replace

from orchestrator.catalog.archiving import Archiving
from orchestrator.catalog.book import Book, Done, done
from orchestrator.catalog.content import TELLING
from orchestrator.catalog.copies import Copies, Look, Trouble, server_of
from orchestrator.catalog.copies import aside as aside_name
from orchestrator.catalog.retention import THERE, Decision, Planning, Verdict, in_use, paths_of
from orchestrator.errors import BeamwayError, Unavailable
from orchestrator.outside import effect
from orchestrator.store import catalog
from orchestrator.store import retention as store
from orchestrator.store.catalog import CatalogFile, Replica, ReplicaState
from orchestrator.store.retention import Removal
from orchestrator.transfer import checksums
from orchestrator.transfer.base import TransferCancelled


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
        for decision in self._planning.plan(experiment=experiment, site=site, now=self._book.clock()):
            if self._cancelled():
                return
            if decision.verdict is Verdict.KEEP or decision.file.id in self._stuck:
                continue
            if rehearse:
                yield self._rehearsed(decision)
                continue
            if decision.verdict is Verdict.ARCHIVE:
                assert decision.rule is not None
                archived = self._archiving.archive(decision.file, decision.rule.archive)
                yield archived
                if not archived.good:
                    continue
            yield self._prune(decision.file, decision.replica)

    def go_on(self) -> Iterator[Done]:
        """What an earlier one was killed over."""
        for removal in store.removals(self._book.database, self._book.holder):
            settled = self._settled(removal)
            if not settled.good:
                self._stuck.add(removal.file_id)
            yield settled

    # ---- one copy

    def _prune(self, file: CatalogFile, replica: Replica) -> Done:
        place, at = replica.place, replica.address
        other = self._note(file, replica)
        if other is not None:
            reason = f"its copy at {other.place!r} is being removed by {other.holder}"
            return self._refused(file, replica, reason, (), noted=False)
        # Since the plan was made a run may have begun, or another copy may have gone.
        again = next((d for d in self._planning.of([file], now=self._book.clock())[file.id] if _same(d, replica)), None)
        if again is None or again.verdict is not Verdict.PRUNE:
            reason = again.reason if again else "it is not there any more"
            return self._let_be(file, replica, reason)
        shared = self._shared(file, replica)
        if other_keeps := next((d for d in shared if d.verdict is not Verdict.PRUNE), None):
            reason = f"file {other_keeps.file.id} of {other_keeps.file.experiment!r} has its copy there too: "
            return self._let_be(file, replica, reason + other_keeps.reason)
        try:
            looks, own = self._looks(again)
            if own is not None and not own.trouble:
                looks += self._looks_of_others(shared, looks)
        except TransferCancelled:
            self._end(file)
            raise
        if bad := next((look for look in looks if look.trouble), None):
            return self._refused(file, replica, _why(bad, replica), looks)
        assert own is not None
        try:
            self._copies.set_aside(place, at, file.id)
        except BeamwayError as error:
            return self._not_touched(file, replica, error, looks)
        try:
            reason = self._differs(file, own, looks)
            if not reason:
                reason = self._record(again, shared, looks)
        except Unavailable as error:  # it may be recorded all the same
            words = f"{error.sentence} The next one goes on."
            return done(file, place, at, "unfinished", words, looks=looks)
        except BeamwayError as error:
            reason = error.sentence.rstrip(".")
        if reason:
            return self._back(file, replica, reason, looks)
        return self._removed(file, replica, again.reason, looks)

    def _shared(self, file: CatalogFile, replica: Replica) -> list[Decision]:
        """What is decided of other files of the catalog whose copy is this very one: of another experiment, perhaps."""
        found = catalog.at(self._book.database, replica.place, replica.address)
        others = [other for other in found if other.id != file.id and other.checksum == file.checksum]
        decided = self._planning.of(others, now=self._book.clock()).values() if others else ()
        return [d for each in decided for d in each if _same(d, replica)]

    def _looks_of_others(self, shared: Sequence[Decision], looks: Sequence[Look]) -> list[Look]:
        """At the copies that those rest on, as far as nobody has looked."""
        seen = {(look.place, look.address) for look in looks}
        wanted = {_key(r): d.file for d in shared for r in _rested_on(d) if _key(r) not in seen}
        return [self._copies.look(file, place, at) for (place, at), file in wanted.items()]

    def _rehearsed(self, decision: Decision) -> Done:
        file, replica = decision.file, decision.replica
        if decision.verdict is Verdict.ARCHIVE:
            return done(file, replica.place, replica.address, "would archive", decision.reason, size=file.size)
        looks, _ = self._looks(decision)
        if bad := next((look for look in looks if look.trouble), None):
            return self._refused(file, replica, _why(bad, replica), looks, noted=False)
        with self._book.database.write() as connection:
            for look in looks:
                self._book.looked(connection, file, look)
        return done(file, replica.place, replica.address, "would prune", decision.reason, looks=looks, size=file.size)

    def _note(self, file: CatalogFile, replica: Replica) -> Removal | None:
        book = self._book
        removal = Removal(file.id, replica.place, replica.address, book.holder, book.clock())
        with effect("removal.note"), book.database.write() as connection:
            return store.begin_removal(connection, removal)

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

    def _differs(self, file: CatalogFile, own: Look, looks: Sequence[Look]) -> str:
        """What is not as it was looked at, now that the copy is set aside; empty: nothing."""
        copies = self._copies
        if copies.aside(own.place, own.address, file.id) != own.stamp:
            return "it was written or replaced while it was compared: it is not the file any more"
        for look in looks:
            if look is not own and not copies.still(look):
                return f"the copy at {look.place!r} was not to be seen any more with it away: it may be the same file"
        return ""

    def _record(self, decision: Decision, shared: Sequence[Decision], looks: Sequence[Look]) -> str:
        """The copy is pruned, unless somebody has begun to use it: then the reason."""
        replica, book = decision.replica, self._book
        gone = {d.file.id: d for d in (decision, *shared)}
        paths = {number: paths_of(d.file, book.copies(d.file)) for number, d in gone.items()}
        own = next(look for look in looks if (look.place, look.address) == _key(replica))
        seen = [look.record for look in looks]
        with effect("removal.record"), book.database.write() as connection:
            uses = store.uses(connection, paths)
            pinned = store.pinned(connection, [d.file for d in gone.values()])
            for number, each in gone.items():
                if reason := in_use(uses[number]) or pinned.get(number, ""):
                    return reason
                for look in looks:
                    book.looked(connection, each.file, look)
                state = replace(each.replica, state=ReplicaState.PRUNED, verified_at=book.clock(), seen=own.record)
                catalog.put_replica(connection, state)
                assert each.rule is not None
                evidence = {"address": replica.address, "policy": each.rule.text, "looks": seen}
                book.write(connection, each.file, replica.place, "pruned", each.reason, evidence)
        return ""

    def _removed(self, file: CatalogFile, replica: Replica, reason: str, looks: Sequence[Look]) -> Done:
        try:
            self._copies.remove(replica.place, replica.address, file.id)
        except BeamwayError as error:
            left = aside_name(replica.address, file.id)
            words = f"it is recorded as pruned, and what is left of it at '{left}' could not be removed: {error}"
            return done(file, replica.place, replica.address, "unfinished", words, looks=looks)
        self._end(file)
        return done(file, replica.place, replica.address, "pruned", reason, looks=looks, size=file.size)

    # ---- what does not go

    def _refused(
        self,
        file: CatalogFile,
        replica: Replica,
        reason: str,
        looks: Sequence[Look],
        *,
        noted: bool = True,
        verdict: str = "refused",
    ) -> Done:
        book = self._book
        evidence = {"address": replica.address, "looks": [look.record for look in looks]}
        with effect("removal.note"), book.database.write() as connection:
            for look in looks:
                book.looked(connection, file, look)
            book.write(connection, file, replica.place, verdict, reason, evidence)
            if noted:
                store.end_removal(connection, file.id)
        return done(file, replica.place, replica.address, verdict, reason, looks=looks)

    def _let_be(self, file: CatalogFile, replica: Replica, reason: str) -> Done:
        with effect("removal.note"), self._book.database.write() as connection:
            self._book.write(connection, file, replica.place, "kept", reason, {"address": replica.address})
            store.end_removal(connection, file.id)
        return done(file, replica.place, replica.address, "kept", reason)

    def _not_touched(self, file: CatalogFile, replica: Replica, error: BeamwayError, looks: Sequence[Look]) -> Done:
        """The rename failed; a lost answer may hide that it did not."""
        with suppress(BeamwayError):
            if not self._copies.aside(replica.place, replica.address, file.id):
                return self._refused(file, replica, f"it cannot be removed: {error.sentence}", looks)
        return self._back(file, replica, f"it cannot be removed: {error.sentence}", looks)

    def _back(
        self, file: CatalogFile, replica: Replica, reason: str, looks: Sequence[Look], *, verdict: str = "refused"
    ) -> Done:
        left = aside_name(replica.address, file.id)
        try:
            if self._copies.put_back(replica.place, replica.address, file.id):
                return self._refused(file, replica, reason, looks, verdict=verdict)
            more = f"it is now at '{left}', because another file has its name"
        except BeamwayError as error:
            more = f"it is still at '{left}': {error.sentence}"
        return done(file, replica.place, replica.address, "unfinished", f"{reason}; {more}", looks=looks)

    # ---- going on

    def _settled(self, removal: Removal) -> Done:
        book, place, at = self._book, removal.place, removal.address
        file = catalog.get(book.database, removal.file_id)
        replica = next((r for r in book.copies(file) if _key(r) == (place, at)), Replica(file.id, place, at))
        try:
            left = self._copies.aside(place, at, file.id)
            if replica.state is ReplicaState.PRUNED:
                return self._removed(file, replica, "begun before, and recorded then", ())
            if left:
                reason = "an earlier removal was cut off before it was recorded"
                return self._back(file, replica, reason, (), verdict="put back")
        except BeamwayError as error:
            return done(file, place, at, "unfinished", f"an earlier removal cannot go on: {error.sentence}")
        return self._let_be(file, replica, "an earlier removal was cut off before anything was touched")

    def _end(self, file: CatalogFile) -> None:
        with effect("removal.note"), self._book.database.write() as connection:
            store.end_removal(connection, file.id)


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
        if (server_of(other.address), other.stamp) == (server_of(look.address), look.stamp) and not look.trouble:
            return replace(look, trouble=Trouble.REFUSED, why=f"it is the same file as '{other.address}'")
    return look


def _why(look: Look, replica: Replica) -> str:
    which = "the copy itself" if (look.place, look.address) == _key(replica) else f"the copy at {look.place!r}"
    assert look.trouble is not None
    return f"{which} ({look.address}) is {look.trouble.value}: {look.why}"
