"""When a job that runs has given no sign of life for too long: by our clock alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from orchestrator.agent import pulse
from orchestrator.agent.pulse import Pulse


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pulse, "time", made)
    return made


def beat(tmp_path: Path, at: float) -> None:
    path = tmp_path / "x.job.beat"
    path.touch()
    os.utime(path, (at, at))


def test_before_the_first_sign_nothing_is_concluded(tmp_path: Path, clock: Clock) -> None:
    felt = Pulse(str(tmp_path / "x.job"))
    assert felt.silent_s(runs=True) == 0
    clock.now += 10_000
    assert felt.silent_s(runs=True) == 0


@pytest.mark.parametrize("skew_s", [-86_400.0, 0.0, 86_400.0])
def test_the_clock_of_the_file_does_not_matter(tmp_path: Path, clock: Clock, skew_s: float) -> None:
    felt = Pulse(str(tmp_path / "x.job"))
    at = time.time() + skew_s
    for turn in range(5):
        beat(tmp_path, at + 20 * turn)
        clock.now += 20
        assert felt.silent_s(runs=True) == 0
    clock.now += 100
    assert felt.silent_s(runs=True) == 100


def test_a_job_that_was_suspended_begins_again(tmp_path: Path, clock: Clock) -> None:
    felt = Pulse(str(tmp_path / "x.job"))
    beat(tmp_path, 1.0)
    felt.silent_s(runs=True)
    clock.now += 500
    assert felt.silent_s(runs=False) == 0
    clock.now += 500
    assert felt.silent_s(runs=True) == 0
