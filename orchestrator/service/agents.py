"""The site agents as the service sees them: what each may get, has got, and still owes.

An agent gets at most `WINDOW` orders ahead, so that a stage of 100,000 files does not sit in its memory, and a live
scan waits for no more than those. Which go next is `fair`'s to say. Orders for a site whose agent is away wait here;
they are in the store as well, so a restart of the service changes nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable

from msgspec import Struct
from msgspec.structs import replace

from orchestrator.model import Order, Outcome
from orchestrator.protocol import Bye, Estimate, Kills, Message, Orders
from orchestrator.service.breaker import Breaker
from orchestrator.service.fair import Waiting

WINDOW = 512


class Line(Struct, frozen=True):
    """A site at one moment."""

    name: str
    connected: bool
    shut: bool  # its breaker is open
    silent_s: float | None  # since its agent was heard; None: never
    waiting: int  # orders here
    sent: int  # orders with the agent
    oldest_waiting_s: float  # 0: there is none
    oldest_sent_s: float


class View(Struct, frozen=True):
    """The service at one moment of the monotonic clock."""

    at: float
    runs: int  # not over
    unstored: int  # answers that wait for the store
    fence: int
    sites: tuple[Line, ...]


class Site:
    """The orders of one site, and the agent that carries them out while it is connected."""

    def __init__(
        self, name: str, *, clock: Callable[[], float] = time.time, spread: Callable[[], float] = random.random
    ) -> None:
        self.name = name
        self.breaker = Breaker(clock=clock, spread=spread)
        self._waiting = Waiting()
        self._sent: dict[str, Order] = {}
        self._killed: set[str] = set()  # asked to end, not yet seen to end: asked again when an agent comes back
        self._questions: list[Estimate] = []
        self._was_shut = False
        self._send: Callable[[Message], None] | None = None
        self.complete = False  # every attempt that is not over has been ordered
        self._key: object = None  # of the connection that `_send` writes to
        self._since: dict[
            str, float
        ] = {}  # token -> when it was ordered first, by the monotonic clock; the oldest comes first
        self.heard_at = 0.0  # when its agent last spoke or was seen to be there, by the same; 0: never

    @property
    def connected(self) -> bool:
        return self._send is not None

    @property
    def load(self) -> tuple[int, int]:
        """(orders waiting, orders with the agent)"""
        return len(self._waiting), len(self._sent)

    def line(self, now: float) -> Line:
        """How it stands at this moment of the monotonic clock."""
        waiting = next((at for token, at in self._since.items() if token not in self._sent), now)
        sent = min((self._since[token] for token in self._sent if token in self._since), default=now)
        return Line(
            self.name,
            self.connected,
            bool(self.breaker.since),
            now - self.heard_at if self.heard_at else None,
            *self.load,
            now - waiting,
            now - sent,
        )

    def attach(self, key: object, send: Callable[[Message], None], holding: Iterable[str]) -> None:
        """An agent has said hello. What it does not hold, though it was sent, is sent again to be looked for.

        What it holds and nobody waits for any more, because another agent has ended it meanwhile, it is to end.
        """
        held = set(holding)
        if self.complete:
            self._killed |= held - self._sent.keys() - self._waiting.tokens()
        self._send, self._key = send, key
        for token, order in list(self._sent.items()):
            if token not in held:
                del self._sent[token]
                self.breaker.dropped(token)
                self._waiting.put_first(replace(order, adopt=True))
        for token in held & self._waiting.tokens():
            self._sent[token] = self._waiting.pop(token)
        self.flush()
        questions, self._questions = self._questions, []
        for question in questions:
            send(question)
        if self._killed:
            send(Kills(tuple(self._killed)))

    def detach(self, key: object) -> None:
        """This connection is gone; a newer one of the same site stays."""
        if key is self._key:
            self._send = None

    def ask(self, question: Estimate) -> None:
        """Sent at once, or when the agent says hello."""
        if self._send is not None:
            self._send(question)
        else:
            self._questions.append(question)

    def order(self, order: Order) -> None:
        if order.token not in self._sent:
            self._waiting.put(order)
            self._since.setdefault(order.token, time.monotonic())

    def kill(self, tokens: Iterable[str]) -> list[str]:
        """Ask the agent to end these attempts; returns those that never left, which are ended by that."""
        wanted = set(tokens)
        never_left = [t for t in wanted if t in self._waiting and not self._waiting[t].adopt]
        for token in never_left:
            self._waiting.pop(token)
            self._since.pop(token, None)
        away = wanted.difference(never_left)
        self._killed |= away
        if away and self._send is not None:
            self._send(Kills(tuple(away)))
        return never_left

    def ended(self, token: str, outcome: Outcome) -> None:
        self.breaker.ended(token, outcome)
        self._sent.pop(token, None)
        if token in self._waiting:
            self._waiting.pop(token)
        self._since.pop(token, None)
        self._killed.discard(token)

    def flush(self) -> None:
        """Send what the window and the breaker allow."""
        if self._send is None or not self._waiting or len(self._sent) >= WINDOW:
            return
        batch = []
        while self._waiting and len(self._sent) < WINDOW and (self._waiting.begun or self.breaker.lets):
            order = self._waiting.take()
            self._sent[order.token] = order
            self.breaker.sent(order.token)
            batch.append(order)
        if batch:
            self._send(Orders(tuple(batch)))

    def tend(self) -> bool:
        """From time to time; True when the site has begun to work again."""
        self.breaker.look()
        self.flush()
        was, self._was_shut = self._was_shut, bool(self.breaker.since)
        return was and not self._was_shut

    def dismiss(self) -> None:
        if self._send is not None:
            self._send(Bye())
