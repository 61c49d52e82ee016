"""One protocol for every way to move data, its records and its errors.

    TransferError               the copy did not end well; `failure` is its class
        transient               exit 75   full disk, changed source, checksum differs: trying again may help
        user error              exit 2    the destination is not allowed or makes no sense
        cancelled               exit 1    it was asked to stop

A source that is missing, empty or not made of regular files is an `InputError` (class *bad input*).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

from msgspec import Struct

from orchestrator.errors import BeamwayError, InputError, Retry
from orchestrator.model import FailureClass


class TransferError(BeamwayError):
    """A copy that did not end well. Nothing is left under the final name by it."""

    exit_code = 75

    def __init__(self, sentence: str, /, hint: str = "", *, failure: FailureClass = FailureClass.TRANSIENT) -> None:
        super().__init__(sentence, hint)
        self.failure = failure


class TransferDown(TransferError):
    """The other side does not answer, or the connection was lost: going on may help at once."""


class TransferRefused(TransferError):
    exit_code = 2
    retry = Retry.NEVER

    def __init__(self, sentence: str, /, hint: str = "") -> None:
        super().__init__(sentence, hint, failure=FailureClass.USER)


class TransferCancelled(TransferError):
    exit_code = 1
    retry = Retry.NEVER

    def __init__(self, sentence: str, /, hint: str = "") -> None:
        super().__init__(sentence, hint, failure=FailureClass.CANCELLED)


def failure_of(error: BeamwayError) -> FailureClass:
    """The failure class of what a transfer raised."""
    if isinstance(error, TransferError):
        return error.failure
    return FailureClass.BAD_INPUT if isinstance(error, InputError) else FailureClass.USER


class TransferStatus(StrEnum):
    PENDING = "pending"  # accepted; no byte has moved
    RUNNING = "running"
    HELD = "held"  # waits for a person: consent, quota, expired credential; `reason` says for what
    DONE = "done"  # every file is verified and under its final name
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSFER_ENDED = frozenset({TransferStatus.DONE, TransferStatus.FAILED, TransferStatus.CANCELLED})


class TransferRequest(Struct, frozen=True):
    source: str
    destination: str
    checks: tuple[str, ...] = ("checksum",)
    options: dict[str, Any] = {}  # of the back end: endpoints, streams


class TransferReport(Struct, frozen=True):
    """What a finished transfer did. `files` and `bytes` count the whole source, skipped files included."""

    destination: str  # absolute: the file itself, or the top of the tree
    files: int
    bytes: int
    skipped: int = 0  # files that were there already, verified identical
    skipped_bytes: int = 0
    reflinked: int = 0  # files whose blocks are shared with the source
    seconds: float = 0.0
    checksum: str = ""  # `sha256:…` of the file; of a tree: over its sorted names, sizes and checksums

    @property
    def rate(self) -> float:
        """Bytes per second really moved, for predictions."""
        return (self.bytes - self.skipped_bytes) / self.seconds if self.seconds > 0 else 0.0


class TransferState(Struct, frozen=True):
    token: str
    status: TransferStatus
    bytes_done: int = 0
    bytes_total: int = 0
    reason: str = ""  # one sentence when held or failed, or in trouble that may pass
    link: str = ""  # where a person clears a hold
    failure: FailureClass | None = None
    report: TransferReport | None = None
    rate: float = 0.0  # bytes per second so far, where the back end says it


class Transfer(Protocol):
    """A back end. `token` is written down before `submit` and names the transfer for ever."""

    def submit(self, token: str, request: TransferRequest) -> TransferState:
        """Start it. A token that is known already is answered with its state, never started twice."""
        ...

    def poll(self, token: str) -> TransferState:
        """Its state now. `NotFound` if nothing is known of it, `Unavailable` if that cannot be told."""
        ...

    def cancel(self, token: str) -> None:
        """Ask it to stop; `poll` says when it has. Cancelling what has ended changes nothing."""
        ...

    def find(self, token: str) -> TransferState | None:
        """Its state, or None if it certainly is not known. `Unavailable` if that cannot be told."""
        ...
