"""The watcher's process: `python -m orchestrator.client.watcher SITE`, started by the service of a home, or by hand.

It is one a site: whoever has the lease `watcher:SITE` of the store. Another one stands by, and one that has lost its
lease without knowing it can write nothing.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from functools import partial

import structlog

from orchestrator import locks, logs
from orchestrator import settings as settings_module
from orchestrator.arrival.watch import Watcher
from orchestrator.catalog.shelving import Shelf
from orchestrator.client import Client
from orchestrator.client.arrived import Arrived
from orchestrator.errors import BeamwayError, SettingsError, Stale, Unavailable
from orchestrator.service.holding import Holding
from orchestrator.settings import Settings
from orchestrator.store import leases
from orchestrator.store.database import Database
from orchestrator.transfer import places
from sites import loader

LEASE_S = 15.0  # a silent watcher is followed by another after so long
ASK_S = 0.5  # how often one that stands by asks
LEASH_S = 10.0  # one that a service has started ends when there has been none for so long

log = structlog.get_logger()


def main(site: str, *, leashed: bool = False) -> int:
    """Be the watcher of this site until stopped. `leashed`: only while a service of this home runs, and only one."""
    settings = settings_module.load()
    settings_module.ensure_home(settings.home)
    if settings.url and not settings.database:
        raise SettingsError(
            "A watcher writes down what arrives in the database of the service at BEAMWAY_URL, which is not set.",
            "Set BEAMWAY_DATABASE to its PostgreSQL.",
        )
    site = site or settings.site
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    lock, told = locks.watcher_lock(settings.home, site), False
    while locks.lock(lock) is None:
        if leashed:
            return 0
        if not told:
            log.info("watcher.stands_by", site=site, reason=f"pid {locks.holder(lock)} watches")
            told = True
        if over.wait(ASK_S):
            return 0
    with Database(settings.database_url) as database:
        database.ensure()
        while not over.is_set():
            held = _take(settings, database, site, over)
            if held is not None:
                _watch(settings, database, held, site, over, leashed=leashed)
    return 0


class Leash:
    """Whether the service that has started us answers, or one that came after it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._seen_at = self._asked_at = time.monotonic()

    def torn(self) -> bool:
        now = time.monotonic()
        if now > self._asked_at + LEASH_S / 4:
            self._asked_at = now
            if self._client.service() is not None:
                self._seen_at = time.monotonic()
        return now > self._seen_at + LEASH_S


def _take(settings: Settings, database: Database, site: str, over: threading.Event) -> Holding | None:
    """The lease; None when this process is to end before it could be had."""
    holder, said = f"{socket.gethostname()}:{settings.home}", ""
    while not over.is_set():
        try:
            lease = leases.acquire(database, f"watcher:{site}", holder, lease_s=LEASE_S)
            if lease is not None:
                log.info("watcher.watches", site=site, fence=lease.fence)
                return Holding(database, lease, LEASE_S)
            other = leases.read(database, f"watcher:{site}")
            words = f"{other.holder} watches" if other else ""
        except Unavailable as error:
            words = error.sentence
        if words != said:
            said = words
            log.info("watcher.stands_by", site=site, reason=words)
        over.wait(ASK_S)
    return None


def _watch(
    settings: Settings, database: Database, held: Holding, site: str, over: threading.Event, *, leashed: bool
) -> None:
    """While the lease is ours."""
    apart = places.apart(partial(loader.load, directories=settings.site_directories))
    with Client(settings, starts=False) as client:
        leash, runs = Leash(client), Arrived(client, database)

        def each() -> None:
            held.tend(time.monotonic())
            if leashed and leash.torn():
                log.info("watcher.left_alone", site=site)
                over.set()

        try:
            with (
                Shelf(database, fence=held.lease, apart=apart) as shelf,
                Watcher(
                    database,
                    runs,
                    site=site,
                    version=runs.version,
                    shelve=shelf.put,
                    fence=held.lease,
                ) as watcher,
            ):
                watcher.run(over, each)
            held.give_back()
        except Stale as error:
            log.warning("watcher.lost_lease", site=site, reason=error.sentence)


if __name__ == "__main__":
    logs.configure()
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    try:
        sys.exit(main(words[0] if words else "", leashed="--leashed" in sys.argv))
    except BeamwayError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
