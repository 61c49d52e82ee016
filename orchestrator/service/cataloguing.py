"""The catalog follows the engine: what runs have read and made is written down soon after they ended.

Beside the engine's turns and not in them, in batches, and no more than half of the time: a storm of runs is not held up
by its catalog, which comes after. What is left when this process dies, whoever has the engine next goes on with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import DataError, IntegrityError

from orchestrator.engine import accounts
from orchestrator.errors import BeamwayError, Stale, Unavailable
from orchestrator.outside import effect
from orchestrator.store import lineage, runs
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease
from orchestrator.store.lineage import Account
from orchestrator.transfer import places
from orchestrator.transfer.places import Profiles
from sites import loader

BATCH = 10  # runs of one transaction: as short as those of the engine, which waits for it on SQLite
BEAT_S = 5.0  # at least so often it looks without being called
AGAIN_S = 1.0

log = structlog.get_logger()


class Cataloguing:
    """A thread of the service that has the engine."""

    def __init__(self, url: str, lease: Lease, default_site: str, profiles: Profiles) -> None:
        self._database = Database(url)
        self._lease, self._site, self._profiles = lease, default_site, profiles
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
                busy = follow(self._database, self._site, fence=self._lease, profiles=self._profiles)
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


def follow(
    database: Database,
    default_site: str,
    *,
    fence: Lease | None = None,
    limit: int = BATCH,
    profiles: Profiles = loader.load,
) -> int:
    """Write down the next runs that have ended; how many. Raises Stale, Unavailable.

    One that cannot be written is left out, and said to be: the others do not wait for it.
    """
    cursor, events = lineage.due(database, limit=limit)
    if not events:
        return 0
    apart = places.apart(profiles)
    ids = dict.fromkeys(run_id for _, run_id in events)
    found = [_account(database, run_id, default_site, apart) for run_id in ids]
    told = [account for account in found if account is not None]
    upto, now = events[-1][0], time.time()
    try:
        with effect("catalog.write"):
            lineage.write(database, cursor, told, upto, now=now, fence=fence)
    except Exception as error:
        if isinstance(error, Unavailable) and not isinstance(error.__cause__, DataError | IntegrityError):
            raise
        if limit > 1:
            return follow(database, default_site, fence=fence, limit=1, profiles=profiles)
        log.exception("catalog.run_left_out", run=events[0][1])
        with effect("catalog.write"):
            lineage.write(database, cursor, [], upto, now=now, fence=fence)
    return len(events)


def _account(database: Database, run_id: str, default_site: str, apart: Callable[[str, str], str]) -> Account | None:
    """None for a run that cannot be read, or that is being run again: it will say so when it has ended."""
    try:
        run = runs.load(database, run_id)
        return accounts.account(run, default_site, apart) if accounts.summary(run) else None
    except Unavailable:
        raise
    except (BeamwayError, LookupError, ValueError, TypeError) as error:
        log.error("catalog.run_unreadable", run=run_id, reason=str(error))
        return None
