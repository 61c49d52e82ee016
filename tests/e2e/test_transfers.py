"""Runs that move data: how far they are is shown, and what they measured is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.client import Client
from orchestrator.model import Run, RunStatus
from tests import sshd
from tests.conftest import submit, wait, workflow
from tests.sshd import Sshd


def show(home: Path, run_id: str, *words: str) -> str:
    environment = {**os.environ, "BEAMWAY_HOME": str(home)}
    words = (sys.executable, "-m", "orchestrator.cli", "show", run_id, *words)
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout


def test_show_says_how_far_a_run_is(client: Client, home: Path, tmp_path: Path) -> None:
    """The line is the one of transfers and kernels alike: here a function says it."""
    arguments = {"done": 1_200_000_000, "total": 2_900_000_000, "rate": 310e6, "until": str(tmp_path / "go")}
    stage = {"function": "tests.e2e.makers:tell", "arguments": arguments, "workingDir": str(tmp_path)}
    run_id = submit(client, workflow(s01=stage))
    over = time.monotonic() + 60
    while True:
        shown = json.loads(show(home, run_id, "--json"))
        if shown["progress"] or time.monotonic() > over:
            break
        time.sleep(0.2)
    text = show(home, run_id)
    (tmp_path / "go").touch()
    (said,) = shown["progress"]
    assert (said["stage"], said["fraction"]) == ("01", 0.4138)
    assert said["text"] == "1.2 GB of 2.9 GB, 310 MB/s, 5 s left"
    assert "41% 1.2 GB of 2.9 GB, 310 MB/s, 5 s left" in text
    assert wait(client, run_id).status is RunStatus.DONE
    ended = json.loads(show(home, run_id, "--json"))
    assert ended["progress"] == []


@pytest.mark.skipif(bool(sshd.missing()), reason=sshd.missing())
def test_there_and_back_by_ssh(client: Client, finish: Callable[..., Run], tmp_path: Path) -> None:
    with Sshd() as server:
        (server.root / "scan 1.txt").write_text("1 2 3\n")
        options = {"ssh_config": str(server.config)}
        definition = workflow(
            s01={
                "transfer": {"from": server.url("scan 1.txt"), "to": "in.txt", "options": options},
                "workingDir": str(tmp_path),
            },
            s02={"command": "rev in.txt > out.txt", "workingDir": str(tmp_path)},
            s03={
                "transfer": {"from": "out.txt", "to": server.url() + "$sample/", "options": options},
                "workingDir": str(tmp_path),
            },
        )
        run = finish(client, definition, {"sample": "glass bead"})
        assert run.status is RunStatus.DONE, run.error
        assert (server.root / "glass bead" / "out.txt").read_text() == "3 2 1\n"
    outcomes = [run.tasks[n].outcome for n in sorted(run.tasks)]
    assert [outcome.moved_bytes for outcome in outcomes if outcome] == [6, 0, 6]
