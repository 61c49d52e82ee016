"""The engine's lease: of several services on one store one has the engine, the others stand by.

The holder is named by host and home. The lock of the home says that no other process goes by that name, so a service
that is started again has its lease back at once; one of another home has to wait until it has run out. Where the
database lies in the home, the home's lock is all there is to it, and the lease runs for ever.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import structlog

from orchestrator.errors import Stale, Unavailable
from orchestrator.settings import Settings
from orchestrator.store import leases
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease

LEASE_S = 8.0  # a silent engine is followed by another after so long
RENEW_S = 2.0
FOREVER_S = 1e9
ASK_S = 0.5  # how often a service that stands by asks

log = structlog.get_logger()


class Holding:
    """The lease while it is held; renewed by the engine's own loop, so that an engine which hangs loses it."""

    def __init__(self, database: Database, lease: Lease, lease_s: float) -> None:
        self._database, self._lease_s = database, lease_s
        self.lease = lease
        self._renewed_at = time.monotonic()

    def tend(self, now: float) -> None:
        """Renew it when that is due. Raises Stale when another has it; a store that does not answer is asked again."""
        if self._lease_s == FOREVER_S or now - self._renewed_at < RENEW_S:
            return
        try:
            if not leases.renew(self._database, self.lease, lease_s=self._lease_s):
                raise Stale(
                    f"Another process has taken over what {self.lease.name!r} stands for.", "This one stands by."
                )
            self._renewed_at = now
        except Stale:
            raise
        except Unavailable as error:
            log.warning("lease.not_renewed", reason=error.sentence)

    def give_back(self) -> None:
        """So that nobody waits for its end."""
        try:
            leases.release(self._database, self.lease)
        except Unavailable as error:
            log.warning("lease.not_given_back", reason=error.sentence)


def take(database: Database, home: Path, address: str) -> Holding | None:
    """The engine, when it is to be had. `address`: where this service answers, for the others to tell."""
    own = database.url == Settings(home=home).database_url
    lease_s = FOREVER_S if own else LEASE_S
    if own and (left := leases.read(database, leases.ENGINE)):
        # The database lies in the home whose lock we have: this is of before the home was moved or restored from a
        # backup, or this machine got its name.
        leases.release(database, left)
    lease = leases.acquire(database, leases.ENGINE, f"{socket.gethostname()}:{home}", lease_s=lease_s, doc=address)
    return None if lease is None else Holding(database, lease, lease_s)


def holder(database: Database) -> Lease | None:
    """Who has the engine, as the store says; None when nobody has."""
    found = leases.read(database, leases.ENGINE)
    return found if found is not None and found.left_s > 0 else None
