"""Starts a process of this home, the agent or the watcher of a site, and starts it again when it dies, ever more slowly
while it keeps dying."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from orchestrator.locks import holder, locked
from orchestrator.outside import effect

FIRST_DELAY_S, MOST_DELAY_S, STEADY_S = 0.2, 30.0, 60.0

log = structlog.get_logger()


class Supervisor:
    """`name`: of its log; `lock`: which it holds while it lives."""

    def __init__(self, home: Path, name: str, lock: Path, words: Sequence[str], *, clock: Callable[[], float]) -> None:
        self._home, self._name, self._lock, self._words, self._clock = home, name, lock, list(words), clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._delay_s = 0.0
        self._not_before = 0.0

    def tend(self) -> None:
        """Call often: sees that it runs. One left over from a former service is let be; it will connect."""
        now = self._clock()
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            steady = now - self._started_at > STEADY_S
            self._delay_s = FIRST_DELAY_S if steady or not self._delay_s else min(self._delay_s * 2, MOST_DELAY_S)
            self._not_before = now + self._delay_s
            self._process = None
            words = _last_line(self._log_path())
            log.warning("process.died", name=self._name, status=status, again_in_s=self._delay_s, last_words=words)
        if now >= self._not_before and not locked(self._lock):
            self._start(now)

    def _start(self, now: float) -> None:
        self._started_at = now
        path = self._log_path()
        path.parent.mkdir(exist_ok=True, mode=0o700)
        with path.open("ab") as output, effect("agent.start"):
            self._process = subprocess.Popen(
                [sys.executable, *self._words],
                env={**os.environ, "BEAMWAY_HOME": str(self._home)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        log.info("process.started", name=self._name, pid=self._process.pid)

    def _log_path(self) -> Path:
        return self._home / "logs" / f"{self._name}.log"

    def dismiss(self) -> None:
        """Ask it to end; one left over from a former service, too."""
        pid = self._process.pid if self._process is not None else holder(self._lock)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def wait(self, timeout_s: float) -> None:
        """For the end of it; it is asked again (it may not have said hello yet), and killed in the end."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _last_line(path: Path) -> str:
    """The end of the agent's log, which says why it died."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:500] if lines else ""
