"""The transfer protocol over GridFTP: one token moves once, whoever dies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import NotFound
from orchestrator.model import FailureClass
from orchestrator.transfer import pieces, url_copy
from orchestrator.transfer.base import TransferRequest, TransferState, TransferStatus
from orchestrator.transfer.gridftp_notes import GridftpTransfer
from tests.gridftp import Gridftp, missing
from tests.unit.transfer.test_gridftp_copy import MB, noise, parts
from tests.unit.transfer.test_local_transfer import ended

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture
def server() -> Iterator[Gridftp]:
    with Gridftp() as made:
        yield made


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pieces each start of the program was to move."""
    seen: list[int] = []
    run = url_copy.run
    monkeypatch.setattr(url_copy, "run", lambda moves, *a, **k: (seen.append(len(moves)), run(moves, *a, **k))[1])
    return seen


def begun(state: TransferState) -> bool:
    return state.bytes_done > 0


def test_a_token_moves_once(server: Gridftp, tmp_path: Path, starts: list[int]) -> None:
    source = noise(tmp_path / "a", MB)
    request = TransferRequest(str(source), server.url("b"))
    with GridftpTransfer(tmp_path / "notes") as transfer:
        assert transfer.find("t.1.1") is None
        with pytest.raises(NotFound):
            transfer.poll("t.1.1")
        transfer.submit("t.1.1", request)
        state = ended(transfer, "t.1.1")
        assert (state.status, state.bytes_done, state.bytes_total) == (TransferStatus.DONE, MB, MB)
        assert transfer.submit("t.1.1", request) == state
    (server.root / "b").unlink()
    with GridftpTransfer(tmp_path / "notes") as later:  # another process knows it as well
        assert later.find("t.1.1") == state
        assert later.submit("t.1.1", request) == state
    assert starts == [1]
    assert not (server.root / "b").exists()


def test_failures_carry_their_class(server: Gridftp, tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 10)
    with GridftpTransfer(tmp_path / "notes") as transfer:
        transfer.submit("1", TransferRequest(server.url("gone"), str(tmp_path / "b")))
        transfer.submit("2", TransferRequest(str(source), server.url("../b")))
        server_gone = f"ftp://127.0.0.1:1{server.root}/b"
        transfer.submit("3", TransferRequest(str(source), server_gone, options={"retries": 0}))
        seen = [ended(transfer, token) for token in "123"]
    assert [state.status for state in seen] == [TransferStatus.FAILED] * 3
    assert [state.failure for state in seen] == [FailureClass.BAD_INPUT, FailureClass.USER, FailureClass.TRANSIENT]


KILLED = """if True:
    import os, sys
    from pathlib import Path
    from orchestrator.transfer import pieces
    from orchestrator.transfer.base import TransferRequest
    from orchestrator.transfer.gridftp_notes import GridftpTransfer
    pieces.PIECE_BYTES, pieces.PIECES = 16384, 1_000_000
    transfer = GridftpTransfer(Path(sys.argv[1]))
    transfer.submit("t", TransferRequest(sys.argv[2], sys.argv[3]))
    while True:
        print(transfer.poll("t").bytes_done, flush=True)
"""


def test_it_is_found_and_goes_on_after_our_process_was_killed(
    server: Gridftp, tmp_path: Path, starts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 16384)
    monkeypatch.setattr(pieces, "PIECES", 1_000_000)
    source, notes = noise(tmp_path / "a", 6 * MB), tmp_path / "notes"
    argv = [sys.executable, "-c", KILLED, notes, source, server.url("b")]
    with GridftpTransfer(notes) as transfer:
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) > MB:
                    break
            state = transfer.find("t")  # it lives elsewhere: seen, not begun again
            assert state is not None
            assert state.status in (TransferStatus.PENDING, TransferStatus.RUNNING)
            assert starts == []
            process.kill()
        assert not (server.root / "b").exists()
        assert len(parts(server.root)) == 1
        assert transfer.find("t") is not None
        assert ended(transfer, "t").status is TransferStatus.DONE
    assert (server.root / "b").read_bytes() == source.read_bytes()
    assert parts(server.root) == []
    assert sum(starts) < 6 * 64  # what had arrived was not moved again


@pytest.mark.parametrize(
    "when",
    [
        "transfer.note:before",
        "transfer.note:after",
        "transfer.run:before",
        "transfer.run:after",
        "file.publish:before",
        "file.publish:after",
    ],
)
def test_killed_at_each_point(when: str, server: Gridftp, tmp_path: Path) -> None:
    source, notes = noise(tmp_path / "a", MB), tmp_path / "notes"
    argv = [sys.executable, "-c", KILLED, notes, source, server.url("b")]
    process = subprocess.run(argv, stdout=subprocess.DEVNULL, env={**os.environ, "BEAMWAY_CRASH": when})
    assert process.returncode < 0
    with GridftpTransfer(notes) as transfer:
        known = transfer.find("t")
        assert (known is None) == (when == "transfer.note:before")
        transfer.submit("t", TransferRequest(str(source), server.url("b")))
        assert ended(transfer, "t").status is TransferStatus.DONE
    assert (server.root / "b").read_bytes() == source.read_bytes()
    assert os.listdir(server.root) == ["b"]


def test_cancelled_from_another_process(server: Gridftp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 16384)
    monkeypatch.setattr(pieces, "PIECES", 1_000_000)
    source = noise(tmp_path / "a", 6 * MB)
    with GridftpTransfer(tmp_path / "notes") as transfer, GridftpTransfer(tmp_path / "notes") as other:
        transfer.submit("t", TransferRequest(str(source), server.url("b")))
        ended(transfer, "t", begun)
        other.cancel("t")
        state = ended(transfer, "t")
        assert (state.status, state.failure) == (TransferStatus.CANCELLED, FailureClass.CANCELLED)
        assert other.poll("t").status is TransferStatus.CANCELLED
    assert os.listdir(server.root) == []


def test_closing_leaves_it_to_the_next(server: Gridftp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 16384)
    monkeypatch.setattr(pieces, "PIECES", 1_000_000)
    source = noise(tmp_path / "a", 6 * MB)
    with GridftpTransfer(tmp_path / "notes") as transfer:
        transfer.submit("t", TransferRequest(str(source), server.url("b")))
        ended(transfer, "t", begun)
    assert not (server.root / "b").exists()
    with GridftpTransfer(tmp_path / "notes") as later:
        assert later.find("t") is not None
        assert ended(later, "t").status is TransferStatus.DONE
    assert (server.root / "b").read_bytes() == source.read_bytes()
