"""A remote reconstruction over a GridFTP server while its workers are killed: done once, nothing half left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from kernels import contract
from orchestrator import locks
from orchestrator.client import Client
from orchestrator.model import Run, RunStatus, StageStatus
from orchestrator.settings import Settings
from tests.conftest import wait
from tests.gridftp import Gridftp, missing

POINTS = ("transfer.run:after", "file.publish:before", "file.publish:after")  # as often as a lost worker is replaced
SITE = '[identity]\nname = "hpc"\ncontact = "ops"\n'

pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(bool(missing()), reason=missing())]


def test_killed_on_the_way_there_and_while_it_computes(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers around the moving and the naming of the scan; then service and agents, as the other site works."""
    monkeypatch.setenv("BEAMWAY_CRASH", ",".join(POINTS))
    monkeypatch.setenv("BEAMWAY_CRASH_MARK", str(tmp_path / "killed"))
    scan = tmp_path / "scan.h5"
    contract.run("tomography.simulate", {"output": str(scan), "columns": 96, "rows": 8, "angles": 121}, say=None)
    (home / "sites").mkdir(parents=True)
    with Gridftp() as server, Client(Settings(home=home)) as client:
        (home / "sites" / "hpc.toml").write_text(SITE + server.door)
        truth = str(tmp_path / "scan_truth.h5")
        given = {"filePath": str(scan), "site": "hpc", "stageIn": f"{server.root}/in", "truthPath": truth}
        plan = client.plan(client.definition("tomography_remote"), given)
        run_id = client.submit(plan)
        _until_running(client, run_id, "02-reconstruct")
        for lock in (locks.agent_lock(home, "hpc"), locks.service_lock(home), locks.agent_lock(home, "local")):
            os.kill(_holder(lock), signal.SIGKILL)
        run = wait(client, run_id, 240)
        children = [client.run(s.id) for s in client.runs() if s.parent]
        client.stop_service()
        assert run.status is RunStatus.DONE, run.error
        assert all((tmp_path / f"killed.{point}").exists() for point in POINTS)
        assert run.tasks[0].attempt == 1 + len(POINTS)
        assert [child.status for child in children] == [RunStatus.DONE]
        assert float(run.variables["relativeError"]) < 0.15
        assert not [p for place in (server.root, tmp_path) for p in place.rglob("*.part")]
        assert not list((server.root / "in").iterdir())


def _holder(lock: Path) -> int:
    over = time.monotonic() + 60
    while not (pid := locks.holder(lock)):
        assert time.monotonic() < over, lock
        time.sleep(0.02)
    return pid


def _until_running(client: Client, run_id: str, stage: str) -> Run:
    """It, and the first stage of its child."""
    over = time.monotonic() + 150
    while True:
        run = client.run(run_id)
        begun = stage in run.stages and run.stages[stage].status is StageStatus.RUNNING
        if begun and any(s.parent.startswith(run_id) and s.status is RunStatus.RUNNING for s in client.runs()):
            return run
        assert time.monotonic() < over, run
        assert run.status not in (RunStatus.FAILED, RunStatus.ABORTED), run.error
        time.sleep(0.05)
