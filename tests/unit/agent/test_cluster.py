"""A site with a scheduler: what is held and says why, what is adopted, what is ended, and how the site looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace
from parsl.executors.base import ParslExecutor
from parsl.executors.high_throughput.executor import HTEXFuture

from orchestrator import codec
from orchestrator.agent import attach, batch, claim, cluster, output
from orchestrator.agent.around import Around
from orchestrator.agent.cluster import Cluster
from orchestrator.agent.target import Shape, Target
from orchestrator.errors import UserError
from orchestrator.jobs import Job, JobSpec, JobState, Queue, Refused, Reservation, SchedulerSilent
from orchestrator.model import FailureClass, Order, Outcome, Placing, Resources, StageKind
from orchestrator.schedulers.local import LocalScheduler
from tests.unit.agent.test_target import profile

WAIT_S = 30.0
ROOT = Path(__file__).resolve().parents[3]


class Here(LocalScheduler):
    """Processes of this host under the words of a real scheduler."""

    silent = False
    specs: list[JobSpec]
    there: dict[str, Reservation]
    refuses_estimates = False

    def submit_once(self, spec: JobSpec, *, known: bool = False) -> str:
        self.specs.append(spec)
        return super().submit_once(replace(spec, reservation=""), known=known)

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        if self.silent:
            raise SchedulerSilent("No answer.")
        return super().jobs(ids)

    def queues(self) -> dict[str, Queue]:
        if self.silent:
            raise SchedulerSilent("No answer.")
        return {"work": Queue("work", nodes=4, idle_nodes=1)}

    def reservations(self) -> dict[str, Reservation]:
        return self.there

    def starts_at(self, spec: JobSpec) -> float | None:
        if self.refuses_estimates:
            raise Refused("Invalid account.")
        return time.time() + 60 if spec.queue == "work" else None


class Kernel:
    """Starts executors as Parsl's kernel does."""

    def __init__(self) -> None:
        self.executors: list[ParslExecutor] = []

    def add_executors(self, executors: list[ParslExecutor]) -> None:
        for executor in executors:
            executor.start()
        self.executors += executors


class World:
    def __init__(self, tmp_path: Path) -> None:
        self.place = tmp_path
        self.arrived: dict[str, Outcome] = {}
        self.told: dict[str, str] = {}
        self.scheduler = Here(tmp_path / "ledger")
        self.scheduler.specs, self.scheduler.there = [], {}
        self.kernel = Kernel()
        self.clusters: list[Cluster] = []

    def open(self, **parts: Any) -> Cluster:
        given = {"execution": {"mode": "batch"}, "scheduler": {"kind": "slurm", "poll_s": 1.0}, **parts}
        made = Cluster(
            profile(**given),
            self.scheduler,
            cast("Any", self.kernel),
            home=self.place,
            directory=self.place / "agent",
            environment={"PYTHONPATH": str(ROOT)},
            arrive=lambda token, outcome: self.arrived.update({token: outcome}),
            told=lambda token, since, text: self.told.update({token: text}),
        )
        self.clusters.append(made)
        return made

    def order(self, command: str = "true", *, number: int = 0, **more: Any) -> Order:
        given = {"command": command, "working_dir": str(self.place), "log_dir": str(self.place / "r" / "logs"), **more}
        return Order(f"r.{number}.1", StageKind.COMMAND, "s", **given)

    def outcome(self, token: str = "r.0.1") -> Outcome:
        until(lambda: token in self.arrived)
        return self.arrived[token]

    def close(self) -> None:
        for made in self.clusters:
            made.close()
        for executor in self.kernel.executors:
            executor.shutdown()
        self.scheduler.cancel([job.id for job in self.scheduler.mine("")])
        until(lambda: not self.scheduler.mine(""))


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(cluster, "LOOK_S", 0.0)
    monkeypatch.setattr(cluster, "TELL_S", 0.0)
    made = World(tmp_path)
    yield made
    made.close()


