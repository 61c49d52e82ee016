"""Who the service's loop speaks with: a socket of this home, a question from another thread, an agent over HTTP.

All are fed and answered by the loop; only `Question` and `RemoteAgent` are looked at from other threads.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from orchestrator import protocol
from orchestrator.service.agents import Site


class Peer:
    """Somebody who asks, and, after `Hello`, an agent."""

    def __init__(self) -> None:
        self.site: Site | None = None
        self.key = object()

    def send(self, message: protocol.Message) -> None:
        raise NotImplementedError


class SocketPeer(Peer):
    """A connection to the Unix socket of this home."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self.socket = connection
        self.frames = protocol.Frames()
        self._out = bytearray()

    def send(self, message: protocol.Message) -> None:
        self._out += protocol.pack(message)
        self.flush()

    def flush(self) -> None:
        """Write what the socket takes now; the rest goes when it is writable."""
        try:
            while self._out:
                written = self.socket.send(self._out)
                del self._out[:written]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()  # the reading side sees the end of this connection

    @property
    def pending(self) -> bool:
        return bool(self._out)


class Question(Peer):
    """One question from another thread; `answer` holds what the loop says to it."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: Future[protocol.Message] = Future()

    def send(self, message: protocol.Message) -> None:
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_result(message)


class RemoteAgent(Peer):
    """An agent that fetches its messages. Each is kept until the agent has asked for those after it."""

    def __init__(self, session: str) -> None:
        super().__init__()
        self.session = session
        self.holder = ""
        self.seen_at = time.monotonic()
        self.over = False
        self._kept: deque[tuple[int, protocol.Message]] = deque()
        self._number = 0
        self._lock = threading.Lock()
        self._ring: Callable[[], None] | None = None

    def send(self, message: protocol.Message) -> None:
        with self._lock:
            self._number += 1
            self._kept.append((self._number, message))
            ring, self._ring = self._ring, None
        if ring is not None:
            ring()

    def end(self) -> None:
        """This session is over: whoever waits for messages hears so."""
        with self._lock:
            self.over = True
            ring, self._ring = self._ring, None
        if ring is not None:
            ring()

    def fetch(self, after: int, ring: Callable[[], None]) -> list[tuple[int, protocol.Message]]:
        """The messages after this number; without any, `ring` is called (from the loop's thread) when there are."""
        with self._lock:
            self.seen_at = time.monotonic()
            while self._kept and self._kept[0][0] <= after:
                self._kept.popleft()
            if not self._kept and not self.over:
                self._ring = ring
            return list(self._kept)
