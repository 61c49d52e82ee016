"""Times as people say them, and sites that cannot reserve."""

from __future__ import annotations

import time

import pytest
from cli_samples import Beamway

from orchestrator.cli.reservations import moment
from orchestrator.errors import UserError

NOW = 1795341600.0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("now", NOW),
        ("+30min", NOW + 1800),
        ("+1.5h", NOW + 5400),
        ("+ 2 d", NOW + 172_800),
        ("+90", NOW + 90),
        ("2026-11-24T06:00:00+00:00", 1795500000.0),
    ],
)
def test_moments(text: str, at: float) -> None:
    assert moment(text, NOW) == at


def test_a_time_of_day_is_the_next_one() -> None:
    ahead, behind = (time.strftime("%H:%M", time.localtime(NOW + s)) for s in (3600, -3600))
    assert moment(ahead, NOW) == NOW + 3600
    assert moment(behind, NOW) == NOW - 3600 + 86_400


@pytest.mark.parametrize("text", ["", "soon", "+", "+2 fortnights", "25:00", "12:61", "-1h", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        moment(text, NOW)


@pytest.mark.parametrize("words", [["create", "local", "r", "--for", "1h"], ["delete", "polaris", "r"]])
def test_only_slurm_s_reservations_are_changed(beamway: Beamway, words: list[str]) -> None:
    said = beamway("reservation", *words)
    assert said.exit_code == 2
    assert "Beamway changes reservations of Slurm" in said.err
