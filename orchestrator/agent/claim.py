"""The claim of an attempt: a file that must be made by whoever begins it, so that no two agents ever begin it both.

An agent that slept past its lease goes on, when it wakes, in the middle of what it was doing; a look at the clock just
before would prove nothing. So the beginning itself is what takes the claim: the shell of a command and the worker of a
call make the file, exclusively, as their first act, and leave the attempt alone when they cannot.

An agent that is to adopt an attempt withdraws the claim: it puts a link in the file's place. Then nobody will ever
begin it by that claim, and this agent may, by the next one. Or the file is there: then it was begun, and its end is
looked for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

import psutil
from msgspec.structs import replace

from orchestrator.agent.output import Paths, known_end, mark
from orchestrator.model import FailureClass, Order, Outcome

_WITHDRAWN = "withdrawn"


def prepare(path: str) -> None:
    """Let there be a directory for it."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)


def known(paths: Paths) -> bool:
    """Was this attempt with anybody already? Also one of a store that was restored from a backup, which knows no more
    of it."""
    return os.path.lexists(paths.claim(0))


def take(path: str) -> bool:
    """Make it, with the host and the process that begins; False when another has it, or it was withdrawn."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o600)
    except FileNotFoundError:
        prepare(path)
        return take(path)
    except FileExistsError:
        return False
    os.write(handle, f"{os.getpid()} {socket.gethostname()}".encode())
    os.close(handle)
    return True


def withdraw(paths: Paths) -> int | None:
    """The number of the claim by which the caller alone may begin this attempt; None when it was begun already."""
    prepare(paths.claim(0))
    number = 0
    while True:
        try:
            os.symlink(_WITHDRAWN, paths.claim(number))
            return number + 1
        except FileExistsError:
            if not os.path.islink(paths.claim(number)):
                return None
        number += 1


def begun(paths: Paths) -> str:
    """The claim by which this attempt was begun; an empty string when it was not."""
    number = 0
    while os.path.islink(path := paths.claim(number)):
        number += 1
    return path if os.path.exists(path) else ""


def adopt_call(order: Order, paths: Paths) -> tuple[Order, Outcome | None]:
    """The order to be begun by the caller alone; or how it ended, when an earlier agent has begun it."""
    end = known_end(paths)
    if end is None:
        number = withdraw(paths)
        if number is not None:
            return replace(order, claim=number), None
        _end_worker(paths)
        end = known_end(paths) or Outcome(FailureClass.LOST, "the agent died under it", ended_at=time.time())
    return order, end


def _end_worker(paths: Paths) -> None:
    """End a call whose agent is gone or hangs, but whose worker may still be at it.

    A worker on another host ends it when it sees the mark.
    """
    mark(paths)
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        path = begun(paths)
        with open(path) as file:
            pid, _, host = file.read().partition(" ")
        worker = psutil.Process(int(pid))
        if host == socket.gethostname() and worker.create_time() < os.stat(path).st_mtime:
            os.killpg(worker.pid, signal.SIGKILL)  # a worker has a group of its own
            worker.wait(1.0)


def drop(paths: Paths) -> None:
    """Forget it: the attempt is over, and was never with another agent."""
    with contextlib.suppress(OSError):
        os.unlink(paths.claim(0))
