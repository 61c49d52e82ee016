"""Where something has just happened, as the kernel says: a reason to look soon, and never the truth.

It is told of no file written on another machine, it drops what comes too fast, and it misses what lies in folders that
were just made. So we follow single folders, those that changed last, and a scan finds the rest. We ask for what makes
or changes a file and for nothing else: whoever reads many files of a tree would otherwise be told of each.
"""

from __future__ import annotations

import errno
import os
import posixpath
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import structlog
from inotify_simple import INotify, flags

from orchestrator.arrival import mounts

MOST_FOLDERS = 1000
MOST_HINTS = 10_000  # kept between two looks; a scan finds the rest
TURN_MS, GATHER_MS = 300, 20
REST_S = 0.5
REFRESH_S = 30.0  # so that a folder that was removed and made again is followed again
ASKED = flags.CREATE | flags.CLOSE_WRITE | flags.MOVED_TO | flags.ATTRIB
ITSELF = flags.ONLYDIR | flags.DONT_FOLLOW  # no link in its place

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
        self._told = False  # that not all can be followed
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
        """Follow those of these (time of change in ns when it was looked into, name) that changed last, and the root.
        One that has changed since is a hint itself."""
        self._given = folders

    def close(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def _run(self) -> None:
        said = ""
        while not self._over.is_set():
            try:
                with INotify() as notify:
                    self._listen(notify)
            except Exception as error:  # noqa: BLE001 - nothing depends on hints, and the next turn tries again
                if str(error) != said:
                    said = str(error)
                    log.info("hints.interrupted", root=self.root, reason=said)
                self._over.wait(REST_S)

    def _listen(self, notify: INotify) -> None:
        followed: dict[int, str] = {}
        given: Sequence[tuple[int, str]] | None = None
        refresh = 0.0
        while not self._over.is_set():
            if given is not self._given or time.monotonic() >= refresh:
                given = self._given
                followed = self._followed(notify, followed, given)
                refresh = time.monotonic() + REFRESH_S
            events = notify.read(TURN_MS, GATHER_MS)
            self._keep({posixpath.join(followed[e.wd], e.name) for e in events if e.name and e.wd in followed})

    def _followed(
        self, notify: INotify, before: Mapping[int, str], folders: Sequence[tuple[int, str]]
    ) -> dict[int, str]:
        """The folders that are followed now, by the kernel's number; what was followed before goes on without a gap."""
        now: dict[int, str] = {}
        changed: set[str] = set()
        newest = sorted((folder for folder in folders if folder[1]), reverse=True)[:MOST_FOLDERS]
        for at, name in [(0, ""), *newest]:
            path = os.path.join(self.root, name) if name else self.root
            try:
                number = notify.add_watch(path, ASKED | ITSELF)
                now[number] = name
                if name and number not in before and os.stat(path).st_mtime_ns != at:
                    changed.add(name)  # in between
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM):  # the kernel follows so many for each of its users
                    if not self._told:
                        log.info("hints.not_all", root=self.root, followed=len(now), reason=error.strerror)
                    self._told = True
                    break
        for number in before.keys() - now.keys():
            with suppress(OSError):  # it is gone
                notify.rm_watch(number)
        self._keep(changed)
        return now

    def _keep(self, names: set[str]) -> None:
        with self._lock:
            if names and len(self._names) < MOST_HINTS:
                self._names |= names
                self.heard.set()
