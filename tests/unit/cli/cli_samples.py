"""Runs in every state, and a client that needs no service."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from immutables import Map
from msgspec.structs import asdict, replace

from orchestrator import protocol, written
from orchestrator.engine import facts
from orchestrator.engine.why import Why, why
from orchestrator.errors import Conflict, NotFound
from orchestrator.model import (
    RUN_ENDED,
    Definition,
    FailureClass,
    Finding,
    Hold,
    Outcome,
    Placing,
    Plan,
    Product,
    Run,
    RunStatus,
    StageKind,
    StagePlan,
    StageState,
    StageStatus,
    Task,
    TaskStatus,
)
from orchestrator.settings import Settings
from orchestrator.store.letters import Letter
from orchestrator.store.runs import EventRow
from orchestrator.store.search import Summary
from orchestrator.store.watches import Watched


def commands(group: click.Group, above: str = "") -> dict[str, click.Command]:
    """Every command that does something, by the words that call it: `run`, `site check`."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        words = f"{above} {name}".strip()
        found |= commands(command, words) if isinstance(command, click.Group) else {words: command}
    return found


ID = "3f2a8c1e-0000-4000-8000-000000000001"
T0 = 1_763_700_000.0


def plan(*stages: StagePlan, **more: Any) -> Plan:
    variables = {"filePath": "/data/a.h5"}
    return Plan("recon", "ann", stages, variables=variables, supplied=("filePath",), directory="/data", **more)


def command(name: str, *after: str, **more: Any) -> StagePlan:
    return StagePlan(name, StageKind.COMMAND, after=after, command="cmd $filePath", **more)


def task(number: int, stage: str, status: TaskStatus, **more: Any) -> Task:
    return Task(number, stage, status=status, command="cmd a.h5", submitted_at=T0 + 1, **more)


def good(at: float = T0 + 2, **more: Any) -> Outcome:
    return Outcome(exit_status=0, started_at=at, ended_at=at + 4, transfer_s=1.0, checks_s=0.5, **more)


def running() -> Run:
    """Its first stage is computing, its second waits."""
    return Run(
        ID,
        plan(command("01-A"), command("02-B", "01-A")),
        T0,
        status=RunStatus.RUNNING,
        started_at=T0 + 1,
        stage="01-A",
        variables=Map({"filePath": "/data/a.h5"}),
        stages=Map(
            {
                "01-A": StageState("01-A", StageStatus.RUNNING, 1, started_at=T0 + 1, open=1, tasks=1),
                "02-B": StageState("02-B"),
            }
        ),
        tasks=Map({0: task(0, "01-A", TaskStatus.RUNNING, started_at=T0 + 2)}),
        next_number=1,
    )


def held(**more: Any) -> Run:
    """Its only task that could go on waits for its site."""
    outcome = Outcome(FailureClass.DOWN, "nobody answers", unsure=True)
    hold = Hold(FailureClass.DOWN, "nobody answers", T0 + 3, **more)
    waiting = task(0, "01-A", TaskStatus.ON_HOLD, outcome=outcome, hold=hold, site="local", due_at=T0 + 33)
    run = running()
    stage = replace(run.stages["01-A"], on_hold=1)
    return replace(run, status=RunStatus.HELD, stages=run.stages.set("01-A", stage), tasks=Map({0: waiting}))


def done() -> Run:
    findings = (Finding("/data/out.h5", "exists", True),)
    products = (Product("/data/out.h5", 2048, "the volume"),)
    outcome = good(findings=findings, products=products, metrics={"axis": 12.5}, warnings=("axis: not certain",))
    stages = {n: StageState(n, StageStatus.DONE, 1, T0 + 1, T0 + 7, done=1, tasks=1) for n in ("01-A", "02-B")}
    return replace(
        running(),
        status=RunStatus.DONE,
        ended_at=T0 + 7,
        stage="02-B",
        stages=Map(stages),
        tasks=Map(
            {
                0: task(0, "01-A", TaskStatus.DONE, outcome=good(), ended_at=T0 + 6),
                1: task(1, "02-B", TaskStatus.DONE, outcome=outcome, ended_at=T0 + 6),
            }
        ),
    )


def failed(failure: FailureClass = FailureClass.USER, **more: Any) -> Run:
    outcome = Outcome(failure, "it ended with 3", exit_status=3, started_at=T0 + 2, ended_at=T0 + 3, **more)
    state = StageState("01-A", StageStatus.FAILED, 1, T0 + 1, T0 + 3, "it ended with 3", failed=1, tasks=1)
    return replace(
        running(),
        status=RunStatus.FAILED,
        ended_at=T0 + 3,
        error="stage '01-A': it ended with 3",
        stages=Map({"01-A": state, "02-B": StageState("02-B")}),
        tasks=Map({0: task(0, "01-A", TaskStatus.FAILED, outcome=outcome, ended_at=T0 + 3)}),
    )


class FakeWatches:
    """Nothing is watched."""

    def ls(self) -> list[Watched]:
        return []


