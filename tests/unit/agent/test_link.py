"""The agent's end of the connection: what was reported and not stored is reported again."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import protocol
from orchestrator.agent.link import SocketLink
from orchestrator.model import Outcome


class Service:
    """The other end."""

    def __init__(self, home: Path) -> None:
        self._listening = protocol.listen(home)
        self._listening.settimeout(10)
        self.connection = socket.socket()

    def accept(self) -> None:
        self.connection.close()
        self.connection, _ = self._listening.accept()
        self.connection.settimeout(10)
        self.frames = protocol.Frames()

    def hear(self, count: int) -> list[protocol.AnyMessage]:
        heard: list[protocol.AnyMessage] = []
        while len(heard) < count:
            heard += self.frames.feed(self.connection.recv(1 << 16))
        return heard

    def say(self, message: protocol.Message) -> None:
        self.connection.sendall(protocol.pack(message))

    def close(self) -> None:
        self.connection.close()
        self._listening.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.close()


@pytest.fixture
def link(tmp_path: Path) -> Iterator[SocketLink]:
    made = SocketLink(tmp_path, "far")
    yield made
    made.close()


def linked(service: Service, link: SocketLink, *tokens: str) -> protocol.Hello:
    assert link.connect(tokens)
    service.accept()
    (hello,) = service.hear(1)
    assert isinstance(hello, protocol.Hello)
    return hello


def ended(token: str) -> protocol.Ended:
    return protocol.Ended(token, Outcome())


def test_without_a_service_there_is_no_connection(link: SocketLink) -> None:
    assert not link.connect([])
    link.report([ended("r.0.1")])
    assert link.socket is None


def test_it_says_hello_with_the_attempts_it_has(service: Service, link: SocketLink) -> None:
    hello = linked(service, link, "r.0.1", "r.1.1")
    assert (hello.site, set(hello.holding)) == ("far", {"r.0.1", "r.1.1"})


def test_what_was_not_stored_goes_out_again(service: Service, link: SocketLink) -> None:
    linked(service, link)
    for number in range(3):
        link.report([ended(f"r.{number}.1")])
    assert [m.number for m in service.hear(3) if isinstance(m, protocol.Report)] == [1, 2, 3]
    service.say(protocol.Stored(1))
    heard = link.hear()
    assert heard == [protocol.Stored(1)]
    assert [e.token for e in link.stored(1)] == ["r.0.1"]
    service.connection.close()
    assert link.hear() is None
    assert link.socket is None
    assert link.connect(["r.9.1"])
    service.accept()
    hello, *reports = service.hear(3)
    assert isinstance(hello, protocol.Hello)
    assert set(hello.holding) == {"r.1.1", "r.2.1", "r.9.1"}
    assert [r.number for r in reports if isinstance(r, protocol.Report)] == [2, 3]


def test_only_ends_are_given_back_and_once(link: SocketLink) -> None:
    link.report([protocol.Started("r.0.1", 1.0), ended("r.1.1")])
    link.report([ended("r.2.1")])
    assert [e.token for e in link.stored(2)] == ["r.1.1", "r.2.1"]
    assert link.stored(2) == []


def test_bytes_that_are_no_message_end_the_connection(service: Service, link: SocketLink) -> None:
    linked(service, link)
    service.connection.sendall(b"\xff" * 64)
    assert link.hear() is None


def test_a_send_into_nothing_is_seen_by_the_next_read(service: Service, link: SocketLink) -> None:
    linked(service, link)
    service.connection.shutdown(socket.SHUT_RDWR)
    service.connection.close()
    for number in range(3):
        link.report([ended(f"r.{number}.1")])
    assert link.hear() is None
    assert len(link.stored(3)) == 3
