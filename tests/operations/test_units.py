"""The systemd units of docs/operations: systemd can read them, and what they start is there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from orchestrator.cli.app import cli
from tests.conftest import ROOT

UNITS = sorted((ROOT / "docs" / "operations").glob("*.service"))
ONCE = ["beamway-retention.service"]  # ends by itself; its timer starts it
LASTING = [unit for unit in UNITS if unit.name not in ONCE]


def settings(unit: Path) -> dict[str, str]:
    lines = [line for line in unit.read_text(encoding="utf-8").splitlines() if "=" in line and line[0] != "#"]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_there_are_units_for_services_agents_and_watchers() -> None:
    names = ["beamway-agent@.service", "beamway-service.service", "beamway-watcher@.service"]
    assert [u.name for u in LASTING] == names
    assert [u.name for u in UNITS if u not in LASTING] == ONCE


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.stem)
def test_systemd_finds_nothing_wrong(unit: Path, tmp_path: Path) -> None:
    """With a program that is there in place of the installed one; `verify` says what it does not know on stderr."""
    text = unit.read_text(encoding="utf-8").replace("/opt/beamway/bin/beamway", sys.executable)
    copy = tmp_path / unit.name
    copy.write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, timeout=30, check=False
    )
    about = [line for line in said.stderr.splitlines() if unit.stem.rstrip("@") in line]
    assert (said.returncode, about) == (0, [])


@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.stem)
def test_what_is_started_is_a_command_with_its_options(unit: Path) -> None:
    program, name, *words = settings(unit)["ExecStart"].split()
    assert program == "/opt/beamway/bin/beamway"
    command = cli.commands[name]
    while isinstance(command, click.Group):
        name, *words = words
        command = command.commands[name]
    command.make_context(name, ["here" if w == "%i" else w for w in words]).close()
    with pytest.raises(click.UsageError):
        command.make_context(name, [*words, "--no-such-option"])


@pytest.mark.parametrize("unit", LASTING, ids=lambda u: u.stem)
def test_it_is_started_again_for_ever(unit: Path) -> None:
    found = settings(unit)
    assert (found["Restart"], found["StartLimitIntervalSec"]) == ("always", "0")


def test_commands_outlive_their_agent() -> None:
    found = settings(UNITS[0])
    assert (found["KillMode"], found["KillSignal"], found["OOMPolicy"]) == ("process", "SIGKILL", "continue")
    assert "NoNewPrivileges" not in found, "commands of runs may use sudo"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_timer_of_retention() -> None:
    timer = ROOT / "docs" / "operations" / "beamway-retention.timer"
    when = settings(timer)["OnCalendar"]
    said = subprocess.run(
        ["systemd-analyze", "calendar", when], capture_output=True, text=True, timeout=30, check=False
    )
    assert said.returncode == 0, said.stderr
    assert timer.with_suffix(".service").name in ONCE
