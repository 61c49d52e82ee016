"""`beamway doctor` of a client of a real service, and of the service's own home."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.settings import Secret, Settings
from orchestrator.store import tokens
from orchestrator.store.database import Database
from tests.http.conftest import Running


def doctor(running: Running, **environment: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "doctor", "--json"],
        env={**running._environment(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, {c["name"]: c for c in json.loads(done.stdout)}


def wait_for_agent(running: Running) -> None:
    with running.client() as client:
        over = time.monotonic() + 30
        while not ((pong := client.service()) and pong.agents):
            assert time.monotonic() < over
            time.sleep(0.1)


def test_all_is_well_from_the_service_s_home(running: Running) -> None:
    wait_for_agent(running)
    code, found = doctor(running)
    assert [c for c in found.values() if c["result"] == "failed" and c["name"] != "tokens in the store"] == []
    assert code == 1, "the tokens of the tests end within the hour"
    assert "fence" in found["engine"]["seen"]
    assert found["agents"]["seen"] == "connected: local"


def test_all_is_well_from_elsewhere(running: Running, tmp_path: Path) -> None:
    wait_for_agent(running)
    with Database(Settings(home=running.home).database_url) as database:
        now = time.time()
        _, long = tokens.create(database, name="cy", role="viewer", site="", now=now, expires_at=now + 30.5 * 86400)
    told = {"BEAMWAY_HOME": str(tmp_path / "home"), "BEAMWAY_URL": running.url, "BEAMWAY_TOKEN": long}
    code, found = doctor(running, **told)
    assert code == 0, found
    assert found["token"]["seen"] == "cy, viewer, 30 days left"
    assert "has the engine; agrees with that of the service" in found[f"service {running.url}"]["seen"]
    assert found["agents"]["seen"] == "connected: local"
    assert not (tmp_path / "home").exists()

    code, found = doctor(running, **told | {"BEAMWAY_TOKEN": running.tokens["viewer"]})
    assert (code, found["token"]["result"]) == (1, "failed"), "it ends within the hour"
    code, found = doctor(running, **told | {"BEAMWAY_TOKEN": f"{long}x"})
    assert code == 1
    assert "not known here" in found["token"]["seen"]
    assert Secret(long).reveal() not in json.dumps(found)


def test_an_agent_s_token_says_which_site_it_serves(running: Running) -> None:
    said = running.ask("GET", "/token", "agent").json()
    assert (said["role"], said["site"], said["name"]) == ("agent", "local", "a agent")
