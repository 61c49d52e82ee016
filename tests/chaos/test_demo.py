"""The demo is killed in the middle and asked for again: it ends verified, and finished stages are not run twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator import locks
from orchestrator.client import Client
from orchestrator.model import RunStatus, StageStatus
from orchestrator.settings import Settings

BEAMWAY = [sys.executable, "-m", "orchestrator.cli"]


@pytest.mark.parametrize("victims", [("agent",), ("service",), ("demo", "service", "agent")])
def test_killed_demo(home: Path, tmp_path: Path, victims: tuple[str, ...]) -> None:
    argv = [*BEAMWAY, "demo", "--size", "small", "--directory", str(tmp_path / "demo"), "--json"]
    environment = {**os.environ, "BEAMWAY_HOME": str(home)}
    demo = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with Client(Settings(home=home)) as client:
        over = time.monotonic() + 90
        while not (runs := client.runs()) or client.run(runs[0].id).stages["01-inspect"].status is not StageStatus.DONE:
            assert time.monotonic() < over
            assert demo.poll() is None, demo.stderr.read() if demo.stderr else ""
            time.sleep(0.02)
        locked = {"service": locks.service_lock(home), "agent": locks.agent_lock(home, "local")}
        for victim in victims:
            os.kill(demo.pid if victim == "demo" else locks.holder(locked[victim]), signal.SIGKILL)
        first = client.run(runs[0].id)
        assert first.status is RunStatus.RUNNING, "it was over before it could be killed"
        if "demo" in victims:
            demo.communicate()
            demo = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        output, errors = demo.communicate(timeout=100)
        assert demo.returncode == 0, errors
        run = client.run(runs[0].id)
        client.stop_service()
    assert len(runs) == 1
    assert run.status is RunStatus.DONE
    assert [t.stage for t in run.tasks.values()].count("01-inspect") == 1
    assert next(t for t in run.tasks.values() if t.stage == "01-inspect").attempt == 1
    assert json.loads(output)["id"] == run.id
    assert (tmp_path / "demo/results/slices.png").stat().st_size > 1000
