"""Daemons are found again by what they were started with."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.cluster import processes


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    pid_file = tmp_path / "sleeper.pid"
    argv = ["sleep", "100"]
    pid = processes.start(
        argv, mark="mine", pid_file=pid_file, log=tmp_path / "log", environment={"PATH": "/bin:/usr/bin"}
    )
    yield pid_file, pid
    processes.end([pid], grace_s=1.0)


def test_it_lives_as_long_as_it_lives_and_is_ours(sleeper: tuple[Path, int]) -> None:
    pid_file, pid = sleeper
    assert processes.alive(pid_file, "mine") == pid
    assert processes.alive(pid_file, "another's") == 0
    processes.send([pid], signal.SIGKILL)
    assert processes.wait_gone([pid], 10.0) == set()
    assert processes.alive(pid_file, "mine") == 0


def test_one_that_becomes_another_program_just_now_lives(
    sleeper: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For that moment its environment reads as empty, which was once taken for its end."""
    pid_file, pid = sleeper
    real, looks = processes.environment_of, iter(range(100))
    monkeypatch.setattr(processes, "environment_of", lambda n: {} if next(looks) < 3 else real(n))
    assert processes.alive(pid_file, "mine") == pid


def test_a_daemon_that_ends_at_once_is_not_waited_for(tmp_path: Path) -> None:
    pid_file = tmp_path / "short.pid"
    pid = processes.start(["true"], mark="mine", pid_file=pid_file, log=tmp_path / "log", environment={})
    processes.wait_gone([pid], 10.0)
    assert processes.alive(pid_file, "mine") == 0
