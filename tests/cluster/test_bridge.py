"""A scan at the beamline, reconstructed in a reservation at a facility, and home again: by GridFTP, and by Globus.

Each GridFTP server is on a host with a network of its own; the facility is the trial cluster. Globus is the stand-in,
asked by the real SDK. Both sites have both doors: that of a collection comes first, and reaches one folder only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import xxhash

from kernels import contract
from orchestrator.cli import demo_facility
from orchestrator.client import Client
from orchestrator.jobs import JobState
from orchestrator.model import Run, RunStatus
from orchestrator.settings import Settings
from orchestrator.store.watches import Wish
from slurm import reservations
from slurm.client import Slurm
from slurm.cluster import profile_toml
from tests import gridftp
from tests.cluster import hosts
from tests.cluster import slurm as trial
from tests.conftest import end_processes_of, wait
from tests.globus import CLIENT, SECRET, Globus
from tests.globus.world import Collection
from tests.gridftp import Gridftp

pytestmark = pytest.mark.timeout(400)


class Bridge(NamedTuple):
    client: Client
    slurm: Slurm
    beamline: Gridftp
    facility: Gridftp
    globus: Globus
    ours: Collection
    theirs: Collection


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    if reason := gridftp.missing() or hosts.missing():
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("bridge")
    home = place / "home"
    (home / "sites").mkdir(parents=True)
    (home / "settings.toml").write_text(f'globus_client = "{CLIENT}"\nglobus_secret = "{SECRET}"\n')
    with (
        Globus() as globus,
        trial.running(nodes=2) as cluster,
        hosts.neighbours(place, "beamline", "facility") as [(here, at_home), (there, at_facility)],
        Gridftp(host=here, address=at_home) as beamline,
        Gridftp(host=there, address=at_facility) as facility,
        Client(Settings(home=home)) as client,
    ):
        own = '[identity]\nname = "local"\ncontact = "the beamline"\n'
        ours, theirs = globus.collection(place / "ours"), globus.collection(place / "theirs")
        (home / "sites" / "local.toml").write_text(own + ours.door + beamline.door)
        (home / "sites" / "trial.toml").write_text(profile_toml(cluster) + theirs.door + facility.door)
        slurm = Slurm(environment=cluster.environment)
        now = time.time()
        reservations.create(slurm, "beam", from_at=now, until_at=now + 3600, nodes=1, users=["root"])
        try:
            yield Bridge(client, slurm, beamline, facility, globus, ours, theirs)
        finally:
            client.stop_service()
            end_processes_of(home)


def taken(place: Path) -> Path:
    """A scan, and the truth about it elsewhere."""
    path = place / "scan 01.h5"
    place.mkdir()
    contract.run("tomography.simulate", {"output": str(path), "columns": 96, "rows": 8, "angles": 121}, say=None)
    return path


def reconstructed(bridge: Bridge, name: str, tmp_path: Path, ours: Path, there: Path) -> Run:
    """From its arrival in a watched folder: its volume at home as good as the truth, its products verified, and
    nothing left there."""
    raw = ours / "raw"
    raw.mkdir()
    raw.chmod(0o777)  # the server is another account
    made = taken(tmp_path / "detector")
    given = {
        "truthPath": str(made.with_name("scan 01_truth.h5")),
        "site": "trial",
        "stageIn": str(there / "scratch"),
        "reservation": "beam",
        "coresPerRank": "1",
    }
    rules = f'workflow = "tomography_remote"\nmatch = "*.h5"\narguments = {toml(given)}\nready.layout = "dxchange"\n'
    bridge.client.watches.put(Wish(rules, directory=str(raw), experiment=name))
    scan = raw / made.name
    shutil.copy(made, scan)  # as it is written: the watcher sees it grow
    arrival = until(lambda: next((a for a in bridge.client.watches.arrivals(watch=name) if a.run_id), None))
    run = wait(bridge.client, arrival.run_id, 300)
    assert run.status is RunStatus.DONE, run.error
    assert "beam" in {job.reservation for job in bridge.slurm.mine("bwp-") if job.state is JobState.RUNNING}
    record = json.loads((raw / f"{scan.name}.reconstruction" / "volume.zarr.manifest.json").read_text())
    made_at = Path(record["outputs"][0]["path"])
    assert made_at.is_relative_to(there / "scratch" / run.id)
    assert not made_at.parents[1].exists()
    assert float(run.variables["relativeError"]) < 0.15
    assert run.variables["productsVerified"] == "6"
    # The content that arrived is the content that was computed from.
    checksum = f"xxh3:{xxhash.xxh3_128_hexdigest(scan.read_bytes())}"
    assert run.variables["inputChecksum"] == checksum
    (child,) = [bridge.client.run(s.id) for s in bridge.client.runs() if s.parent.startswith(run.id)]
    read = [content for t in child.tasks.values() if t.outcome for content in t.outcome.inputs]
    assert {c.checksum for c in read if c.path.endswith("/scan.h5")} == {checksum}
    return run


def until(what: Callable[[], Any], within_s: float = 60.0) -> Any:
    over = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < over
        time.sleep(0.1)
    return found


def toml(values: dict[str, str]) -> str:
    return "{ " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items()) + " }"


def schemes(run: Run) -> set[str]:
    """Of the ends of its transfers."""
    moved = [t.arguments for t in run.tasks.values() if "to" in t.arguments]
    assert len(moved) == 2
    return {str(arguments[end]).partition("://")[0] for arguments in moved for end in ("from", "to")}


def test_a_scan_goes_there_and_its_volume_comes_home(bridge: Bridge, tmp_path: Path) -> None:
    run = reconstructed(bridge, "by-gridftp", tmp_path, bridge.beamline.root, bridge.facility.root)
    assert schemes(run) == {"ftp"}


def test_the_same_by_globus(bridge: Bridge, tmp_path: Path) -> None:
    """A byte that was wrong at first is sent again."""
    bridge.globus.faults.corrupt_files = 1
    run = reconstructed(bridge, "by-globus", tmp_path, bridge.ours.root, bridge.theirs.root)
    assert schemes(run) == {"globus"}
    there, back = bridge.globus.tasks.values()
    assert (there.doc["faults"], back.doc["faults"]) == (1, 0)
    assert not list(bridge.ours.root.rglob("*.part"))


@pytest.mark.skipif(bool(demo_facility.missing()), reason=demo_facility.missing())
def test_the_demo_with_a_facility_leaves_no_process(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "orchestrator.cli", "demo", "--facility", "--size", "small", "--json"]
    where = [*argv, "--directory", str(tmp_path)]
    environment = {**os.environ, "TMPDIR": tempfile.mkdtemp(prefix="bw-d-")}
    Path(environment["TMPDIR"]).chmod(0o755)
    try:
        done = subprocess.run(where, env=environment, capture_output=True, text=True, check=False, timeout=360)
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        assert record["relative_error"] < 0.15
        assert environment["TMPDIR"].encode() not in b"".join(map(words_of, psutil.process_iter()))
    finally:
        shutil.rmtree(environment["TMPDIR"], ignore_errors=True)


def words_of(process: psutil.Process) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process.pid}/cmdline").read_bytes()
    return b""
