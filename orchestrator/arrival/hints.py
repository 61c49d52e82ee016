"""Where something has just happened, as the kernel says: a reason to look soon, and never the truth.

It is told of no file written on another machine, it drops what comes too fast, and it misses what lies in folders that
were just made. And the library that asks it follows links out of the tree and stops at a name that is not UTF-8. So we
follow single folders, those that changed last, and begin again whatever happens.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence

import structlog

from orchestrator.arrival import mounts

MOST_FOLDERS = 1000
MOST_HINTS = 10_000  # kept between two looks; a scan finds the rest
TURN_MS, STEP_MS, GATHER_MS = 300, 5, 20
REST_S = 0.5
REFRESH_S = 30.0  # so that a folder that was removed and made again is followed again

log = structlog.get_logger()


class Hints:
    """Gathers names below a root, in a thread of its own. `why_not`: empty when it does."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        kind = mounts.kind(self.root)
        self.why_not = f"{kind or 'the file system'} is written by other machines unseen" * mounts.is_network(kind)
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._given: Sequence[tuple[int, str]] = ()
        self._folders: frozenset[str] = frozenset({""})
        self._over = threading.Event()
        self.heard = threading.Event()  # set when there are hints
        self._thread: threading.Thread | None = None
        if not self.why_not:
            self._thread = threading.Thread(target=self._run, name="hints", daemon=True)
            self._thread.start()

    def take(self) -> list[str]:
        """What was heard since the last time."""
        with self._lock:
            names, self._names = self._names, set()
            self.heard.clear()
        return sorted(names)

    def follow(self, folders: Sequence[tuple[int, str]]) -> None:
        """Follow those of these (time of change, name) that changed last, and the root."""
        if folders is self._given:
            return
        self._given = folders
        newest = [name for _, name in sorted(folders, reverse=True)[:MOST_FOLDERS]]
        self._folders = frozenset({"", *(name for name in newest if _is_text(name))})

    def close(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._listen(self._folders)
            except Exception as error:  # noqa: BLE001 - nothing depends on hints, and the next turn tries again
                log.info("hints.interrupted", root=self.root, reason=str(error))
                self._over.wait(REST_S)

    def _listen(self, folders: frozenset[str]) -> None:
        from watchfiles._rust_notify import RustNotify  # the thin part, which takes single folders

        paths = [p for p in (os.path.join(self.root, f).rstrip("/") for f in folders) if _is_folder(p)]
        until = time.monotonic() + REFRESH_S
        notify = RustNotify(paths, False, False, 300, False, True)
        try:
            while not self._over.is_set() and self._folders == folders and time.monotonic() < until:
                changes = notify.watch(GATHER_MS, STEP_MS, TURN_MS, self._over)
                if isinstance(changes, set):
                    self._keep(path for _, path in changes)
        finally:
            notify.close()

    def _keep(self, paths: Iterable[str]) -> None:
        names = {os.path.relpath(path, self.root) for path in paths}
        with self._lock:
            if len(self._names) < MOST_HINTS:
                self._names |= {name for name in names if name != "." and not name.startswith("..")}
                self.heard.set()


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
