"""A task as Globus describes it → the state of its transfer. Pure.

Globus calls a task SUCCEEDED that has skipped files, and ACTIVE one that has been failing for days. Neither is taken at
its word: done is what adds up with what was asked, and what only a person or the site can mend is held, with the link.
Faults alone say nothing: a file whose checksum differed was sent again, and counts as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from orchestrator.model import FailureClass
from orchestrator.transfer.base import TransferReport, TransferState, TransferStatus
from orchestrator.transfer.globus.notes import Note
from orchestrator.transfer.globus.session import task_link

BY_CHECKSUM = 3  # `sync_level`: what is there already with the same checksum is not sent again

_SIGN_IN = "one of its collections does not accept who we are"
_NO_ROOM = "there is no room at the destination"
_UNREACHABLE = "one of its collections cannot be reached"
# What an active task can be stuck at until somebody acts. Globus goes on by itself when they have.
STUCK: dict[str, tuple[FailureClass, str]] = {
    "AUTH": (FailureClass.AUTHENTICATION, _SIGN_IN),
    "CREDENTIALS_EXPIRED": (FailureClass.AUTHENTICATION, _SIGN_IN),
    "NO_CREDENTIALS": (FailureClass.AUTHENTICATION, _SIGN_IN),
    "INVALID_SERVICE_CREDENTIAL": (FailureClass.AUTHENTICATION, _SIGN_IN),
    "GSI_DN_MISMATCH": (FailureClass.AUTHENTICATION, _SIGN_IN),
    "LOGIN_DENIED": (FailureClass.AUTHENTICATION, _SIGN_IN),
    "ACL_CHANGED": (FailureClass.AUTHENTICATION, "a permission was taken away"),
    "CONSENT_REQUIRED": (FailureClass.AUTHENTICATION, "a consent is needed"),
    "PERMISSION_DENIED": (FailureClass.AUTHENTICATION, "it may not read or write there"),
    "QUOTA_EXCEEDED": (FailureClass.DOWN, _NO_ROOM),
    "NO_SPACE_LEFT": (FailureClass.DOWN, _NO_ROOM),
    "CONNECT_FAILED": (FailureClass.DOWN, _UNREACHABLE),
    "CONNECTION_FAILED": (FailureClass.DOWN, _UNREACHABLE),
    "ENDPOINT_ERROR": (FailureClass.DOWN, "one of its collections is in trouble"),
    "GC_NOT_CONNECTED": (FailureClass.DOWN, _UNREACHABLE),
    "GC_PAUSED": (FailureClass.DOWN, "one of its collections is paused"),
    "PAUSED": (FailureClass.DOWN, "it is paused"),
    "PAUSED_BY_ADMIN": (FailureClass.DOWN, "it is paused"),
}
# What no waiting mends: an active task that meets it is ended.
HOPELESS: dict[str, tuple[FailureClass, str]] = {
    "FILE_NOT_FOUND": (FailureClass.BAD_INPUT, "a file is not there any more"),
    "EXTERNAL_CHECKSUM_MISMATCH": (FailureClass.BAD_INPUT, "the source has another checksum than was said"),
    "INVALID_SYMLINK": (FailureClass.BAD_INPUT, "the source holds a broken link"),
    "NOT_A_FILE": (FailureClass.BAD_INPUT, "something in the source is not a file"),
    "INVALID_PATH_NAME": (FailureClass.USER, "a name is not allowed there"),
    "AMBIGUOUS_PATH": (FailureClass.USER, "a path is ambiguous there"),
    "IS_A_DIRECTORY": (FailureClass.USER, "a folder is in the way"),
    "IS_A_FILE": (FailureClass.USER, "a file is in the way"),
    "NOT_A_DIRECTORY": (FailureClass.USER, "a file is in the way"),
    "NO_APPEND_FILESYSTEM": (FailureClass.USER, "the destination cannot take files"),
}
_NO_TROUBLE = ("", "OK", "Queued")


def judge(note: Note, task: Mapping[str, Any], paused_because: str = "") -> TransferState:
    """The state that this task document means. DONE is still to be compared with what lies at both ends."""
    state = TransferState(
        note.token,
        TransferStatus.RUNNING,
        bytes_done=task.get("bytes_transferred") or 0,
        bytes_total=note.bytes,
        link=task_link(note.task),
        rate=float(task.get("effective_bytes_per_second") or 0),
    )
    match task["status"]:
        case "SUCCEEDED":
            return _succeeded(note, task, state)
        case "FAILED":
            return _failed(note, task, state)
        case "INACTIVE":
            return _held(state, FailureClass.AUTHENTICATION, f"its credential has expired{_detail(task)}")
        case _:
            return _active(task, state, paused_because)


def cancelled(state: TransferState) -> TransferState:
    reason = "The Globus transfer was cancelled."
    return replace(state, status=TransferStatus.CANCELLED, failure=FailureClass.CANCELLED, reason=reason)


def _active(task: Mapping[str, Any], state: TransferState, paused_because: str) -> TransferState:
    code = task.get("nice_status") or ""
    if task.get("is_paused"):
        said = f": {paused_because}" if paused_because else ""
        return _held(state, FailureClass.DOWN, f"it is paused by the administrator of a collection{said}")
    if code in STUCK:
        failure, words = STUCK[code]
        return _held(state, failure, f"{words}{_detail(task)}")
    if code in HOPELESS:
        failure, words = HOPELESS[code]
        return _ended(state, failure, f"{words}{_detail(task)}")
    if code in _NO_TROUBLE:
        begun = state.bytes_done or (task.get("files_transferred") or 0)
        waiting = code == "Queued" or not begun
        return replace(state, status=TransferStatus.PENDING if waiting else TransferStatus.RUNNING)
    return replace(state, reason=f"Globus has trouble and tries again by itself{_detail(task)}.")


def _succeeded(note: Note, task: Mapping[str, Any], state: TransferState) -> TransferState:
    missing = _missing(note, task)
    if missing:
        return _ended(state, FailureClass.TRANSIENT, f"Globus says it succeeded, but {missing}")
    skipped = task.get("files_skipped") or 0
    report = TransferReport(
        destination=note.request.destination,
        files=max(len(note.copies), skipped + (task.get("files_transferred") or 0)),
        bytes=max(note.bytes, state.bytes_done),
        skipped=skipped,
        skipped_bytes=max(0, note.bytes - state.bytes_done) if skipped else 0,
        seconds=_seconds(task),
    )
    return replace(state, status=TransferStatus.DONE, bytes_done=report.bytes, report=report)


def _missing(note: Note, task: Mapping[str, Any]) -> str:
    """What does not add up with what was asked, in words; empty if all does."""

    def count(name: str) -> int:
        return int(task.get(name) or 0)

    for name, words in (
        ("subtasks_failed", "files failed"),
        ("subtasks_expired", "files were not done in time"),
        ("subtasks_canceled", "files were cancelled"),
        ("subtasks_skipped_errors", "files were skipped because they could not be read"),
    ):
        if count(name):
            return f"{count(name)} {words}"
    skipped = count("files_skipped")
    if skipped and task.get("sync_level") != BY_CHECKSUM:
        return f"{skipped} files were skipped without comparing their checksums"
    moved, wanted = count("files_transferred") + skipped, len(note.copies)
    if moved < wanted:
        return f"{moved} of {wanted} files were moved"
    if not skipped and count("bytes_transferred") < note.bytes:
        return f"{count('bytes_transferred')} of {note.bytes} bytes were moved"
    if not task.get("verify_checksum", True):
        return "it did not verify the checksums"
    return ""


def _failed(note: Note, task: Mapping[str, Any], state: TransferState) -> TransferState:
    fatal = task.get("fatal_error") or {}
    code = fatal.get("code") or task.get("nice_status") or ""
    detail = f" ({': '.join(filter(None, (code, fatal.get('description'))))})" if code else ""
    if note.cancelled:
        return cancelled(state)
    if code in ("CANCELED", "CANCELLED"):
        who = task.get("canceled_by_admin_message") or ("an administrator" if task.get("canceled_by_admin") else "")
        return _ended(state, FailureClass.OUTSIDE, f"it was cancelled at Globus{f' by {who}' if who else ''}")
    if code in ("EXPIRED", "TIMEOUT"):
        return _ended(state, FailureClass.TRANSIENT, f"it did not end before its deadline {note.deadline}{detail}")
    if code in HOPELESS:
        failure, words = HOPELESS[code]
        return _ended(state, failure, f"{words}{detail}")
    if code in STUCK:
        failure, words = STUCK[code]
        return _held(state, failure, f"{words}{detail}")
    return _ended(state, FailureClass.TRANSIENT, f"it failed{detail}")


def _held(state: TransferState, failure: FailureClass, words: str) -> TransferState:
    return replace(state, status=TransferStatus.HELD, failure=failure, reason=f"The Globus transfer waits: {words}.")


def _ended(state: TransferState, failure: FailureClass, words: str) -> TransferState:
    sentence = words if words.startswith("Globus") else f"The Globus transfer failed: {words}"
    return replace(state, status=TransferStatus.FAILED, failure=failure, reason=f"{sentence}.")


def _detail(task: Mapping[str, Any]) -> str:
    said = [task.get("nice_status"), task.get("nice_status_short_description") or task.get("nice_status_details")]
    words = ": ".join(dict.fromkeys(str(s).rstrip(".") for s in said if s))
    return f" ({words})" if words else ""


def _seconds(task: Mapping[str, Any]) -> float:
    begun, ended = task.get("request_time"), task.get("completion_time")
    if not begun or not ended:
        return 0.0
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds()
