"""One bounded call of a scheduler's command: no shell, a clean environment, and an end in time whatever it does."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from orchestrator.jobs import SchedulerSilent

KEPT = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "KRB5CCNAME")  # nothing of ours changes what a command means
TRAILING_S = 2.0  # for what a killed command has left in its pipes


class NotStarted(SchedulerSilent):
    """The command itself could not be started: nothing has reached the scheduler."""


class Answer(Struct, frozen=True):
    rc: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """What the command said, as one line for people."""
        return " ".join((self.err.strip() or self.out.strip()).split())[:500]


class Calls:
    """Runs the commands of one scheduler and counts them (`count`), so that tests can bound how often we ask."""

    def __init__(self, *, environment: Mapping[str, str], bin_dir: str, timeout_s: float) -> None:
        self._environment = {k: os.environ[k] for k in KEPT if k in os.environ} | {"LC_ALL": "C"} | dict(environment)
        self._bin_dir, self.timeout_s = bin_dir, timeout_s
        self._lock = threading.Lock()
        self.count = 0

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Answer:
        """Run it to its end. Raises SchedulerSilent when it takes too long, NotStarted when it cannot be started."""
        with self._lock:
            self.count += 1
        program = str(Path(self._bin_dir, argv[0])) if self._bin_dir else argv[0]
        try:
            process = subprocess.Popen(
                [program, *argv[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment | dict(environment or {}),
                cwd="/",
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise NotStarted(
                f"The scheduler's command {argv[0]!r} cannot be started: {error}.", "Check `scheduler.bin`."
            ) from error
        with process:
            try:
                out, err = process.communicate(stdin.encode("utf-8", "surrogateescape"), timeout=self.timeout_s)
            except subprocess.TimeoutExpired as error:
                _kill_group(process)
                raise SchedulerSilent(
                    f"The scheduler has not answered {argv[0]!r} in {self.timeout_s:g} s.", "Try again later."
                ) from error
            except BaseException:
                _kill_group(process)
                raise
        return Answer(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=TRAILING_S)


def account() -> str:
    """The account whose jobs are ours."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
