"""What the agent makes of what it hears: with a cluster that does what the test says, and no service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from orchestrator import protocol
from orchestrator.agent import output
from orchestrator.agent.agent import Agent
from orchestrator.agent.link import SocketLink
from orchestrator.agent.shell import Shell
from orchestrator.jobs import Job, JobState
from orchestrator.model import FailureClass, Order, Outcome, StageKind


class Cluster:
    """Begins orders by remembering them."""

    def __init__(self) -> None:
        self.begun_here: list[str] = []
        self.unknown: list[str] = []
        self.comes_back = True
        self.job: Job | None = None
        self.fails = False

    def begin(self, order: Order) -> None:
        if self.fails:
            raise RuntimeError("no room")
        self.begun_here.append(order.token)

    def end(self, token: str) -> bool:
        return self.comes_back

    def end_unknown(self, token: str) -> None:
        self.unknown.append(token)

    def forget(self, token: str) -> None:
        pass

    def look(self) -> None:
        pass

    def in_batch(self, token: str) -> Job | None:
        return self.job


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def agent(tmp_path: Path, cluster: Cluster) -> Iterator[Agent]:
    made = Agent(tmp_path, "far", cast("Any", None), cast("Any", None), SocketLink(tmp_path, "far"))
    made.cluster = cast("Any", cluster)
    yield made
    for end in (made._waking, made._woken):
        end.close()


def order(tmp_path: Path, **more: Any) -> Order:
    return Order("r.0.1", StageKind.KERNEL, "s", log_dir=str(tmp_path / "r" / "logs"), **more)


def ends(agent: Agent) -> list[tuple[str, FailureClass | None]]:
    """What is to be reported as over, and is reported by that."""
    agent._collect()
    found = [(e.token, e.outcome.failure) for e in agent._events if isinstance(e, protocol.Ended)]
    agent._send_events()
    return found


def test_what_arrives_is_reported_once(agent: Agent, tmp_path: Path) -> None:
    agent._begin(order(tmp_path))
    agent.arrive("r.0.1", Outcome())
    assert ends(agent) == [("r.0.1", None)]
    agent._forget(1)
    agent.arrive("r.0.1", Outcome(FailureClass.LOST))
    assert ends(agent) == []


def test_an_order_that_comes_twice_begins_once(agent: Agent, cluster: Cluster, tmp_path: Path) -> None:
    for adopt in (False, True):
        agent._begin(order(tmp_path, adopt=adopt))
    assert cluster.begun_here == ["r.0.1"]


def test_trouble_at_the_beginning_is_a_loss_of_that_attempt(agent: Agent, cluster: Cluster, tmp_path: Path) -> None:
    cluster.fails = True
    agent._begin(order(tmp_path))
    assert ends(agent) == [("r.0.1", FailureClass.LOST)]


def test_an_unknown_attempt_is_reported_when_its_job_is_over(agent: Agent, cluster: Cluster) -> None:
    for _ in range(2):
        agent._end("r.9.1", FailureClass.CANCELLED)
    assert cluster.unknown == ["r.9.1"], "a kill may be repeated"
    assert ends(agent) == []
    for _ in range(2):
        agent.arrive("r.9.1", Outcome(FailureClass.CANCELLED))
    assert ends(agent) == [("r.9.1", FailureClass.CANCELLED)]


def test_what_is_cancelled_before_it_began_is_over_and_keeps_its_mark(
    agent: Agent, cluster: Cluster, tmp_path: Path
) -> None:
    """Parsl still holds it: a worker that comes later must find the mark."""
    cluster.comes_back = False
    wanted = order(tmp_path)
    agent._begin(wanted)
    agent._end("r.0.1", FailureClass.CANCELLED)
    assert ends(agent) == [("r.0.1", FailureClass.CANCELLED)]
    agent._forget(1)
    assert Path(output.Paths(wanted).cancelled).exists()


def test_a_begun_attempt_loses_its_mark_at_its_end(agent: Agent, cluster: Cluster, tmp_path: Path) -> None:
    wanted = order(tmp_path)
    agent._begin(wanted)
    cluster.job = Job("7", "", JobState.RUNNING, started_at=5.0)
    agent._look()
    agent._end("r.0.1", FailureClass.CANCELLED)
    agent.arrive("r.0.1", Outcome(FailureClass.OUTSIDE, "cancelled by a person"))
    assert ends(agent) == [("r.0.1", FailureClass.CANCELLED)]
    agent._forget(1)
    assert not Path(output.Paths(wanted).cancelled).exists()


def test_the_start_of_a_job_is_told_once(agent: Agent, cluster: Cluster, tmp_path: Path) -> None:
    agent._begin(order(tmp_path))
    for state in (JobState.PENDING, JobState.RUNNING, JobState.RUNNING):
        cluster.job = Job("7", "", state, started_at=5.0)
        agent._look()
    assert agent._events == [protocol.Started("r.0.1", 5.0)]


def test_what_it_waits_for_is_told_when_it_changes_and_not_once_it_runs(
    agent: Agent, cluster: Cluster, tmp_path: Path
) -> None:
    agent._begin(order(tmp_path))
    said: list[str] = []
    for text in ("Priority", "Priority", "Resources"):
        agent.told("r.0.1", 1.0, text)
    agent.told("r.5.1", 1.0, "unknown")
    agent._link.report = lambda events: said.extend(e.text for e in events)  # type: ignore[method-assign,union-attr]
    agent._send_events()
    cluster.job = Job("7", "", JobState.RUNNING)
    agent._look()
    agent._events.clear()
    agent.told("r.0.1", 1.0, "late")
    agent._send_events()
    assert said == ["Priority", "Resources"]


@pytest.mark.parametrize("told", [False, True])
def test_a_command_that_is_cancelled_after_its_end_has_ended_once_and_leaves_nothing(
    agent: Agent, tmp_path: Path, told: bool
) -> None:
    """`told`: its end is reported already."""

    class Pool:
        def submit(self, _label: str, function: Any, *arguments: Any) -> Future[Any]:
            done: Future[Any] = Future()
            done.set_result(function(*arguments))
            return done

    agent.cluster = None
    agent._shell, agent._pool = Shell(dict(os.environ), log_cap_bytes=1000), cast("Any", Pool())
    agent._begin(replace(order(tmp_path), kind=StageKind.COMMAND, command="true", working_dir=str(tmp_path)))
    before = ends(agent) if told else []
    agent._end("r.0.1", FailureClass.CANCELLED)
    assert before + ends(agent) == [("r.0.1", None)]
    assert agent._shell._ending == {}


def test_work_that_ended_well_before_it_could_be_ended_is_well(agent: Agent, tmp_path: Path) -> None:
    agent._begin(order(tmp_path))
    agent._end("r.0.1", FailureClass.CANCELLED)
    agent.arrive("r.0.1", Outcome())
    assert ends(agent) == [("r.0.1", None)]


def test_a_timeout_says_how_long_it_had(agent: Agent, tmp_path: Path) -> None:
    agent._begin(replace(order(tmp_path), timeout_s=5.0))
    agent._end("r.0.1", FailureClass.TIMEOUT)
    agent.arrive("r.0.1", Outcome(FailureClass.CANCELLED))
    agent._collect()
    (event,) = agent._events
    assert isinstance(event, protocol.Ended)
    assert (event.outcome.failure, event.outcome.reason) == (FailureClass.TIMEOUT, "ended after its timeout of 5 s")
