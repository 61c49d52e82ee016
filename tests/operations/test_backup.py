"""The commands of docs/operations while runs flow: what was acknowledged before a backup is in it, and ends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.client import Client
from orchestrator.model import RUN_ENDED, RunStatus
from tests.conftest import ROOT, submit, workflow
from tests.http.conftest import Running
from tests.postgres import Postgres

PAGE = (ROOT / "docs" / "operations" / "README.md").read_text(encoding="utf-8")
STAGES = workflow(s1={"command": "sleep 0.5"}, s2={"command": "sleep 0.5"})

pytestmark = pytest.mark.timeout(180)


def do(block: str, **environment: str) -> None:
    """The commands of this block of the page."""
    found = re.search(rf"^```sh {block}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, block
    programs = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    path = ":".join([*programs, os.environ["PATH"]])
    words = ["bash", "-euc", found[1]]
    done = subprocess.run(words, env={**os.environ, "PATH": path, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@contextmanager
def flow(client: Callable[[], Client]) -> Iterator[list[str]]:
    """Runs are begun all the time; the list grows by each that is acknowledged."""
    acknowledged: list[str] = []
    over = threading.Event()

    def begin() -> None:
        with client() as opened:
            while not over.wait(0.3):
                acknowledged.append(submit(opened, STAGES))

    thread = threading.Thread(target=begin)
    thread.start()
    try:
        yield acknowledged
    finally:
        over.set()
        thread.join()


def states(client: Client, ids: list[str]) -> list[RunStatus]:
    return [client.run(run_id).status for run_id in ids]


def backed_up(service: Running, back_up: Callable[[], None]) -> list[str]:
    """Those that were acknowledged before the backup; when this returns all that ran is gone."""
    service.start()
    service.agent()
    with flow(service.client) as acknowledged:
        with service.client() as client:
            while len(acknowledged) < 4 or RunStatus.DONE not in states(client, acknowledged[:1]):
                time.sleep(0.05)
        before = list(acknowledged)
        back_up()
    service.stop()
    return before


def all_end(service: Running, ids: list[str]) -> None:
    service.start()
    service.agent()
    with service.client() as client:
        over = time.monotonic() + 90
        at_first = states(client, ids)
        while client.ended(ids) != set(ids):
            assert time.monotonic() < over, states(client, ids)
            time.sleep(0.1)
        assert set(states(client, ids)) == {RunStatus.DONE}
    assert set(at_first) - RUN_ENDED, "some were in the middle, or this shows little"


@pytest.fixture
def services() -> Iterator[list[Running]]:
    made: list[Running] = []
    yield made
    for service in made:
        service.stop()


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the program sqlite3 is not installed (Debian: sqlite3)")
def test_sqlite(tmp_path: Path, services: list[Running]) -> None:
    old = Running(tmp_path / "old")
    services.append(old)
    backup = str(tmp_path / "backup.db")
    ids = backed_up(old, lambda: do("backup-sqlite", BEAMWAY_HOME=str(old.home), BACKUP=backup))
    new = Running(tmp_path / "new", beside=old)
    services.append(new)
    do("restore-sqlite", BEAMWAY_HOME=str(new.home), BACKUP=backup)
    all_end(new, ids)


def test_postgresql(tmp_path: Path, services: list[Running], postgres: Postgres) -> None:
    first, second = postgres.new_database(), postgres.new_database()
    runs, backup = str(tmp_path / "runs"), str(tmp_path / "backup")
    old = Running(tmp_path / "old", database=first, runs=runs)
    services.append(old)
    ids = backed_up(old, lambda: do("backup-postgresql", DATABASE=plain(first), BACKUP=backup))
    new = Running(tmp_path / "new", database=second, runs=runs, beside=old)
    services.append(new)
    do("restore-postgresql", NEW_DATABASE=plain(second), BACKUP=backup)
    all_end(new, ids)


def plain(url: str) -> str:
    return url.replace("+psycopg", "")
