"""The application served: uvicorn in a thread beside the engine's."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI

from orchestrator.errors import SettingsError, Unavailable

START_S = 20.0
log = structlog.get_logger()


def parse(address: str, *, encrypted: bool) -> tuple[str, int]:
    """`host:port`. Raises SettingsError; without encryption only this machine's own addresses are listened on."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SettingsError(f"{address!r} is no address to listen on.", "Write it as host:port, as in 127.0.0.1:8080.")
    if not encrypted and not _of_this_machine(host.strip("[]")):
        raise SettingsError(
            f"Tokens would travel in the clear to {host}.",
            "Give --certificate and --key, or --behind-proxy when a proxy on this machine's network encrypts.",
        )
    return host.strip("[]"), int(port)


def _of_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def listening(
    app: FastAPI, host: str, port: int, *, certificate: Path | None = None, key: Path | None = None
) -> Iterator[int]:
    """Serve until left; gives the port. Raises Unavailable when the address cannot be had."""
    bound = _bind(host, port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=2,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="http", daemon=True)
        thread.start()
        over = time.monotonic() + START_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > over:
                raise Unavailable("The service over HTTP did not start.", "Are certificate and key readable?")
            time.sleep(0.005)
        log.info("http.listening", host=host, port=bound.getsockname()[1], encrypted=certificate is not None)
        try:
            yield int(bound.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(timeout=10.0)
    finally:
        bound.close()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, number)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise Unavailable(f"{host}:{port} cannot be listened on: {error.strerror or error}.") from error
    return bound
