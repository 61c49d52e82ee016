"""Executors that are gone on with: here the interchange and its worker are real, and an agent that has died is one that
has let go of its ports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from parsl.providers import LocalProvider

from orchestrator import codec
from orchestrator.agent import attach, blocks, wrapper
from orchestrator.agent.around import Around
from orchestrator.agent.attach import BlockState, Lasting, State
from orchestrator.agent.target import Shape, Target
from orchestrator.model import Order, Outcome, StageKind

WAIT_S = 30.0
TARGET = Target("pilot", Shape())


class World:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.state = place / "pilots" / "here.json"
        self.made: list[Lasting] = []
        self.dead: list[Lasting] = []

    def executor(self, known: State | None = None, *, lease_s: float = 60.0) -> Lasting:
        made = Lasting(
            label="here",
            address="127.0.0.1",
            max_workers_per_node=1,
            cores_per_worker=1e-3,
            provider=LocalProvider(init_blocks=0, min_blocks=0, max_blocks=1),  # type: ignore[no-untyped-call]
            launch_cmd=blocks.launch_command(Around()),
            heartbeat_period=1,
            heartbeat_threshold=5,
            encrypted=True,
        )
        made.run_dir = str(self.place)
        made.run_id = "r"
        made.provider.script_dir = str(self.place)
        made.log_config = None  # type: ignore[assignment]
        made.lasts(self.state, lease_s, known)
        made.start()
        self.made.append(made)
        if known is None:
            made.save(TARGET, "same", ())
        return made

    def order(self, name: str, seconds: float = 0.0, *, number: int) -> Order:
        arguments = {"stem": str(self.place / name), "seconds": seconds}
        given = {"call": "tests.cluster.calls:mark", "arguments": arguments}
        place, logs = str(self.place), str(self.place / "r" / "logs")
        return Order(f"r.{number}.1", StageKind.FUNCTION, "s", working_dir=place, log_dir=logs, **given)

    def submit(self, executor: Lasting, order: Order) -> object:
        around = Around(slots=str(self.place / "slots"), far=True)
        return executor.submit(wrapper.run, {}, codec.dumps(order), codec.dumps(around))

    def die(self, executor: Lasting) -> None:
        """As the process of an agent that is killed: its sockets are closed, and nobody is told."""
        self.made.remove(executor)
        self.dead.append(executor)
        executor._result_queue_thread_exit.set()
        assert executor._result_queue_thread is not None
        executor._result_queue_thread.join()
        executor.outgoing_q.close()
        executor.command_client.close()

    def known(self) -> State:
        ((_, state),) = attach.states(self.state.parent)
        assert state is not None
        return state

    def close(self) -> None:
        for executor in self.made:
            executor.shutdown()
        for executor in self.dead:
            executor.interchange_proc.wait(WAIT_S)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_next_agent_hears_of_what_ran_and_what_ended(world: World) -> None:
    first = world.executor()
    first.scale_out_facade(1)
    world.submit(first, world.order("ended", number=0))
    until((world.place / "ended.ended").exists)
    world.submit(first, world.order("runs", 60.0, number=1))
    until((world.place / "runs.began").exists)
    world.submit(first, world.order("waits", number=2))
    time.sleep(0.3)
    world.die(first)

    second = world.executor(world.known())
    assert {token: found.running for token, found in second.found.items()} == {"r.0.1": False, "r.1.1": True}
    assert second.found["r.1.1"].mark == str(world.place / "r" / "logs" / "1.1.cancelled")
    (world.place / "runs.go").touch()
    for found in second.found.values():
        assert codec.loads(found.future.result(WAIT_S), Outcome).failure is None
    anew = world.submit(second, world.order("waits", number=2))
    assert codec.loads(anew.result(WAIT_S), Outcome).failure is None  # type: ignore[attr-defined]
    for name in ("ended", "runs", "waits"):
        assert (world.place / f"{name}.began").read_text().count("\n") == 1
    assert not second.trouble()


def test_blocks_are_known_again_and_new_ones_have_other_numbers(world: World) -> None:
    first = world.executor()
    first.save(TARGET, "same", (BlockState("4", "77", "/stem"),))
    world.die(first)
    second = world.executor(world.known())
    assert (second.blocks_to_job_id, second.job_ids_to_block) == ({"4": "77"}, {"77": "4"})
    assert second._block_id_counter.get_id() == 5


def test_an_interchange_that_nobody_speaks_to_ends_and_forgets_its_state(world: World) -> None:
    executor = world.executor(lease_s=1.0)
    until(lambda: executor.trouble())
    assert executor.trouble() == "the interchange of here has died"
    assert not world.state.exists()
    executor.beat()  # waits for nobody


def test_beats_keep_an_interchange_alive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "BEAT_S", 0.1)
    executor = world.executor(lease_s=1.0)
    over = time.monotonic() + 3.0
    while time.monotonic() < over:
        executor.beat()
        time.sleep(0.05)
    assert not executor.trouble()


def test_another_process_under_the_number_of_the_interchange_is_left_alone(world: World) -> None:
    first = world.executor()
    first.save(TARGET, "same", ())
    known = world.known()
    world.die(first)
    other = State(known.label, TARGET, "same", 1, known.ports, known.worker_port, known.cert_dir)
    with pytest.raises(Exception, match="pid=1"):
        world.executor(other)
    attach.dispose(world.state, known)
    until(lambda: first.interchange_proc.poll() is not None)
    assert not world.state.exists()


def test_a_port_that_is_taken_is_an_error_at_once(world: World) -> None:
    first = world.executor()
    known = world.known()
    with pytest.raises(OSError, match="in use"):
        world.executor(known)
    assert not first.trouble()


def test_a_state_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    assert attach.states(tmp_path) == [(tmp_path / "x.json", None)]
    attach.dispose(tmp_path / "x.json", None)
    assert attach.states(tmp_path) == []
