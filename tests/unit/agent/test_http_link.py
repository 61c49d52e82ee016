"""The agent's link over HTTP, to a service that answers badly, in part, late, or not at all."""

from __future__ import annotations

import queue
import select
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator import codec, protocol
from orchestrator.agent import http_link
from orchestrator.agent.http_link import HttpLink
from orchestrator.model import Outcome
from orchestrator.settings import Secret, Settings

LEASE_S = 5.0
NONE_OF_OURS = {"not JSON": "<html>Sign in</html>", "not a list": '{"a": 1}', "no message": '[[1, {"type": "Tea"}]]'}
REFUSED = (401, 403, 404, 409, 500, 503)

Answer = Callable[["_Handler"], None]


def plain(status: int, body: str = "") -> Answer:
    def answer(handler: _Handler) -> None:
        handler.say(status, body)

    return answer


def cut(handler: _Handler) -> None:
    """The beginning of an answer, and the end of the connection."""
    handler.say(200, "[[1, ", length=1000)
    handler.close_connection = True


def slow(handler: _Handler) -> None:
    handler.server.over.wait(3.0)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def say(self, status: int, body: str, *, length: int = 0) -> None:
        self.send_response(status)
        self.send_header("content-length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self) -> None:
        self._answer("fetch", "")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self._answer("bring" if self.path.endswith("/messages") else "hello", body)

    def _answer(self, what: str, body: str) -> None:
        if self.path == "/health/ready":
            self.say(200 if self.server.ready else 503, "")
            return
        self.server.asked[what].append(body)
        if self.server.bad[what]:
            self.server.bad[what].popleft()(self)
        elif what == "hello":
            self.server.sessions += 1
            granted = protocol.Granted(f"s{self.server.sessions}", self.server.lease_s)
            self.say(201, codec.dumps([(1, granted)]))
        elif what == "bring":
            self.say(202, "")
        else:
            self.say(200, codec.dumps(self.server.next()))

    def log_message(self, *_: Any) -> None:
        pass


class Service(ThreadingHTTPServer):
    """Answers well unless it is told otherwise: `bad` answers to a kind of question come first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: defaultdict[str, list[str]] = defaultdict(list)
        self.bad: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self.messages: queue.Queue[tuple[int, protocol.Message]] = queue.Queue()
        self.sessions, self.lease_s = 0, LEASE_S
        self.over = threading.Event()
        self.ready = True  # it has the engine

    def next(self) -> list[tuple[int, protocol.Message]]:
        try:
            return [self.messages.get(timeout=0.1)]
        except queue.Empty:
            return []

    def handle_error(self, *_: Any) -> None:
        """The link has gone in the middle."""


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.over.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def link(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpLink]:
    """One that is not patient."""
    for name, seconds in {
        "HELLO_S": 0.3,
        "FETCH_S": 0.1,
        "SLACK_S": 0.2,
        "AGAIN_S": 0.02,
        "HELLO_AGAIN_S": 0.0,
    }.items():
        monkeypatch.setattr(http_link, name, seconds)
    url = f"http://127.0.0.1:{service.server_port}"
    made = HttpLink(Settings(home=tmp_path, url=url, token=Secret("bw_x_y")), "far")
    yield made
    made.close()


def heard(link: HttpLink, within_s: float = 5.0) -> list[protocol.AnyMessage] | None:
    """The next that it has to say; None: the session is over."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        assert link.socket is not None
        if select.select([link.socket], [], [], 0.05)[0] and (said := link.hear()) != []:
            return said
    raise AssertionError("nothing was heard")


def asked(service: Service, what: str, count: int) -> list[str]:
    until = time.monotonic() + 5.0
    while len(service.asked[what]) < count:
        assert time.monotonic() < until, service.asked
        time.sleep(0.01)
    return service.asked[what]


ENDED = protocol.Ended("r.0.1", Outcome())


# ----------------------------------------------------------------------------------------------------------- hello


@pytest.mark.parametrize("status", REFUSED)
def test_a_hello_that_is_refused_is_said_again(service: Service, link: HttpLink, status: int) -> None:
    service.bad["hello"].append(plain(status, "no"))
    assert link.connect([]) is None
    assert link.taken is (status == 409)
    assert not link.valid
    assert link.connect([])
    assert link.valid
    assert not link.taken


@pytest.mark.parametrize(
    "answer",
    [*(plain(201, body) for body in ("", "[]", *NONE_OF_OURS.values(), '[[1,{"type":"Bye"}]]')), cut, slow],
    ids=["empty", "nothing", *NONE_OF_OURS, "not a grant", "cut", "slow"],
)
def test_an_answer_to_a_hello_that_is_none_gives_no_session(service: Service, link: HttpLink, answer: Answer) -> None:
    service.bad["hello"].append(answer)
    assert link.connect([]) is None
    assert link.connect([])


# ----------------------------------------------------------------------------------------------------------- fetch


@pytest.mark.parametrize(
    "answer",
    [*(plain(status) for status in REFUSED), *(plain(200, body) for body in NONE_OF_OURS.values())],
    ids=[*map(str, REFUSED), *NONE_OF_OURS],
)
def test_a_session_ends_with_a_bad_answer(service: Service, link: HttpLink, answer: Answer) -> None:
    assert link.connect([])
    service.bad["fetch"].append(answer)
    assert heard(link) is None
    assert link.socket is None
    assert not link.valid
    assert link.connect(["r.0.1"])
    assert "r.0.1" in service.asked["hello"][1]
    service.messages.put((2, protocol.Kills(("r.0.1",))))
    assert heard(link) == [protocol.Kills(("r.0.1",))]


@pytest.mark.parametrize("answer", [cut, slow])
def test_an_answer_that_does_not_come_is_asked_for_again(service: Service, link: HttpLink, answer: Answer) -> None:
    service.bad["fetch"].append(answer)
    assert link.connect([])
    service.messages.put((2, protocol.Stored(1)))
    assert heard(link) == [protocol.Stored(1)]
    assert len(service.asked["hello"]) == 1


def test_without_answers_the_session_ends_with_the_lease(service: Service, link: HttpLink) -> None:
    service.lease_s = 0.5
    service.bad["fetch"].extend([cut] * 1000)
    at = time.monotonic()
    assert link.connect([])
    assert heard(link) is None
    assert time.monotonic() - at >= 0.5


def test_what_is_heard_after_the_lease_is_not_begun(service: Service, link: HttpLink) -> None:
    """The agent's process may have slept since it asked: the site is another's by now."""
    service.lease_s = 0.0
    service.messages.put((2, protocol.Orders(())))
    assert link.connect([])
    assert heard(link) is None
    assert link.socket is None


# ----------------------------------------------------------------------------------------------------------- bring


@pytest.mark.parametrize("status", REFUSED)
def test_a_report_that_was_refused_is_brought_by_the_next_session(
    service: Service, link: HttpLink, status: int
) -> None:
    assert link.connect([])
    service.bad["bring"].append(plain(status))
    link.report([ENDED])
    assert heard(link) is None
    assert link.connect([])
    first, second = asked(service, "bring", 2)
    assert first == second
    assert link.stored(1) == [ENDED]


@pytest.mark.parametrize("answer", [cut, slow])
def test_a_report_without_an_answer_is_brought_again(
    service: Service, link: HttpLink, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_link, "BRING_S", 0.2)
    assert link.connect([])
    service.bad["bring"].append(answer)
    link.report([ENDED])
    first, second = asked(service, "bring", 2)
    assert first == second
    assert len(service.asked["hello"]) == 1


@pytest.mark.parametrize("there", [True, False], ids=["elsewhere", "nowhere"])
def test_a_session_ends_at_once_when_another_service_has_the_engine(
    service: Service, link: HttpLink, there: bool
) -> None:
    with Service() as other:
        other.ready = there
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        link._addresses.append(f"http://127.0.0.1:{other.server_port}")
        assert link.connect([])
        service.bad["fetch"].extend([cut] * 1000)  # longer than its lease
        begun = time.monotonic()
        assert heard(link, LEASE_S + 2.0) is None
        assert (time.monotonic() - begun < LEASE_S / 2) is there
        other.shutdown()
        thread.join()
