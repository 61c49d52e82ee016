"""Where: `globus://COLLECTION_ID/path`, and what Globus lists there before and after."""

from __future__ import annotations

import posixpath
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import Denied, InputError, NotFound, printable
from orchestrator.transfer import disk
from orchestrator.transfer.base import TransferRefused, TransferRequest
from orchestrator.transfer.globus.notes import Copy, Item
from orchestrator.transfer.globus.session import Session

SCHEME = "globus://"
MOST_FOLDERS = 500  # looked into for one transfer: each costs a request of about a third of a second
MOST_PARTS = 50  # renamed at the end of one transfer, each at the same cost


@dataclass(frozen=True)
class Place:
    collection: str
    path: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.collection}{self.path}"


@dataclass(frozen=True)
class Survey:
    source: str  # ids of the collections
    destination: str
    items: tuple[Item, ...]
    copies: tuple[Copy, ...]
    all_listed: bool


def place(address: str) -> Place:
    """Parse an address. What would leave the collection's root, or cannot be said in JSON, is refused."""
    collection, slash, path = address.removeprefix(SCHEME).partition("/")
    try:
        known = address.startswith(SCHEME) and str(uuid.UUID(collection)) == collection.lower()
    except ValueError:
        known = False
    if not known or not slash:
        raise TransferRefused(f"'{address}' is not an address 'globus://COLLECTION_ID/path'.")
    if printable(path) != path:
        raise TransferRefused(f"The name '{path}' cannot be given to Globus: it is not plain text in UTF-8.")
    if ".." in path.split("/"):
        raise TransferRefused(f"The path '{path}' goes upwards with '..', which is not allowed.")
    return Place(collection.lower(), slash + path)


def survey(session: Session, request: TransferRequest, token: str) -> Survey:
    """What is to be moved where. A file goes into a folder that is there or named with a `/` at its end.

    What is not there yet gets a name of its own for the way, the same for the same token.
    """
    sources = [place(each) for each in request.options.get("sources") or [request.source]]
    to = place(request.destination)
    if len({s.collection for s in sources}) > 1:
        raise TransferRefused("The sources of one Globus transfer lie in several collections.")
    origin = sources[0].collection
    into = len(sources) > 1 or to.path.endswith("/") or _is_folder(session, to)
    by_part = len(sources) <= MOST_PARTS and not request.options.get("direct")
    looked = _Look(session)
    items: list[Item] = []
    copies: list[Copy] = []
    for source in sources:
        found = looked.stat(source)
        is_tree = found["type"] == "dir"
        target = posixpath.join(to.path, posixpath.basename(source.path.rstrip("/")))
        if not into or (is_tree and len(sources) == 1):
            target = to.path
        if target in {i.destination for i in items}:
            raise TransferRefused(f"Two sources would both be written to '{target}'.")
        part = disk.part_of(target.rstrip("/"), token) if by_part and not _is_there(session, to, target) else ""
        items.append(Item(source.path, target, is_tree, part))
        copies += looked.tree(source, part or target) if is_tree else [_copy(source.path, part or target, found)]
    if origin == to.collection and any(_overlap(i.source, i.destination) for i in items):
        raise TransferRefused(f"The source and the destination overlap in '{to}'.")
    if not sum(c.bytes for c in copies) and looked.all_listed:
        raise InputError(f"The source '{sources[0]}' is empty.", "It may still be being written.")
    return Survey(origin, to.collection, tuple(items), tuple(copies), looked.all_listed)


def seen(session: Session, collection: str, paths: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Size and time of those files that are there now. `Denied`: they may not be looked at."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_folder[posixpath.dirname(path)].append(path)
    there: dict[str, tuple[int, str]] = {}
    for folder, wanted in by_folder.items():
        with suppress(NotFound), session.asking(collection) as client:
            if len(wanted) == 1:
                found = {wanted[0]: client.operation_stat(collection, wanted[0]).data}
            else:
                found = {posixpath.join(folder, e["name"]): e for e in client.operation_ls(collection, path=folder)}
            there |= {p: (found[p]["size"], found[p]["last_modified"]) for p in wanted if p in found}
    return there


class _Look:
    """At the source, into no more than so many folders."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._left = MOST_FOLDERS
        self.all_listed = True

    def stat(self, source: Place) -> dict[str, Any]:
        try:
            with self._session.asking(source.collection) as client:
                found: dict[str, Any] = client.operation_stat(source.collection, source.path).data
        except NotFound:
            raise InputError(f"The source '{source}' is not there.") from None
        _check_kind(found, source.path)
        return found

    def tree(self, source: Place, target: str) -> list[Copy]:
        copies: list[Copy] = []
        waiting = [(source.path, target)]
        while waiting:
            if not self._left:
                self.all_listed = False
                break
            self._left -= 1
            folder, to = waiting.pop()
            with self._session.asking(source.collection) as client:
                entries = list(client.operation_ls(source.collection, path=folder))
            for entry in entries:
                path, end = posixpath.join(folder, entry["name"]), posixpath.join(to, entry["name"])
                _check_kind(entry, path)
                if entry["type"] == "dir":
                    waiting.append((path, end))
                else:
                    copies.append(_copy(path, end, entry))
        return copies


def _check_kind(entry: Mapping[str, Any], path: str) -> None:
    if entry.get("link_target"):
        raise InputError(f"The source holds the link '{path}', which Globus would leave out.")
    if entry["type"] not in ("file", "dir"):
        raise InputError(f"The source holds '{path}', which is not a regular file.")


def _copy(source: str, destination: str, entry: Mapping[str, Any]) -> Copy:
    return Copy(source, destination, entry["size"], entry["last_modified"])


def _is_folder(session: Session, to: Place) -> bool:
    try:
        with session.asking(to.collection) as client:
            return bool(client.operation_stat(to.collection, to.path)["type"] == "dir")
    except (NotFound, Denied):  # one may write into a place without seeing it
        return False


def _is_there(session: Session, to: Place, path: str) -> bool:
    try:
        with session.asking(to.collection) as client:
            client.operation_stat(to.collection, path)
    except NotFound:
        return False
    except Denied:  # perhaps: then nothing can be renamed to it
        pass
    return True


def _overlap(one: str, other: str) -> bool:
    first, second = (posixpath.normpath(p) + "/" for p in (one, other))
    return first.startswith(second) or second.startswith(first)
