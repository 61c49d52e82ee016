"""Whether anybody on this machine has a file open for writing."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time

_WRITES = os.O_WRONLY | os.O_RDWR
FRESH_S = 0.2  # so long what was seen of all processes is used again

Opened = set[tuple[int, int]]


class Writers:
    """Asks for leases; where there are none, looks through the open files of all processes."""

    def __init__(self) -> None:
        self._opened: Opened | None = None
        self._until = 0.0

    def of(self, handle: int) -> bool | None:
        """Whether the file has a writer; None when that cannot be told.

        The kernel gives a read lease only on a file that nobody has open for writing, or mapped so; it is given back
        at once. The file must be ours, or we need CAP_LEASE: whoever may write to it otherwise, we could not see.
        """
        try:
            # Whoever opens the file in this moment waits, and we are sent a signal: not SIGIO, which would end us.
            fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EBUSY):
                return True
            return None if error.errno in (errno.EACCES, errno.EPERM) else self._seen(handle)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False

    def _seen(self, handle: int) -> bool | None:
        if time.monotonic() >= self._until:
            self._opened = opened_for_writing()
            self._until = time.monotonic() + FRESH_S
        status = os.fstat(handle)
        return None if self._opened is None else (status.st_dev, status.st_ino) in self._opened


def opened_for_writing() -> Opened | None:
    """Device and inode of what processes have open for writing; None when we may not look into all of them."""
    found: Opened = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        base = f"/proc/{process}"
        try:
            handles = os.listdir(f"{base}/fd")
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            return None
        for number in handles:
            try:
                with open(f"{base}/fdinfo/{number}") as file:
                    flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
                if flags & _WRITES:
                    status = os.stat(f"{base}/fd/{number}")
                    found.add((status.st_dev, status.st_ino))
            except (OSError, StopIteration, ValueError):
                continue
    return found
