"""The agent's connection to the service: messages both ways, and reports that are kept until they are stored.

A report that the service has not stored goes out again over the next connection, so nothing that was seen to end is
lost, whichever side dies. For one thread. `SocketLink` speaks to the service of this home, `http_link.HttpLink` to one
behind an address.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import structlog

from orchestrator import protocol

SEND_S = 60.0  # a service that takes nothing for so long is gone

log = structlog.get_logger()

Event: TypeAlias = protocol.Started | protocol.Progress | protocol.Waits | protocol.Ended


class Link:
    def __init__(self, site: str) -> None:
        self._site = site
        self._unstored: dict[int, protocol.Report] = {}
        self._number = 0
        self.taken = False  # another agent has the site
        self.socket: socket.socket | None = None  # readable when `hear` has something; None: there is no connection

    def connect(self, tokens: Iterable[str]) -> socket.socket | None:
        """Say hello with the attempts of this agent, and send again what was not stored; None without a service."""
        ended = (e.token for r in self._unstored.values() for e in r.events if isinstance(e, protocol.Ended))
        if not self._open(tuple({*ended, *tokens})):
            return None
        for report in list(self._unstored.values()):
            self.say(report)
        return self.socket

    def _open(self, holding: tuple[str, ...]) -> bool:
        """Say hello; False when there is no service, or it has another agent for this site."""
        raise NotImplementedError

    def say(self, message: protocol.Message) -> None:
        """What cannot be sent is left out; `hear` sees that the connection is over."""
        raise NotImplementedError

    def hear(self) -> list[protocol.AnyMessage] | None:
        """What the service says; None when the connection is over."""
        raise NotImplementedError

    @property
    def valid(self) -> bool:
        """Is the site this agent's own at this moment? Else nothing may be begun. The lock of a home is for ever."""
        return True

    def report(self, events: Sequence[Event]) -> None:
        self._number += 1
        report = self._unstored[self._number] = protocol.Report(self._number, tuple(events))
        self.say(report)

    def stored(self, number: int) -> list[protocol.Ended]:
        """The ends in the reports up to this number, which are on the service's disk now."""
        done = [self._unstored.pop(n) for n in sorted(self._unstored) if n <= number]
        return [e for report in done for e in report.events if isinstance(e, protocol.Ended)]

    def close(self) -> None:
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.close()
        self.socket = None


class SocketLink(Link):
    def __init__(self, home: Path, site: str) -> None:
        super().__init__(site)
        self._home = home
        self._frames = protocol.Frames()

    def _open(self, holding: tuple[str, ...]) -> bool:
        try:
            self.socket = protocol.connect(self._home)
        except OSError:
            return False
        self.socket.settimeout(SEND_S)
        self._frames = protocol.Frames()
        self.say(protocol.Hello(self._site, os.getpid(), holding))
        return True

    def say(self, message: protocol.Message) -> None:
        if self.socket is None:
            return
        try:
            self.socket.sendall(protocol.pack(message))
        except OSError as error:
            log.warning("service.gone", reason=str(error))
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)  # the next read sees the end

    def hear(self) -> list[protocol.AnyMessage] | None:
        assert self.socket is not None
        try:
            data = self.socket.recv(1 << 20)
            messages = self._frames.feed(data)
        except (OSError, ValueError):
            data, messages = b"", []
        if data:
            return messages
        self.close()
        return None
