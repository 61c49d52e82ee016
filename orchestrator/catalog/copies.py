"""Copies where they are: looked at afresh, set aside, put back, removed.

A path is of this host's site, or of a place that the policy says is a folder here; an address is of a GridFTP server,
or of a host by ssh. What was not seen is not taken for absent: a copy that cannot be reached is `unreachable`, and
nothing rests on it.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from orchestrator.catalog import content, servers
from orchestrator.errors import BeamwayError, InputError
from orchestrator.model import FailureClass
from orchestrator.outside import effect
from orchestrator.store.catalog import CatalogFile
from orchestrator.transfer import disk
from orchestrator.transfer.base import TransferCancelled, TransferDown, TransferRefused
from orchestrator.transfer.ends import End, Entry, Listing, LocalEnd
from orchestrator.transfer.pieces import CHEAP
from orchestrator.transfer.survey import survey

ASIDE = ".pruned"
ANSWER_S = 60.0
_AWAY = (errno.ENOTCONN, errno.ESTALE, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EIO)


class Trouble(StrEnum):
    """Why nothing can rest on a copy."""

    CORRUPTED = "corrupted"  # it was read, and is not the file
    MISSING = "missing"  # it is certainly not there
    UNREACHABLE = "unreachable"  # where it is does not answer, or is not to be reached from here
    UNREADABLE = "unreadable"  # it is there and may not be read, or is no regular file
    REFUSED = "refused"  # its address is none that may be touched


class Look(Struct, frozen=True):
    """What was seen of a copy, when."""

    place: str
    address: str
    at: float = 0.0
    size: int = -1
    checksum: str = ""
    stamp: str = ""  # another when it is written or replaced
    how: str = ""  # read here | told by the server | read over the wire
    trouble: Trouble | None = None
    why: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """For the log."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name != "trouble"}
        return {name: value for name, value in shown.items() if value not in ("", -1)} | (
            {"trouble": self.trouble.value} if self.trouble else {}
        )


class _Bad(Exception):
    def __init__(self, trouble: Trouble, why: str) -> None:
        super().__init__(why)
        self.trouble, self.why = trouble, why


