"""A copy of which a program moves the bytes: whole and verified under the final name, or not there at all.

The program moves pieces to a `.part` name that carries the token. As pieces arrive their checksums are compared at both
ends, beside the copying of the next ones; a piece that differs is moved again. So what an interrupted copy has left is
neither trusted nor lost: its pieces are compared, and what agrees is not moved again, whichever process goes on. Then
the source is looked at once more, and the name is given by rename.

A tree that is not there yet appears at once, as with `local`; into a tree that is there, file by file, when all have
arrived. Permissions are not carried.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

from orchestrator.errors import BeamwayError, InputError
from orchestrator.transfer import checksums, disk, local
from orchestrator.transfer.base import TransferCancelled, TransferDown, TransferError, TransferRefused, TransferReport
from orchestrator.transfer.ends import End, Listing
from orchestrator.transfer.pieces import Piece, Sums

SLOWEST_BYTES_PER_S = 1e6  # below it a copy has hung
START_S = 600.0
PAUSE_S = 1.0  # before the first attempt to go on; doubled each time
LOOK_S = 0.1
AHEAD_BYTES = 128 << 20  # the source is asked for sums so far ahead of the copy: it need not read its disk twice


@dataclass(frozen=True)
class Move:
    piece: Piece
    source: str  # paths at the two ends
    staged: str


class Mover(Protocol):
    """What moves the bytes."""

    @property
    def retries(self) -> float:
        """After a lost connection, as long as nothing arrives in between."""
        ...

    aside: bool  # what goes into a tree that is there is gathered in a folder in it, and not beside each final name

    def cut(self, name: str, size: int) -> list[Piece]:
        """What of a file is moved at once; the same for the same size, whoever goes on."""
        ...

    def move(
        self,
        moves: Sequence[Move],
        *,
        arrived: Callable[[int], None],
        moved: Callable[[int], None],
        cancelled: Callable[[], bool],
    ) -> BeamwayError | None:
        """None: all has been done; else why not. `arrived(n)`: the first n seem to be there; `moved(bytes)` since."""
        ...


def longest_s(asked_s: float, size: int) -> float:
    """How long so many bytes may be on their way before the copy is said to hang; `asked_s` 0: as long as usual."""
    return asked_s or START_S + size / SLOWEST_BYTES_PER_S


def carried(
    origin: End,
    target: End,
    places: tuple[str, str],
    mover: Mover,
    *,
    token: str,
    kind: str,
    progress: local.Progress | None,
    cancelled: Callable[[], bool] | None,
) -> TransferReport:
    """Copy from one end to the other; `kind` is of checksum, empty: none is made. Closes the ends."""
    begun = time.monotonic()
    sums: Sums | None = None
    try:
        listed = origin.listing(places[0])
        job = Carrying(origin, target, listed, mover, token, progress, cancelled or (lambda: False))
        job.aim(places[1])
        if kind:
            job.sums = sums = Sums(origin, target, kind, max(entry.size for entry in listed.files.values()))
        job.carry_out()
    finally:
        if sums is not None:
            sums.close()
        origin.close()
        target.close()
    return job.report(time.monotonic() - begun)


class SourceChanged(TransferError):
    pass


@dataclass
class Carrying:
    """One copy on its way."""

    origin: End
    target: End
    listed: Listing
    mover: Mover
    token: str
    progress: local.Progress | None
    cancelled: Callable[[], bool]
    sums: Sums | None = None
    final: str = ""  # the file itself, or the top of the tree
    fresh: bool = True  # nothing stands under the final name of a tree: it is renamed as a whole
    skipped: set[str] = field(default_factory=set)
    _moved: Sequence[str] = ()  # to be published: what was not there already
    _digests: dict[str, str] = field(default_factory=dict)  # of whole files
    _done: int = 0  # bytes that have arrived and agree
    _shown: int = -1
    _renaming: bool = False

    # ---- before it

    def aim(self, path: str) -> None:
        """Choose the final name and refuse what cannot be."""
        listed, target = self.listed, self.target
        into, path = path.endswith("/"), path.rstrip("/") or "/"
        found = target.entry(path)
        if not listed.is_tree and (into or (found is not None and found.is_folder)):
            path = os.path.join(path, os.path.basename(listed.root))
            found = target.entry(path)
        self.final, self.fresh, self._moved = path, found is None, tuple(listed.files)
        if found is not None and found.is_folder != listed.is_tree:
            this, that = ("directory", "file") if found.is_folder else ("file", "directory")
            raise TransferRefused(f"The destination '{target.shown(path)}' is a {this} and the source a {that}.")
        root = listed.root.rstrip("/") or "/"
        if self.origin.place == target.place:
            if path == root:
                raise TransferRefused(f"The source and the destination are both '{target.shown(path)}'.")
            if listed.is_tree and os.path.commonpath((path, root)) in (path, root):
                raise TransferRefused(f"Of '{self.origin.shown(root)}' and '{target.shown(path)}' one is in the other.")
        for name in listed.files:  # a name that cannot be carried is told before the first byte
            self.origin.url(disk.below(root, name))
            target.url(self._staged(name))
        needed = listed.bytes + max(local.MARGIN_BYTES, listed.bytes // 100)
        free = target.free(path)
        if free is not None and free < needed and free + target.held(self._ours) < needed:
            sentence = f"The disk of '{path}' has {free:,} bytes free and the copy needs {needed:,}."
            raise TransferError(sentence, "Free some space there.")

    @property
    def _whole(self) -> bool:
        return self.listed.is_tree and self.fresh

    @property
    def _top(self) -> str:
        """Where the tree is made."""
        return disk.part_of(self.final, self.token) if self._whole else self.final

    def _staged(self, name: str) -> str:
        """Where a file is before it has its final name."""
        if self._whole:
            return disk.below(self._top, name)
        if name and self.mover.aside:
            return os.path.join(self._aside, name)
        return disk.part_of(disk.below(self.final, name), self.token)

    @property
    def _ours(self) -> list[str]:
        """Everything that an earlier, interrupted copy can have left."""
        if self._whole:
            return [self._top]
        if self.listed.is_tree and self.mover.aside:
            return [self._aside]
        return [self._staged(name) for name in self.listed.files]

    @property
    def _aside(self) -> str:
        return os.path.join(self.final, disk.part_of(".beamway", self.token))

    # ---- the copy

    def carry_out(self) -> None:
        """Again and again while the server is lost and something arrives in between."""
        failures, arrived = 0, -1
        try:
            while True:
                try:
                    return self._once()
                except TransferDown:
                    failures = failures + 1 if self._done <= arrived else 1
                    arrived = max(arrived, self._done)
                    if failures > self.mover.retries:
                        raise
                over = time.monotonic() + PAUSE_S * 2 ** (failures - 1)
                while time.monotonic() < over:
                    self._look()
                    time.sleep(LOOK_S)
        except TransferDown:
            raise  # what has arrived is kept for whoever goes on
        except BaseException as error:
            self._clear()
            # Whatever went wrong, the cause may be a source that is another one now.
            if isinstance(error, TransferError | InputError) and not isinstance(error, TransferCancelled):
                try:
                    self._check_unchanged()
                except SourceChanged as changed:
                    raise changed from error
                except BeamwayError:
                    pass
            raise

    def _once(self) -> None:
        if self._renaming and self.target.entry(self._top) is None and self.target.entry(self.final) is not None:
            return  # only the answer was lost
        self._make_folders()
        todo = [piece for name, entry in self.listed.files.items() for piece in self.mover.cut(name, entry.size)]
        if not self._whole:
            todo = self._without_identical(todo)
        self._bring(todo)
        self._check_unchanged()
        self._sum_up()
        self._publish()

    def _make_folders(self) -> None:
        self.target.make_folder(self._top if self.listed.is_tree else os.path.dirname(self.final))
        for name in self.listed.folders:
            folder = disk.below(self._top, name)
            if not self._whole and (found := self.target.entry(folder)) is not None and found.is_link:
                place = self.target.shown(folder)
                raise TransferRefused(f"The destination holds the link '{place}' where the source has a directory.")
            self.target.make_folder(folder)

    def _without_identical(self, pieces: list[Piece]) -> list[Piece]:
        """Leave out the files that stand under their final name already, with the very bytes of the source."""
        if self.sums is None:
            return pieces
        sizes = {
            name: found.size for name in self.listed.files if (found := self.target.entry(disk.below(self.final, name)))
        }
        same = {name for name, size in sizes.items() if size == self.listed.files[name].size}
        asked = [piece for piece in pieces if piece.name in same]
        agreeing = self._agreeing(asked, lambda name: disk.below(self.final, name))
        identical = same - {piece.name for piece in asked if piece not in agreeing}
        if self._shown < 0:  # at the first look: later they are ours
            self.skipped = identical
        self._moved = [name for name in self.listed.files if name not in identical]
        self._done = sum(self.listed.files[name].size for name in identical)
        return [piece for piece in pieces if piece.name not in identical]

    def _agreeing(self, pieces: Sequence[Piece], place: Callable[[str], str]) -> set[Piece]:
        """Those that are at `place` as they are at the source."""
        assert self.sums is not None
        for piece in pieces:
            self.sums.ask(piece, disk.below(self.listed.root, piece.name), place(piece.name))
        return {piece for piece in pieces if self._agree(piece, place(piece.name))}

    def _agree(self, piece: Piece, path: str) -> bool:
        self._look()
        assert self.sums is not None
        return self.sums.agree(piece, disk.below(self.listed.root, piece.name), path, self._look)

    def _bring(self, todo: list[Piece]) -> None:
        """Move pieces until all are there and agree."""
        differed: Counter[Piece] = Counter()
        todo = self._without_arrived(todo)
        while todo:
            trouble, todo = self._move(todo)
            self._look()
            if trouble is not None:
                raise trouble
            differed.update(todo)
            if worst := next((piece for piece in todo if differed[piece] > 1), None):
                place = self.target.shown(disk.below(self.final, worst.name))
                raise TransferError(f"The copy '{place}' has another checksum than its source, twice.")

    def _without_arrived(self, todo: list[Piece]) -> list[Piece]:
        """Leave out what an earlier, interrupted copy has brought."""
        there = self._there()
        for name in [name for name, size in there.items() if size > self.listed.files[name].size]:
            self.target.remove(self._staged(name))
            del there[name]
        arrived: set[Piece] = set()
        if self.sums is not None:
            self.sums.forget()
            arrived = self._agreeing([p for p in todo if p.end <= there.get(p.name, -1)], self._staged)
        left = [piece for piece in todo if piece not in arrived]
        self._done = self.listed.bytes - sum(piece.length for piece in left)
        return left

    def _there(self) -> dict[str, int]:
        """The sizes of what has not its final name yet."""
        if not self._whole:
            found = {name: self.target.entry(self._staged(name)) for name in self._moved}
            return {name: entry.size for name, entry in found.items() if entry is not None}
        try:
            files = self.target.listing(self._top).files
        except InputError:
            return {}  # nothing yet
        return {name: entry.size for name, entry in files.items() if name in self.listed.files}

    def _move(self, todo: list[Piece]) -> tuple[BeamwayError | None, list[Piece]]:
        """One start of the program: what went wrong, and what has not arrived."""
        root = self.listed.root
        moves = [Move(piece, disk.below(root, piece.name), self._staged(piece.name)) for piece in todo]
        base, over, asked = self._done, 0, 0
        starts = list(accumulate((piece.length for piece in todo), initial=base))

        def arrived(number: int) -> None:
            nonlocal base, over
            while over < min(number, len(moves)):
                base += todo[over].length
                if self.sums is not None:
                    self.sums.ask(todo[over], moves[over].source, moves[over].staged)
                over += 1
            moved(0)

        def moved(more: int) -> None:
            nonlocal asked
            while self.sums is not None and asked < len(moves) and starts[asked] < base + more + AHEAD_BYTES:
                self.sums.ask_source(todo[asked], moves[asked].source)
                asked += 1
            self._show(base + more)

        moved(0)
        trouble = self.mover.move(moves, arrived=arrived, moved=moved, cancelled=self.cancelled)
        if self.sums is None:
            return trouble, [] if trouble is None else todo
        checked = todo if trouble is None else todo[:over]
        early = {*todo[:over]}  # with several at once one of them may have been on its way when it was compared
        agreeing = {
            piece
            for piece in checked
            if self._agree(piece, self._staged(piece.name))
            or (piece in early and self._agree(piece, self._staged(piece.name)))
        }
        self._done += sum(piece.length for piece in agreeing)
        return trouble, [piece for piece in todo if piece not in agreeing]

    # ---- the end

    def _check_unchanged(self) -> None:
        try:
            now = self.origin.listing(self.listed.root)
        except InputError:
            now = None
        if now != self.listed:
            place = self.origin.shown(self.listed.root)
            raise SourceChanged(f"The source '{place}' changed while it was copied.", "It may still be being written.")

    def _publish(self) -> None:
        there = self._there()
        for name in self._moved:
            if there.get(name) != self.listed.files[name].size:
                place = self.target.shown(disk.below(self.final, name))
                raise TransferError(f"The copy '{place}' is not as long as its source.")
            self.target.keep(self._staged(name), ())
        self._look()
        if self._whole:
            self._remove_strangers(self._top)
            self.target.keep("", [disk.below(self._top, name) for name in ("", *self.listed.folders)])
            self._renaming = True
            self.target.publish(self._top, self.final)
        else:
            for name in self._moved:
                self.target.publish(self._staged(name), disk.below(self.final, name))
            if self.listed.is_tree and self.mover.aside:
                self.target.remove(self._aside)
        self._show(self.listed.bytes)

    def _remove_strangers(self, part: str) -> None:
        """What an earlier, interrupted copy left and the source holds no more."""
        there = self.target.listing(part)
        for name in {*there.files, *there.folders} - {*self.listed.files, *self.listed.folders}:
            self.target.remove(disk.below(part, name))

    def _clear(self) -> None:
        with suppress(BeamwayError, OSError):
            for path in self._ours:
                self.target.remove(path)

    def _look(self) -> None:
        if self.cancelled():
            raise TransferCancelled(f"The copy of '{self.origin.shown(self.listed.root)}' was cancelled.")

    def _show(self, done: int) -> None:
        if self.progress and done > self._shown:
            self._shown = min(done, self.listed.bytes)
            self.progress(self._shown, self.listed.bytes)

    def _sum_up(self) -> None:
        """The checksums of whole files."""
        if self.sums is None:
            return
        for name, entry in self.listed.files.items():
            there = self._staged(name) if name in self._moved else disk.below(self.final, name)
            source = disk.below(self.listed.root, name)
            pieces = self.mover.cut(name, entry.size)
            self._digests[name] = self.sums.of_file(pieces, source, there, self._look)

    def checksum(self) -> str:
        if not self.listed.is_tree or self.sums is None:
            return self._digests.get("", "")
        split = {name: digest.split(":") for name, digest in self._digests.items()}
        kind = next(kind for kind, _ in split.values())
        return checksums.whole(kind, {name: digest for name, (_, digest) in split.items()})

    def report(self, seconds: float) -> TransferReport:
        return TransferReport(
            destination=self.target.shown(self.final),
            files=len(self.listed.files),
            bytes=self.listed.bytes,
            skipped=len(self.skipped),
            skipped_bytes=sum(self.listed.files[name].size for name in self.skipped),
            seconds=seconds,
            checksum=self.checksum(),
        )
