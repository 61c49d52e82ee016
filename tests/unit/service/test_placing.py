"""Choosing a site for a stage: who is asked, who is silent, and what is waited for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace

from orchestrator import events, protocol
from orchestrator.jobs import Queue
from orchestrator.model import (
    Outcome,
    Placing,
    Plan,
    Resources,
    Run,
    RunStatus,
    StageKind,
    StagePlan,
    StageState,
    StageStatus,
    Task,
    TaskStatus,
)
from orchestrator.service import placing
from orchestrator.service.placing import AGAIN_S, ANSWER_S, FIRST_S, Placer
from orchestrator.settings import Settings
from orchestrator.store import history
from orchestrator.store.database import Database

NOW = 1_800_000_000.0
FAR = """
[identity]
name = "{name}"
contact = "the help desk"
[scheduler]
kind = "slurm"
[[queues]]
name = "gpu"
use = "demand"
[[queues]]
name = "work"
[node]
cores = 64
gpus = 4
accelerator = {{ kind = "cuda" }}
count = 100
[paths]
scratch = "/scratch"
shared = ["/"]
[execution]
mode = "batch"
"""


@dataclass
class World:
    """A placer between a home with sites and agents that answer as the test wants."""

    home: Path
    database: Database
    now: float = NOW
    asked: list[tuple[str, protocol.Estimate]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    placer: Placer = field(init=False)

    shut: dict[str, tuple[float, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.placer = Placer(
            Settings(home=self.home),
            self.database,
            ask=lambda site, asked: self.asked.append((site, asked)),
            shut=lambda: self.shut,
        )

    def site(self, name: str, text: str = FAR) -> None:
        (self.home / "sites").mkdir(exist_ok=True)
        (self.home / "sites" / f"{name}.toml").write_text(text.format(name=name))

    def begin(self, *but: str, gpus: int = 0, run_id: str = "r", **more: Any) -> None:
        resources = Resources(gpus_per_rank=gpus, walltime_s=600.0)
        plan = StagePlan("a", StageKind.KERNEL, placing=Placing(site="auto", **more), resources=resources)
        state = StageState("a", StageStatus.RUNNING if but else StageStatus.OPENING, 1)
        self.runs[run_id] = Run(
            run_id, Plan("w", "o", (plan,)), NOW, status=RunStatus.RUNNING, stages=Map({"a": state})
        )
        self.placer.begin(run_id, events.Place("a", but=but))

    def due(self, after_s: float = 0.0) -> list[events.Event]:
        self.now += after_s
        return [event for _, event in self.placer.due(self.runs)]

    def answer(self, site: str, view: protocol.SiteView | None = None, *, number: int = 1) -> None:
        queues = tuple(Queue(name, nodes=100, idle_nodes=100) for name in ("gpu", "work"))
        idle = protocol.SiteView(self.now, queues=queues, starts_in_s={"gpu": 0.0, "work": 0.0})
        self.placer.answered(site, protocol.Estimated(number, view or idle))

    def where(self, *after: float) -> str:
        (event,) = self.due(*after)
        assert isinstance(event, events.StagePlaced), event
        return event.site


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    database = Database(f"sqlite:///{tmp_path}/x.db")
    database.upgrade()
    made = World(tmp_path, database)
    monkeypatch.setattr(placing, "time", SimpleNamespace(time=lambda: made.now))
    return made


def test_where_there_is_one_site_nobody_is_asked(world: World) -> None:
    world.begin()
    assert world.due() == []
    assert world.where() == "local"
    assert world.asked == []
    assert world.due() == []


def test_each_site_is_asked_once_and_the_answer_decides(world: World) -> None:
    world.site("far")
    world.begin(gpus=1)
    for _ in range(3):
        assert world.due() == []
    ((site, question),) = world.asked
    assert (site, question.queues, question.resources.gpus_per_rank) == ("far", ("gpu", "work"), 1)
    world.answer("far")
    assert world.where() == "far"


def test_the_queue_that_the_stage_asks_for_is_what_is_asked_about(world: World) -> None:
    world.site("far")
    world.begin(queue="demand")
    world.due()
    assert world.asked[0][1].queues == ("gpu",)


def test_it_says_meanwhile_what_it_does(world: World) -> None:
    world.site("far")
    world.begin()
    world.due()
    assert world.placer.waits("r") == {"r:a": (NOW, "asks the sites how soon they could begin it")}
    assert world.placer.waits("other") == {}


def test_a_site_that_does_not_answer_is_not_waited_for_for_ever(world: World) -> None:
    world.site("far")
    world.begin()
    world.due()
    assert world.due(FIRST_S - 1) == []
    assert world.where(2) == "local"


def test_a_site_that_has_answered_before_gets_less_time(world: World) -> None:
    world.site("far")
    world.begin()
    world.due()
    world.answer("far")
    world.due()
    world.begin()
    world.due()
    assert world.where(ANSWER_S + 1) == "local"


def test_a_site_to_which_nothing_is_sent_is_neither_asked_nor_chosen(world: World) -> None:
    world.site("far")
    world.shut["far"] = (NOW, "3 runs in a row have failed there")
    world.begin(gpus=1)
    assert world.due() == []
    assert world.due() == []
    assert world.asked == []
    ((_, sentence),) = world.placer.waits("r").values()
    assert "3 runs in a row have failed there (call the help desk)" in sentence


def test_where_no_site_can_take_it_now_it_waits_and_they_are_asked_again(world: World) -> None:
    world.site("far")
    world.begin(gpus=1)
    world.due()
    world.answer("far", protocol.SiteView(NOW, silent_since=NOW - 60))
    assert world.due() == []
    ((_, sentence),) = world.placer.waits("r").values()
    assert "far" in sentence
    assert sentence.endswith(f"the sites are asked again within {AGAIN_S:.0f} s")
    assert world.due(AGAIN_S - 1) == []
    assert len(world.asked) == 1
    world.due(2)
    assert len(world.asked) == 2
    world.answer("far")
    assert world.where() == "far"


def test_what_no_site_could_ever_take_is_refused(world: World) -> None:
    world.begin(gpus=1)
    world.due()
    (event,) = world.due()
    assert isinstance(event, events.StageRefused)
    assert "local" in event.reason


def test_a_site_that_has_refused_it_is_left_out(world: World) -> None:
    world.site("far")
    world.site("farther")
    world.begin("far", gpus=1)
    world.due()
    world.answer("far")
    world.answer("farther")
    assert world.where() == "farther"


def test_a_stage_that_runs_is_not_refused_where_no_other_site_is_left(world: World) -> None:
    world.site("far")
    world.begin("far", gpus=1)
    world.due()
    world.answer("far")
    assert world.due() == []


def test_the_same_question_twice_is_one(world: World) -> None:
    world.site("far")
    world.begin("far", gpus=1)
    world.placer.begin("r", events.Place("a", but=("far",)))
    world.due()
    assert len(world.asked) == 1


@pytest.mark.parametrize("gone", [True, False], ids=["the run is over", "the stage is over"])
def test_a_question_ends_with_its_stage(gone: bool, world: World) -> None:
    world.begin()
    if gone:
        world.runs.clear()
    else:
        world.runs["r"] = replace(world.runs["r"], stages=Map({"a": StageState("a", StageStatus.ABORTED)}))
    assert world.due() == []
    assert world.placer.waits("r") == {}


def test_an_answer_to_no_question_is_nothing(world: World) -> None:
    world.answer("far", number=99)
    world.begin()
    world.due()
    world.answer("unknown")
    assert world.where() == "local"


def test_a_profile_that_is_wrong_is_left_out(world: World) -> None:
    world.site("far", "nonsense =")
    world.begin()
    world.due()
    assert world.where() == "local"


def test_what_was_decided_is_kept(world: World) -> None:
    world.begin()
    world.due()
    world.due()
    (kept,) = history.placements(world.database, "r")
    assert (kept.stage, kept.chosen) == ("a", "local")


def test_how_long_attempts_took_is_learned_but_not_of_the_shortest(world: World) -> None:
    world.begin()
    tasks = {
        n: Task(
            n,
            "a",
            status=TaskStatus.DONE,
            submitted_at=NOW,
            started_at=NOW + 5,
            ended_at=NOW + 5 + lasted_s,
            site="far",
            outcome=Outcome(),
        )
        for n, lasted_s in enumerate((60.0, 0.01))
    }
    placing.learn(world.database, replace(world.runs["r"], tasks=Map(tasks)), Settings(home=world.home))
    (timing,) = history.timings(world.database, "w", "a")
    assert (timing.site, timing.compute_s, timing.queue_s) == ("far", 60.0, 5.0)


DOOR = """
[[doors]]
kind = "gridftp"
endpoint = "data.{name}.org:2811"
bytes_per_s = {rate}
"""


def test_measured_rates_change_the_choice(world: World, tmp_path: Path) -> None:
    for name, rate in (("far", "2e8"), ("near", "1e8")):
        text = FAR.replace('shared = ["/"]', "shared = []").format(name=name) + DOOR.format(name=name, rate=rate)
        (world.home / "sites").mkdir(exist_ok=True)
        (world.home / "sites" / f"{name}.toml").write_text(text)
    scan = tmp_path / "scan.h5"
    with scan.open("wb") as file:
        file.truncate(20_000_000_000)

    def chosen(run_id: str, number: int) -> str:
        world.begin(gpus=1, run_id=run_id)
        plan = replace(world.runs[run_id].plan.stages[0], inputs=(str(scan),))
        world.runs[run_id] = replace(world.runs[run_id], plan=replace(world.runs[run_id].plan, stages=(plan,)))
        world.due()
        for site in ("far", "near"):
            world.answer(site, number=number)
        return world.where()

    assert chosen("before", 1) == "far"  # its door promises more
    plan = StagePlan("in", StageKind.TRANSFER)
    for to, moved_bytes, seconds in (("far", 3_000_000_000, 600.0), ("near", 3_000_000_000, 40.0)):
        task = Task(
            1,
            "in",
            status=TaskStatus.DONE,
            arguments={"from": str(scan), "to": f"gsiftp://data.{to}.org/data/"},
            outcome=Outcome(transfer_s=seconds, moved_bytes=moved_bytes),
        )
        run = Run(to, Plan("w", "o", (plan,)), NOW, status=RunStatus.DONE, tasks=Map({1: task}))
        placing.learn(world.database, run, Settings(home=world.home))
    rates = history.rates(world.database, "local")
    assert rates["local", "far"].bytes_per_s == 5e6
    assert rates["local", "near"].bytes_per_s == 75e6
    assert chosen("after", 2) == "near"
    assert "75 MB/s, measured in 1 transfer" in history.placements(world.database, "after")[0].doc
