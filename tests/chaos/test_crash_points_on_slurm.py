"""kill -9 of the agent before and after each of its effects on a real Slurm, on both databases.

The run ends as it should, and the scheduler has had one job of each token, and keeps none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.client import Client
from orchestrator.jobs import ALIVE
from orchestrator.model import RunStatus
from orchestrator.settings import Settings, ensure_home
from orchestrator.store.database import Database
from slurm.client import Slurm
from slurm.cluster import Cluster, profile_toml
from tests.cluster import slurm as trial
from tests.cluster.product import Product, attempts
from tests.conftest import end_processes_of

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with trial.running() as here:
        yield here


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return ""
    url = request.getfixturevalue("postgres").new_database()
    with Database(url) as opened:
        opened.upgrade()
    return str(url)


@pytest.fixture
def dies_at(
    cluster: Cluster, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Product]]:
    """A product whose processes die at that point, once."""
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    ensure_home(home)
    (home / "sites").mkdir()
    (home / "sites" / "trial.toml").write_text(profile_toml(cluster))
    if database:
        (home / "settings.toml").write_text(f'database = "{database}"\n')
    slurm = Slurm(environment=cluster.environment)
    with Client(Settings(home=home, database=database)) as client:

        def made(point: str) -> Product:
            monkeypatch.setenv("BEAMWAY_CRASH", point)
            monkeypatch.setenv("BEAMWAY_CRASH_MARK", str(tmp_path / "crashed"))
            return Product(home, work, client, slurm, "trial")

        try:
            yield made
        finally:
            client.stop_service()
            end_processes_of(home)
            slurm.cancel([job.id for job in slurm.mine("bw-") + slurm.mine("bwp-")])


def crashed(here: Product) -> bool:
    return any(here.home.parent.glob("crashed.*"))


def jobs_left(here: Product, run_id: str) -> list[str]:
    return [job.token for job in here.scheduler.mine(f"bw-{run_id}") if job.state in ALIVE]


@contextmanager
def one_job_a_token(here: Product, run_id: str) -> Iterator[None]:
    yield
    tokens = [job.token for job in here.jobs_of(run_id)]
    assert len(tokens) == len(set(tokens)), tokens
    here.until(lambda: not jobs_left(here, run_id), 30, "the end of its jobs")


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_as_it_submits_a_job(dies_at: Callable[[str], Product], when: str) -> None:
    here = dies_at(f"job.submit:{when}")
    run_id = here.start({"01-A": here.stage("once", 0.5)}, mode="batch")
    with one_job_a_token(here, run_id):
        run = here.wait(run_id, 180)
        assert run.status is RunStatus.DONE, run.error
    assert crashed(here)
    assert (len(here.began("once")), attempts(run)) == (1, [1])


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_as_it_submits_a_block(dies_at: Callable[[str], Product], when: str) -> None:
    here = dies_at(f"block.submit:{when}")
    run_id = here.start({"01-A": here.stage("once", 0.5)}, mode="pilot")
    run = here.wait(run_id, 180)
    assert run.status is RunStatus.DONE, run.error
    assert crashed(here)
    # A worker of the block that nobody knew of may have begun it: then that attempt was lost, and recorded.
    assert 1 <= len(here.began("once")) <= sum(attempts(run))
    here.client.stop_service()
    here.until(lambda: not here.scheduler.mine("bwp-"), 60, "the end of the blocks")


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_as_it_cancels_a_job(dies_at: Callable[[str], Product], when: str) -> None:
    here = dies_at(f"job.cancel:{when}")
    run_id = here.start({"01-A": here.stage("long", 100)}, mode="batch")
    here.until_began("long")
    here.client.cancel(run_id)
    with one_job_a_token(here, run_id):
        assert here.wait(run_id, 180).status is RunStatus.ABORTED
    assert crashed(here)
    assert here.ended("long") == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_as_it_cancels_a_block(dies_at: Callable[[str], Product], when: str) -> None:
    here = dies_at(f"block.cancel:{when}")
    first = here.wait(here.start({"01-A": here.stage("first")}, mode="pilot"), 180)
    assert first.status is RunStatus.DONE, first.error
    here.client.stop_service()
    assert crashed(here)
    second = here.wait(here.start({"01-A": here.stage("second")}, mode="pilot"), 180)
    assert second.status is RunStatus.DONE, second.error
    assert len(here.began("first")) == 1
    assert 1 <= len(here.began("second")) <= sum(attempts(second))  # on the block that was to end, it is lost with it
    here.client.stop_service()
    here.until(lambda: not here.scheduler.mine("bwp-"), 60, "the end of the blocks")
