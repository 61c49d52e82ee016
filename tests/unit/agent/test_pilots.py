"""When blocks are started, given back and given up, and which workers a task can use."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from orchestrator import codec
from orchestrator.agent import attach, blocks, pilots
from orchestrator.agent.around import Around
from orchestrator.agent.pilots import DEAD_STARTS, TAKEN_AWAY, YIELD_S, Pilot, Pilots
from orchestrator.agent.provider import Block
from orchestrator.agent.target import MARGIN_S, Shape, Target
from orchestrator.errors import BeamwayError
from orchestrator.jobs import OVER, Job, JobState, NotLetIn, Refused, ReservationGone, SchedulerSilent
from orchestrator.model import FailureClass, Outcome
from tests.unit.agent.test_target import profile

TARGET = Target("pilot", Shape(cores=4), queue="work")


class Provider:
    """Blocks without jobs."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.blocks: dict[str, Block] = {}
        self.trouble: BeamwayError | None = None
        self.refuses: BeamwayError | None = None
        self.clear = True
        self.cancelled: list[str] = []

    def end_doubtful(self) -> bool:
        return self.clear

    def cancel(self, numbers: list[str]) -> list[bool]:
        self.cancelled += numbers
        for number in numbers:
            self.blocks[number].dismissed = True
        return [True] * len(numbers)


