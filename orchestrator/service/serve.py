"""A service process: the engine of this home, and HTTP beside it where an address is given."""

from __future__ import annotations

import contextlib
from pathlib import Path

import structlog
from msgspec import Struct

from orchestrator.errors import Unavailable
from orchestrator.locks import lock, service_lock
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
    """Be the service of this home until stopped; 0, or 75 when another process is it already."""
    ensure_home(settings.home)
    held = lock(service_lock(settings.home))
    if held is None:
        log.info("service.already_running")
        return Unavailable.exit_code
    server = Server(settings, idle_exit_s=idle_exit_s, supervises=supervises)
    with contextlib.ExitStack() as around:
        if listen is not None:
            from orchestrator.service.http import app, context, listening

            encrypted = listen.certificate is not None or listen.behind_proxy
            host, port = listening.parse(listen.address, encrypted=encrypted)
            database = Database(settings.database_url)
            around.callback(database.close)
            database.ensure()
            here = context.Context(settings, database, lambda: server.gate)
            server.changed = here.bell.ring
            application = app.create(here)
            around.enter_context(
                listening.listening(application, host, port, certificate=listen.certificate, key=listen.key)
            )
        server.run()
    return 0
