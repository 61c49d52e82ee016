"""The gate between the service's loop and all other threads: they put messages in, the loop wakes up and takes them."""

from __future__ import annotations

import contextlib
import queue
import socket
from collections.abc import Iterator
from concurrent.futures import Future

from orchestrator import protocol
from orchestrator.service.peers import Peer, Question


class Gate:
    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[tuple[Peer, protocol.AnyMessage]] = queue.SimpleQueue()
        self._closed = False
        self._waking, self.woken = socket.socketpair()
        self._waking.setblocking(False)
        self.woken.setblocking(False)

    def put(self, peer: Peer, message: protocol.AnyMessage) -> None:
        self._inbox.put((peer, message))
        if self._closed:
            self._refuse()
            return
        with contextlib.suppress(OSError):  # full: it wakes up anyway; closed: see `close`
            self._waking.send(b"\0")

    def ask(self, message: protocol.AnyMessage) -> Future[protocol.Message]:
        """The answer comes when it is on the disk."""
        question = Question()
        self.put(question, message)
        return question.answer

    def take(self) -> Iterator[tuple[Peer, protocol.AnyMessage]]:
        """What has come, for the loop's thread."""
        with contextlib.suppress(BlockingIOError):
            while self.woken.recv(4096):
                pass
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._inbox.get_nowait()

    def close(self) -> None:
        """Whoever still waits is told that this service ends, and so is whoever comes now."""
        self._closed = True
        self._refuse()
        self._waking.close()
        self.woken.close()

    def _refuse(self) -> None:
        refusal = protocol.Refused("The service is ending.", "Ask again.", 75)
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()[0].send(refusal)
