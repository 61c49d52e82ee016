"""The catalog follows the engine: what runs have read and made is written down soon after they ended.

Beside the engine's turns and not in them, in batches, and no more than half of the time: a storm of runs is not held up
by its catalog, which comes after. What is left when this process dies, whoever has the engine next goes on with.
"""

from __future__ import annotations

import threading
import time

import structlog

from orchestrator.engine import accounts
from orchestrator.errors import BeamwayError, Stale, Unavailable
from orchestrator.outside import effect
from orchestrator.store import lineage, runs
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease
from orchestrator.store.lineage import Account

BATCH = 10  # runs of one transaction: as short as those of the engine, which waits for it on SQLite
BEAT_S = 5.0  # at least so often it looks without being called
AGAIN_S = 1.0

log = structlog.get_logger()


class Cataloguing:
    """A thread of the service that has the engine."""

    def __init__(self, url: str, lease: Lease, default_site: str) -> None:
        self._database = Database(url)
        self._lease, self._site = lease, default_site
        self._called, self._over = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="cataloguing", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def call(self) -> None:
        """A run has ended."""
        self._called.set()

    def stop(self) -> None:
        """After the transaction that it is at."""
        self._over = True
        self._called.set()
        if self._thread.is_alive():
            self._thread.join()
        self._database.close()

    def _run(self) -> None:
        while not self._over:
            self._called.clear()
            began = time.monotonic()
            try:
                busy = follow(self._database, self._site, fence=self._lease)
            except Stale:
                return  # another service has the engine, and the catalog with it
            except Unavailable as error:
                log.warning("catalog.behind", reason=error.sentence)
                self._called.wait(AGAIN_S)
                continue
            if busy:
                time.sleep(time.monotonic() - began)
            else:
                self._called.wait(BEAT_S)


def follow(database: Database, default_site: str, *, fence: Lease | None = None) -> int:
    """Write down the next runs that have ended; how many. Raises Stale, Unavailable."""
    cursor, events = lineage.due(database, limit=BATCH)
    if not events:
        return 0
    found = [_account(database, run_id, default_site) for run_id in dict.fromkeys(run_id for _, run_id in events)]
    told = [account for account in found if account is not None]
    with effect("catalog.write"):
        lineage.write(database, cursor, told, events[-1][0], now=time.time(), fence=fence)
    return len(events)


def _account(database: Database, run_id: str, default_site: str) -> Account | None:
    """None for a run that cannot be read, or that is being run again: it will say so when it has ended."""
    try:
        run = runs.load(database, run_id)
        return accounts.account(run, default_site) if accounts.summary(run) else None
    except Unavailable:
        raise
    except (BeamwayError, LookupError, ValueError, TypeError) as error:
        log.error("catalog.run_unreadable", run=run_id, reason=str(error))
        return None
