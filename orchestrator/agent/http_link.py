"""The link of an agent to a service behind an address. The agent only ever connects outwards.

One thread fetches messages, which is the heartbeat that keeps the site; another brings reports. Both end with their
session: then the agent says hello again, at whichever service has the engine.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
import urllib.parse
import uuid
from collections.abc import Sequence
from typing import Any

import httpx2
import structlog

from orchestrator import codec, protocol
from orchestrator.agent.link import Link
from orchestrator.settings import Settings

CONNECT_S = 3.0
HELLO_S = 12.0
FETCH_S = protocol.AGENT_LEASE_S / 3  # that the service keeps a question for messages open
SLACK_S = 5.0  # for the answer to come
BRING_S = 30.0
AGAIN_S = 0.5
HELLO_AGAIN_S = 1.0

log = structlog.get_logger()
_KEPT: Any = list[tuple[int, protocol.AnyMessage]]


class Session:
    """One grant of the site, with its two threads. `over` when it is not to be used any more."""

    def __init__(
        self,
        address: str,
        site: str,
        headers: dict[str, str],
        first: str,
        asked_at: float,
        others: Sequence[str] = (),
    ) -> None:
        """`first`: the answer to a hello, ValueError when it is no grant; `others`: services on the same store."""
        kept: list[tuple[int, protocol.AnyMessage]] = codec.loads(first, _KEPT)
        granted = kept[0][1] if kept else None
        if not isinstance(granted, protocol.Granted):
            raise ValueError("no grant")
        self._base = f"{_agents(address, site)}/{urllib.parse.quote(granted.session)}"
        self._headers, self._lease_s = headers, granted.lease_s
        self.until = asked_at + granted.lease_s  # monotonic: the site is ours so long
        self._others = [a for a in others if a != address]
        self.over = False
        self.heard: queue.SimpleQueue[protocol.AnyMessage] = queue.SimpleQueue()
        self.said: queue.SimpleQueue[protocol.Message | None] = queue.SimpleQueue()
        self._waking, self.woken = socket.socketpair()
        self._waking.setblocking(False)
        self.woken.setblocking(False)
        self._take(kept)
        for target in (self._fetch, self._bring):
            threading.Thread(target=target, args=(kept[-1][0],), name=target.__name__, daemon=True).start()

    def _take(self, kept: list[tuple[int, protocol.AnyMessage]]) -> None:
        for _, message in kept:
            self.heard.put(message)
        if kept:
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waking.send(b"\0")

    def _fetch(self, seen: int) -> None:
        with httpx2.Client(headers=self._headers, timeout=httpx2.Timeout(FETCH_S + SLACK_S, connect=CONNECT_S)) as http:
            while not self.over:
                asked_at = time.monotonic()
                try:
                    answer = http.get(f"{self._base}/messages", params={"after": seen, "wait_s": FETCH_S})
                except httpx2.HTTPError as error:
                    if time.monotonic() > self.until or self._engine_is_elsewhere():
                        self.end(f"no answer: {error}")
                    time.sleep(AGAIN_S)
                    continue
                if answer.status_code != 200:
                    self.end(f"answered {answer.status_code}")
                    return
                try:
                    kept: list[tuple[int, protocol.AnyMessage]] = codec.loads(answer.text, _KEPT)
                except ValueError as error:  # somebody in between has answered
                    self.end(f"no messages: {error}")
                    return
                self.until = asked_at + self._lease_s
                if kept:
                    seen = kept[-1][0]
                    self._take(kept)

    def _engine_is_elsewhere(self) -> bool:
        """Then this session is over, and nobody waits for the end of its lease."""
        for address in self._others:
            with contextlib.suppress(httpx2.HTTPError):
                if httpx2.get(f"{address}/health/ready", timeout=CONNECT_S).status_code == 200:
                    return True
        return False

    def _bring(self, _seen: int) -> None:
        with httpx2.Client(headers=self._headers, timeout=httpx2.Timeout(BRING_S, connect=CONNECT_S)) as http:
            while not self.over:
                first = self.said.get()
                said = [first]
                with contextlib.suppress(queue.Empty):
                    while True:
                        said.append(self.said.get_nowait())
                body = codec.dumps([m for m in said if m is not None])
                while not self.over and body != "[]":
                    try:
                        answer = http.post(f"{self._base}/messages", content=body)
                    except httpx2.HTTPError:
                        time.sleep(AGAIN_S)  # a report that comes twice changes nothing
                        continue
                    if answer.status_code != 202:
                        self.end(f"answered {answer.status_code}")
                    break

    def end(self, why: str) -> None:
        if not self.over:
            self.over = True
            log.warning("service.gone", reason=why)
            self.said.put(None)
            self._wake()

    def close(self) -> None:
        self.over = True
        self.said.put(None)
        self._waking.close()


class HttpLink(Link):
    def __init__(self, settings: Settings, site: str) -> None:
        super().__init__(site)
        self._addresses = settings.addresses
        self._headers = {"authorization": f"Bearer {settings.token.reveal()}"}
        self._holder = f"{socket.gethostname()} pid {os.getpid()} {uuid.uuid4().hex[:8]}"
        self._session: Session | None = None
        self._not_before = 0.0
        self._said = ""

    def _open(self, holding: tuple[str, ...]) -> bool:
        if time.monotonic() < self._not_before:
            return False
        self._not_before = time.monotonic() + HELLO_AGAIN_S
        address = self._addresses[0]
        self._addresses.append(self._addresses.pop(0))
        hello = codec.dumps([protocol.Hello(self._site, os.getpid(), holding, self._holder)])
        asked_at = time.monotonic()
        url = _agents(address, self._site)
        try:
            answer = httpx2.post(
                url, content=hello, headers=self._headers, timeout=httpx2.Timeout(HELLO_S, connect=CONNECT_S)
            )
        except httpx2.HTTPError as error:
            self._explain(f"{address} does not answer: {error}")
            return False
        self.taken = answer.status_code == 409
        if answer.status_code != 201:
            self._explain(f"{address} answered {answer.status_code}: {answer.text[:300]}")
            return False
        try:
            self._session = Session(address, self._site, self._headers, answer.text, asked_at, others=self._addresses)
        except ValueError as error:  # somebody in between has answered
            self._explain(f"{address} did not grant the site: {error}")
            return False
        self.socket = self._session.woken
        self._said = ""
        return True

    def _explain(self, words: str) -> None:
        if words != self._said:
            self._said = words
            log.info("agent.waits", reason=words)

    def say(self, message: protocol.Message) -> None:
        if self._session is not None and not self._session.over:
            self._session.said.put(message)

    def hear(self) -> list[protocol.AnyMessage] | None:
        assert self._session is not None
        with contextlib.suppress(BlockingIOError):
            while self._session.woken.recv(4096):
                pass
        messages = []
        with contextlib.suppress(queue.Empty):
            while True:
                messages.append(self._session.heard.get_nowait())
        if self._session.over or not self.valid:  # what was heard before the lease ran out may be another's by now
            self.close()
            return None
        return [m for m in messages if not isinstance(m, protocol.Granted)]

    @property
    def valid(self) -> bool:
        session = self._session
        return self.socket is not None and session is not None and time.monotonic() < session.until

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        super().close()
        self._session = None


def _agents(address: str, site: str) -> str:
    return f"{address}{protocol.API}/sites/{urllib.parse.quote(site)}/agents"
