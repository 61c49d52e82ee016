"""Anything of ours is killed in the middle of a run: the run ends done, and what had finished is not done twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from orchestrator import locks
from orchestrator.client import Client
from orchestrator.model import RunStatus, StageStatus, TaskStatus
from tests.conftest import submit, wait, workflow


def until(condition: object, what: str, timeout_s: float = 60.0) -> None:
    over = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < over, f"never came: {what}"
        time.sleep(0.05)


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def three_stages(place: Path) -> dict[str, object]:
    """A finished stage, a stage to be killed in, a stage after it; each start leaves a line."""
    return workflow(
        s01__first={"command": f"echo x >> {place}/first"},
        s02__middle={
            "command": f"echo x >> {place}/middle; sleep 2; echo value=42",
            "outputVariableRegexList": ["value=(?P<v>.*)"],
        },
        s03__last={"command": f"echo $v >> {place}/last"},
    )


def kill(client: Client, who: str) -> None:
    home = client.settings.home
    path = locks.service_lock(home) if who == "service" else locks.agent_lock(home, "local")
    pid = locks.holder(path)
    assert pid
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("victims", [("agent",), ("service",), ("service", "agent"), ("agent", "service")])
def test_killed_in_a_command_stage(client: Client, tmp_path: Path, victims: tuple[str, ...]) -> None:
    run_id = submit(client, three_stages(tmp_path))
    until((tmp_path / "middle").exists, "the middle stage")
    for victim in victims:
        kill(client, victim)
    run = wait(client, run_id)
    assert run.status is RunStatus.DONE, run.error
    assert lines(tmp_path / "first") == 1
    assert lines(tmp_path / "middle") == 1, "the command outlives its agent and is adopted"
    assert (tmp_path / "last").read_text() == "42\n"


def test_agent_killed_in_a_call_repeats_only_that(client: Client, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    run_id = submit(
        client,
        workflow(
            s01={"function": "tests.chaos.calls:mark", "arguments": {"directory": str(marks), "name": "first"}},
            s02={
                "function": "tests.chaos.calls:mark",
                "arguments": {"directory": str(marks), "name": "slow", "seconds": 8},
            },
            s03={"function": "tests.chaos.calls:mark", "arguments": {"directory": str(marks), "name": "last"}},
        ),
    )
    until((marks / "slow").exists, "the slow call")
    until(lambda: client.run(run_id).stages["02"].status is StageStatus.RUNNING, "stage 02 running")
    time.sleep(0.5)
    kill(client, "agent")
    run = wait(client, run_id)
    assert run.status is RunStatus.DONE, run.error
    assert (lines(marks / "first"), lines(marks / "slow"), lines(marks / "last")) == (1, 2, 1)
    assert run.tasks[1].attempt == 2
    assert run.tasks[1].used == {"lost worker": 1}


def test_service_killed_in_a_call_loses_nothing(client: Client, tmp_path: Path) -> None:
    """The agent lives on, and reports to the next service what ended meanwhile."""
    marks = tmp_path / "marks"
    marks.mkdir()
    run_id = submit(
        client,
        workflow(
            s01={
                "function": "tests.chaos.calls:mark",
                "arguments": {"directory": str(marks), "name": "slow", "seconds": 2},
            },
            s02={"function": "tests.chaos.calls:mark", "arguments": {"directory": str(marks), "name": "last"}},
        ),
    )
    until((marks / "slow").exists, "the slow call")
    kill(client, "service")
    time.sleep(3)
    run = wait(client, run_id)
    assert run.status is RunStatus.DONE, run.error
    assert (lines(marks / "slow"), lines(marks / "last")) == (1, 1)


def test_a_killed_worker_is_replaced_and_the_attempt_repeated(client: Client, tmp_path: Path) -> None:
    run_id = submit(
        client, workflow(s01={"function": "tests.chaos.calls:die_once", "arguments": {"directory": str(tmp_path)}})
    )
    run = wait(client, run_id)
    assert run.status is RunStatus.DONE, run.error
    assert run.tasks[0].attempt == 2


def test_a_killed_agent_leaves_no_process_behind(client: Client, tmp_path: Path) -> None:
    """But the commands, which the next agent adopts."""
    call = {"function": "tests.chaos.calls:mark", "arguments": {"directory": str(tmp_path), "name": "x"}}
    wait(client, submit(client, workflow(s01=call)))
    home = client.settings.home
    agent = locks.holder(locks.agent_lock(home, "local"))
    session = [p for p in psutil.pids() if session_of(p) == agent]
    assert any("interchange" in " ".join(psutil.Process(p).cmdline()) for p in session)
    kill(client, "agent")
    until(lambda: locks.holder(locks.agent_lock(home, "local")) not in (0, agent), "the next agent")
    until(lambda: not any(running(p) for p in session), "the end of what the killed agent had started")


def session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def test_a_stopped_service_is_resumed(client: Client, tmp_path: Path) -> None:
    run_id = submit(client, three_stages(tmp_path))
    until((tmp_path / "middle").exists, "the middle stage")
    assert client.stop_service()
    assert client.run(run_id).status is RunStatus.RUNNING
    run = wait(client, run_id)
    assert run.status is RunStatus.DONE, run.error
    assert lines(tmp_path / "first") == 1


def test_cancel_ends_the_whole_process_group(client: Client, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    run_id = submit(
        client, workflow(s01={"command": f"sleep 1000 & echo $! > {pid_file}; sleep 1000"}, s02={"command": "true"})
    )
    until(lambda: pid_file.exists() and pid_file.read_text().strip(), "the command")
    client.cancel(run_id)
    run = wait(client, run_id)
    assert run.status is RunStatus.ABORTED
    assert run.tasks[0].status is TaskStatus.ABORTED
    assert run.stages["02"].status is StageStatus.PENDING
    assert not running(int(pid_file.read_text()))


def test_cancel_ends_a_call_with_what_it_started(client: Client, tmp_path: Path) -> None:
    run_id = submit(
        client, workflow(s01={"function": "tests.chaos.calls:start_child", "arguments": {"directory": str(tmp_path)}})
    )
    pid_file = tmp_path / "child"
    until(lambda: pid_file.exists() and pid_file.read_text().strip(), "the child")
    time.sleep(0.6)
    client.cancel(run_id)
    run = wait(client, run_id)
    assert run.status is RunStatus.ABORTED
    assert not running(int(pid_file.read_text()))


def test_cancel_while_the_service_is_down_is_carried_out_later(client: Client, tmp_path: Path) -> None:
    run_id = submit(client, workflow(s01={"command": f"touch {tmp_path}/began; sleep 1000"}))
    until((tmp_path / "began").exists, "the command")
    kill(client, "service")
    kill(client, "agent")
    client.cancel(run_id)
    assert wait(client, run_id).status is RunStatus.ABORTED


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
