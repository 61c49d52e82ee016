"""What was asked of Globus, on the disk under its token before Globus hears of it.

A note says which submission id a transfer has. Globus carries a submission id out once, however often it is asked, so
whoever reads the note after a crash asks again and gets the task that is there.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from msgspec import Struct

from orchestrator import codec
from orchestrator.errors import Unavailable
from orchestrator.outside import effect
from orchestrator.transfer import disk
from orchestrator.transfer.base import TRANSFER_ENDED, TransferRequest, TransferState, TransferStatus

KEPT_S = 90 * 86_400.0  # after which nobody asks how a transfer ended


class Item(Struct, frozen=True):
    """What Globus is asked to move: a file, or a folder with all below it."""

    source: str
    destination: str
    is_tree: bool = False
    part: str = ""  # where it is until it is whole; empty: it is written under its final name


class Copy(Struct, frozen=True, array_like=True):
    """One file, as it was before."""

    source: str
    destination: str
    bytes: int
    modified: str


class Note(Struct, frozen=True):
    token: str
    request: TransferRequest
    asked_at: float
    source: str = ""  # id of the collection
    destination: str = ""
    items: tuple[Item, ...] = ()
    copies: tuple[Copy, ...] = ()
    all_listed: bool = True  # False: a tree of so many folders that not all were looked into
    submission: str = ""  # id; empty: Globus has not been asked
    deadline: str = ""
    task: str = ""  # id; empty: not known whether Globus has taken it
    cancelled: bool = False
    verdict: TransferState | None = None  # how it ended; HELD: its task is over, but another can do it

    @property
    def bytes(self) -> int:
        return sum(c.bytes for c in self.copies)


class Notes:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self, token: str) -> Note | None:
        path = self._path(token)
        try:
            return codec.loads(path.read_text(encoding="utf-8"), Note)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise Unavailable(f"The note of transfer {token!r} cannot be read: {error}.", f"It is '{path}'.") from error

    def keep(self, note: Note) -> Note:
        try:
            write_private(self._path(note.token), codec.dumps(note))
        except OSError as error:
            sentence = f"The note of transfer {note.token!r} cannot be written: {error.strerror}."
            raise Unavailable(sentence, "Nothing is asked of Globus without it.") from error
        if note.verdict is not None and note.verdict.status in TRANSFER_ENDED:
            self._forget(time.time() - KEPT_S)
        return note

    def _forget(self, before: float) -> None:
        """Remove the notes of transfers that were over by then. One that waits is kept, however old."""
        with os.scandir(self._folder) as entries:
            old = [entry.path for entry in entries if entry.name.endswith(".json") and entry.stat().st_mtime < before]
        for path in old:
            with suppress(OSError, ValueError):  # another process, at the same
                note = codec.loads(Path(path).read_text(encoding="utf-8"), Note)
                if note.verdict is not None and note.verdict.status in TRANSFER_ENDED:
                    os.unlink(path)

    def unended(self, token: str) -> bool:
        """Has it been asked for, and has nobody seen its end?"""
        note = self.read(token)
        return note is not None and (note.verdict is None or note.verdict.status is TransferStatus.HELD)

    def _path(self, token: str) -> Path:
        return self._folder / f"{quote(token, safe='')}.json"


def write_private(path: Path, text: str) -> None:
    """All of `text` or nothing, on the disk, for its owner alone."""
    part = path.with_name(f"{path.name}.{os.getpid()}{disk.PART}")
    with suppress(FileNotFoundError):
        part.unlink()
    out = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(out, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with effect("globus.note"):
            os.replace(part, path)
        disk.sync_folder(str(path.parent))
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
