"""Watches and arrivals, of the service of this home or over HTTP."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from orchestrator.store import arrivals, watches
from orchestrator.store.arrivals import Arrival, ArrivalState
from orchestrator.store.database import Database
from orchestrator.store.watches import Watch, Watched, Wish

if TYPE_CHECKING:
    from orchestrator.engine.planner import Planner
    from orchestrator.settings import Settings


class Watches(Protocol):
    def put(self, wish: Wish) -> Watch:
        """Watch a directory; asked again it is the same watch. Raises UserError, NotFound, Conflict."""
        ...

    def ls(self) -> list[Watched]:
        """All of them, by name, as each stands."""
        ...

    def stop(self, name: str) -> None:
        """Watch it no more; what is due of it still runs. Raises NotFound."""
        ...

    def start(self, name: str) -> None:
        """Go on with one that was stopped. Raises NotFound."""
        ...

    def arrivals(
        self,
        *,
        watch: str = "",
        experiment: str = "",
        state: ArrivalState | None = None,
        after: int = 0,
        before: int = 0,
        newest: bool = False,
        limit: int = 1000,
    ) -> list[Arrival]:
        """The oldest first, or the newest; `after` and `before`: numbers of arrivals."""
        ...

    def of(self, numbers: Sequence[int]) -> list[Arrival]:
        """The arrivals with these numbers, as far as there are such."""
        ...

    def release(self, number: int, *, workflow: str = "", given: dict[str, str] | None = None) -> Arrival:
        """Run one that did not, whatever was against it. Raises NotFound, Conflict."""
        ...


class LocalWatches:
    """In the store of this home. `wake`: sees that the service runs, which begins the watcher."""

    def __init__(
        self, settings: Settings, database: Database, planner: Callable[[], Planner], wake: Callable[[], None]
    ) -> None:
        self._settings, self._database, self._planner, self._wake = settings, database, planner, wake

    def put(self, wish: Wish) -> Watch:
        from orchestrator.engine import watching

        here = wish.site == self._settings.site and not self._database.postgresql
        load = self._planner().definition
        made = watching.put(self._database, wish, load, owner=getpass.getuser(), now=time.time(), here=here)
        self._wake()
        return made

    def ls(self) -> list[Watched]:
        return watches.standing(self._database)

    def stop(self, name: str) -> None:
        watches.stop(self._database, name, time.time())

    def start(self, name: str) -> None:
        watches.change(self._database, name, stopped_at=0.0)
        self._wake()

    def arrivals(
        self,
        *,
        watch: str = "",
        experiment: str = "",
        state: ArrivalState | None = None,
        after: int = 0,
        before: int = 0,
        newest: bool = False,
        limit: int = 1000,
    ) -> list[Arrival]:
        return arrivals.ls(
            self._database,
            watch=watch,
            experiment=experiment,
            state=state,
            after=after,
            before=before,
            newest=newest,
            limit=limit,
        )

    def of(self, numbers: Sequence[int]) -> list[Arrival]:
        return arrivals.get(self._database, numbers)

    def release(self, number: int, *, workflow: str = "", given: dict[str, str] | None = None) -> Arrival:
        from orchestrator.engine import watching

        load, who = self._planner().definition, getpass.getuser()
        made = watching.release(self._database, number, load, who=who, now=time.time(), workflow=workflow, given=given)
        self._wake()
        return made
