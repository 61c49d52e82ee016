"""Copies made: to an archive, and back from whichever copy is right. Each is read afresh before it is recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

from msgspec.structs import replace

from orchestrator.catalog.book import Book, Done, done
from orchestrator.catalog.content import TELLING
from orchestrator.catalog.copies import Copies, Look, Trouble, trouble_of
from orchestrator.catalog.retention import THERE
from orchestrator.catalog.servers import is_known
from orchestrator.errors import ArgumentError, BeamwayError, nearest
from orchestrator.outside import effect
from orchestrator.store import catalog
from orchestrator.store.catalog import CatalogFile, Replica, ReplicaState
from orchestrator.transfer import carry, disk
from orchestrator.transfer.base import TransferCancelled
from orchestrator.transfer.ends import LocalEnd

Moved = Callable[[str, int, int], None]  # name, bytes done, bytes in all


class Archiving:
    def __init__(
        self,
        book: Book,
        copies: Copies,
        places: dict[str, str],
        site: str,
        *,
        moved: Moved | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._book, self._copies, self._places, self._site = book, copies, places, site
        self._moved, self._cancelled = moved, cancelled or (lambda: False)

    # ---- out

    def archive_all(self, files: Sequence[CatalogFile], to: str) -> Iterator[Done]:
        """Raises ArgumentError for a place that has no address."""
        if to not in self._places:
            hint = f"Write [place.{to}] with its address into retention.toml."
            raise ArgumentError(f"There is no place {to!r} to copy to.{nearest(to, self._places)}", hint)
        for file in files:
            if self._cancelled():
                return
            yield self.archive(file, to)

    def archive(self, file: CatalogFile, to: str) -> Done:
        """Copy it to a place, unless a good copy is there already."""
        known = self._book.copies(file)
        looks: list[Look] = []
        source, twins = self._source(file, known, to, looks)
        for copy in (c for c in known if c.place == to and c.state in THERE):
            looks.append(self._copies.look(file, to, copy.address, twins=twins))
            if looks[-1].trouble is None:
                return self._written(file, to, copy.address, "archived", "a good copy is there already", looks, 0)
        at = self._address(file, to, twins)
        if refused := self._copies.refused(to, at):
            return self._refused(file, to, at, f"{refused[0].value}: {refused[1]}", looks)
        if source is None:
            return self._refused(file, to, at, _none(looks), looks)
        try:
            self._carry(file, source.address, at)
        except TransferCancelled:
            raise
        except BeamwayError as error:
            return self._refused(file, to, at, error.sentence, looks)
        looks.append(self._copies.look(file, to, at, twins=twins))
        return self._written(file, to, at, "archived", f"copied from {source.place!r}", looks, file.size)

    def _source(
        self, file: CatalogFile, known: Sequence[Replica], to: str, looks: list[Look]
    ) -> tuple[Replica | None, dict[str, str]]:
        """The first copy elsewhere that is right, and its checksums of a kind that a server at `to` tells: so what
        arrives there need not be read over the wire."""
        told = [kind for kind in TELLING if kind in self._copies.kinds(to, self._at(to, "any"))]
        for source in self._sources(known, away_from=to):
            look, twins = self._copies.look_here(file, source.place, source.address, told[:1])
            looks.append(look)
            if look.trouble is None:
                return source, twins
        return None, {}

    def _address(self, file: CatalogFile, to: str, twins: dict[str, str]) -> str:
        """Below the place's root, by experiment and name; with its number where something else stands there."""
        parts = [part for part in file.name.split("/") if part not in ("", ".", "..")]
        experiment = file.experiment.replace("/", "_").strip(".") or "_"
        path = "/".join((experiment, *parts))
        at = self._at(to, path)
        others = [f for f in catalog.at(self._book.database, to, at) if f.id != file.id]
        there = self._copies.look(file, to, at, twins=twins)
        if not others and there.trouble in (None, Trouble.MISSING, Trouble.UNREACHABLE):
            return at
        return self._at(to, f"{path}~{file.id}")

    def _at(self, place: str, path: str) -> str:
        root = self._places[place]
        return f"{root.rstrip('/')}/{quote(os.fsencode(path)) if is_known(root) else path}"

    # ---- back

    def restore_all(self, files: Sequence[CatalogFile], to: str = "") -> Iterator[Done]:
        """Where each was on this site, or into the folder `to`; of a scan the master last, when its data is there."""
        names = [os.path.dirname(file.name) for file in files if file.name.startswith("/")]
        top = os.path.commonpath(names) if names else ""
        for file in sorted(files, key=lambda f: (f.part_of or f.id, not f.part_of)):
            if self._cancelled():
                return
            if to:
                inner = os.path.relpath(file.name, top) if file.name.startswith("/") else os.path.basename(file.name)
                target = os.path.join(os.path.abspath(to), os.path.normpath("/" + inner).lstrip("/"))
            else:
                target = self._home_of(file)
            yield self.restore(file, target)

    def _home_of(self, file: CatalogFile) -> str:
        """Where its copy on this site was; empty when it had none."""
        here = [c for c in self._book.copies(file) if c.place == self._site and c.address.startswith("/")]
        here.sort(key=lambda c: c.state is not ReplicaState.PRUNED)
        return here[0].address if here else ""

    def restore(self, file: CatalogFile, target: str) -> Done:
        """Bring it to this path from the first copy that is right; one that is not is recorded as that."""
        if not target:
            reason = f"it never had a copy at {self._site!r}: say where to, with --to"
            return self._refused(file, self._site, "", reason, ())
        if refused := self._copies.refused(self._site, target):
            return self._refused(file, self._site, target, refused[1], ())
        looks: list[Look] = []
        there = self._copies.look(file, self._site, target)
        if there.trouble is None:
            return self._written(file, self._site, target, "restored", "it is there already", [there], 0)
        if os.path.lexists(target):
            return self._refused(file, self._site, target, f"something else is there: {there.why}", (there,))
        part = disk.part_of(target, f"restore.{file.id}")
        for source in self._sources(self._book.copies(file), away_from="", but=target):
            try:
                if bad := self._brought(file, source, part):
                    looks.append(bad)
                    continue
                with effect("file.publish"):
                    os.rename(part, target)
                disk.sync_folder(os.path.dirname(target))
            except TransferCancelled:
                raise
            except BeamwayError as error:
                looks.append(
                    Look(source.place, source.address, trouble=trouble_of(error), why=error.sentence.rstrip("."))
                )
                continue
            except OSError as error:
                return self._refused(file, self._site, target, disk.explained(error, target).sentence, looks)
            passed = "".join(f"; {look.place!r} is {look.trouble.value}" for look in looks if look.trouble)
            looks.append(self._copies.look(file, self._site, target))
            reason = f"copied from {source.place!r}{passed}"
            return self._written(file, self._site, target, "restored", reason, looks, file.size)
        return self._refused(file, self._site, target, _none(looks), looks)

    def _brought(self, file: CatalogFile, source: Replica, part: str) -> Look | None:
        """A copy of it at `part`, read afresh and found right; or how the source must be, when it was not."""
        refused = self._copies.refused(source.place, source.address)
        if refused:
            return Look(source.place, source.address, trouble=refused[0], why=refused[1])
        if "://" not in source.address:
            look = self._copies.look(file, source.place, source.address)
            if look.trouble:
                return look
        self._carry(file, source.address, part)
        seen = self._copies.look(file, self._site, part)
        if seen.trouble is None:
            return None
        LocalEnd().remove(part)
        return replace(seen, place=source.place, address=source.address)

    # ---- both

    def _sources(self, known: Sequence[Replica], *, away_from: str, but: str = "") -> list[Replica]:
        """The copies that may be right, nearest and most trusted first."""
        may = [c for c in known if c.state in THERE and c.place != away_from and c.address != but]
        return sorted(may, key=lambda c: (c.state is not ReplicaState.VERIFIED, "://" in c.address, -c.verified_at))

    def _carry(self, file: CatalogFile, source: str, destination: str) -> None:
        moved = self._moved
        carry.copy(
            source,
            destination,
            token=f"retention.{file.id}",
            progress=(lambda done, total: moved(file.name, done, total)) if moved else None,
            cancelled=self._cancelled,
        )

    def _written(
        self, file: CatalogFile, place: str, at: str, verdict: str, reason: str, looks: Sequence[Look], size: int
    ) -> Done:
        last, book = looks[-1], self._book
        if last.trouble is not None:
            return self._refused(file, place, at, f"the new copy is {last.trouble.value}: {last.why}", looks)
        with book.database.write() as connection:
            book.looked(connection, file, looks[:-1])
            before = catalog.replica(connection, file.id, place, at)
            pinned = before is not None and before.pinned
            catalog.displace(connection, file.id, place, at)
            copy = Replica(file.id, place, at, ReplicaState.VERIFIED, pinned, book.clock(), last.record)
            catalog.put_replica(connection, copy)
            book.write(connection, file, place, verdict, reason, {"address": at, "looks": [k.record for k in looks]})
        return done(file, place, at, verdict, reason, looks=looks, size=size)

    def _refused(self, file: CatalogFile, place: str, at: str, reason: str, looks: Sequence[Look]) -> Done:
        book = self._book
        with book.database.write() as connection:
            book.looked(connection, file, looks)
            book.write(connection, file, place, "refused", reason, {"address": at, "looks": [k.record for k in looks]})
        return done(file, place, at, "refused", reason, looks=looks)


def _none(looks: Sequence[Look]) -> str:
    told = "; ".join(f"{look.place!r} is {look.trouble.value}: {look.why}" for look in looks if look.trouble)
    return f"no copy is right: {told}" if told else "no other copy is known"