class Copies:
    """Not thread-safe; a server is spoken to over one connection. Use as a context manager."""

    def __init__(
        self,
        site: str,
        places: Mapping[str, str],
        *,
        answer_s: float = ANSWER_S,
        progress: content.Progress | None = None,
    ) -> None:
        """`places`: by the policy, the folder or address below which the copies of a place lie."""
        self._site, self._places, self._answer_s = site, places, answer_s
        self._progress = progress or (lambda _: None)
        self._ends: dict[str, End] = {}

    def __enter__(self) -> Copies:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends.values():
            end.close()

    # ---- where

    def refused(self, place: str, at: str) -> tuple[Trouble, str] | None:
        """Why a copy cannot be touched from here, as far as its address says; None: it can be."""
        try:
            self._reach(place, at)
        except _Bad as bad:
            return bad.trouble, bad.why
        return None

    def _reach(self, place: str, at: str) -> tuple[End, str]:
        root = self._places.get(place, "")
        if "://" in at:
            if not servers.is_known(at):
                scheme = at.partition("://")[0]
                raise _Bad(Trouble.UNREACHABLE, f"copies at '{scheme}://' cannot be looked at afresh from here")
            try:
                server, path = servers.server_and_path(at)
                end = self._ends.get(server) or servers.end(at, self._answer_s)
                self._ends[server] = end
                within = servers.server_and_path(root + "/") if servers.is_known(root) else (server, "/")
            except TransferRefused as error:
                raise _Bad(Trouble.REFUSED, error.sentence.rstrip(".")) from None
            if within[0] != server or not path.startswith(within[1]):
                raise _Bad(Trouble.REFUSED, f"'{at}' is not below '{root}', where the copies of {place!r} are")
            return end, path
        if not at.startswith("/") or "\0" in at or os.path.normpath(at) != at or at == "/":
            raise _Bad(
                Trouble.REFUSED, f"'{at}' is no path that may be touched: it is not absolute, or leaves its folder"
            )
        if root.startswith("/"):
            if os.path.commonpath((root, at)) != root or at == root:
                raise _Bad(Trouble.REFUSED, f"'{at}' is not below '{root}', where the copies of {place!r} are")
            if not os.path.isdir(root):
                raise _Bad(Trouble.UNREACHABLE, f"'{root}' is not there: is it mounted?")
        elif place != self._site:
            raise _Bad(Trouble.UNREACHABLE, f"'{at}' is a path at {place!r}, and this is {self._site!r}")
        return self._ends.setdefault("", LocalEnd()), at

    # ---- looking

    def look(self, file: CatalogFile, place: str, at: str, *, twins: Mapping[str, str] | None = None) -> Look:
        """Read it and compare. `twins`: checksums of other kinds of the very content, so that a server that does not
        tell the file's own kind need not be read over the wire."""
        return self._judged(place, at, lambda: self._compared(file, place, at, twins or {}))

    def look_here(self, file: CatalogFile, place: str, at: str, kinds: Iterable[str]) -> tuple[Look, dict[str, str]]:
        """The same, and the checksums of these kinds too where it is read here."""
        twins: dict[str, str] = {}

        def compared() -> Look:
            end, path = self._reach(place, at)
            if not isinstance(end, LocalEnd):
                return self._compared(file, place, at, {})
            own = content.kind_of(file.checksum)
            listing, entry = self._there(file, end, path)
            twins.update(self._sums_here(listing, [own, *(k for k in kinds if k != own)]))
            self._unchanged(end, path, entry, listing)
            return self._equal(
                file,
                place,
                at,
                Look(place, at, 0, listing.bytes, twins[own], _stamp(listing, entry), "read here"),
            )

        return self._judged(place, at, compared), twins

    def kinds(self, place: str, at: str) -> set[str]:
        """What a server tells of its own files; empty for a path, and where it cannot be told."""
        try:
            end, _ = self._reach(place, at)
            return set() if isinstance(end, LocalEnd) else _told(end)
        except (_Bad, BeamwayError, OSError):
            return set()

    def still(self, look: Look) -> bool:
        """Is what was seen there, unwritten? False also when that cannot be told."""
        try:
            end, path = self._reach(look.place, look.address)
            return self._stamped(end, path) == look.stamp
        except (_Bad, BeamwayError, OSError):
            return False

    def _compared(self, file: CatalogFile, place: str, at: str, twins: Mapping[str, str]) -> Look:
        end, path = self._reach(place, at)
        own = content.kind_of(file.checksum)
        listing, entry = self._there(file, end, path)
        how = "told by the server"
        if isinstance(end, LocalEnd):
            kind, how = own, "read here"
            checksum = self._sums_here(listing, [own])[own]
        else:
            told = _told(end)
            kind = own if own in told else next((k for k in twins if k in told), "")
            if kind:
                checksum = content.sums_there(end, listing, kind)
            else:
                kind, how = own, "read over the wire"
                checksum = content.sums_over_the_wire(end, listing, own, self._progress)
        self._unchanged(end, path, entry, listing)
        look = Look(place, at, 0, listing.bytes, checksum, _stamp(listing, entry), how)
        return self._equal(file, place, at, look, twins[kind] if kind != own else "")

    def _sums_here(self, listing: Listing, kinds: Sequence[str]) -> dict[str, str]:
        return content.sums_here(listing.root, listing.files, kinds, self._progress)

    def _there(self, file: CatalogFile, end: End, path: str) -> tuple[Listing, Entry]:
        """What is there, of the right size."""
        entry = end.entry(path)
        if entry is None:
            if isinstance(end, LocalEnd) and not os.path.isdir(os.path.dirname(path)):
                raise _Bad(Trouble.UNREACHABLE, f"its folder '{os.path.dirname(path)}' is not there: is it mounted?")
            raise _Bad(Trouble.MISSING, "nothing is there")
        if entry.is_link:
            raise _Bad(Trouble.REFUSED, "it is a link, and no copy of its own")
        size = entry.size
        if entry.is_folder or size == file.size:
            listing = _listed(end, path)
            size = listing.bytes
            if size == file.size:
                return listing, entry
        raise _Bad(Trouble.CORRUPTED, f"it has {size:,} bytes where the file has {file.size:,}")

    def _equal(self, file: CatalogFile, place: str, at: str, look: Look, twin: str = "") -> Look:
        if look.checksum == (twin or file.checksum):
            return look
        why = f"its checksum is {look.checksum}, and that of the file {twin or file.checksum}"
        return Look(place, at, 0, look.size, look.checksum, look.stamp, look.how, Trouble.CORRUPTED, why)

    def _unchanged(self, end: End, path: str, entry: Entry, listing: Listing) -> None:
        if self._stamped(end, path) != _stamp(listing, entry):
            raise _Bad(Trouble.UNREADABLE, "it changed while it was read")

    def _stamped(self, end: End, path: str) -> str:
        entry = end.entry(path)
        if entry is None:
            return ""
        return _stamp(_listed(end, path), entry) if entry.is_folder and not entry.is_link else entry.stamp

    def _judged(self, place: str, at: str, look: Any) -> Look:
        try:
            found: Look = look()
        except _Bad as bad:
            return Look(place, at, trouble=bad.trouble, why=bad.why)
        except TransferCancelled:
            raise
        except BeamwayError as error:
            return Look(place, at, trouble=trouble_of(error), why=error.sentence.rstrip("."))
        except OSError as error:
            trouble = Trouble.UNREACHABLE if error.errno in _AWAY else Trouble.UNREADABLE
            return Look(place, at, trouble=trouble, why=f"it cannot be read: {error.strerror or error}")
        return found

    # ---- removing

    def set_aside(self, place: str, at: str, number: int) -> None:
        """Give it its name of a copy on its way out, in the same folder. Raises BeamwayError."""
        end, path = self._touch(place, at)
        if end.entry(aside(path, number)) is not None:
            raise TransferRefused(f"Something is at '{end.shown(aside(path, number))}' already.", "Is it needed?")
        with effect("copy.aside"):
            end.publish(path, aside(path, number))

    def put_back(self, place: str, at: str, number: int) -> bool:
        """Give it its name again; False when something else has that now. Raises BeamwayError."""
        end, path = self._touch(place, at)
        if end.entry(path) is not None:
            return False
        with effect("copy.aside"):
            end.publish(aside(path, number), path)
        return True

    def aside(self, place: str, at: str, number: int) -> str:
        """The stamp of what is set aside; empty when there is nothing. Raises BeamwayError."""
        end, path = self._touch(place, at)
        return self._stamped(end, aside(path, number))

    def there(self, place: str, at: str) -> bool:
        """Has anything its name? Raises BeamwayError."""
        end, path = self._touch(place, at)
        return end.entry(path) is not None

    def remove(self, place: str, at: str, number: int) -> None:
        """What is set aside. Raises BeamwayError."""
        end, path = self._touch(place, at)
        gone = aside(path, number)
        with effect("copy.remove"):
            try:
                end.remove(gone)
                end.keep("", [os.path.dirname(path)])
            except OSError as error:
                raise disk.explained(error, gone) from error
        if end.entry(gone) is not None:
            raise TransferRefused(f"'{end.shown(gone)}' could not be removed whole.", "Who owns what is in it?")

    def _touch(self, place: str, at: str) -> tuple[End, str]:
        try:
            return self._reach(place, at)
        except _Bad as bad:
            raise TransferRefused(f"The copy at '{at}' cannot be touched: {bad.why}.") from None


