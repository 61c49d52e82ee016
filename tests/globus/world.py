"""What the stand-in knows: collections, faults and tasks; and the thread that moves the bytes of one task."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

BLOCK = 64 << 10
RETRY_S = 0.02


class Refusal(Exception):
    """What is answered instead of carrying a request out."""

    def __init__(self, status: int, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message, "request_id": uuid.uuid4().hex[:9], **more}


@dataclass
class Collection:
    root: Path
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    data_access: bool = False  # a mapped collection: its own consent is needed
    refuses_consent: bool = False
    may_look: bool = True
    may_write: bool = True
    paused: str = ""  # the administrator's words
    quota: int | None = None  # bytes

    @property
    def address(self) -> str:
        """Of a folder in it."""
        return f"globus://{self.id}/in/"

    @property
    def door(self) -> str:
        """A table of a site profile, for its folder."""
        return f'\n[[doors]]\nkind = "globus"\nendpoint = "{self.id}"\nroot = "{self.root}"\n'

    def path(self, name: str) -> Path:
        root = self.root.resolve()
        path = (root / name.lstrip("/")).resolve()
        if path != root and root not in path.parents:
            raise Refusal(403, "EndpointPermissionDenied", "Path not allowed")
        return path

    def used(self) -> int:
        return sum(p.stat().st_size for p in self.root.rglob("*") if p.is_file())


@dataclass
class Answer:
    """To the next requests that match. `performed`: carried out, but the answer is lost."""

    method: str
    path: str
    times: int = 1
    status: int = 0  # 0: the connection is closed without a word
    performed: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)


@dataclass
class Faults:
    answers: list[Answer] = field(default_factory=list)
    sign_in_refused: bool = False
    credential_expired: bool = False  # tasks become INACTIVE
    trouble: str = ""  # tasks stay ACTIVE with this
    corrupt_files: int = 0  # so many files arrive with a wrong byte
    broken_connections: int = 0  # so many files break off in the middle
    cut_after_success: int = 0  # bytes that the destination loses after it was verified
    left_out: str = ""  # a pattern: such files are not moved, and the task succeeds all the same
    document: dict[str, Any] = field(default_factory=dict)  # fields of every task document
    bytes_per_s: float = 0.0  # 0: as fast as it goes
    during_file: Callable[[Path], None] | None = None  # called in the middle of each source

    def answer(self, method: str, path: str, **how: Any) -> None:
        self.answers.append(Answer(method, path, **how))

    def next_answer(self, method: str, path: str) -> Answer | None:
        for answer in self.answers:
            if answer.times > 0 and answer.method == method and re.search(answer.path, path):
                answer.times -= 1
                return answer
        return None


@dataclass
class Task:
    spec: dict[str, Any]
    source: Collection
    destination: Collection
    faults: Faults
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    cancelled: bool = False
    closing: bool = False
    doc: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self._held_up = True  # in the queue
        self.doc = {
            "DATA_TYPE": "task",
            "task_id": self.id,
            "type": "TRANSFER",
            "status": "ACTIVE",
            "nice_status": "Queued",
            "label": self.spec.get("label"),
            "request_time": now(),
            "completion_time": None,
            "fatal_error": None,
            "is_paused": False,
            "source_endpoint_id": self.source.id,
            "destination_endpoint_id": self.destination.id,
            **{name: self.spec.get(name) for name in ("deadline", "sync_level", "verify_checksum")},
            **dict.fromkeys(("files", "files_transferred", "files_skipped", "bytes_transferred", "faults"), 0),
            **dict.fromkeys(("subtasks_failed", "subtasks_expired", "subtasks_canceled"), 0),
            "subtasks_skipped_errors": 0,
            "effective_bytes_per_second": 0,
        }
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def document(self) -> dict[str, Any]:
        self._is_held_up()
        return {**self.doc, **self.faults.document}

    def _run(self) -> None:
        try:
            files = list(self._files())
            self.doc["files"] = len(files)
            for source, target, checksum in files:
                self._move(source, target, checksum)
        except _Over as over:
            self._end("FAILED", over.code)
            return
        if cut := self.faults.cut_after_success:
            for _, target, _ in files:
                os.truncate(target, target.stat().st_size - cut)
        self._end("SUCCEEDED")

    def _files(self) -> Iterator[tuple[Path, Path, str]]:
        for item in self.spec["DATA"]:
            source = self.source.path(item["source_path"])
            target = self.destination.path(item["destination_path"])
            if not source.exists():
                raise _Over("FILE_NOT_FOUND")
            if source.is_dir() != bool(item.get("recursive")):
                raise _Over("IS_A_DIRECTORY" if source.is_dir() else "NOT_A_DIRECTORY")
            if source.is_file():
                yield source, target, item.get("external_checksum") or ""
            for path in sorted(source.rglob("*")) if source.is_dir() else ():
                if path.is_file() and not path.is_symlink():
                    yield path, target / path.relative_to(source), ""

    def _move(self, source: Path, target: Path, checksum: str) -> None:
        if self.faults.left_out and re.search(self.faults.left_out, str(source)):
            return
        if self.spec.get("sync_level") == 3 and target.is_file() and digest(source) == digest(target):
            self.doc["files_skipped"] += 1
            return
        while True:
            self._wait()
            try:
                moved = self._send(source, target)
                if checksum and digest(source) != checksum:
                    raise _Over("EXTERNAL_CHECKSUM_MISMATCH")
                if self.spec.get("verify_checksum") and digest(source) != digest(target):
                    raise _Fault("VERIFY_CHECKSUM")
                self.doc["files_transferred"] += 1
                self.doc["bytes_transferred"] += moved
                self.doc["nice_status"] = "OK"
                return
            except _Fault as fault:
                self.doc["faults"] += 1
                self.doc["nice_status"] = fault.code
                time.sleep(RETRY_S)

    def _send(self, source: Path, target: Path) -> int:
        if not self.destination.may_write:
            raise _Fault("PERMISSION_DENIED")
        target.parent.mkdir(parents=True, exist_ok=True)
        size, moved, begun = source.stat().st_size, 0, time.monotonic()
        with source.open("rb") as read, target.open("wb") as write:
            while block := read.read(BLOCK):
                write.write(block)
                write.flush()
                moved += len(block)
                self._check_room()
                if moved * 2 >= size and (during := self.faults.during_file):
                    during(source)
                if moved * 2 >= size and self.faults.broken_connections:
                    self.faults.broken_connections -= 1
                    raise _Fault("CONNECTION_RESET")
                if self.faults.bytes_per_s:
                    self.doc["effective_bytes_per_second"] = int(self.faults.bytes_per_s)
                    time.sleep(max(0.0, moved / self.faults.bytes_per_s - (time.monotonic() - begun)))
                    self._wait()
        if self.faults.corrupt_files:
            self.faults.corrupt_files -= 1
            with target.open("r+b") as write:
                first = write.read(1)
                write.seek(0)
                write.write(bytes([first[0] ^ 1]))
        return moved

    def _check_room(self) -> None:
        if self.destination.quota is not None and self.destination.used() > self.destination.quota:
            if self.spec.get("fail_on_quota_errors"):
                raise _Over("QUOTA_EXCEEDED")
            raise _Fault("QUOTA_EXCEEDED")

    def _wait(self) -> None:
        """Until nothing holds the task up."""
        while True:
            if self.cancelled or self.closing:
                raise _Over("CANCELED")
            if self.spec.get("deadline") and datetime.now(UTC) > datetime.fromisoformat(self.spec["deadline"]):
                raise _Over("EXPIRED")
            if not self._is_held_up():
                return
            time.sleep(RETRY_S)

    def _is_held_up(self) -> bool:
        """By whatever holds up all tasks just now; its document says so at once."""
        paused = bool(self.source.paused or self.destination.paused)
        expired, trouble = self.faults.credential_expired, self.faults.trouble
        with self.lock:
            if self.doc["status"] in ("SUCCEEDED", "FAILED"):
                return False
            nice = self.doc["nice_status"]
            if paused or expired or trouble:
                nice = "PAUSED_BY_ADMIN" if paused else trouble or "CREDENTIALS_EXPIRED"
            elif self._held_up:
                nice = "OK"
            self._held_up = paused or expired or bool(trouble)
            self.doc.update(status="INACTIVE" if expired else "ACTIVE", nice_status=nice, is_paused=paused)
            return self._held_up

    def _end(self, status: str, code: str = "") -> None:
        with self.lock:
            self.doc.update(status=status, nice_status=None, completion_time=now(), is_paused=False)
            if code:
                self.doc["fatal_error"] = {"code": code, "description": code.replace("_", " ").capitalize()}


class _Fault(Exception):
    """It is tried again."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class _Over(Exception):
    """The task has failed."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def digest(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
