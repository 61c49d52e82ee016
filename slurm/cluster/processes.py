"""Processes that outlive who starts them, found again by a word in their environment and ended with their kin."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from orchestrator.errors import Unavailable

MARK = "BEAMWAY_SLURM_CLUSTER"
_BECOMES_S = 1.0  # while a process becomes another program, it has for a moment no environment
DAEMONS_ARE_IN = "/usr/sbin:/usr/local/sbin:/opt/slurm/sbin:/opt/slurm/bin"  # not on everybody's PATH

# Writes its own pid and becomes the daemon. With `setsid --fork` it has no terminal and no parent of ours.
START = 'echo $$ >"$0.part" && mv "$0.part" "$0" && exec "$@"'


def program(name: str) -> str:
    """The path of a program; empty when there is none."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{DAEMONS_ARE_IN}") or ""


def start(argv: Sequence[str], *, mark: str, pid_file: Path, log: Path, environment: Mapping[str, str]) -> int:
    """Start a daemon detached; its pid, which is also written to `pid_file`."""
    pid_file.unlink(missing_ok=True)
    with log.open("ab") as output:
        subprocess.run(
            ["setsid", "--fork", "sh", "-c", START, str(pid_file), *argv],
            env={**environment, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            check=True,
            timeout=10,
        )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            return int(pid_file.read_text())
        time.sleep(0.01)
    raise Unavailable(f"{argv[0]} was not started.", f"Its log: {log}.")


def alive(pid_file: Path, mark: str) -> int:
    """The pid of the daemon, when it lives and is ours: pids are used again; else 0."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        deadline = time.monotonic() + _BECOMES_S
        while not _zombie(pid):
            if environment := environment_of(pid):
                return pid if environment.get(MARK) == mark else 0
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)
    return 0


def environment_of(pid: int) -> dict[str, str]:
    """As it was when the program began; empty for processes that are gone or of others."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(os.fsdecode(word).split("=", 1) for word in words if b"=" in word)


def every() -> Iterable[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _parents() -> dict[int, int]:
    found = {}
    for pid in every():
        with contextlib.suppress(OSError, IndexError, ValueError):
            found[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def with_descendants(roots: Iterable[int]) -> set[int]:
    family, parents = set(roots), _parents()
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def end(pids: Iterable[int], *, grace_s: float) -> set[int]:
    """SIGTERM (and SIGCONT, for those that are stopped), after the grace SIGKILL; those that are left even so."""
    left = set(pids)
    for number in (signal.SIGTERM, signal.SIGCONT):
        send(left, number)
    left = wait_gone(left, grace_s)
    send(left, signal.SIGKILL)
    return wait_gone(left, 5.0)


def send(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def wait_gone(pids: Iterable[int], timeout_s: float) -> set[int]:
    deadline = time.monotonic() + timeout_s
    left = {pid for pid in pids if not _zombie(pid)}
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = {pid for pid in left if not _zombie(pid)}
    return left
