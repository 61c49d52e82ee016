"""Locks that end with their process, so that nothing has to be cleaned up after a crash."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def agent_lock(home: Path, site: str) -> Path:
    return home / f"agent-{site}.lock"


def watcher_lock(home: Path, site: str) -> Path:
    return home / f"watcher-{site}.lock"


def service_lock(home: Path) -> Path:
    return home / "service.lock"


def locked(path: Path) -> bool:
    """Does a living process hold this lock?"""
    handle = lock(path)
    if handle is None:
        return True
    os.close(handle)
    return False


def lock(path: Path) -> int | None:
    """Take the lock for the life of this process and write its pid there; None when another process has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def holder(path: Path) -> int:
    """The pid written by the process that holds the lock; 0 when none does."""
    if not locked(path):
        return 0
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
