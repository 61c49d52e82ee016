"""Which copies stay and which go: of this home, or over HTTP."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from orchestrator.settings import Settings
from orchestrator.store.database import Database

if TYPE_CHECKING:
    from orchestrator.catalog.book import Done
    from orchestrator.catalog.keeping import Keeping
    from orchestrator.catalog.retention import Planned
    from orchestrator.store.retention import LogRow, Pin

Moved = Callable[[str, int, int], None]  # name, bytes done, bytes in all


class Retention(Protocol):
    """`what`: the number of a file, its path, or with `experiment` a collection; empty: the whole experiment."""

    def plan(self, *, experiment: str = "", site: str = "") -> Iterator[Planned]:
        """What would become of each copy, and why; nothing is looked at. Raises SettingsError."""
        ...

    def apply(self, *, experiment: str = "", site: str = "", dry_run: bool = True) -> Iterator[Done]:
        """What became of each copy that was to go. A dry run looks at all of them and removes none. Raises Conflict."""
        ...

    def archive(self, what: str, *, to: str, experiment: str = "", moved: Moved | None = None) -> Iterator[Done]:
        """Copy to a place of the policy. Raises NotFound, ArgumentError."""
        ...

    def restore(self, what: str, *, to: str = "", experiment: str = "", moved: Moved | None = None) -> Iterator[Done]:
        """Bring back to where it was, or into a folder. Raises NotFound, ArgumentError."""
        ...

    def log(self, *, file: str = "", experiment: str = "", before: int = 0, limit: int = 50) -> list[LogRow]:
        """The newest first; the `id` of the last is the `before` of the next page. Raises NotFound."""
        ...

    def pin(self, what: str, *, experiment: str = "", collection: bool = False, reason: str = "") -> Pin:
        """No rule removes it. Raises NotFound, ArgumentError."""
        ...

    def unpin(self, what: str, *, experiment: str = "", collection: bool = False) -> Pin: ...

    def pins(self, experiment: str = "") -> list[Pin]: ...


class LocalRetention:
    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database

    def _keeping(self, moved: Moved | None = None) -> Keeping:
        from orchestrator.catalog.keeping import Keeping

        return Keeping(self._settings, self._database, who=getpass.getuser(), moved=moved)

    def plan(self, *, experiment: str = "", site: str = "") -> Iterator[Planned]:
        return (decision.planned for decision in self._keeping().plan(experiment=experiment, site=site))

    def apply(self, *, experiment: str = "", site: str = "", dry_run: bool = True) -> Iterator[Done]:
        return self._keeping().apply(experiment=experiment, site=site, rehearse=dry_run)

    def archive(self, what: str, *, to: str, experiment: str = "", moved: Moved | None = None) -> Iterator[Done]:
        return self._keeping(moved).archive(what, experiment=experiment, to=to)

    def restore(self, what: str, *, to: str = "", experiment: str = "", moved: Moved | None = None) -> Iterator[Done]:
        return self._keeping(moved).restore(what, experiment=experiment, to=to)

    def log(self, *, file: str = "", experiment: str = "", before: int = 0, limit: int = 50) -> list[LogRow]:
        return self._keeping().log(file=file, experiment=experiment, before=before, limit=limit)

    def pin(self, what: str, *, experiment: str = "", collection: bool = False, reason: str = "") -> Pin:
        return self._keeping().pin(what, experiment=experiment, collection=collection, reason=reason)

    def unpin(self, what: str, *, experiment: str = "", collection: bool = False) -> Pin:
        return self._keeping().unpin(what, experiment=experiment, collection=collection)

    def pins(self, experiment: str = "") -> list[Pin]:
        return self._keeping().pins(experiment)
