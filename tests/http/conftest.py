"""A real service over HTTP, in a process of its own, and clients and agents that reach it by its address."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from orchestrator.client import Client
from orchestrator.settings import Secret, Settings, ensure_home
from orchestrator.store import tokens
from orchestrator.store.database import Database
from tests.conftest import end_processes_of, free_port

START_S = 30.0


class Running:
    """A service of this home, at this address, with the tokens that tests use. `beside`: another one of its store."""

    def __init__(self, home: Path, *, database: str = "", runs: str = "", beside: Running | None = None) -> None:
        self.home, self._database, self._runs = home, database, runs
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        ensure_home(home)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.tokens: dict[str, str] = dict(beside.tokens) if beside else {}
        if beside is not None:
            return
        with Database(Settings(home=home, database=database).database_url) as opened:
            opened.upgrade()
            for role in ("viewer", "user", "author", "operator", "admin"):
                self.tokens[role] = self._token(opened, role)
            self.tokens["agent"] = self._token(opened, "agent", "local")

    def _token(self, database: Database, role: str, site: str = "") -> str:
        now = time.time()
        return tokens.create(database, name=f"a {role}", role=role, site=site, now=now, expires_at=now + 86400)[1]

    def _environment(self, **more: str) -> dict[str, str]:
        named = {"HOME": self.home, "DATABASE": self._database, "RUNS": self._runs}
        return {**os.environ, **{f"BEAMWAY_{name}": str(value) for name, value in named.items() if value}, **more}

    def start(self, *options: str, path: str = "/health/ready") -> subprocess.Popen[bytes]:
        """`path`: what has to answer before it is said to have started."""
        words = ["service", "--json", "--listen", f"127.0.0.1:{self.port}", *options]
        process = self._spawn(words, "service.log", self._environment())
        over = time.monotonic() + START_S
        while True:
            with contextlib.suppress(httpx2.HTTPError):
                if httpx2.get(f"{self.url}{path}", timeout=2.0).status_code == 200:
                    return process
            assert process.poll() is None, (self.home / "logs" / "service.log").read_text()[-2000:]
            assert time.monotonic() < over, "the service does not answer"
            time.sleep(0.05)

    def ready(self) -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"{self.url}/health/ready", timeout=2.0).status_code == 200
        return False

    def agent(self, home: Path | None = None, *, urls: str = "") -> subprocess.Popen[bytes]:
        """An agent that reaches the service by its address; `home`: its own, else that of the service."""
        more = {"BEAMWAY_URL": urls or self.url, "BEAMWAY_TOKEN": self.tokens["agent"]}
        if home is not None:
            ensure_home(home)
            more["BEAMWAY_HOME"] = str(home)
        return self._spawn(["agent", "local"], "agent-http.log", self._environment(**more))

    def _spawn(self, words: list[str], log: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        (self.home / "logs").mkdir(exist_ok=True)
        with (self.home / "logs" / log).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli", *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def client(self, role: str = "operator") -> Client:
        return Client(Settings(home=self.home / "elsewhere", url=self.url, token=Secret(self.tokens[role])))

    def ask(self, method: str, path: str, role: str = "operator", **more: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.tokens[role]}", **more.pop("headers", {})}
        return httpx2.request(method, f"{self.url}/api/v1{path}", headers=headers, timeout=60.0, **more)

    def stop(self) -> None:
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self._processes:
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        end_processes_of(self.home)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One service and its agent, for tests that do not harm them."""
    made = Running(tmp_path_factory.mktemp("http") / "home")
    try:
        made.start()
        made.agent()
        yield made
    finally:
        made.stop()