def trouble_of(error: BeamwayError) -> Trouble:
    away = isinstance(error, TransferDown) or getattr(error, "failure", None) is FailureClass.AUTHENTICATION
    return Trouble.UNREACHABLE if away else Trouble.UNREADABLE


def aside(path: str, number: int) -> str:
    """`NAME.NUMBER.pruned`, with a digest in place of the end of a name that would become too long."""
    folder, name = os.path.split(path)
    raw, ending = os.fsencode(name), f".{number}{ASIDE}"
    if len(raw) + len(ending) > 255:
        name = os.fsdecode(raw[:200]) + "~" + hashlib.sha256(raw).hexdigest()[:16]
    return os.path.join(folder, name + ending)


def _listed(end: End, path: str) -> Listing:
    if not isinstance(end, LocalEnd):
        return end.listing(path)
    found = survey(path)  # with its links, which a copy to a server could not carry
    if found.is_tree and not os.path.isdir(path):
        raise InputError(f"'{path}' changed while it was read.")
    files = {name: Entry(False, f.size, repr(f)) for name, f in found.files.items()}
    return Listing(found.root, files, (*found.folders, *(f"{n} -> {to}" for n, to in found.links.items())))


def _stamp(listing: Listing, entry: Entry) -> str:
    if not listing.is_tree:
        return entry.stamp
    told = repr([*((n, f.size, f.stamp) for n, f in listing.files.items()), *listing.folders])
    return hashlib.sha256(told.encode(errors="backslashreplace")).hexdigest()[:32]


def _told(end: End) -> set[str]:
    """The kinds that a server tells, but for the one that says too little to remove a copy by."""
    return set(end.sums()) - {CHEAP}
