"""Holds in the whole product: a program that is not let in is held over a restart, and goes on when it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client import Client
from orchestrator.errors import Conflict
from orchestrator.model import Run, RunStatus
from tests.conftest import submit, wait, workflow

SIGN_IN = {"authentication": {"exitCodes": [77]}}


def locked(door: Path) -> dict[str, Any]:
    """A run that is let in when the file `door` is there."""
    return workflow(s1={"command": f"test -e {door} || exit 77", "retries": SIGN_IN}, s2={"command": "true"})


def until_held(client: Client, run_id: str, *, probes: int = 0) -> Run:
    deadline = time.monotonic() + 60
    while True:
        run = client.run(run_id)
        hold = run.tasks[0].hold if run.tasks else None
        if run.status is RunStatus.HELD and hold is not None and hold.probes >= probes:
            return run
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_hold_outlives_the_service_and_is_resumed(client: Client, tmp_path: Path) -> None:
    run_id = submit(client, locked(tmp_path / "door"))
    held = until_held(client, run_id)
    assert held.tasks[0].hold is not None
    assert held.tasks[0].hold.reason.startswith("exit status 77")
    assert [line.id for line in client.runs(status="held")] == [run_id]
    assert client.stop_service()
    (tmp_path / "door").touch()
    client.ensure_service()
    assert client.run(run_id).status is RunStatus.HELD
    assert client.resume(run_id) == (run_id,)
    done = wait(client, run_id)
    assert (done.status, done.tasks[0].attempt, done.tasks[0].used) == (RunStatus.DONE, 2, {})


def test_everything_that_waits_for_a_site_is_resumed_together(shared_client: Client, tmp_path: Path) -> None:
    doors = [tmp_path / name for name in ("one", "two")]
    ids = [submit(shared_client, locked(door)) for door in doors]
    for run_id in ids:
        until_held(shared_client, run_id)
    doors[0].touch()
    assert sorted(shared_client.resume(site="local")) == sorted(ids)
    assert wait(shared_client, ids[0]).status is RunStatus.DONE
    until_held(shared_client, ids[1], probes=1)
    shared_client.cancel(ids[1])
    assert wait(shared_client, ids[1]).status is RunStatus.ABORTED


def test_a_run_on_hold_is_not_retried_and_one_that_is_over_is_not_resumed(
    shared_client: Client, tmp_path: Path
) -> None:
    run_id = submit(shared_client, locked(tmp_path / "door"))
    until_held(shared_client, run_id)
    with pytest.raises(Conflict, match="held"):
        shared_client.retry(run_id)
    shared_client.cancel(run_id)
    wait(shared_client, run_id)
    with pytest.raises(Conflict, match="Nothing of run"):
        shared_client.resume(run_id)
