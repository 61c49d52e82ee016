"""Whether anybody on this machine has a file open for writing."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterable

_WRITES = os.O_WRONLY | os.O_RDWR


def has_writer(handle: int) -> bool | None:
    """None when it cannot be told.

    The kernel gives a read lease only on a file that nobody has open for writing, or mapped so; it is given back at
    once. It needs the file to be ours, or the capability; else we look through the open files of all processes.
    """
    try:
        # Whoever opens the file in this moment waits, and we are sent a signal: not SIGIO, which would end us.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EBUSY):
            return True
        return _seen_in_proc(os.fstat(handle))
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _seen_in_proc(status: os.stat_result) -> bool | None:
    """By the files that processes have open. None when there are processes that we may not look into."""
    hidden = False
    for process in _numbers("/proc"):
        base = f"/proc/{process}"
        try:
            handles = os.listdir(f"{base}/fd")
        except FileNotFoundError:
            continue
        except OSError:
            hidden = True
            continue
        for number in handles:
            try:
                seen = os.stat(f"{base}/fd/{number}")
                if (seen.st_dev, seen.st_ino) != (status.st_dev, status.st_ino) or not stat.S_ISREG(seen.st_mode):
                    continue
                with open(f"{base}/fdinfo/{number}") as file:
                    flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
            except (OSError, StopIteration, ValueError):
                continue
            if flags & _WRITES:
                return True
    return None if hidden else False


def _numbers(folder: str) -> Iterable[str]:
    try:
        return [name for name in os.listdir(folder) if name.isdigit()]
    except OSError:
        return []
