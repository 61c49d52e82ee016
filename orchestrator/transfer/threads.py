"""Copies behind the transfer protocol, each in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from msgspec.structs import replace

from orchestrator.errors import BeamwayError, NotFound, Unavailable
from orchestrator.model import FailureClass
from orchestrator.transfer.base import (
    TransferCancelled,
    TransferReport,
    TransferRequest,
    TransferState,
    TransferStatus,
    failure_of,
)
from orchestrator.transfer.local import Progress, copy


class ThreadedTransfer:
    """Implements `Transfer` with the `_copy` of a subclass. Closing it cancels what is under way."""

    def __init__(self, side_by_side: int = 2) -> None:
        self._pool = ThreadPoolExecutor(side_by_side, thread_name_prefix="transfer")
        self._lock = threading.Lock()
        self._states: dict[str, TransferState] = {}
        self._stops: dict[str, threading.Event] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            stops = list(self._stops.values())
        for stop in stops:
            stop.set()
        self._pool.shutdown(wait=True)

    def submit(self, token: str, request: TransferRequest) -> TransferState:
        with self._lock:
            if token in self._states:
                return self._states[token]
            self._states[token] = state = TransferState(token, TransferStatus.PENDING)
            self._stops[token] = threading.Event()
        try:
            self._pool.submit(self._run, token, request)
        except RuntimeError as error:
            self._set(token, status=TransferStatus.CANCELLED, failure=FailureClass.CANCELLED)
            raise Unavailable("Copies are no longer taken: this process is ending.") from error
        return state

    def poll(self, token: str) -> TransferState:
        state = self.find(token)
        if state is None:
            raise NotFound(f"No transfer {token!r} is known here.")
        return state

    def cancel(self, token: str) -> None:
        with self._lock:
            if token in self._stops:
                self._stops[token].set()

    def find(self, token: str) -> TransferState | None:
        with self._lock:
            return self._states.get(token)

    def _set(self, token: str, **changes: object) -> None:
        with self._lock:
            self._states[token] = replace(self._states[token], **changes)

    def _run(self, token: str, request: TransferRequest) -> None:
        stop = self._stops[token]
        self._set(token, status=TransferStatus.RUNNING)
        try:
            report = self._copy(
                token, request, lambda done, total: self._set(token, bytes_done=done, bytes_total=total), stop.is_set
            )
        except TransferCancelled as error:
            failure = FailureClass.CANCELLED
            self._set(token, status=TransferStatus.CANCELLED, reason=error.sentence, failure=failure)
        except BeamwayError as error:
            self._set(token, status=TransferStatus.FAILED, reason=str(error), failure=failure_of(error))
        except Exception as error:  # noqa: BLE001  (a thread that dies silently would be polled for ever)
            reason = f"The copy broke down: {type(error).__name__}: {error}."
            self._set(token, status=TransferStatus.FAILED, reason=reason, failure=FailureClass.TRANSIENT)
        else:
            self._set(token, status=TransferStatus.DONE, report=report)

    def _copy(
        self, token: str, request: TransferRequest, progress: Progress, cancelled: Callable[[], bool]
    ) -> TransferReport:
        raise NotImplementedError


class LocalTransfer(ThreadedTransfer):
    """Copies on this host. When the process dies, so do they: `find` then truly knows nothing of them, and submitting
    one again goes on where it was, because `copy` skips what is there and verified."""

    def _copy(
        self, _token: str, request: TransferRequest, progress: Progress, cancelled: Callable[[], bool]
    ) -> TransferReport:
        return copy(request.source, request.destination, checks=request.checks, progress=progress, cancelled=cancelled)