class FakeClient:
    """Stands where `Client` does, on runs that a test puts in."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self.known: dict[str, Run] = {}
        self.letters: dict[str, Letter] = {}
        self.planned = plan(command("01-A"))
        self.watches = FakeWatches()
        self.pong: protocol.Pong | None = protocol.Pong(1, "1", ("local",), 1)
        self.asked: list[tuple[str, ...]] = []
        self.follows: Callable[[str], Iterator[Run]] = lambda run_id: iter([self.known[run_id]])

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def written(self, run_id: str, number: int, attempt: int, *, stderr: bool = False, after: int = 0) -> bytes:
        return written.piece(self.settings.runs_directory, run_id, number, attempt, stderr=stderr, after=after)

    def workflow_directories(self) -> list[Path]:
        return [self.settings.home / "workflows"]

    def site_directories(self) -> list[Path]:
        return []

    def definition(self, name: str) -> Definition:
        if name != "recon":
            raise NotFound(f"There is no workflow {name!r}.", "`beamway workflows` lists them.")
        return Definition("recon", "ann", {}, {})

    def plan(
        self,
        definition: Definition,
        arguments: dict[str, str],
        *,
        strict: bool = False,
        placing: Placing | None = None,
    ) -> Plan:
        self.asked.append(("plan", json.dumps(arguments), str(strict)))
        if placing not in (None, Placing()):
            self.asked.append(("placing", *(f"{k}={v}" for k, v in asdict(placing).items() if v)))
        return self.planned

    def submit(self, plan: Plan, *, run_id: str = "") -> str:
        run_id = run_id or ID
        self.asked.append(("submit", run_id))
        self.known.setdefault(run_id, replace(done(), id=run_id))
        return run_id

    def cancel(self, run_id: str) -> None:
        if self.known[run_id].status in RUN_ENDED:
            raise Conflict(f"Run {run_id} is over: {self.known[run_id].status.value}.")
        self.asked.append(("cancel", run_id))

    def retry(self, run_id: str, stage: str = "") -> None:
        self.asked.append(("retry", run_id, stage))

    def resume(self, run_id: str = "", *, site: str = "") -> tuple[str, ...]:
        self.asked.append(("resume", run_id, site))
        return (run_id,) if run_id else tuple(self.known)

    def dead(self, *, limit: int = 0, **which: Any) -> list[Letter]:
        self.asked.append(("dead", *(f"{k}={v}" for k, v in which.items() if v and k != "since")))
        return [x for x in self.letters.values() if x.at >= which.get("since", 0.0)]

    def letter(self, run_id: str) -> Letter:
        return self.letters[run_id]

    def fix(self, run_id: str, arguments: dict[str, str]) -> Letter:
        self.letters[run_id] = replace(self.letters[run_id], fixes=self.letters[run_id].fixes | arguments)
        return self.letters[run_id]

    def resend(self, run_id: str) -> str:
        if run_id not in self.letters:
            raise NotFound(f"Run {run_id} is not on the list of dead letters.")
        self.asked.append(("resend", run_id))
        return f"{run_id}-again" if self.letters[run_id].fixes else run_id

    def dismiss(self, run_id: str) -> None:
        del self.letters[run_id]

    def why(self, run_id: str) -> Why:
        run, live = self.known[run_id], self.live(run_id) if self.pong else None
        gathered = facts.gather(
            run, now=time.time(), live=live, site=self.settings.site, directories=[], events=self.events
        )
        return why(run, gathered)

    def find(self, prefix: str) -> str:
        found = [i for i in self.known if prefix == "last" or i.startswith(prefix)]
        if len(found) != 1:
            raise NotFound(f"There is no run {prefix!r}.", "`beamway ls` lists the runs.")
        return found[0]

    def run(self, run_id: str) -> Run:
        return self.known[run_id]

    def runs(self, *, limit: int = 50, **wanted: object) -> list[Summary]:
        self.asked.append(("runs", *(f"{k}={v}" for k, v in wanted.items() if v), str(limit)))
        names = ("stage", "error", "created_at", "started_at", "ended_at")
        return [
            Summary(r.id, r.plan.workflow, r.plan.owner, r.status, *(getattr(r, n) for n in names))
            for r in self.known.values()
        ]

    def events(self, run_id: str, after: int = 0) -> list[EventRow]:
        return [] if after else [EventRow(run_id, T0 + 5, "cancel asked", seq=1)]

    def live(self, run_id: str) -> protocol.Live:
        return protocol.Live({}, {}, self.pong.agents if self.pong else ())

    def follow(self, run_id: str, *, beat_s: float = 0.0) -> Iterator[Run]:
        return self.follows(run_id)

    def service(self) -> protocol.Pong | None:
        return self.pong

    def counts(self) -> dict[str, int]:
        return {"done": 2, "failed": 1}

    def stop_service(self) -> bool:
        return self.pong is not None


@dataclass
class Said:
    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Beamway = Callable[..., Said]
