"""What was written into the watched tree, and what has to become of it: known by whoever wrote it, not by looking."""

from __future__ import annotations

import threading
from collections import Counter
from typing import NamedTuple

WHOLE = frozenset({"run", "duplicate"})
IGNORED = frozenset({"ignored"})
INCOMPLETE = frozenset({"incomplete"})


class Content(NamedTuple):
    """Of a whole scan. `stays`: it is there in the end and must have run; `moved`: its name was another once."""

    checksum: str
    proof: str
    kind: str
    stays: bool = True
    moved: bool = False
    away: bool = False  # it was nowhere for a while: a run that was to read it then has failed


class Item(NamedTuple):
    """What is in the tree in the end. One of `words` must be in the reason."""

    name: str
    kind: str
    states: frozenset[str]
    words: tuple[str, ...] = ()
    checksum: str = ""


class Truth:
    """Written by several hands at once."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.contents: dict[tuple[str, str], Content] = {}  # by checksum and proof: masters may be the same to the byte
        self.passing: set[str] = set()  # names that were there for a while
        self.kinds: Counter[str] = Counter()
        self.failed: list[str] = []  # what the hands themselves could not do
        self._lock = threading.Lock()

    def item(self, item: Item) -> None:
        with self._lock:
            self.items[item.name] = item
            self.passing.discard(item.name)

    def passed(self, *names: str) -> None:
        with self._lock:
            for name in names:
                self.items.pop(name, None)
                self.passing.add(name)

    def content(self, content: Content) -> None:
        with self._lock:
            self.contents[content.checksum, content.proof] = content

    @property
    def whole(self) -> list[Content]:
        return [content for content in self.contents.values() if content.stays]
