"""A home whose processes die at a named point of an outside effect, and a run of one kind of stage in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.client import Client
from orchestrator.definition import loader
from orchestrator.errors import Unavailable
from orchestrator.model import Run, RunStatus
from orchestrator.settings import Settings, ensure_home
from orchestrator.store.database import Database
from tests.conftest import end_processes_of, workflow

_environment = threading.Lock()  # of this process, which what is started inherits
WITHIN_S = 100.0


class Case:
    """One home. `marks` holds a line for each time that something was done."""

    def __init__(self, place: Path, database: str = "") -> None:
        self.place, self.home, self.marks = place, place / "home", place / "marks"
        self.work, self.log = place / "work", place / "points"
        for folder in (self.marks, self.work, self.home / "workflows"):
            folder.mkdir(parents=True)
        ensure_home(self.home)
        if database:
            (self.home / "settings.toml").write_text(f'database = "{database}"\n')
            with Database(database) as opened:
                opened.upgrade()
        self.settings = Settings(home=self.home, database=database)

    def reached(self) -> list[str]:
        """The points that were reached, the first time each."""
        return list(dict.fromkeys(self.log.read_text().splitlines())) if self.log.exists() else []

    def crashed(self) -> set[str]:
        """The points at which a process was killed."""
        return {path.name.removeprefix("crashed.") for path in self.place.glob("crashed.*")}

    @contextmanager
    def client(self, *points: str) -> Iterator[Client]:
        """With processes that are to die at those points, once at each."""
        more = {
            "BEAMWAY_CRASH": ",".join(points),
            "BEAMWAY_CRASH_MARK": str(self.place / "crashed"),
            "BEAMWAY_CRASH_LOG": str(self.log),
        }
        with Client(self.settings) as client:
            client._backend.ensure_service = _armed(client._backend.ensure_service, more)  # type: ignore[method-assign]
            try:
                yield client
            finally:
                client.stop_service()
                end_processes_of(self.home)

    def times(self) -> dict[str, int]:
        return {path.name: len(path.read_text().splitlines()) for path in self.marks.iterdir()}


def _armed(ensure: Callable[[], None], more: dict[str, str]) -> Callable[[], None]:
    def call() -> None:
        with _environment:
            os.environ.update(more)
            try:
                ensure()
            finally:
                for name in more:
                    del os.environ[name]

    return call


# Enough of each for being killed at every point.
PATIENCE = {"retries": {"lost worker": {"most": 40, "delay": 0.1, "longest": 0.3}}}


def _mark(case: Case, name: str) -> str:
    return f"echo x >> {case.marks}/{name}"


def command(case: Case) -> dict[str, Any]:
    return {
        "command": f"{_mark(case, 'middle')}; sleep 0.3; echo made > {case.work}/out",
        "outputs": [f"{case.work}/out"],
    }


def function(case: Case) -> dict[str, Any]:
    return {
        "function": "tests.chaos.calls:mark",
        "arguments": {"directory": str(case.marks), "name": "middle", "seconds": 0.4},
    }


def kernel(case: Case) -> dict[str, Any]:
    arguments = {"output": f"{case.work}/scan.h5", "columns": 32, "rows": 2, "angles": 30}
    return {"kernel": "tomography.simulate", "arguments": arguments}


def transfer(case: Case) -> dict[str, Any]:
    (case.work / "from").mkdir(exist_ok=True)
    for number in range(3):
        (case.work / "from" / f"{number}.bin").write_bytes(os.urandom(200_000))
    return {"transfer": {"from": f"{case.work}/from", "to": f"{case.work}/to"}}


def child(case: Case) -> dict[str, Any]:
    inner = {"name": "inner", "owner": "tester", "stages": {"01": {"command": _mark(case, "middle")}}}
    (case.home / "workflows" / "inner.py").write_text(repr(inner))
    return {"workflow": "inner"}


KINDS: dict[str, Callable[[Case], dict[str, Any]]] = {
    "command": command,
    "function": function,
    "kernel": kernel,
    "transfer": transfer,
    "workflow": child,
}


def carry_out(case: Case, client: Client, kind: str) -> Run:
    stages = workflow(
        s01={"command": _mark(case, "first"), **PATIENCE},
        s02={**KINDS[kind](case), **PATIENCE},
        s03={"command": f"{_mark(case, 'last')}; cat {case.marks}/first", **PATIENCE},
    )
    (case.home / "workflows" / "outer.py").write_text(repr(stages))
    plan = client.plan(loader.find("outer", [case.home / "workflows"]), {}, directory=str(case.work))
    run_id = ""
    while not run_id:
        with contextlib.suppress(Unavailable):  # it died again; the same id begins one run
            run_id = client.submit(plan, run_id="00000000-0000-4000-8000-000000000001")
    *_, run = client.follow(run_id, timeout_s=WITHIN_S)
    return run


def judge(case: Case, client: Client, run: Run, kind: str) -> list[str]:
    """What is wrong: a run that is not done, an effect that happened twice without a recorded repetition, a rest."""
    wrong = []
    if run.status is not RunStatus.DONE:
        wrong.append(f"the run is {run.status.value}: {run.error}")
    attempts = {t.stage: t.attempt for t in run.tasks.values()}
    times = case.times()
    for name, stage in (("first", "01"), ("last", "03")):
        if times.get(name) != 1 and times.get(name, 0) > attempts.get(stage, 0):
            wrong.append(f"{name} was done {times.get(name)} times in {attempts.get(stage)} attempts")
    if kind in ("command", "function", "workflow") and not 1 <= times.get("middle", 0) <= attempts["02"]:
        wrong.append(f"the stage was done {times.get('middle')} times in {attempts['02']} attempts")
    if kind == "command" and attempts["02"] != 1:
        wrong.append(f"a command was repeated: {attempts['02']} attempts")
    parts = [str(p) for p in case.work.rglob("*.part*")]
    if parts:
        wrong.append(f"left over: {parts}")
    if kind == "transfer":
        for source in sorted((case.work / "from").iterdir()):
            target = case.work / "to" / source.name
            if not target.exists() or target.read_bytes() != source.read_bytes():
                wrong.append(f"{target} is not its source")
    runs = Counter(line.workflow for line in client.runs(limit=10))
    if runs != ({"test": 1, "inner": 1} if kind == "workflow" else {"test": 1}):
        wrong.append(f"runs: {dict(runs)}")
    return wrong


def forget(case: Case) -> None:
    shutil.rmtree(case.place, ignore_errors=True)
