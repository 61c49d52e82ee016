"""The probe as a process of this host, for sites without a scheduler."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection
from pathlib import Path

from orchestrator.jobs import Job, JobSpec, JobState


class Process:
    """The few calls of a scheduler that a probe needs, for one job."""

    kind = "local"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._token = ""
        self._process: subprocess.Popen[bytes] | None = None

    def submit_once(self, spec: JobSpec, *, known: bool = False) -> str:
        if self._process is None:
            self._token = spec.token
            script = self._folder / "script.sh"
            script.write_text(spec.script, encoding="utf-8")
            with open(spec.stdout, "wb") as out, open(spec.stderr, "wb") as err:
                self._process = subprocess.Popen(
                    ["bash", str(script)],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    cwd=spec.directory,
                    start_new_session=True,
                )
        return str(self._process.pid)

    def find(self, token: str) -> list[Job]:
        return list(self.jobs([str(self._process.pid)]).values()) if self._process and token == self._token else []

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        assert self._process is not None
        status = self._process.poll()
        state = JobState.RUNNING if status is None else JobState.FAILED if status else JobState.DONE
        return {job_id: Job(job_id, self._token, state, exit_status=status) for job_id in ids}

    def cancel(self, ids: Collection[str]) -> None:
        if not ids or self._process is None or self._process.poll() is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(timeout=5)
            except ProcessLookupError:
                self._process.wait()
                return
            except subprocess.TimeoutExpired:
                continue
