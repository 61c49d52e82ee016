"""A site that does not let us in: its runs are held, nothing more is sent there, another site goes on, all are done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.client import Client
from orchestrator.definition import loader
from orchestrator.model import FailureClass, Placing, RunStatus
from orchestrator.service.breaker import OPENS_AT
from tests.conftest import ROOT, wait, workflow

PROFILE = """
[identity]
name = "far"
contact = "the help desk, extension 1234"
[scheduler]
kind = "pbs"
bin = "{fakes}"
environment = {{ FAKE_PBS_DIR = "{place}", FAKE_PBS_PYTHON = "{python}", PYTHONPATH = "{root}" }}
poll_s = 1.0
[[queues]]
name = "workq"
default_walltime_s = 600
[node]
cores = 2
count = 1
[paths]
scratch = "{place}"
shared = ["/"]
[execution]
mode = "batch"
address = "127.0.0.1"
[environment]
worker_init = "export PYTHONPATH={root}"
"""


@pytest.fixture
def faults(client: Client, tmp_path: Path) -> Path:
    """The file of faults of the site `far`."""
    place = tmp_path / "pbs"
    place.mkdir()
    sites = client.settings.home / "sites"
    sites.mkdir()
    fakes = ROOT / "tests" / "fakes" / "pbs"
    (sites / "far.toml").write_text(PROFILE.format(fakes=fakes, place=place, python=sys.executable, root=ROOT))
    return place / "faults"


def start(client: Client, site: str) -> str:
    plan = client.plan(loader.load(workflow(s1={"command": "true"})), {}, directory="/", placing=Placing(site=site))
    return client.submit(plan)


def until(true: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_site_that_does_not_let_us_in(client: Client, faults: Path) -> None:
    faults.write_text("expired")
    ids = [start(client, "far") for _ in range(OPENS_AT)]
    until(lambda: all(client.run(i).status is RunStatus.HELD for i in ids))
    hold = client.run(ids[0]).tasks[0].hold
    assert hold is not None
    assert (hold.cause, hold.probes) == (FailureClass.AUTHENTICATION, 0)
    said = client.why(ids[0])
    assert "does not let us in" in said.sentence
    assert "ticket has expired" in said.sentence
    assert said.contact == "the help desk, extension 1234"

    late = start(client, "far")
    until(lambda: "nothing new is sent to site 'far'" in client.why(late).sentence)
    service = client.service()
    assert service is not None
    assert list(service.shut) == ["far"]
    assert wait(client, start(client, "local")).status is RunStatus.DONE

    faults.unlink()
    client.resume(site="far")
    assert {wait(client, run_id).status for run_id in [*ids, late]} == {RunStatus.DONE}
    assert {len(client.run(i).tasks[0].used) for i in ids} == {0}
