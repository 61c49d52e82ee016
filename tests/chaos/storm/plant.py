"""What the storm falls upon: two services and two agents a site on one PostgreSQL, a Slurm, and somebody who keeps them
alive, as systemd does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.client import Client
from orchestrator.settings import Secret, Settings, ensure_home
from orchestrator.store import tokens
from orchestrator.store.database import Database
from slurm.cluster import Cluster, profile_toml
from tests.cluster.hosts import Host
from tests.conftest import end_processes_of
from tests.http.conftest import Running
from tests.postgres import Postgres

AGAIN_S = 0.5  # a process that has died is started again after so long


class Kept:
    """One process that is to live. Its own group is killed or paused whole, its children in other sessions live on."""

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.name, self._start = name, start
        self.process = start()
        self.wanted = True

    def tend(self) -> None:
        if self.wanted and self.process.poll() is not None:
            self.process = self._start()

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class Plant:
    def __init__(self, place: Path, database: Postgres, host: Host, cluster: Cluster) -> None:
        """`host`: the database's."""
        self.place, self.database, self.host, self.cluster = place, database, host, cluster
        self.work, self.marks, self.runs = place / "work", place / "marks", place / "runs"
        for folder in (self.work, self.marks, self.runs):
            folder.mkdir(parents=True, exist_ok=True)
        self.url = database.new_database()
        self.a = Running(place / "a", database=self.url, runs=str(self.runs))
        self.b = Running(place / "b", database=self.url, runs=str(self.runs), beside=self.a)
        self.urls = f"{self.a.url},{self.b.url}"
        with Database(self.url) as opened:
            now = time.time()
            self._agents = {site: self._token(opened, site, now) for site in ("local", "trial")}
        profile = profile_toml(cluster, execution={"lease_s": 60.0})
        self.homes = {name: place / name for name in ("local-1", "local-2", "trial-1", "trial-2", "client")}
        for home in (self.a.home, self.b.home, *self.homes.values()):
            ensure_home(home)
            (home / "sites").mkdir(exist_ok=True)
            (home / "sites" / "trial.toml").write_text(profile)
            (home / "logs").mkdir(exist_ok=True)
        self.kept: dict[str, Kept] = {}
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def _token(self, database: Database, site: str, now: float) -> str:
        name = f"agent of {site}"
        return tokens.create(database, name=name, role="agent", site=site, now=now, expires_at=now + 1e6)[1]

    def start(self) -> None:
        for running in (self.a, self.b):
            self._add(f"service {running.home.name}", lambda r=running: self._service(r))
        for name in ("local-1", "local-2", "trial-1", "trial-2"):
            self._add(f"agent {name}", lambda n=name: self._agent(n))
        self._keeper.start()

    def _add(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.kept[name] = Kept(name, start)

    def _service(self, running: Running) -> subprocess.Popen[bytes]:
        words = ["service", "--json", "--listen", f"127.0.0.1:{running.port}"]
        return running._spawn(words, "service.log", running._environment())

    def _agent(self, name: str) -> subprocess.Popen[bytes]:
        site = name.partition("-")[0]
        more = {
            "BEAMWAY_HOME": str(self.homes[name]),
            "BEAMWAY_URL": self.urls,
            "BEAMWAY_TOKEN": self._agents[site],
            "BEAMWAY_RUNS": str(self.runs),
        }
        return self.a._spawn(["agent", site], f"agent-{name}.log", {**os.environ, **more})

    def client(self, role: str = "operator") -> Client:
        token = Secret(self.a.tokens[role])
        return Client(Settings(home=self.homes["client"], url=self.urls, token=token))

    def _keep(self) -> None:
        while not self._stop.wait(AGAIN_S):
            for kept in self.kept.values():
                kept.tend()

    def close(self) -> None:
        self._stop.set()
        if self._keeper.is_alive():
            self._keeper.join(10.0)
        for kept in self.kept.values():
            kept.wanted = False
            kept.signal(signal.SIGCONT)
            kept.signal(signal.SIGTERM)
        for kept in self.kept.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                kept.process.wait(30.0)
        for running in (self.a, self.b):
            running.stop()
        for home in self.homes.values():
            end_processes_of(home)
