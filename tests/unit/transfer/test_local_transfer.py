"""The transfer protocol over local copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import NotFound, Unavailable
from orchestrator.model import FailureClass
from orchestrator.transfer import local
from orchestrator.transfer.base import (
    TRANSFER_ENDED,
    Transfer,
    TransferRequest,
    TransferState,
    TransferStatus,
)
from orchestrator.transfer.threads import LocalTransfer


def ended(
    transfer: Transfer, token: str, until: Callable[[TransferState], bool] | None = None
) -> TransferState:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        state = transfer.poll(token)
        if (until or (lambda s: s.status in TRANSFER_ENDED))(state):
            return state
        time.sleep(0.002)
    raise AssertionError(state)


def test_submit_poll_find(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    with LocalTransfer() as transfer:
        assert transfer.find("t.1.1") is None
        with pytest.raises(NotFound):
            transfer.poll("t.1.1")
        request = TransferRequest(str(tmp_path / "a"), str(tmp_path / "b"))
        transfer.submit("t.1.1", request)
        state = ended(transfer, "t.1.1")
        assert (state.status, state.bytes_done, state.bytes_total) == (TransferStatus.DONE, 1000, 1000)
        assert state.report is not None
        assert state.report.files == 1
        (tmp_path / "b").unlink()
        assert transfer.submit("t.1.1", request) == state  # known: not started twice
        assert not (tmp_path / "b").exists()
        transfer.cancel("t.1.1")
        assert transfer.find("t.1.1") == state
    with pytest.raises(Unavailable):
        transfer.submit("t.2.1", request)


def test_failures_carry_their_class(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with LocalTransfer() as transfer:
        transfer.submit("1", TransferRequest(str(tmp_path / "gone"), str(tmp_path / "b")))
        transfer.submit("2", TransferRequest(str(tmp_path / "a"), str(tmp_path / "a")))
        first, second = ended(transfer, "1"), ended(transfer, "2")
    assert (first.status, first.failure) == (TransferStatus.FAILED, FailureClass.BAD_INPUT)
    assert (second.status, second.failure) == (TransferStatus.FAILED, FailureClass.USER)
    assert "is not there" in first.reason


def test_cancel_and_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "BLOCK_BYTES", 64)
    (tmp_path / "a").write_bytes(b"x" * 2_000_000)
    with LocalTransfer() as transfer:
        for token in ("1", "2"):
            transfer.submit(token, TransferRequest(str(tmp_path / "a"), str(tmp_path / token)))
            ended(transfer, token, lambda s: s.bytes_done > 0)
        transfer.cancel("1")
        assert ended(transfer, "1").status is TransferStatus.CANCELLED
    assert transfer.poll("2").status is TransferStatus.CANCELLED
    assert transfer.poll("2").failure is FailureClass.CANCELLED
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
