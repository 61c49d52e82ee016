"""The figures for Prometheus, of real services: they move with what happens, and are there when the store is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.model import RunStatus
from tests.conftest import submit, wait, workflow
from tests.http.conftest import Running
from tests.postgres import Postgres, missing

Labels = dict[str, str]


class Exposition:
    """What `/metrics` says, as Prometheus reads it."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self.samples = [(s.name, s.labels, s.value) for family in families for s in family.samples]

    def sum(self, name: str, **labels: str) -> float:
        return sum(v for n, had, v in self.samples if n == f"beamway_{name}" and labels.items() <= had.items())

    def labels(self, name: str) -> list[Labels]:
        return [had for n, had, _ in self.samples if n == f"beamway_{name}"]


def read(service: Running, role: str = "viewer") -> Exposition:
    answer = httpx2.get(
        f"{service.url}/metrics", headers={"authorization": f"Bearer {service.tokens[role]}"}, timeout=60.0
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    return Exposition(answer.text)


def until(there: Callable[[], Any], what: str, timeout_s: float = 30.0) -> None:
    over = time.monotonic() + timeout_s
    while not there():
        assert time.monotonic() < over, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.2)


def test_it_needs_a_token_that_reads(running: Running) -> None:
    assert httpx2.get(f"{running.url}/metrics").status_code in (401, 403)
    agent = {"authorization": f"Bearer {running.tokens['agent']}"}
    assert httpx2.get(f"{running.url}/metrics", headers=agent).status_code == 403


def test_the_figures_move_with_runs_retries_and_failures(running: Running, tmp_path: Path) -> None:
    with running.client() as client:
        before = read(running)
        once = f"[ -e {tmp_path}/go ] || {{ touch {tmp_path}/go; exit 75; }}; echo x >{tmp_path}/out"
        stage = {"command": once, "outputs": [f"{tmp_path}/out"], "retries": {"transient": {"most": 1, "delay": 0.1}}}
        ends = [
            wait(client, submit(client, workflow(s1=made))).status
            for made in (stage, {"command": "sleep 0.3"}, {"command": "exit 3"})
        ]
    assert ends == [RunStatus.DONE, RunStatus.DONE, RunStatus.FAILED]
    after = read(running)

    def more(name: str, **labels: str) -> float:
        return after.sum(name, **labels) - before.sum(name, **labels)

    assert (more("runs_ended_total", state="done"), more("runs_ended_total", state="failed")) == (2, 1)
    assert (more("attempts_failed_total", cause="transient"), more("attempts_failed_total", cause="user error")) == (
        1,
        1,
    )
    assert (more("retries_total"), more("retries_total", cause="transient")) == (1, 1)
    for phase in ("queue", "compute"):
        assert more("phase_seconds_count", phase=phase, site="local") == 4
    assert 0.3 <= more("phase_seconds_sum", phase="compute") < 30
    assert more("phase_seconds_count", phase="checks") == 1
    assert more("store_write_seconds_count") > 3
    assert 0 < more("engine_turn_seconds_sum") < 30
    until(lambda: read(running).sum("runs", state="done") - before.sum("runs", state="done") >= 2, "counts by state")


def test_who_is_there_and_what_waits(running: Running, tmp_path: Path) -> None:
    until(lambda: read(running).sum("agent_connected", site="local") == 1, "the agent")
    with running.client() as client:
        ids = [submit(client, workflow(s1={"command": "sleep 60"})) for _ in range(2)]
        until(lambda: read(running).sum("orders", site="local", where="agent") == 2, "orders with the agent")
        until(lambda: read(running).sum("oldest_order_seconds", site="local", where="agent") > 1.0, "them to age")
        seen = read(running)
        for run_id in ids:
            client.cancel(run_id)
            wait(client, run_id)
    until(lambda: read(running).sum("orders") == 0, "no orders")
    assert read(running).sum("oldest_order_seconds") == 0
    assert seen.sum("engine_runs") == 2
    assert (seen.sum("engine_active"), seen.sum("store_up"), seen.sum("unstored_replies")) == (1, 1, 0)
    assert seen.sum("engine_silent_seconds") < 5
    assert seen.sum("agent_silent_seconds", site="local") < 15
    (holder,) = seen.labels("engine_lease_fence")
    assert holder["holder"].endswith(str(running.home))
    assert seen.sum("engine_lease_fence") == seen.sum("engine_fence") >= 1


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    if reason := missing():
        pytest.skip(reason)
    with Postgres() as made:
        yield made


def test_a_service_that_stands_by_and_a_store_that_is_away(own_postgres: Postgres, tmp_path: Path) -> None:
    url = own_postgres.new_database()
    first = Running(tmp_path / "a", database=url, runs=str(tmp_path / "runs"))
    second = Running(tmp_path / "b", database=url, runs=str(tmp_path / "runs"), beside=first)
    try:
        first.start()
        second.start(path="/health/live")
        here, there = read(first), read(second)
        assert (here.sum("engine_active"), there.sum("engine_active")) == (1, 0)
        assert here.labels("engine_lease_fence") == there.labels("engine_lease_fence")
        assert there.labels("engine_turn_seconds_count") == []
        own_postgres.stop()
        until(lambda: read(first).sum("store_up") == 0, "the store to be away")
        assert read(first).labels("runs") == []
        own_postgres.start()
        until(lambda: read(first).sum("store_up") == 1, "the store to be back")
        assert len(read(first).labels("runs")) == len(RunStatus)
    finally:
        first.stop()
        second.stop()
