"""What several tests need: a home of their own, a client whose service ends with the test, the real data sets."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings

from orchestrator.client import Client
from orchestrator.model import Run
from orchestrator.settings import Secret, Settings
from orchestrator.transfer.globus.transfer import GlobusTransfer
from tests.globus import CLIENT, SECRET, Globus
from tests.globus.ends import Ends
from tests.postgres import Postgres
from tests.postgres import missing as postgres_missing

# A busy machine is no failure; and what continuous integration tries is the same at each run.
settings.register_profile(
    "beamway", deadline=None, derandomize=bool(os.environ.get("CI")), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("beamway")

ROOT = Path(__file__).resolve().parents[1]
os.environ["PYTHONPATH"] = str(ROOT)  # workers call functions that live beside the tests

DATA = Path(os.environ.get("BEAMWAY_TEST_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets, which are not part of this repository."""
    if not DATA.is_dir():
        pytest.skip(f"the real data sets are not at {DATA}; set BEAMWAY_TEST_DATA")
    return DATA


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose processes are gone when the test is over."""
    place = tmp_path / "home"
    yield place
    end_processes_of(place)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL. Who harms it makes one of their own."""
    if reason := postgres_missing():
        pytest.skip(reason)
    with Postgres() as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new, empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/x.db"
    cluster: Postgres = request.getfixturevalue("postgres")
    return cluster.new_database()


@pytest.fixture
def client(home: Path) -> Iterator[Client]:
    with Client(Settings(home=home)) as made:
        yield made
        made.stop_service()


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One warm service for the tests of a module that do not harm it."""
    place = tmp_path_factory.mktemp("shared") / "home"
    with Client(Settings(home=place)) as made:
        yield made
        made.stop_service()
    end_processes_of(place)


@pytest.fixture
def finish() -> Callable[..., Run]:
    """Run a definition given as a dict to its end."""

    def run(client: Client, definition: dict[str, Any], arguments: dict[str, str] | None = None, **more: Any) -> Run:
        return wait(client, submit(client, definition, arguments, **more))

    return run


def submit(
    client: Client, definition: dict[str, Any], arguments: dict[str, str] | None = None, *, directory: Path | str = ""
) -> str:
    from orchestrator.definition import loader

    plan = client.plan(loader.load(definition), arguments or {}, directory=str(directory))
    return client.submit(plan)


def wait(client: Client, run_id: str, timeout_s: float = 90.0) -> Run:
    *_, last = client.follow(run_id, timeout_s=timeout_s)
    return last


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def workflow(**stages: Any) -> dict[str, Any]:
    """A definition with these stages; `a__b` in a name becomes `a-b`."""
    named = {name.replace("__", "-").lstrip("s"): stage for name, stage in stages.items()}
    return {"name": "test", "owner": "tester", "stages": named}


def end_processes_of(home: Path) -> None:
    needle = f"BEAMWAY_HOME={home}".encode()
    for process in psutil.process_iter():
        try:
            if needle in Path(f"/proc/{process.pid}/environ").read_bytes():
                process.kill()
        except (OSError, psutil.Error):
            continue


@pytest.fixture
def globus() -> Iterator[Globus]:
    """The stand-in for Globus, for the real SDK."""
    with Globus() as running:
        yield running


@pytest.fixture
def ends(globus: Globus, tmp_path: Path) -> Iterator[Ends]:
    raw, archive = globus.collection(tmp_path / "raw"), globus.collection(tmp_path / "archive")
    folder = tmp_path / "globus"
    made = Ends(globus, raw, archive, folder, GlobusTransfer(CLIENT, Secret(SECRET), folder, retries=1))
    made.fill("a.h5")
    yield made
    made.transfer.close()
