"""Runs one job of `LocalScheduler` to its end, detached from whoever submitted it. Started by path: stdlib only.

It holds the lock on its folder as long as it lives, so that others know that it does. In the folder it finds `job.json`
and `script`, perhaps `cancel`; it writes `started.json` and, at the end, `ended.json`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

GRACE_S = 5.0  # from SIGTERM to SIGKILL
WATCHED = {signal.SIGCHLD, signal.SIGTERM}
HANDED_ON = frozenset({signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})


def main(folder: Path) -> int:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(50):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.01)  # perhaps somebody who only looks: that takes an instant
    else:
        return 0  # somebody else runs this job
    if (folder / "started.json").exists():
        return 0
    if os.fork():
        return 0  # the lock goes on in the child, and whoever submitted has nobody to wait for
    for number in HANDED_ON:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    (folder / "runner").write_text(str(os.getpid()))
    run(folder, json.loads((folder / "job.json").read_text()))
    return 0


def run(folder: Path, job: dict[str, Any]) -> None:
    if (folder / "cancel").exists():
        write(folder / "ended.json", {"why": "cancel", "status": None, "at": time.time()})
        return
    try:
        with open(job["stdout"], "ab") as out, open(job["stderr"], "ab") as err:
            process = subprocess.Popen(
                ["/bin/bash", str(folder / "script")],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=job["directory"],
                env={**os.environ, "JOB_ID": job["id"]},
                start_new_session=True,
                preexec_fn=_as_usual,
            )
    except OSError as error:
        write(folder / "ended.json", {"why": "launch", "words": str(error), "status": None, "at": time.time()})
        return
    write(folder / "started.json", {"pid": process.pid, "ticks": ticks(process.pid), "at": time.time()})
    why = watch(process, folder, job["walltime_s"], job["warning_s"])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what the script has left behind
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    write(folder / "ended.json", {"why": why, "status": status, "at": time.time()})


def watch(process: subprocess.Popen[bytes], folder: Path, walltime_s: float, warning_s: float) -> str:
    """Wait for the end of the script, and see to it; why it had to be ended, empty when it ended by itself."""
    began = time.monotonic()
    warned_at = began + max(0.0, walltime_s - warning_s) if walltime_s else float("inf")
    killed_at = began + walltime_s + (0.0 if warning_s else GRACE_S) if walltime_s else float("inf")
    why = ""
    while process.poll() is None:
        now = time.monotonic()
        if why != "cancel" and (folder / "cancel").exists():
            why, warned_at, killed_at = "cancel", float("inf"), min(killed_at, now + GRACE_S)
            process.terminate()
        elif now >= killed_at:
            why = why or "walltime"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            killed_at = now + 1.0
        elif now >= warned_at:
            why, warned_at = "walltime", float("inf")
            process.terminate()
        signal.sigtimedwait(WATCHED, min(60.0, max(0.0, min(warned_at, killed_at) - now)))
    return why


def ticks(pid: int) -> str:
    """When the process began, in ticks since the machine started: with its number it names one process for good."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def write(path: Path, values: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(values))
    part.replace(path)


def _as_usual() -> None:
    for number in HANDED_ON:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
