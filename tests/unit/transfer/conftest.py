"""Two real GridFTP servers for the tests of copies, and pieces small enough for them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from orchestrator.transfer import carrying, pieces, url_copy
from tests.gridftp import Gridftp
from tests.unit.transfer.copies import MB


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Gridftp, Gridftp]]:
    with Gridftp() as one, Gridftp() as other:
        yield one, other


@pytest.fixture
def one(servers: tuple[Gridftp, Gridftp]) -> Gridftp:
    return _emptied(servers[0])


@pytest.fixture
def other(servers: tuple[Gridftp, Gridftp]) -> Gridftp:
    return _emptied(servers[1])


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", MB)
    monkeypatch.setattr(pieces, "SMALL_BYTES", MB // 2)
    monkeypatch.setattr(carrying, "PAUSE_S", 0.1)


@pytest.fixture
def slowly(small_pieces: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for something to happen between two pieces: a piece costs a few words, however small it is."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", MB // 64)
    monkeypatch.setattr(pieces, "PIECES", 1_000_000)


def _emptied(server: Gridftp) -> Gridftp:
    subprocess.run(["find", server.root, "-mindepth", "1", "-delete"], check=True)
    return server


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[url_copy.Move]:
    """What the program was asked to move."""
    asked: list[url_copy.Move] = []
    run = url_copy.run
    monkeypatch.setattr(url_copy, "run", lambda moves, *a, **k: (asked.extend(moves), run(moves, *a, **k))[1])
    return asked
