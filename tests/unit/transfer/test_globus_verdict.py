"""What a task of Globus means for its transfer."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model import FailureClass
from orchestrator.transfer.base import TransferRequest, TransferState, TransferStatus
from orchestrator.transfer.globus import verdict
from orchestrator.transfer.globus.notes import Copy, Note

NOTE = Note(
    "t.1", TransferRequest("a", "b"), 0.0, task="T", copies=(Copy("/a", "/b", 70, ""), Copy("/c", "/d", 30, ""))
)
SUCCESS = {
    "status": "SUCCEEDED",
    "files_transferred": 2,
    "bytes_transferred": 100,
    "verify_checksum": True,
    "sync_level": 3,
    "request_time": "2026-01-01T00:00:00+00:00",
    "completion_time": "2026-01-01T00:00:10+00:00",
}


def judged(**task: Any) -> TransferState:
    return verdict.judge(NOTE, task)


def test_success_that_adds_up_is_done() -> None:
    state = judged(**SUCCESS, faults=3)
    assert state.status is TransferStatus.DONE
    assert state.report is not None
    assert (state.report.files, state.report.bytes, state.report.rate) == (2, 100, 10.0)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"subtasks_failed": 1}, "1 files failed"),
        ({"subtasks_expired": 1}, "not done in time"),
        ({"subtasks_canceled": 1}, "cancelled"),
        ({"subtasks_skipped_errors": 2}, "2 files were skipped"),
        ({"files_transferred": 1}, "1 of 2 files"),
        ({"files_transferred": 1, "files_skipped": 1, "sync_level": 1}, "without comparing"),
        ({"bytes_transferred": 99}, "99 of 100 bytes"),
        ({"verify_checksum": False}, "did not verify"),
    ],
)
def test_success_that_does_not_add_up_is_none(what: dict[str, Any], words: str) -> None:
    state = judged(**{**SUCCESS, **what})
    assert (state.status, state.failure) == (TransferStatus.FAILED, FailureClass.TRANSIENT)
    assert state.reason.startswith("Globus says it succeeded, but")
    assert words in state.reason


def test_what_was_there_already_is_no_loss() -> None:
    state = judged(**{**SUCCESS, "files_transferred": 1, "files_skipped": 1, "bytes_transferred": 30})
    assert state.report is not None
    assert (state.report.skipped, state.report.skipped_bytes, state.report.rate) == (1, 70, 3.0)


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("CREDENTIALS_EXPIRED", FailureClass.AUTHENTICATION),
        ("CONSENT_REQUIRED", FailureClass.AUTHENTICATION),
        ("PERMISSION_DENIED", FailureClass.AUTHENTICATION),
        ("QUOTA_EXCEEDED", FailureClass.DOWN),
        ("CONNECTION_FAILED", FailureClass.DOWN),
        ("ENDPOINT_ERROR", FailureClass.DOWN),
        ("GC_NOT_CONNECTED", FailureClass.DOWN),
    ],
)
def test_what_somebody_must_mend_is_held(code: str, failure: FailureClass) -> None:
    state = judged(status="ACTIVE", nice_status=code, nice_status_short_description="so to say", bytes_transferred=7)
    assert (state.status, state.failure, state.bytes_done) == (TransferStatus.HELD, failure, 7)
    assert state.link == "https://app.globus.org/activity/T/overview"
    assert f"({code}: so to say)" in state.reason


def test_expired_credentials_are_held_and_a_pause_says_why() -> None:
    expired = judged(status="INACTIVE", nice_status="CREDENTIALS_EXPIRED")
    assert (expired.status, expired.failure) == (TransferStatus.HELD, FailureClass.AUTHENTICATION)
    paused = verdict.judge(NOTE, {"status": "ACTIVE", "is_paused": True}, "new disks")
    assert (paused.status, paused.failure) == (TransferStatus.HELD, FailureClass.DOWN)
    assert "new disks" in paused.reason


@pytest.mark.parametrize(
    ("task", "status"),
    [
        ({"nice_status": "Queued"}, TransferStatus.PENDING),
        ({"nice_status": "OK"}, TransferStatus.PENDING),
        ({"nice_status": "OK", "bytes_transferred": 1}, TransferStatus.RUNNING),
        ({"nice_status": None, "files_transferred": 1}, TransferStatus.RUNNING),
        ({"nice_status": "CONNECTION_RESET"}, TransferStatus.RUNNING),
        ({"nice_status": "VERIFY_CHECKSUM"}, TransferStatus.RUNNING),
        ({"nice_status": "SOMETHING_NEW"}, TransferStatus.RUNNING),
    ],
)
def test_what_mends_itself_goes_on(task: dict[str, Any], status: TransferStatus) -> None:
    state = judged(status="ACTIVE", **task)
    assert state.status is status
    assert bool(state.reason) == (task["nice_status"] not in (None, "OK", "Queued"))


@pytest.mark.parametrize("task", [{"status": "ACTIVE"}, {"status": "FAILED"}])
def test_what_nothing_mends_has_failed(task: dict[str, Any]) -> None:
    state = judged(**task, nice_status="FILE_NOT_FOUND")
    assert (state.status, state.failure) == (TransferStatus.FAILED, FailureClass.BAD_INPUT)


@pytest.mark.parametrize(
    ("code", "status", "failure"),
    [
        ("CANCELED", TransferStatus.FAILED, FailureClass.OUTSIDE),
        ("EXPIRED", TransferStatus.FAILED, FailureClass.TRANSIENT),
        ("QUOTA_EXCEEDED", TransferStatus.HELD, FailureClass.DOWN),
        ("EXTERNAL_CHECKSUM_MISMATCH", TransferStatus.FAILED, FailureClass.BAD_INPUT),
        ("IS_A_DIRECTORY", TransferStatus.FAILED, FailureClass.USER),
        ("INTERNAL_ERROR", TransferStatus.FAILED, FailureClass.TRANSIENT),
    ],
)
def test_failures_have_their_class(code: str, status: TransferStatus, failure: FailureClass) -> None:
    state = judged(status="FAILED", fatal_error={"code": code, "description": "so to say"})
    assert (state.status, state.failure) == (status, failure)
    assert state.reason.endswith(".")
