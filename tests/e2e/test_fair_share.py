"""Fair share in the whole product: a live scan that comes after a large backfill waits for what the site has, only."""

from __future__ import annotations

import time
from pathlib import Path

from orchestrator.client import Client
from orchestrator.definition import loader
from orchestrator.model import Placing, RunStatus, TaskStatus
from orchestrator.service.agents import WINDOW
from tests.conftest import wait, workflow

FILES = 8 * WINDOW  # so that a busy machine has not done them all before the live scan is asked for


def test_a_live_scan_overtakes_a_backfill(client: Client, tmp_path: Path) -> None:
    for n in range(FILES):
        (tmp_path / f"{n:05}.h5").touch()
    many = workflow(s1={"function": "tests.e2e.makers:size", "arguments": {"path": "$filePath"}})
    given = {"filePathPattern": f"{tmp_path}/*.h5"}
    backfill = client.submit(client.plan(loader.load(many), given, placing=Placing(priority="backfill")))
    over = time.monotonic() + 60
    while not (tasks := client.run(backfill).tasks) or not any(t.status is TaskStatus.DONE for t in tasks.values()):
        assert time.monotonic() < over
        time.sleep(0.02)
    one = workflow(s1={"function": "tests.e2e.makers:echo", "arguments": {"value": "live"}})
    live = wait(client, client.submit(client.plan(loader.load(one), {}, placing=Placing(priority="live"))))
    assert live.status is RunStatus.DONE
    done = wait(client, backfill)
    assert done.status is RunStatus.DONE
    began = sum(live.created_at < t.started_at < live.tasks[0].started_at for t in done.tasks.values())
    assert began <= 1.5 * WINDOW, "first come, first served would be nearly all of them"
    assert sum(t.started_at > live.tasks[0].started_at for t in done.tasks.values()) > 0, "it came before the last"