class Executor:
    """What Parsl's executor is for a pilot."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.blocks_to_job_id: dict[str, str] = {}
        self.job_ids_to_block: dict[str, str] = {}
        self.saved = 0
        self.lost = ""
        self.calls: list[str] = []
        self.interchange_proc = SimpleNamespace(kill=lambda: self.calls.append("kill"))
        self.held: list[str] = []
        self.connected: list[str] = []

    def scale_out_facade(self, count: int) -> None:
        provider = self.provider
        provider.trouble = provider.refuses
        if provider.refuses is None:
            number = str(len(provider.blocks) + 1)
            provider.blocks[number] = Block(number, str(provider.place / number))
            self.blocks_to_job_id[f"b{number}"] = number

    def save(self, *_state: object) -> None:
        self.saved += 1

    def trouble(self) -> str:
        return self.lost

    def let_go(self) -> None:
        self.calls.append("let go")

    def connected_blocks(self) -> list[str]:
        return self.connected

    def _hold_block(self, block: str) -> None:
        self.held.append(block)


class World:
    """The pilots of a site whose thread is the test."""

    def __init__(self, tmp_path: Path, **execution: Any) -> None:
        self.place = tmp_path
        self.given_up: list[tuple[str, Outcome]] = []
        self.tracker = SimpleNamespace(silent_since=0.0)
        self.pilots = Pilots.__new__(Pilots)
        self.pilots._profile = profile(execution={"mode": "pilot", **execution}, node={"cores": 16})
        self.pilots._tracker = self.tracker  # type: ignore[assignment]
        self.pilots._pilots = {}
        self.others: set[str] = set()  # reservations in which batch jobs wait
        self.pilots._made_of = ""
        self.pilots._jobs_wait = lambda: self.others
        self.pilots._give_up = lambda token, outcome: self.given_up.append((token, outcome))

    def pilot(self, target: Target = TARGET) -> tuple[Pilot, Provider, Executor]:
        provider = Provider(self.place)
        executor = Executor(provider)
        made = Pilot(f"p{len(self.pilots._pilots)}", target, cast("Any", executor), cast("Any", provider))
        self.pilots._pilots[target] = made
        return made, provider, executor

    def tend(self, pilot: Pilot) -> None:
        self.pilots._tend(pilot)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def run(block: Block, state: JobState = JobState.RUNNING, reason: str = "") -> None:
    block.last = Job(block.job_id, "", state, reason=reason)
    if state is not JobState.RUNNING:
        block.over_at = time.time()


def test_without_work_there_is_no_block(world: World) -> None:
    pilot, provider, _ = world.pilot()
    world.tend(pilot)
    assert provider.blocks == {}


def test_blocks_come_with_the_work_up_to_what_the_profile_allows(tmp_path: Path) -> None:
    world = World(tmp_path, blocks=2)
    pilot, provider, _ = world.pilot()
    pilot.per_block = 4
    for count, wanted in [(1, 1), (4, 1), (5, 2), (50, 2)]:
        pilot.tokens = {f"r.{n}.1": time.time() for n in range(count)}
        for _ in range(3):
            world.tend(pilot)
        assert len(provider.blocks) == wanted


def test_an_idle_block_is_held_and_given_back(world: World) -> None:
    pilot, provider, executor = world.pilot()
    pilot.tokens["r.0.1"] = time.time()
    world.tend(pilot)
    pilot.tokens.clear()
    world.tend(pilot)
    assert provider.cancelled == []
    pilot.idle_since -= world.pilots._profile.execution.idle_s + 1
    world.tend(pilot)
    assert (executor.held, provider.cancelled) == (["b1"], ["1"])
    assert pilot.blocks == []


def test_an_idle_block_makes_room_when_work_of_another_shape_waits(world: World) -> None:
    pilot, provider, _ = world.pilot()
    pilot.tokens["r.0.1"] = time.time()
    world.tend(pilot)
    pilot.tokens.clear()
    other, others, _ = world.pilot(replace(TARGET, shape=Shape(cores=8)))
    other.tokens["r.1.1"] = time.time()
    world.tend(other)
    pilot.idle_since -= YIELD_S + 1
    world.tend(pilot)
    assert provider.cancelled == []
    run(others.blocks["1"])
    others.blocks["1"].last = Job("1", "", JobState.PENDING)
    world.tend(pilot)
    assert provider.cancelled == ["1"]


def test_an_idle_block_makes_room_for_a_job_of_its_own_that_waits(world: World) -> None:
    pilot, provider, _ = world.pilot()
    pilot.tokens["r.0.1"] = time.time()
    world.tend(pilot)
    pilot.tokens.clear()
    pilot.idle_since -= YIELD_S + 1
    world.others = {"beam"}  # which has nodes of its own
    world.tend(pilot)
    assert provider.cancelled == []
    world.others = {""}
    world.tend(pilot)
    assert provider.cancelled == ["1"]


def test_a_warm_pilot_keeps_a_block_without_work(world: World) -> None:
    pilot, provider, _ = world.pilot()
    pilot.warm_until = time.time() + 60
    world.tend(pilot)
    pilot.idle_since = -math.inf
    world.tend(pilot)
    assert (len(provider.blocks), provider.cancelled) == (1, [])


def test_nothing_is_started_while_the_scheduler_is_silent_or_a_submission_is_open(world: World) -> None:
    pilot, provider, _ = world.pilot()
    pilot.tokens["r.0.1"] = time.time()
    world.tracker.silent_since = time.time()
    world.tend(pilot)
    world.tracker.silent_since, provider.clear = 0.0, False
    world.tend(pilot)
    assert provider.blocks == {}
    provider.clear = True
    world.tend(pilot)
    assert len(provider.blocks) == 1


def test_a_reservation_about_to_close_gets_no_block(world: World) -> None:
    pilot, provider, _ = world.pilot(replace(TARGET, reservation="beam", until=time.time() + MARGIN_S - 5))
    pilot.tokens["r.0.1"] = time.time()
    world.tend(pilot)
    assert provider.blocks == {}


@pytest.mark.parametrize(
    ("trouble", "failure"),
    [
        (Refused("Invalid account."), FailureClass.SITE),
        (ReservationGone("No 'beam'."), FailureClass.RESERVATION),
        (NotLetIn("Your ticket has expired."), FailureClass.AUTHENTICATION),
        (SchedulerSilent("No answer."), None),
    ],
)
def test_what_waits_for_a_refused_block_is_given_up_and_what_runs_is_not(
    trouble: BeamwayError, failure: FailureClass | None, world: World
) -> None:
    pilot, provider, _ = world.pilot()
    pilot.tokens = {"r.0.1": 0.0, "r.1.1": 0.0}
    pilot.begun = {"r.0.1"}
    provider.refuses = trouble
    world.tend(pilot)
    expected = [("r.1.1", Outcome(failure, trouble.sentence))] if failure else []
    assert world.given_up == expected


@pytest.mark.parametrize("by_tracker", [True, False])
def test_after_long_silence_what_waits_for_workers_is_given_up_once(by_tracker: bool, world: World) -> None:
    pilot, provider, _ = world.pilot()
    pilot.tokens = {"r.0.1": 0.0}
    long_ago = time.time() - world.pilots._profile.scheduler.down_after_s - 1
    world.tracker.silent_words = "No answer."
    if by_tracker:
        world.tracker.silent_since = long_ago
    else:
        provider.refuses = SchedulerSilent("No answer.")
        world.tend(pilot)
        assert world.given_up == []
        pilot.silent_since = long_ago
    world.tend(pilot)
    assert world.given_up == [("r.0.1", Outcome(FailureClass.DOWN, "the scheduler does not answer: No answer."))]
    assert pilot.silent_since == 0.0


def test_a_block_that_runs_shows_that_the_site_is_not_down(world: World) -> None:
    pilot, _, _ = world.pilot()
    pilot.tokens = {"r.0.1": 0.0}
    world.tend(pilot)
    run(pilot.blocks[0])
    world.tracker.silent_since = time.time() - world.pilots._profile.scheduler.down_after_s - 1
    world.tend(pilot)
    assert world.given_up == []


@pytest.mark.parametrize("state", sorted(OVER - TAKEN_AWAY))
def test_workers_that_never_report_in_are_tried_twice_and_then_the_site_is_to_blame(
    state: JobState, world: World
) -> None:
    pilot, _, _ = world.pilot()
    pilot.tokens["r.0.1"] = time.time()
    for _ in range(DEAD_STARTS):
        assert world.given_up == []
        world.tend(pilot)
        (block,) = pilot.blocks
        run(block, state, "exit status 127")
        world.tend(pilot)
    ((token, outcome),) = world.given_up
    assert (token, outcome.failure) == ("r.0.1", FailureClass.SITE)
    assert outcome.reason.startswith("workers of site 'far' ended before they reported in; job ")
    assert "exit status 127" in outcome.reason


def test_a_block_that_was_taken_away_says_nothing_about_the_site(world: World) -> None:
    pilot, _, _ = world.pilot()
    pilot.tokens["r.0.1"] = time.time()
    for state in (JobState.PREEMPTED, JobState.NODE, JobState.CANCELLED):
        world.tend(pilot)
        run(next(b for b in pilot.blocks), state)
        world.tend(pilot)
    assert world.given_up == []
    assert pilot.dead_starts == 0


def test_workers_that_report_in_clear_the_count(world: World) -> None:
    pilot, provider, executor = world.pilot()
    pilot.tokens["r.0.1"] = time.time()
    world.tend(pilot)
    pilot.dead_starts = DEAD_STARTS - 1
    run(provider.blocks["1"])
    executor.connected = ["b1"]
    world.tend(pilot)
    assert (pilot.dead_starts, pilot.free) == (0, 0)
    pilot.per_block = 4
    assert pilot.free == 3


# ------------------------------------------------------------------------------------------------------ small rules


@pytest.mark.parametrize(
    ("state", "failure"),
    [
        (JobState.NODE, FailureClass.NODE),
        (JobState.PREEMPTED, FailureClass.PREEMPTED),
        (JobState.CANCELLED, FailureClass.LOST),
        (JobState.WALLTIME, FailureClass.LOST),
        (JobState.MEMORY, FailureClass.LOST),
        (JobState.DONE, FailureClass.LOST),
    ],
)
def test_a_lost_worker_is_explained_by_its_block(state: JobState, failure: FailureClass, world: World) -> None:
    pilot, provider, executor = world.pilot()
    executor.scale_out_facade(1)
    lost = Outcome(FailureClass.LOST, "the worker was lost")
    since = time.time()
    assert pilots.cause(pilot, lost, since) == lost
    run(provider.blocks["1"], state)
    outcome = pilots.cause(pilot, lost, since)
    assert (outcome.failure, outcome.job) == (failure, "1")
    assert pilots.cause(pilot, lost, time.time() + 1) == lost


def test_a_task_may_use_a_larger_worker_of_the_same_place_only() -> None:
    large = replace(TARGET, shape=Shape(cores=8, gpus=1))
    assert pilots._fits(TARGET, large)
    assert not pilots._fits(large, TARGET)
    assert not pilots._fits(replace(TARGET, queue="fast"), large)
    assert not pilots._fits(replace(TARGET, reservation="beam"), large)
    assert not pilots._fits(replace(TARGET, shape=Shape(2)), replace(TARGET, shape=Shape(2)))
    assert not pilots._fits(
        replace(TARGET, shape=Shape(memory_bytes=9)), replace(TARGET, shape=Shape(cores=4, memory_bytes=8))
    )


def test_a_node_holds_as_many_workers_as_its_scarcest_part_allows() -> None:
    assert blocks.per_node(Shape(cores=4), cores=16, gpus=0, memory_bytes=0) == 4
    assert blocks.per_node(Shape(cores=4, gpus=1), cores=16, gpus=2, memory_bytes=0) == 2
    assert blocks.per_node(Shape(cores=1, memory_bytes=60), cores=16, gpus=0, memory_bytes=100) == 1
    assert blocks.per_node(Shape(cores=32), cores=16, gpus=0, memory_bytes=0) == 1
    for shape in (Shape(gpus=5), Shape(memory_bytes=200)):
        with pytest.raises(Refused):
            blocks.per_node(shape, cores=16, gpus=4, memory_bytes=100)


def test_each_worker_of_a_node_has_its_devices() -> None:
    assert blocks.devices(1, 4) == ["0", "1", "2", "3"]
    assert blocks.devices(2, 2) == ["0,1", "2,3"]
    assert blocks.devices(0, 4) == []


def test_a_block_ends_with_its_reservation_and_in_whole_minutes() -> None:
    assert blocks.walltime_s(3600.0, TARGET) == 3600.0
    assert blocks.walltime_s(3600.0, replace(TARGET, longest_s=1850.0)) == 1800.0
    closes = replace(TARGET, until=time.time() + MARGIN_S + 605.0)
    assert blocks.walltime_s(3600.0, closes) == 600.0
    opens = replace(TARGET, from_at=time.time() + 300.0, until=time.time() + MARGIN_S + 605.0)
    assert blocks.walltime_s(3600.0, opens) == 300.0


def test_a_label_is_a_plain_word() -> None:
    assert blocks.label("far", replace(TARGET, reservation="beam.time:1"), "2") == "far-n1c4g0-work-beam_time_1-2"


def test_braces_of_a_container_survive_the_launch_command() -> None:
    assert "'{{x}}'" in blocks.launch_command(Around(program=("run", "{x}", "python")))


def test_a_new_block_is_written_down_for_the_next_agent(world: World) -> None:
    pilot, provider, executor = world.pilot()
    pilot.tokens["r.0.1"] = time.time()
    world.tend(pilot)
    assert (len(provider.blocks), executor.saved) == (1, 1)
    world.tend(pilot)
    assert executor.saved == 1


def test_a_block_that_gives_no_sign_of_life_is_ended_and_replaced(world: World) -> None:
    pilot, provider, _ = world.pilot()
    pilot.tokens["r.0.1"] = time.time()
    world.tend(pilot)
    block = provider.blocks["1"]
    run(block)
    block.connected = True
    limit_s = world.pilots._profile.execution.silent_s
    block.pulse = cast("Any", SimpleNamespace(silent_s=lambda *, runs: limit_s if runs else 0.0))
    world.tend(pilot)
    assert provider.cancelled == []
    block.pulse = cast("Any", SimpleNamespace(silent_s=lambda *, runs: limit_s + 1 if runs else 0.0))
    world.tend(pilot)
    assert provider.cancelled == ["1"]
    assert [b.job_id for b in pilot.blocks] == ["2"]


def test_only_pilots_that_cannot_go_on_are_dropped(world: World) -> None:
    lost, lost_provider, lost_executor = world.pilot()
    well, well_provider, well_executor = world.pilot(replace(TARGET, queue="fast"))
    for pilot in (lost, well):
        pilot.tokens["r.0.1"] = time.time()
        world.tend(pilot)
    lost_executor.lost = "the interchange has died"
    assert world.pilots.trouble() == "the interchange has died"
    world.pilots.drop_lost()
    assert (lost_provider.cancelled, well_provider.cancelled) == (["1"], [])
    assert (lost_executor.calls, well_executor.calls) == (["kill", "let go"], [])


@pytest.mark.parametrize("text", ["{", '{"label": "old"}'])
def test_what_cannot_be_gone_on_with_is_forgotten(world: World, tmp_path: Path, text: str) -> None:
    world.pilots._states = tmp_path / "pilots"
    world.pilots._states.mkdir()
    (world.pilots._states / "old.json").write_text(text)
    assert world.pilots.take_over() == {}
    assert list(world.pilots._states.iterdir()) == []


def test_pilots_of_another_profile_are_not_gone_on_with(world: World, tmp_path: Path) -> None:
    world.pilots._states = tmp_path / "pilots"
    world.pilots._states.mkdir()
    old = attach.State("old", TARGET, "another profile", 2**22 + 1, (1, 2, 3), 4, "")
    (world.pilots._states / "old.json").write_text(codec.dumps(old))
    assert world.pilots.take_over() == {}
    assert world.pilots.all() == list(world.pilots._states.iterdir()) == []
