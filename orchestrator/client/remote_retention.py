"""Retention of a service behind an address: what takes long is told line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from orchestrator import codec
from orchestrator.catalog.book import Done
from orchestrator.catalog.retention import Planned
from orchestrator.client.retention import Moved
from orchestrator.errors import Unavailable, of_exit_code
from orchestrator.store.retention import LogRow, Pin

JSON = {"content-type": "application/json"}
T = TypeVar("T")


class RemoteRetention:
    def __init__(self, answer: Callable[..., Any], lines: Callable[..., Iterator[str]]) -> None:
        """Of requests: what the service answers, and the lines of an answer as they come."""
        self._answer, self._lines = answer, lines

    def plan(self, *, experiment: str = "", site: str = "") -> Iterator[Planned]:
        wanted = {"experiment": experiment, "site": site}
        return _told(self._lines("GET", "/retention/plan", params=wanted), Planned, None)

    def apply(self, *, experiment: str = "", site: str = "", dry_run: bool = True) -> Iterator[Done]:
        return self._work("apply", {"experiment": experiment, "site": site, "dry_run": dry_run}, None)

    def archive(self, what: str, *, to: str, experiment: str = "", moved: Moved | None = None) -> Iterator[Done]:
        return self._work("archive", {"what": what, "experiment": experiment, "to": to}, moved)

    def restore(self, what: str, *, to: str = "", experiment: str = "", moved: Moved | None = None) -> Iterator[Done]:
        return self._work("restore", {"what": what, "experiment": experiment, "to": to}, moved)

    def _work(self, word: str, asked: dict[str, Any], moved: Moved | None) -> Iterator[Done]:
        lines = self._lines("POST", f"/retention/{word}", content=codec.dumps(asked), headers=JSON)
        return _told(lines, Done, moved)

    def log(self, *, file: str = "", experiment: str = "", before: int = 0, limit: int = 50) -> list[LogRow]:
        wanted = {"file": file, "experiment": experiment, "before": before, "limit": limit}
        return _records(self._answer("GET", "/retention/log", params=wanted).text, LogRow)

    def pin(self, what: str, *, experiment: str = "", collection: bool = False, reason: str = "") -> Pin:
        asked = {"what": what, "experiment": experiment, "collection": collection, "reason": reason}
        return self._pin("/retention/pins", asked)

    def unpin(self, what: str, *, experiment: str = "", collection: bool = False) -> Pin:
        return self._pin("/retention/unpin", {"what": what, "experiment": experiment, "collection": collection})

    def _pin(self, path: str, asked: dict[str, Any]) -> Pin:
        return codec.loads(self._answer("POST", path, content=codec.dumps(asked), headers=JSON).text, Pin)

    def pins(self, experiment: str = "") -> list[Pin]:
        return _records(self._answer("GET", "/retention/pins", params={"experiment": experiment}).text, Pin)


def _records(text: str, kind: type[T]) -> list[T]:
    wanted: Any = list[kind]  # type: ignore[valid-type]
    found: list[T] = codec.loads(text, wanted)
    return found


def _told(lines: Iterator[str], kind: type[T], moved: Moved | None) -> Iterator[T]:
    """The records among the lines. Raises what the service ended with, and Unavailable when it broke off."""
    for line in lines:
        if not line:
            continue
        said = codec.loads(line, dict)
        if "record" in said:
            yield msgspec.convert(said["record"], kind)
        elif "moved" in said and moved is not None:
            moved(*said["moved"])
        elif "error" in said:
            error = said["error"]
            raise of_exit_code(error["exit_code"])(error["sentence"], error["hint"])
        elif "end" in said:
            return
    raise Unavailable("The service broke off.", "`beamway retention log` shows what was done; ask again for the rest.")