def beam(world: World, **more: Any) -> None:
    now = time.time()
    given: dict[str, Any] = {"from_at": now - 60, "until_at": now + 3600, "node_count": 4, "active": True, **more}
    world.scheduler.there["beam"] = Reservation("beam", **given)


def test_an_order_becomes_a_job_and_its_outcome_arrives(world: World) -> None:
    site = world.open()
    site.begin(world.order(placing=Placing(account="mine")))
    assert world.outcome().failure is None
    (spec,) = world.scheduler.specs
    assert (spec.token, spec.queue, spec.account, spec.qos) == ("bw-r.0.1", "work", "mine", "normal")


def test_an_order_for_a_queue_that_is_not_there_comes_back_at_once(world: World) -> None:
    world.open().begin(world.order(placing=Placing(queue="wrok")))
    assert world.arrived["r.0.1"].failure is FailureClass.USER


def test_an_order_for_a_reservation_is_held_until_it_is_known_and_goes_then(world: World) -> None:
    beam(world)
    site = world.open()
    site.begin(world.order(placing=Placing(reservation="beam")))
    assert world.told["r.0.1"] == "asks whether reservation 'beam' is there"
    site._tracker.look()
    until(lambda: (site.look(), world.scheduler.specs)[1])
    assert world.scheduler.specs[0].reservation == "beam"
    assert world.outcome().failure is None


def test_a_reservation_that_is_gone_is_waited_for_as_the_profile_says(world: World) -> None:
    site = world.open(policies={"fallback": ["wait 10 min", "queue realtime"]})
    site._tracker.wants_reservations = True
    site._tracker.look()
    site.begin(world.order(placing=Placing(reservation="beam")))
    assert world.told["r.0.1"] == "asks whether reservation 'beam' is there"  # it may be newer than the last answer
    site._tracker.look()
    site.look()
    assert world.told["r.0.1"].startswith("reservation 'beam' is gone; waits for it until ")
    assert world.scheduler.specs == []
    site._gone_since["beam"] -= 601
    site._looked_at = 0.0
    site.look()
    until(lambda: world.scheduler.specs)
    assert (world.scheduler.specs[0].queue, world.scheduler.specs[0].reservation) == ("fast", "")


def test_a_held_order_that_is_cancelled_has_never_begun(world: World) -> None:
    site = world.open()
    site.begin(world.order(placing=Placing(reservation="beam")))
    assert not site.end("r.0.1")
    beam(world)
    site._tracker.look()
    site.look()
    assert world.scheduler.specs == []


def sent(world: World, order: Order) -> Target:
    """An earlier agent has written this order down for its job."""
    target = Target(
        "batch", Shape(), queue="fast", partition="fast", account="beamtime", reservation="beam", walltime_s=300.0
    )
    (world.place / "r" / "logs").mkdir(parents=True)
    Path(output.Paths(order).order).write_text(codec.dumps(batch.Sent(order, Around(), target)))
    return target


def test_an_adopted_order_that_was_sent_is_looked_for_where_it_was_sent(world: World) -> None:
    site, order = world.open(), world.order()
    target = sent(world, order)
    spec = JobSpec("bw-r.0.1", "exit 3\n", str(world.place / "out"), str(world.place / "err"))
    number = world.scheduler.submit_once(spec)
    site.begin(replace(order, adopt=True))
    assert site._batch._jobs["r.0.1"].target == target
    until(lambda: site._batch.of("r.0.1")[0] == number)
    assert len(list((world.place / "ledger").glob("*~*"))) == 1


def test_an_adopted_order_whose_job_was_never_taken_goes_where_it_was_to_go(world: World) -> None:
    """An agent died between writing it down and submitting it."""
    site, order = world.open(), world.order()
    sent(world, order)
    site.begin(replace(order, adopt=True))
    assert world.outcome().failure is None
    (spec,) = world.scheduler.specs
    assert (spec.queue, spec.account, spec.reservation) == ("fast", "beamtime", "beam")


