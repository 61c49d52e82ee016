"""What came from what, as a client asks for it: of this home, or of a service elsewhere."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator import codec, protocol

if TYPE_CHECKING:
    from orchestrator.catalog.provenance import Story
    from orchestrator.engine.again import Again
    from orchestrator.engine.planner import Planner
    from orchestrator.store.database import Database
    from orchestrator.store.stale import StaleProduct


class Lineage(Protocol):
    def story(self, what: str, *, up: int, down: int, experiment: str = "") -> Story:
        """A run, a file or a collection with so many generations before it and after it. Raises NotFound."""
        ...

    def stale(self, *, experiment: str = "", limit: int = 1000) -> list[StaleProduct]:
        """The products that were made of what has another content now."""
        ...

    def rerun(self, *, experiment: str = "", files: Sequence[int] = (), dry_run: bool = False) -> list[Again]:
        """Do the runs behind the stale products again; those that must wait for others are told and not begun."""
        ...


class LocalLineage:
    def __init__(
        self,
        database: Database,
        planner: Callable[[], Planner],
        ask: Callable[[protocol.Submit], protocol.Accepted],
    ) -> None:
        self._database, self._planner, self._ask = database, planner, ask

    def story(self, what: str, *, up: int, down: int, experiment: str = "") -> Story:
        from orchestrator.catalog import provenance

        return provenance.story(self._database, what, up=up, down=down, experiment=experiment)

    def stale(self, *, experiment: str = "", limit: int = 1000) -> list[StaleProduct]:
        from orchestrator.store import stale

        return stale.ls(self._database, experiment=experiment, limit=limit)

    def rerun(self, *, experiment: str = "", files: Sequence[int] = (), dry_run: bool = False) -> list[Again]:
        from orchestrator.engine import again

        found = again.wanted(self._database, experiment=experiment, files=files)
        for each in found if not dry_run else ():
            if each.again and not each.there:
                who, host = getpass.getuser(), socket.gethostname()
                self._ask(again.wish(self._database, self._planner(), each, username=who, host=host))
        return found


class RemoteLineage:
    def __init__(self, get: Callable[..., str], post: Callable[[str, Any], str]) -> None:
        self._get, self._post = get, post

    def story(self, what: str, *, up: int, down: int, experiment: str = "") -> Story:
        from orchestrator.catalog.provenance import Story

        wanted = {"what": json.dumps(what), "up": up, "down": down, "experiment": json.dumps(experiment)}
        return codec.loads(self._get("/lineage/document", wanted), Story)

    def stale(self, *, experiment: str = "", limit: int = 1000) -> list[StaleProduct]:
        from orchestrator.store.stale import StaleProduct

        kind: Any = list[StaleProduct]
        wanted = {"experiment": json.dumps(experiment), "limit": limit}
        found: list[StaleProduct] = codec.loads(self._get("/stale/document", wanted), kind)
        return found

    def rerun(self, *, experiment: str = "", files: Sequence[int] = (), dry_run: bool = False) -> list[Again]:
        from orchestrator.engine.again import Again

        kind: Any = list[Again]
        asked = {"experiment": experiment, "files": list(files), "dry_run": dry_run}
        found: list[Again] = codec.loads(self._post("/stale/rerun", asked), kind)
        return found
