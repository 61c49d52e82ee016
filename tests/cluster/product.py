"""The whole product on a real scheduler: a home that has the trial cluster as a site."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.client import Client
from orchestrator.definition import loader
from orchestrator.engine.why import Why
from orchestrator.jobs import Job, Scheduler
from orchestrator.model import Placing, Run, TaskStatus
from orchestrator.settings import Settings
from tests.conftest import end_processes_of, wait

# Says that it has begun, once for each time it runs; ends when it is told to, or after a while.
SCRIPT = """#!/bin/bash
echo "${SLURM_JOB_ID:-$JOB_ID}" >>"$1.began"
for i in $(seq "$2"); do [ -e "$1.go" ] && break; sleep 0.1; done
echo made >"$1.out"
echo "${SLURM_JOB_ID:-$JOB_ID}" >>"$1.ended"
"""


class Product:
    def __init__(self, home: Path, work: Path, client: Client, scheduler: Scheduler, site: str) -> None:
        self.site = site
        self.home, self.work, self.client, self.scheduler = home, work, client, scheduler
        self.script = work / "stage.sh"
        self.script.write_text(SCRIPT)

    def stage(self, name: str, seconds: float = 0.0, **more: Any) -> dict[str, Any]:
        """A stage that runs `seconds` at most, counts its runs, and makes a file."""
        command = f"bash {self.script} {self.work / name} {round(seconds * 10)}"
        return {"command": command, "outputs": [str(self.work / f"{name}.out")], **more}

    def start(self, stages: dict[str, Any], arguments: dict[str, str] | None = None, **placing: str) -> str:
        definition = loader.load({"name": "test", "owner": "tester", "stages": stages})
        plan = self.client.plan(
            definition, arguments or {}, directory=str(self.work), placing=Placing(**{"site": self.site, **placing})
        )
        return self.client.submit(plan)

    def wait(self, run_id: str, timeout_s: float = 110.0) -> Run:
        return wait(self.client, run_id, timeout_s)

    def run(self, stages: dict[str, Any], timeout_s: float = 110.0, **placing: str) -> Run:
        return self.wait(self.start(stages, **placing), timeout_s)

    def began(self, name: str) -> list[str]:
        return _lines(self.work / f"{name}.began")

    def ended(self, name: str) -> list[str]:
        return _lines(self.work / f"{name}.ended")

    def go(self, name: str) -> None:
        (self.work / f"{name}.go").touch()

    def until_began(self, name: str, times: int = 1, timeout_s: float = 60.0) -> None:
        self.until(lambda: len(self.began(name)) >= times, timeout_s, f"{name} to begin {times} times")

    def until(self, there: Callable[[], object], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not there():
            assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
            time.sleep(0.05)

    def why(self, run_id: str) -> Why:
        return self.client.why(run_id)

    def until_why(self, run_id: str, words: str, timeout_s: float = 60.0) -> Why:
        deadline = time.monotonic() + timeout_s
        while words not in (said := self.why(run_id)).sentence:
            assert time.monotonic() < deadline, f"{words!r} is not in {said}"
            time.sleep(0.2)
        return said

    def jobs_of(self, run_id: str) -> list[Job]:
        """The batch jobs of its attempts that the scheduler knows."""
        run = self.client.run(run_id)
        tokens = [f"bw-{run_id}.{t.number}.{a}" for t in run.tasks.values() for a in range(1, t.attempt + 1)]
        return [job for token in tokens for job in self.scheduler.find(token)]

    def job(self, run_id: str) -> str:
        """The id of the first task's batch job, once the scheduler has it."""
        self.until(lambda: self.jobs_of(run_id), 30, "a job")
        return self.jobs_of(run_id)[-1].id


def failures(run: Run) -> list[str]:
    """What ended the attempts of the run's tasks, as the events tell it."""
    return [str(t.outcome.failure) for t in run.tasks.values() if t.outcome and t.outcome.failure]


def attempts(run: Run) -> list[int]:
    return [t.attempt for t in run.tasks.values()]


def done(run: Run) -> bool:
    return all(t.status is TaskStatus.DONE for t in run.tasks.values())


@contextlib.contextmanager
def product(tmp: Path, profile: str, scheduler: Scheduler, *, site: str = "trial") -> Iterator[Product]:
    home, work = tmp / "home", tmp / "work"
    (home / "sites").mkdir(parents=True)
    work.mkdir()
    (home / "sites" / f"{site}.toml").write_text(profile)
    with Client(Settings(home=home)) as client:
        try:
            yield Product(home, work, client, scheduler, site)
        finally:
            client.stop_service()
            end_processes_of(home)


def _lines(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1] if path.exists() else []
