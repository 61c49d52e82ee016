"""Concurrent clients that ask, look and listen, and note what they asked and were told, for `history` to judge."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import Any

import httpx2

from orchestrator import protocol
from orchestrator.client import Client
from orchestrator.definition import loader
from orchestrator.errors import NotFound, Unavailable
from orchestrator.model import Run, RunStatus
from orchestrator.settings import Settings
from orchestrator.store import runs as store
from orchestrator.store import search
from orchestrator.store.database import Database
from tests.chaos.history import Heard, Kept, Listed, Op, Saw, What, Wished, wrong

Connect = Callable[[], Client]

PAGE = 100  # lines of a list that are asked for at once
LEAVES_AFTER = 40  # events, then a listener goes away and comes back
CATCH_UP_S = 10.0
BLINK_S = 0.004  # too short to wait for an answer


class History:
    """What has been noted, and the clients that look all the while. `stop` says what of it cannot have been."""

    def __init__(self, connect: Connect, *, readers: int = 2, listeners: int = 2, pause_s: float = 0.05) -> None:
        self.ops: list[Op] = []
        self.known: list[str] = []  # runs that were asked for, whether there was an answer or not
        self.troubles: list[str] = []
        self.over = threading.Event()
        self._enough = threading.Event()
        self._callers: list[Caller] = [Reader(self, connect, n, pause_s) for n in range(readers)]
        self._listeners = [Listener(self, connect, n, self._enough) for n in range(listeners)]

    def add(self, caller: Caller) -> None:
        """One more, which ends soon after `over`. Before `start`."""
        self._callers.append(caller)

    def start(self) -> None:
        for thread in (*self._callers, *self._listeners):
            thread.start()

    @contextlib.contextmanager
    def submitting(self, run_id: str) -> Iterator[None]:
        """Note that this run is asked for under this id: with an answer, or without one when it raises."""
        self.known.append(run_id)
        begin, end = time.monotonic(), inf
        try:
            yield
            end = time.monotonic()
        finally:
            self.ops.append(Wished(begin, end, What.SUBMIT, run_id, run_id))

    def stop(self, database: Database, request_of: Callable[[Run], str] = lambda run: run.id) -> list[str]:
        """End all clients, compare with the store, and say what is wrong. The services have to be up."""
        self.over.set()
        for thread in self._callers:
            thread.join(60.0)
        kept = keep(database, request_of)
        newest, until = max(kept.events, default=0), time.monotonic() + CATCH_UP_S
        while any(x.seen < newest for x in self._listeners) and time.monotonic() < until:
            time.sleep(0.05)
        self._enough.set()
        for listener in self._listeners:
            listener.join(30.0)
        left = [f"{t.name} has not ended" for t in (*self._callers, *self._listeners) if t.is_alive()]
        return [*left, *self.troubles, *wrong(list(self.ops), kept)]


def keep(database: Database, request_of: Callable[[Run], str]) -> Kept:
    """What the store holds now: every run whole, and every event."""
    at, runs = time.monotonic(), {}
    for line in search.listing(database, limit=1_000_000):
        run = store.load(database, line.id)
        runs[run.id] = (request_of(run), run.status)
    events: dict[int, tuple[str, str]] = {}
    while page := store.events_after(database, "", max(events, default=0)):
        events |= {event.seq: (event.run_id, event.kind) for event in page}
    return Kept(at, runs, events)


# --------------------------------------------------------------------------------------------------------- looking


class Caller(threading.Thread):
    """One client in a thread; `call` is what it does until it is over."""

    def __init__(self, history: History, connect: Connect, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._history, self._connect = history, connect
        self._chance = random.Random(name)

    def run(self) -> None:
        try:
            self.call()
        except Exception as error:  # noqa: BLE001  an answer that no client is made for
            self._history.troubles.append(f"{self.name} has ended with {error!r}")

    def call(self) -> None:
        raise NotImplementedError


class Reader(Caller):
    """Looks at one run after another, and now and then at the list of all."""

    def __init__(self, history: History, connect: Connect, number: int, pause_s: float) -> None:
        super().__init__(history, connect, f"reader {number}")
        self._pause_s = pause_s

    def call(self) -> None:
        with self._connect() as client:
            while not self._history.over.wait(self._pause_s):
                with contextlib.suppress(Unavailable):
                    if self._chance.random() < 0.1:
                        self._list(client)
                    elif self._history.known:
                        self._look(client, self._chance.choice(self._history.known))

    def _look(self, client: Client, run_id: str) -> None:
        begin = time.monotonic()
        try:
            status: RunStatus | None = client.run(run_id).status
        except NotFound:
            status = None
        self._history.ops.append(Saw(begin, time.monotonic(), run_id, status))

    def _list(self, client: Client) -> None:
        begin, lines = time.monotonic(), client.runs(limit=PAGE)
        page = lines
        while len(page) == PAGE:
            page = client.runs(limit=PAGE, before=page[-1].place)
            lines = [*lines, *page]
        self._history.ops.append(Listed(begin, time.monotonic(), {line.id: line.status for line in lines}))


class Listener(Caller):
    """Follows the stream of all events from the first one on; goes away at times and asks for what came after."""

    def __init__(self, history: History, connect: Connect, number: int, enough: threading.Event) -> None:
        super().__init__(history, connect, f"listener {number}")
        self._enough = enough
        self.seen = 0

    def call(self) -> None:
        self._history.ops.append(Heard(self.name, 0, "", ""))
        with self._connect() as client, _http(client.settings) as http:
            addresses = client.settings.addresses
            while not self._enough.is_set():
                try:
                    self._listen(http, addresses[0])
                except httpx2.HTTPError:
                    addresses.append(addresses.pop(0))
                    time.sleep(0.2)

    def _listen(self, http: httpx2.Client, address: str) -> None:
        again = {"Last-Event-ID": str(self.seen)} if self.seen else {}
        with http.stream("GET", f"{address}{protocol.API}/events", params={"after": 0}, headers=again) as answer:
            answer.raise_for_status()
            heard = 0
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    said = json.loads(line.removeprefix("data:"))
                    self._history.ops.append(Heard(self.name, said["seq"], said["run_id"], said["kind"]))
                    self.seen = said["seq"]
                    heard += 1
                if heard == LEAVES_AFTER or self._enough.is_set():
                    return


# ---------------------------------------------------------------------------------------------------------- asking


class NoEffect(Exception):
    """It was refused, or did not reach a service."""


class Once:
    """Requests that are made once, so that what is noted is what was sent."""

    def __init__(self, settings: Settings) -> None:
        self._addresses = settings.addresses
        self._http = _http(settings)

    def close(self) -> None:
        self._http.close()

    def post(self, path: str, body: Mapping[str, Any], *, key: str = "", timeout_s: float = 10.0) -> Any:
        """The answer. Raises NoEffect, and Unavailable when nothing says whether it has one."""
        headers = {"Idempotency-Key": key} if key else {}
        url = f"{self._addresses[0]}{protocol.API}{path}"
        try:
            answer = self._http.post(url, json=dict(body), headers=headers, timeout=timeout_s)
        except httpx2.HTTPError as error:
            if timeout_s > BLINK_S:
                self._addresses.append(self._addresses.pop(0))
            raise (NoEffect if isinstance(error, httpx2.ConnectError) else Unavailable)(str(error)) from error
        if answer.status_code >= 500:
            self._addresses.append(self._addresses.pop(0))
            raise Unavailable(answer.text)
        if answer.status_code >= 400:
            raise NoEffect(f"{answer.status_code} {answer.text}")
        return answer.json()


class Asker(Caller):
    """Asks for runs, by an id or by a key, and again without an answer; cancels, retries, resumes, dismisses.

    `definition` takes the argument `request`, which tells the run of one request from that of another.
    """

    def __init__(
        self, history: History, connect: Connect, number: int, definition: Callable[[], dict[str, Any]], pause_s: float
    ) -> None:
        super().__init__(history, connect, f"asker {number}")
        self._definition, self._pause_s = definition, pause_s
        self._unanswered: list[tuple[str, str, dict[str, Any]]] = []  # request, id, what was sent

    def call(self) -> None:
        ways = (self._by_client, self._new, self._again, self._cancel, self._retry, self._resume, self._dismiss)
        with self._connect() as client, contextlib.closing(Once(client.settings)) as once:
            self._client, self._once = client, once
            while not self._history.over.wait(self._pause_s * self._chance.uniform(0.5, 1.5)):
                way = self._chance.choices(ways, (2, 3, 4, 1, 2, 1, 1))[0]
                with contextlib.suppress(Unavailable, NoEffect):
                    way()

    def _by_client(self) -> None:
        run_id = str(uuid.uuid4())
        plan = self._client.plan(loader.load(self._definition()), {"request": run_id})
        with self._history.submitting(run_id):
            self._client.submit(plan, run_id=run_id)

    def _new(self) -> None:
        """By an id or by a key; half of the time it is gone before there can be an answer."""
        request = str(uuid.uuid4())
        run_id = request if self._chance.random() < 0.5 else ""
        if run_id:
            self._history.known.append(run_id)
        asked = {"definition": self._definition(), "arguments": {"request": request}, "id": run_id}
        self._unanswered.append((request, run_id, asked))
        self._submit(-1, self._chance.choice((BLINK_S, 10.0)))

    def _again(self) -> None:
        """One that had no answer; some are given up, and are runs or not."""
        if self._unanswered:
            which = self._chance.randrange(len(self._unanswered))
            if self._chance.random() < 0.2:
                del self._unanswered[which]
            else:
                self._submit(which, 10.0)

    def _submit(self, which: int, timeout_s: float) -> None:
        request, run_id, asked = self._unanswered[which]
        begin = time.monotonic()
        try:
            said = self._once.post("/runs", asked, key="" if run_id else request, timeout_s=timeout_s)["id"]
        except Unavailable:
            self._history.ops.append(Wished(begin, inf, What.SUBMIT, run_id, request))
            raise
        except NoEffect as error:
            if str(error)[:1] == "4":
                self._history.troubles.append(f"request {request} was refused: {error}")
            raise
        self._history.ops.append(Wished(begin, time.monotonic(), What.SUBMIT, said, request))
        self._history.known.append(said)
        del self._unanswered[which]

    def _cancel(self) -> None:
        self._wish(What.CANCEL, self._one(), {"reason": "a test"})

    def _retry(self) -> None:
        self._wish(What.RETRY, self._one(RunStatus.FAILED, RunStatus.ABORTED), {})

    def _resume(self) -> None:
        self._wish(What.RESUME, self._one(RunStatus.HELD), {})

    def _dismiss(self) -> None:
        """It changes no run; its event comes from beside the engine."""
        self._once.post(f"/dead/{self._one(RunStatus.FAILED)}/dismiss", {})

    def _one(self, *states: RunStatus) -> str:
        """A run that is like this, as far as one can know. Raises NoEffect when there is none."""
        found = [line.id for state in states or (RunStatus.RUNNING,) for line in self._client.runs(status=state)]
        if not found:
            raise NoEffect
        return self._chance.choice(found)

    def _wish(self, what: What, run_id: str, body: Mapping[str, Any]) -> None:
        begin = time.monotonic()
        try:
            self._once.post(f"/runs/{run_id}/{what.value}", body)
            end = time.monotonic()
        except Unavailable:
            end = inf
        self._history.ops.append(Wished(begin, end, what, run_id))


def _http(settings: Settings) -> httpx2.Client:
    headers = {"authorization": f"Bearer {settings.token.reveal()}"}
    return httpx2.Client(headers=headers, timeout=httpx2.Timeout(10.0, connect=2.0))
