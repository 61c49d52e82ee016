"""The sign of life of a job's script. A job that runs, says its scheduler, and gives none any more has lost its node.

The clocks of file servers and nodes differ: what counts is that the file's time has changed, and when that was seen.
"""

from __future__ import annotations

import os
import time

from orchestrator import jobscript

LOOK_S = 5.0


class Pulse:
    def __init__(self, record: str) -> None:
        """`record`: of the job's script."""
        self._path = record + jobscript.BEAT
        self._seen = 0
        self._changed_at = self._looked_at = 0.0  # monotonic; 0: never

    def silent_s(self, *, runs: bool) -> float:
        """How long there has been no sign; 0 while it does not run, and before the first one."""
        now = time.monotonic()
        if not runs:
            self._seen, self._changed_at = 0, 0.0
            return 0.0
        if now - self._looked_at > LOOK_S:
            self._looked_at = now
            seen = _changed(self._path)
            if seen != self._seen:
                self._seen, self._changed_at = seen, now if seen else 0.0
        return now - self._changed_at if self._changed_at else 0.0


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
