from __future__ import annotations

import itertools
import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import protocol
from orchestrator.model import Order, Outcome, Plan, StageKind, split_token, token

MESSAGES: list[protocol.Message] = [
    protocol.Ping(),
    protocol.Submit("r", Plan("w", "o", (), variables={"filePath": "/a/\udcff\n"}), files=("/a/\udcff\n",)),
    protocol.Orders((Order("r.0.1", StageKind.KERNEL, "1", arguments={"input": "/a/\udcff", "n": 3}),)),
    protocol.Report(3, (protocol.Started("r.0.1", 1.5), protocol.Ended("r.0.1", Outcome(reason="é")))),
]


@given(st.lists(st.sampled_from(MESSAGES), max_size=5), st.lists(st.integers(0, 400), max_size=8))
def test_messages_survive_any_cutting_of_the_stream(messages: list[protocol.Message], cuts: list[int]) -> None:
    stream = b"".join(protocol.pack(m) for m in messages)
    edges = sorted({0, len(stream), *(c for c in cuts if c < len(stream))})
    frames = protocol.Frames()
    heard = [m for a, b in itertools.pairwise(edges) for m in frames.feed(stream[a:b])]
    assert heard == messages


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\0\0\0\x02{}", b"\0\0\0\x04junk", b'\0\0\0\x0f{"type":"Nope"}', b"\0\0\0\x01\xff"]
)
def test_what_is_no_message_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any kind of it ends the connection
        protocol.Frames().feed(data)


def test_the_socket_is_its_owners_alone_and_its_path_may_be_long(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 120)
    home.mkdir()
    with protocol.listen(home) as listening:
        assert stat.S_IMODE(os.stat(home / protocol.SOCKET).st_mode) == 0o600
        with protocol.connect(home) as client:
            server, _ = listening.accept()
            server.sendall(protocol.pack(protocol.Ping()))
            assert protocol.Frames().feed(client.recv(100)) == [protocol.Ping()]
            server.close()


def test_nobody_listening_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        protocol.connect(tmp_path)
    left = protocol.listen(tmp_path)
    left.close()
    with pytest.raises(ConnectionRefusedError):
        protocol.connect(tmp_path)
    with protocol.listen(tmp_path) as again:
        assert isinstance(again, socket.socket)


def test_tokens() -> None:
    assert split_token(token("a-b.c", 3, 2)) == ("a-b.c", 3, 2)
