"""The watcher of this home: there while there is something to watch, or a run of what has arrived to begin."""

from __future__ import annotations

import time

from orchestrator import locks
from orchestrator.errors import Unavailable
from orchestrator.service.supervisor import Supervisor
from orchestrator.settings import Settings
from orchestrator.store import watches
from orchestrator.store.database import Database

END_S = 20.0


class Watching:
    """Starts a process above this floor by its name, as agents are started."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._site, self._database = settings.site, database
        words = ["-m", "orchestrator.client.watcher", self._site, "--leashed"]
        lock = locks.watcher_lock(settings.home, self._site)
        self._supervisor = Supervisor(settings.home, f"watcher-{self._site}", lock, words, clock=time.monotonic)
        self._needed = False

    def tend(self) -> bool:
        """Call often; whether there is something to watch."""
        try:
            needed = watches.busy(self._database, self._site)
        except Unavailable:
            needed = self._needed
        if needed:
            self._supervisor.tend()
        elif self._needed:
            self._supervisor.dismiss()
        self._needed = needed
        return needed

    def dismiss(self) -> None:
        """Ask it to end."""
        self._supervisor.dismiss()

    def end(self) -> None:
        """Wait for that."""
        self._supervisor.wait(END_S)
