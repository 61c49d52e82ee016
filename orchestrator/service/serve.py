"""A service process: the engine while it has the lease, and HTTP beside it where an address is given."""

from __future__ import annotations

import contextlib
import signal
import threading
from pathlib import Path

import structlog
from msgspec import Struct

from orchestrator.errors import SettingsError, Unavailable
from orchestrator.locks import lock, service_lock
from orchestrator.service import holding
from orchestrator.service.server import Server
from orchestrator.settings import Settings, ensure_home
from orchestrator.store.database import Database

log = structlog.get_logger()


class Listen(Struct, frozen=True):
    """Where to listen for HTTP."""

    address: str
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False  # somebody else encrypts


def serve(
    settings: Settings, *, idle_exit_s: float = 0.0, listen: Listen | None = None, supervises: bool = True
) -> int:
    """Be the service of this home until stopped; 0, or 75 when another process is it already.

    With `idle_exit_s` it does not stand by: another service with the engine is a reason to end.
    """
    ensure_home(settings.home)
    held = lock(service_lock(settings.home))
    if held is None:
        log.info("service.already_running")
        return Unavailable.exit_code
    with Database(settings.database_url) as database:
        if supervises and listen is not None and database.postgresql:
            raise SettingsError(
                "With several services on one PostgreSQL the agents are processes of their own.",
                "Leave --agents out and start `beamway agent SITE`.",
            )
        database.ensure()
        return _Serving(settings, database, idle_exit_s=idle_exit_s, listen=listen, supervises=supervises).run()


class _Serving:
    def __init__(
        self, settings: Settings, database: Database, *, idle_exit_s: float, listen: Listen | None, supervises: bool
    ) -> None:
        self._settings, self._database = settings, database
        self._idle_exit_s, self._listen, self._supervises = idle_exit_s, listen, supervises
        self._server: Server | None = None
        self._stop = threading.Event()
        self._changed = lambda: None

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        with contextlib.ExitStack() as around:
            address = self._begin_http(around) if self._listen is not None else ""
            while not self._stop.is_set():
                held = self._take(address)
                if held is None:
                    return Unavailable.exit_code if self._idle_exit_s else 0
                self._server = Server(
                    self._settings, self._database, held, idle_exit_s=self._idle_exit_s, supervises=self._supervises
                )
                self._server.changed = self._changed
                if self._stop.is_set():
                    self._server.stop()
                mine = self._server.run()
                self._server = None
                if mine:
                    held.give_back()
                    break
        return 0

    def _take(self, address: str) -> holding.Holding | None:
        """The engine; None when this service is to end before it could be had."""
        said = ""
        while not self._stop.is_set():
            words = ""
            try:
                held = holding.take(self._database, self._settings.home, address)
                if held is not None:
                    log.info("service.has_engine", fence=held.lease.fence)
                    return held
                other = holding.holder(self._database)
                words = f"{other.holder} has the engine" if other else ""
            except Unavailable as error:
                words = error.sentence
            if words and words != said:
                said = words
                log.info("service.stands_by", reason=words)
            if words and self._idle_exit_s:
                return None
            self._stop.wait(holding.ASK_S)
        return None

    def _on_signal(self, number: int, _frame: object) -> None:
        self._stop.set()
        if self._server is not None:
            self._server.stop()

    def _begin_http(self, around: contextlib.ExitStack) -> str:
        from orchestrator.service.http import app, context, listening

        listen = self._listen
        assert listen is not None
        host, port = listening.parse(listen.address, encrypted=listen.certificate is not None or listen.behind_proxy)
        reading = around.enter_context(Database(self._settings.database_url))
        here = context.Context(self._settings, reading, lambda: self._server)
        self._changed = here.bell.ring
        port = around.enter_context(
            listening.listening(app.create(here), host, port, certificate=listen.certificate, key=listen.key)
        )
        return f"{'https' if listen.certificate else 'http'}://{host}:{port}"