@pytest.mark.parametrize("left", [Outcome(metrics={"n": 1}), None])
def test_an_adopted_order_that_a_worker_had_begun_is_not_begun_again(left: Outcome | None, world: World) -> None:
    order = world.order()
    paths = output.Paths(order)
    (world.place / "r" / "logs").mkdir(parents=True)
    claim.take(paths.claim(0))
    if left is not None:
        Path(paths.exit).write_text(codec.dumps(left))
    world.open().begin(replace(order, adopt=True))
    arrived = world.arrived["r.0.1"]
    assert arrived == left if left is not None else arrived.failure is FailureClass.LOST


def test_an_outcome_on_the_disk_counts_although_nobody_saw_it_begin(world: World) -> None:
    order = world.order()
    (world.place / "r" / "logs").mkdir(parents=True)
    left = Outcome(metrics={"n": 1})
    Path(output.Paths(order).exit).write_text(codec.dumps(left))
    world.open().begin(replace(order, adopt=True))
    assert world.arrived == {"r.0.1": left}


def found(world: World, site: Cluster) -> attach.Found:
    """A call that an earlier agent had handed over, and that runs."""
    pilot = SimpleNamespace(tokens={}, begun=set(), provider=SimpleNamespace(blocks={}))
    task = attach.Found(str(world.place / "r" / "logs" / "mark"), HTEXFuture(1), running=True)
    site._found["r.0.1"] = cast("Any", (pilot, task))
    return task


def test_an_adopted_order_gets_the_outcome_of_what_an_earlier_agent_began(world: World) -> None:
    site = world.open()
    task, left = found(world, site), Outcome(metrics={"n": 1})
    assert site.has_found_running()
    site.begin(world.order(adopt=True))
    assert (world.arrived, site.has_found_running()) == ({}, False)
    assert site._in_pilot["r.0.1"][1].token == "r.0.1"
    task.future.set_result(codec.dumps(left))
    assert world.outcome() == left


def test_what_an_earlier_agent_began_and_nobody_wants_is_marked_and_arrives_when_it_has_ended(world: World) -> None:
    site = world.open()
    task = found(world, site)
    site.end_unknown("r.0.1")
    assert Path(task.mark).exists()
    assert world.arrived == {}
    task.future.set_result(codec.dumps(Outcome()))
    assert world.outcome().failure is FailureClass.CANCELLED


def test_an_adopted_order_that_left_no_trace_begins(world: World) -> None:
    world.open().begin(world.order(adopt=True))
    assert world.outcome().failure is None


def test_the_job_of_an_attempt_this_agent_does_not_know_is_ended_and_then_it_arrives(world: World) -> None:
    site = world.open()
    spec = JobSpec("bw-r.7.1", "sleep 60\n", str(world.place / "out"), str(world.place / "err"))
    number = world.scheduler.submit_once(spec)
    site.end_unknown("r.7.1")
    assert world.outcome("r.7.1").failure is FailureClass.CANCELLED
    assert world.scheduler.jobs([number])[number].state is JobState.CANCELLED


def test_an_attempt_without_a_job_has_ended(world: World) -> None:
    world.open().end_unknown("r.8.1")
    assert world.outcome("r.8.1").failure is FailureClass.CANCELLED


def test_pilot_jobs_of_an_earlier_agent_are_ended_and_no_others(world: World) -> None:
    prefix = world.open().prefix
    numbers = [
        world.scheduler.submit_once(JobSpec(token, "sleep 60\n", str(world.place / "o"), str(world.place / "e")))
        for token in (f"{prefix}1", "bw-r.9.1")
    ]
    world.open()
    until(lambda: world.scheduler.jobs(numbers)[numbers[0]].state is JobState.CANCELLED)
    until(lambda: world.scheduler.jobs(numbers)[numbers[1]].state is JobState.RUNNING)


def test_silence_is_told_to_what_waits(world: World) -> None:
    site = world.open()
    site._batch._jobs["r.0.1"] = batch._Job(world.order(), Target("batch", Shape()))
    world.scheduler.silent = True
    site._tracker.watch("1", lambda _: None)
    site._tracker.look()
    site.look()
    assert world.told["r.0.1"].startswith("the scheduler of far has given no answer since ")
    assert world.told["r.0.1"].endswith("; what runs there goes on")
    site._batch._jobs.clear()


