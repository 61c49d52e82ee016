"""GridFTP copies behind the transfer protocol, with a note of each on the disk.

A note is there before the first byte moves, says how the copy ended, and outlives the process. Whoever carries the copy
out holds a lock beside it; where the lock is free and the copy has not ended, its process has died, and the first who
asks for it goes on with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from orchestrator import codec
from orchestrator.errors import Unavailable
from orchestrator.outside import effect
from orchestrator.transfer import gridftp
from orchestrator.transfer.base import TRANSFER_ENDED, TransferReport, TransferRequest, TransferState, TransferStatus
from orchestrator.transfer.gridftp_errors import GridftpDown
from orchestrator.transfer.local import Progress
from orchestrator.transfer.threads import ThreadedTransfer

NOTE_EACH_S = 1.0  # how old the progress is that other processes see


class Note(Struct, frozen=True):
    request: TransferRequest
    state: TransferState


class GridftpTransfer(ThreadedTransfer):
    """Implements `Transfer`; `folder` holds the notes, and is shared by the processes that know of the same copies."""

    def __init__(self, folder: Path, side_by_side: int = 2) -> None:
        super().__init__(side_by_side)
        self._folder = folder
        self._held: dict[str, int] = {}  # descriptors of the locks
        self._requests: dict[str, TransferRequest] = {}
        self._noted_at: dict[str, float] = {}
        self._ending = False
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def submit(self, token: str, request: TransferRequest) -> TransferState:
        known = self.find(token)
        if known is not None:
            return known
        if not self._take(token):
            return self.find(token) or TransferState(token, TransferStatus.PENDING)
        if (note := self._note(token)) is not None:  # another was between us
            request = note.request
            if note.state.status in TRANSFER_ENDED:
                self._give(token)
                return note.state
        return self._begin(token, request)

    def find(self, token: str) -> TransferState | None:
        known = super().find(token)
        if known is not None:
            return known
        note = self._note(token)
        if note is None or note.state.status in TRANSFER_ENDED or not self._take(token):
            return None if note is None else note.state
        latest = self._note(token) or note
        if latest.state.status in TRANSFER_ENDED:
            self._give(token)
            return latest.state
        return self._begin(token, latest.request)

    def cancel(self, token: str) -> None:
        if self._note(token) is not None:
            self._path(token, "cancel").touch()

    def close(self) -> None:
        """Stop; whoever asks for a copy next goes on with it."""
        self._ending = True
        super().close()

    # ---- notes

    def _begin(self, token: str, request: TransferRequest) -> TransferState:
        self._requests[token] = request
        self._write(TransferState(token, TransferStatus.PENDING))
        try:
            return super().submit(token, request)
        except Unavailable:
            self._give(token)
            raise

    def _copy(
        self, token: str, request: TransferRequest, progress: Progress, cancelled: Callable[[], bool]
    ) -> TransferReport:
        mark = self._path(token, "cancel")

        def stop() -> bool:
            if cancelled() and not mark.exists():
                raise GridftpDown("This process is ending; the copy goes on later.")
            return mark.exists()

        return gridftp.copy(
            request.source,
            request.destination,
            token=token,
            checks=request.checks,
            options=request.options,
            progress=progress,
            cancelled=stop,
        )

    def _set(self, token: str, **changes: object) -> None:
        with self._lock:
            state = replace(self._states[token], **changes)
        ended = state.status in TRANSFER_ENDED
        if self._ending and state.status is not TransferStatus.DONE and not self._path(token, "cancel").exists():
            self._give(token)  # the note says what it said: not ended
        elif token in self._held and (ended or time.monotonic() - self._noted_at.get(token, 0.0) > NOTE_EACH_S):
            self._write(state)
            if ended:
                self._give(token)
        super()._set(token, **changes)  # last: who sees here that it has ended finds the note

    def _write(self, state: TransferState) -> None:
        token = state.token
        self._noted_at[token] = time.monotonic()
        final, part = self._path(token, "note"), self._path(token, "note.part")
        with part.open("w") as file:
            file.write(codec.dumps(Note(self._requests[token], state)))
            file.flush()
            os.fsync(file.fileno())
        with effect("transfer.note"):
            os.replace(part, final)

    def _note(self, token: str) -> Note | None:
        try:
            return codec.loads(self._path(token, "note").read_text(), Note)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise Unavailable(f"The note of the transfer {token!r} cannot be read: {error}.") from error

    def _path(self, token: str, ending: str) -> Path:
        return self._folder / f"{hashlib.sha256(token.encode()).hexdigest()[:24]}.{ending}"

    # ---- the lock of who carries it out

    def _take(self, token: str) -> bool:
        handle = os.open(self._path(token, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._held[token] = handle
        return True

    def _give(self, token: str) -> None:
        handle = self._held.pop(token, None)
        if handle is not None:
            with contextlib.suppress(OSError):
                os.close(handle)
