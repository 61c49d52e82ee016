"""A scan at the beamline, reconstructed in a reservation at a facility, and home again: over two GridFTP servers.

Each server is on a host with a network of its own; the facility is the trial cluster.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kernels import contract
from orchestrator.client import Client
from orchestrator.jobs import JobState
from orchestrator.model import Run, RunStatus
from orchestrator.settings import Settings
from slurm import reservations
from slurm.client import Slurm
from slurm.cluster import profile_toml
from tests import gridftp
from tests.cluster import hosts
from tests.cluster import slurm as trial
from tests.conftest import end_processes_of, wait
from tests.gridftp import Gridftp

pytestmark = pytest.mark.timeout(240)


class Bridge(NamedTuple):
    client: Client
    slurm: Slurm
    beamline: Gridftp
    facility: Gridftp


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    if reason := gridftp.missing() or hosts.missing():
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("bridge")
    home = place / "home"
    (home / "sites").mkdir(parents=True)
    with (
        trial.running(nodes=2) as cluster,
        hosts.neighbours(place, "beamline", "facility") as [(here, at_home), (there, at_facility)],
        Gridftp(host=here, address=at_home) as beamline,
        Gridftp(host=there, address=at_facility) as facility,
        Client(Settings(home=home)) as client,
    ):
        own = '[identity]\nname = "local"\ncontact = "the beamline"\n'
        (home / "sites" / "local.toml").write_text(own + beamline.door)
        (home / "sites" / "trial.toml").write_text(profile_toml(cluster) + facility.door)
        try:
            yield Bridge(client, Slurm(environment=cluster.environment), beamline, facility)
        finally:
            client.stop_service()
            end_processes_of(home)


def scan(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "scan 01.h5"
    contract.run("tomography.simulate", {"output": str(path), "columns": 96, "rows": 8, "angles": 121}, say=None)
    folder.chmod(0o777)  # the server is another account
    return path


def reconstructed(bridge: Bridge, path: Path, **more: str) -> Run:
    given = {
        "filePath": str(path),
        "truthPath": str(path.with_name("scan 01_truth.h5")),
        "site": "trial",
        "stageIn": str(bridge.facility.root / "scratch"),
        "coresPerRank": "1",
        **more,
    }
    plan = bridge.client.plan(bridge.client.definition("tomography_remote"), given)
    return wait(bridge.client, bridge.client.submit(plan), 200)


def test_a_scan_goes_there_and_its_volume_comes_home(bridge: Bridge) -> None:
    path = scan(bridge.beamline.root / "raw")
    now = time.time()
    reservations.create(bridge.slurm, "beam", from_at=now, until_at=now + 3600, nodes=1, users=["root"])
    run = reconstructed(bridge, path, reservation="beam")
    assert run.status is RunStatus.DONE, run.error
    assert "beam" in {job.reservation for job in bridge.slurm.mine("bwp-") if job.state is JobState.RUNNING}
    home = path.with_name("scan 01.h5.reconstruction")
    record = json.loads((home / "volume.zarr.manifest.json").read_text())
    made_at = Path(record["outputs"][0]["path"])
    assert made_at.is_relative_to(bridge.facility.root / "scratch" / run.id)
    assert float(run.variables["relativeError"]) < 0.15
    assert run.variables["productsVerified"] == "4"
    assert not made_at.parents[1].exists()  # the copies there are gone, now that the products are here
    addresses = [t.arguments for t in run.tasks.values() if t.stage in ("01-stage-in", "03-stage-out")]
    assert all(str(a[end]).startswith("ftp://") for a in addresses for end in ("from", "to"))
