"""The whole product on PostgreSQL: a run from end to end, and a database that goes away in the middle."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.client import Client
from orchestrator.settings import Settings
from orchestrator.store.database import Database
from tests.conftest import submit, wait, workflow
from tests.postgres import Postgres, missing


@pytest.fixture
def cluster() -> Iterator[Postgres]:
    """One that the test may harm."""
    if reason := missing():
        pytest.skip(reason)
    with Postgres() as made:
        yield made


@pytest.fixture
def on_postgresql(cluster: Postgres, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    url = cluster.new_database()
    monkeypatch.setenv("BEAMWAY_DATABASE", url)
    database = Database(url)
    database.upgrade()
    database.close()
    with Client(Settings(home=home, database=url)) as made:
        yield made
        made.stop_service()


def test_a_run_goes_on_when_the_database_was_away(on_postgresql: Client, cluster: Postgres) -> None:
    stages = {f"s0{i}": {"command": "sleep 0.7"} for i in range(4)}
    run_id = submit(on_postgresql, workflow(**stages))
    time.sleep(1.0)
    cluster.kill()
    time.sleep(1.0)
    cluster.start()
    run = wait(on_postgresql, run_id)
    assert (run.status, run.error) == ("done", "")
    assert [t.attempt for t in run.tasks.values()] == [1, 1, 1, 1]
    assert [r.id for r in on_postgresql.runs(workflow="test", status="done")] == [run_id]


def test_a_service_refuses_older_tables_and_says_what_to_do(
    cluster: Postgres, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = cluster.new_database()
    database = Database(url)
    database.upgrade("0002")
    database.close()
    monkeypatch.setenv("BEAMWAY_DATABASE", url)
    monkeypatch.setenv("BEAMWAY_HOME", str(home))
    said = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "up"], capture_output=True, text=True, timeout=30, check=False
    )
    assert said.returncode == 75
    assert "is at revision 0002" in said.stderr
    assert "`beamway db upgrade`" in said.stderr
