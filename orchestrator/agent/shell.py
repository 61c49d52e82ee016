"""Command stages: one shell command line in a process group of its own, in a clean environment.

The group outlives the agent. A tiny shell around the command writes its exit status to a file by rename, so that an
agent started again learns how a command ended that it did not start itself (`adopt`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.agent import claim, output, processes
from orchestrator.model import FailureClass, Order, Outcome
from orchestrator.outside import effect

KEPT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")  # of the agent's environment
TEMPORARY = 75  # EX_TEMPFAIL of sysexits.h: try again later
REFUSED = 73  # EX_CANTCREAT: the claim
_AROUND = (
    f'set -C; {{ command : >"$4"; }} 2>/dev/null || exit {REFUSED}; set +C; '
    '"$1" -c "$2"; s=$?; printf "%s" "$s" >"$3.part" && mv -f "$3.part" "$3"; exit "$s"'
)
EXPLAINED = frozenset({FailureClass.USER, FailureClass.AUTHENTICATION})  # by the last line of stderr
LEFT = "; processes of another account could not be ended and may still run"
_POLL_S = 0.1
# Trouble of the host, which says nothing about the command: it is tried again.
OF_THE_HOST = {
    errno.EAGAIN,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.ESTALE,
}


class Shell:
    """Runs and ends the commands of one agent. Thread-safe."""

    def __init__(self, environment: dict[str, str], *, log_cap_bytes: int) -> None:
        self._environment = {k: v for k, v in environment.items() if k in KEPT}
        self._shell = program()
        self._cap = log_cap_bytes
        self._groups: dict[str, int] = {}
        self._ending: dict[str, FailureClass] = {}
        self._lock = threading.Lock()
        self.may_begin: Callable[[], bool] = lambda: (
            True
        )  # asked by the agent's lease; while it says no, nothing starts

    def run(self, order: Order) -> Outcome:
        """Run the command to its end. Never raises: what goes wrong is in the outcome."""
        paths = output.Paths(order)
        with self._lock:
            if order.token in self._ending and not order.adopt:
                return self._never_begun(order)
            self._groups[order.token] = 0
        try:
            number = claim.withdraw(paths) if order.adopt or claim.known(paths) else 0
            if number is None:
                status, started_at, reason = self._adopted(order, paths)
            else:
                while not self.may_begin():
                    time.sleep(_POLL_S)
                with self._lock:
                    if order.token in self._ending:
                        return self._never_begun(order)
                status, started_at, reason = self._start(order, paths, paths.claim(number))
        except OSError as error:
            failure = FailureClass.LOST if error.errno in OF_THE_HOST else FailureClass.USER
            return Outcome(failure, _cannot_start(order, error), ended_at=time.time())
        finally:
            with self._lock:
                del self._groups[order.token]
        return self._outcome(order, paths, status, started_at, reason)

    def end(self, token: str, why: FailureClass) -> bool:
        """End the process group of this attempt; False when it has not begun, and now will not.

        One to be adopted is looked for nevertheless, and ended when it is found.
        """
        with self._lock:
            self._ending[token] = why
            group = self._groups.get(token)
        if group:
            threading.Thread(target=processes.end_group, args=(group,), daemon=True).start()
        return group is not None

    def forget(self, token: str) -> None:
        """This attempt is over: whoever asked for its end meanwhile came too late."""
        with self._lock:
            self._ending.pop(token, None)

    def end_all(self) -> None:
        with self._lock:
            groups = [g for g in self._groups.values() if g]
            self._ending.update(dict.fromkeys(self._groups, FailureClass.LOST))
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)
        for group in groups:
            processes.end_group(group)

    # ---- inside

    def _never_begun(self, order: Order) -> Outcome:
        return Outcome(self._ending.pop(order.token), "cancelled before it began", ended_at=time.time())

    def _start(self, order: Order, paths: output.Paths, claimed: str) -> tuple[int | None, float, str]:
        home = self._environment.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
        environment = {**self._environment, "HOME": home, processes.TOKEN: order.token}
        out, err = paths.open()
        claim.prepare(claimed)
        try:
            started_at = time.time()
            with effect("command.start"):
                process = subprocess.Popen(
                    ["/bin/sh", "-c", _AROUND, "beamway", self._shell, order.command, paths.exit, claimed],
                    cwd=order.working_dir,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
        finally:
            os.close(out)
            os.close(err)
        with self._lock:
            self._groups[order.token] = process.pid
            ended = order.token in self._ending
        if ended:  # asked for while it was being started
            processes.end_group(process.pid)
        status, left = self._wait(order, process, paths, started_at)
        if status == REFUSED and not os.path.exists(paths.exit):
            return None, started_at, "it could not be begun, or another agent was to begin it"
        return status, started_at, LEFT if left else ""

    def _wait(
        self, order: Order, process: subprocess.Popen[bytes], paths: output.Paths, started_at: float
    ) -> tuple[int, bool]:
        """(exit status, was something of a group that was to end left alive)"""
        while True:
            left_s = _POLL_S * 100
            if order.timeout_s:
                left_s = min(left_s, started_at + order.timeout_s - time.time())
            try:
                status = process.wait(max(0.0, left_s))
                break
            except subprocess.TimeoutExpired:
                if order.timeout_s and time.time() >= started_at + order.timeout_s:
                    self.end(order.token, FailureClass.TIMEOUT)
                    status = process.wait()
                    break
                output.cut(paths.stdout, 2 * self._cap)
                output.cut(paths.stderr, 2 * self._cap)
        with self._lock:
            ended = order.token in self._ending
        return status, ended and not processes.end_group(process.pid)

    def _adopted(self, order: Order, paths: output.Paths) -> tuple[int | None, float, str]:
        """What became of an attempt that an earlier agent has begun."""
        started_at = os.stat(claim.begun(paths)).st_mtime
        group = _group_of(order.token)
        if group and not os.path.exists(paths.exit):
            with self._lock:
                self._groups[order.token] = group
                ended = order.token in self._ending
            if ended:  # asked for before it was found
                processes.end_group(group)
            while not os.path.exists(paths.exit) and processes.group_alive(group):
                if order.timeout_s and time.time() > started_at + order.timeout_s:
                    self.end(order.token, FailureClass.TIMEOUT)
                time.sleep(_POLL_S)
        with contextlib.suppress(OSError, ValueError):
            return int(Path(paths.exit).read_text()), started_at, ""
        return None, started_at, "the agent died under it"

    def _outcome(
        self, order: Order, paths: output.Paths, status: int | None, started_at: float, reason: str
    ) -> Outcome:
        ended_at = time.time()
        with self._lock:
            asked = self._ending.pop(order.token, None)
        text = output.read(paths.stdout)
        captures, trouble = output.captured(order.captures, text) if status == 0 else ({}, "")
        failure, why = judge(order, status, asked, reason or trouble)
        if failure in EXPLAINED and not trouble:
            why = f"{why}{last_words(paths.stderr)}"
        output.cut(paths.stdout, self._cap)
        output.cut(paths.stderr, self._cap)
        return Outcome(
            failure,
            why,
            exit_status=status,
            captures=captures,
            started_at=started_at,
            ended_at=ended_at,
            stdout=output.path_if_any(paths.stdout),
            stderr=output.path_if_any(paths.stderr),
        )


def _group_of(token: str) -> int:
    """The process group of an attempt that runs on this host; 0 when none does."""
    for process in processes.with_environment(processes.TOKEN, token):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            return os.getpgid(process.pid)
    return 0


def program() -> str:
    """The shell that command lines are written for."""
    return shutil.which("bash") or "/bin/sh"


def judge(
    order: Order, status: int | None, asked: FailureClass | None, trouble: str
) -> tuple[FailureClass | None, str]:
    """(the class of failure, why) of a command by its exit status, what was asked of it, and what went wrong else."""
    if asked is FailureClass.TIMEOUT:
        return asked, f"ended after its timeout of {order.timeout_s:g} s{trouble}"
    if asked is FailureClass.CANCELLED:
        return asked, f"cancelled{trouble}"
    if asked is not None or status is None:
        return FailureClass.LOST, trouble.removeprefix("; ") or "the agent was stopped under it"
    if trouble:
        return FailureClass.USER, trouble
    if status == 0:
        return None, ""
    if status == TEMPORARY or status in order.transient_codes:
        return FailureClass.TRANSIENT, f"exit status {status} (try again later)"
    if status in order.authentication_codes:
        return FailureClass.AUTHENTICATION, f"exit status {status} (not let in)"
    number = -status if status < 0 else status - 128
    if number in {s.value for s in signal.Signals}:
        return FailureClass.USER, f"ended by {signal.Signals(number).name}"
    return FailureClass.USER, f"exit status {status}"


def last_words(path: str) -> str:
    """`: <last line of stderr>`, the sentence a person needs most; where to sign in, it may be."""
    line = output.last_line(path)
    return f": {line}" if line else ""


def _cannot_start(order: Order, error: OSError) -> str:
    if not os.path.isdir(order.working_dir):
        return f"the working directory {order.working_dir} does not exist or cannot be entered"
    return f"the command cannot be started: {error.strerror or error}"