def test_how_the_site_looks(world: World) -> None:
    beam(world)
    view = world.open().view(Resources(), ("work", "fast"))
    assert [(q.name, q.open, q.idle_nodes) for q in view.queues] == [("work", True, 1), ("fast", False, 0)]
    assert list(view.starts_in_s) == ["work"]
    assert view.starts_in_s["work"] == pytest.approx(60, abs=10)
    assert [r.name for r in view.reservations] == ["beam"]
    assert (view.silent_since, view.warm) == (0.0, ())


def test_an_estimate_that_is_refused_is_none(world: World) -> None:
    world.scheduler.refuses_estimates = True
    assert world.open().view(Resources(), ("work",)).starts_in_s == {}


def test_a_scheduler_that_does_not_answer_is_silent_in_the_view_too(world: World) -> None:
    world.scheduler.silent = True
    view = world.open().view(Resources(), ("work",))
    assert view.silent_since == view.at


def test_a_scheduler_that_refuses_the_question_is_not_silent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> dict[str, Queue]:
        raise UserError("Not allowed.")

    site = world.open()
    monkeypatch.setattr(world.scheduler, "queues", refuse)
    assert (site.view(Resources(), ("work",)).queues, site.view(Resources(), ()).silent_since) == ((), 0.0)


# ---------------------------------------------------------------------------------------------- leaving reservations


def waits(site: Cluster, order: Order, *, since_s: float = 0.0) -> list[tuple[str, str]]:
    """Put it into the queue of its reservation; what is taken back from there from now on."""
    job = batch._Job(order, Target("batch", Shape(), reservation="beam"))
    job.since -= since_s
    site._batch._jobs[order.token] = job
    recalled: list[tuple[str, str]] = []
    site._batch.recall = lambda token, why: recalled.append((token, why))  # type: ignore[method-assign]
    return recalled


FALLBACK = {"fallback": ["wait 10 min", "queue realtime"]}


def test_what_waits_in_a_reservation_that_is_gone_is_taken_back(world: World) -> None:
    site = world.open()
    recalled = waits(site, world.order())
    site.look()
    assert recalled == [], "nothing is known of it yet"
    site._tracker.reservations = {}
    site.look()
    assert recalled == [("r.0.1", "reservation 'beam' is gone")]
    site._batch._jobs.clear()


@pytest.mark.parametrize(
    ("waited_s", "policies", "more", "left"),
    [
        (601.0, FALLBACK, {}, True),
        (599.0, FALLBACK, {}, False),
        (601.0, FALLBACK, {"open_s": 60.0}, False),
        (601.0, FALLBACK, {"active": False}, False),
        (6000.0, {}, {}, False),
    ],
    ids=["too long", "not so long", "it has just opened", "it is not open", "no policy"],
)
def test_a_reservation_without_room_is_left_after_the_patience_of_the_policy(
    waited_s: float, policies: dict[str, Any], more: dict[str, Any], left: bool, world: World
) -> None:
    given = {**more}
    beam(world, from_at=time.time() - given.pop("open_s", 3600.0), **given)
    site = world.open(policies=policies)
    recalled = waits(site, world.order(), since_s=waited_s)
    site._tracker.reservations = world.scheduler.there
    site.look()
    assert bool(recalled) is left
    assert ("beam" in site._full_until) is left
    site._batch._jobs.clear()


def test_a_reservation_that_was_full_is_not_tried_again_for_a_while(world: World) -> None:
    beam(world)
    site = world.open(policies=FALLBACK)
    site._tracker.reservations = world.scheduler.there
    site._full_until["beam"] = time.time() + 60
    site.begin(world.order(placing=Placing(reservation="beam")))
    until(lambda: world.scheduler.specs)
    assert (world.scheduler.specs[0].queue, world.scheduler.specs[0].reservation) == ("fast", "")
