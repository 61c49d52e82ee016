"""Two services and two agents on one PostgreSQL: any of them dies or hangs, and the runs go on, none of them twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client import Client
from orchestrator.definition import loader
from orchestrator.model import RunStatus
from orchestrator.settings import Secret, Settings
from tests.conftest import end_processes_of, workflow
from tests.http.conftest import Running
from tests.postgres import Postgres

pytestmark = pytest.mark.timeout(180)

WITHIN_S = 15.0  # the engine or the site is another's by then


class Pair:
    """Services `a` (which has the engine first) and `b`, and agents that know both."""

    def __init__(self, tmp: Path, database: str) -> None:
        self.tmp, self.marks, self.database = tmp, tmp / "marks", database
        self.marks.mkdir()
        self.begun = 0
        runs = str(tmp / "runs")
        self.a = Running(tmp / "a", database=database, runs=runs)
        self.b = Running(tmp / "b", database=database, runs=runs, beside=self.a)
        self.urls = f"{self.a.url},{self.b.url}"
        self.first = self.a.start()
        self.second = self.b.start(path="/health/live")
        self.agents: list[subprocess.Popen[bytes]] = []

    def agent(self, name: str) -> subprocess.Popen[bytes]:
        self.agents.append(self.a.agent(self.tmp / name, urls=self.urls))
        return self.agents[-1]

    def client(self) -> Client:
        token = Secret(self.a.tokens["operator"])
        return Client(Settings(home=self.tmp / "client", url=self.urls, token=token))

    def stage(self, name: str, seconds: float) -> dict[str, Any]:
        return {"command": f"echo x >> {self.marks}/{name}; sleep {seconds}"}

    def start(self, client: Client, count: int, seconds: float) -> list[str]:
        ids = []
        for _ in range(count):
            self.begun += 1
            name = f"{self.begun}"
            stages = workflow(s01=self.stage(f"{name}.1", seconds), s02=self.stage(f"{name}.2", seconds))
            plan = client.plan(loader.load(stages), {}, directory=str(self.tmp))
            ids.append(client.submit(plan))
        return ids

    def times(self) -> dict[str, int]:
        """How often each stage began."""
        return {path.name: len(path.read_text().splitlines()) for path in self.marks.iterdir()}

    def close(self) -> None:
        self.a.stop()
        self.b.stop()
        for name in ("one", "two"):
            end_processes_of(self.tmp / name)


@pytest.fixture
def pair(postgres: Postgres, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path, postgres.new_database())
    try:
        yield made
    finally:
        made.close()


def until(there: Callable[[], object], timeout_s: float, what: str) -> None:
    over = time.monotonic() + timeout_s
    while not there():
        assert time.monotonic() < over, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.1)


def all_done(pair: Pair, client: Client, ids: list[str], *, repeated: int = 0) -> None:
    """`repeated`: as many attempts may have been lost with an agent that was just about to begin them."""
    until(lambda: client.ended(ids) == set(ids), 90.0, "all runs to end")
    runs = [client.run(i) for i in ids]
    assert {r.status for r in runs} == {RunStatus.DONE}, [(r.id, r.error) for r in runs]
    attempts = {f"{n}.{int(t.stage)}": t.attempt for n, r in enumerate(runs, 1) for t in r.tasks.values()}
    times = pair.times()
    assert times.keys() == attempts.keys()
    assert [name for name in times if times[name] > attempts[name]] == [], (times, attempts)
    assert sum(attempts.values()) <= len(attempts) + repeated, attempts


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hangs"])
def test_another_service_takes_the_engine_over(pair: Pair, how: int) -> None:
    pair.agent("one")
    with pair.client() as client:
        ids = pair.start(client, 20, 0.5)
        until(lambda: len(pair.times()) >= 4, 30.0, "some stages")
        assert not pair.b.ready()
        os.killpg(pair.first.pid, how)
        at = time.monotonic()
        until(pair.b.ready, WITHIN_S, "the other service")
        taken_s = time.monotonic() - at
        ids += pair.start(client, 3, 0.1) if how == signal.SIGKILL else []
        if how == signal.SIGSTOP:
            os.killpg(pair.first.pid, signal.SIGCONT)
            until(
                lambda: "service.superseded" in log_of(pair.a) or "lost_engine" in log_of(pair.a),
                20.0,
                "a to step down",
            )
            assert pair.b.ready()
            assert not pair.a.ready()
        all_done(pair, client, ids)
    assert taken_s < WITHIN_S


def test_a_service_that_is_stopped_gives_the_engine_back(pair: Pair) -> None:
    pair.agent("one")
    with pair.client() as client:
        ids = pair.start(client, 6, 0.5)
        pair.first.terminate()
        at = time.monotonic()
        until(pair.b.ready, 5.0, "the other service")
        assert time.monotonic() - at < 5.0
        all_done(pair, client, ids)
    assert pair.first.wait(20.0) == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hangs"])
def test_a_spare_agent_takes_the_site_over(pair: Pair, how: int) -> None:
    agent = pair.agent("one")
    with pair.client() as client:
        until(lambda: (pong := client.service()) and pong.agents == ("local",), 30.0, "the agent")
        pair.agent("two")
        ids = pair.start(client, 8, 0.5)
        until(lambda: len(pair.times()) >= 2, 30.0, "some stages")
        os.kill(agent.pid, how)
        if how == signal.SIGSTOP:
            until(lambda: "agent.gone" in log_of(pair.a), WITHIN_S + 10.0, "the site to be free")
            until(lambda: client.ended(ids), 60.0, "the spare to work")
            os.kill(agent.pid, signal.SIGCONT)
        all_done(pair, client, ids, repeated=2)


def log_of(service: Running) -> str:
    return (service.home / "logs" / "service.log").read_text()
