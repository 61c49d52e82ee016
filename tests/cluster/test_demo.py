"""One definition file, the standard tomography workflow, in every way that a site with a scheduler can run it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kernels import contract
from kernels.hedm.grains import read_grains
from kernels.hedm.nearfield.writers import read_map
from orchestrator.jobs import JobState
from orchestrator.model import Placing, Run, RunStatus
from orchestrator.schedulers.sge import GridEngine
from slurm import reservations
from slurm.client import Slurm
from slurm.cluster import Cluster, profile_toml
from tests.cluster import gridengine, hosts
from tests.cluster import slurm as trial
from tests.cluster.product import Product, product

pytestmark = pytest.mark.timeout(240)


WAYS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "pilot": ({"mode": "pilot"}, {}),
    "batch": ({"mode": "batch"}, {}),
    "reservation": ({"mode": "pilot", "reservation": "beam"}, {}),
    "mpi": ({"mode": "pilot"}, {"nodes": "2", "ranksPerNode": "2", "coresPerRank": "1"}),
    "mpi batch": ({"mode": "batch"}, {"nodes": "2", "ranksPerNode": "2", "coresPerRank": "1"}),
    "gpus": ({"mode": "batch"}, {"nodes": "2", "ranksPerNode": "2", "coresPerRank": "1", "gpusPerRank": "1"}),
    "gpus of a pilot": ({"mode": "pilot"}, {"coresPerRank": "1", "gpusPerRank": "2"}),
}


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    arguments = {"output": str(path), "columns": "128", "rows": "40", "angles": "181"}
    contract.run("tomography.simulate", arguments, say=None)
    return path


@pytest.fixture(scope="module")
def reference(scan: Path) -> str:
    """The checksum of the volume as one process makes it, from the axis as the workflow captures it."""
    out = scan.with_name("alone.zarr")
    axis = contract.run("tomography.axis", {"input": str(scan), "output": str(scan.with_name("axis.nxs"))}, say=None)
    captured = contract.metric_line("rotation_axis", axis.metrics["rotation_axis"]).split()[-1]
    contract.run("tomography.reconstruct", {"input": str(scan), "output": str(out), "rotationAxis": captured}, say=None)
    return volume_of(out)["checksum"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with trial.running() as here:
        yield here


@pytest.fixture(scope="module")
def on_slurm(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    slurm = Slurm(environment=cluster.environment)
    with product(tmp_path_factory.mktemp("slurm"), profile_toml(cluster), slurm) as made:
        yield made


@pytest.fixture(scope="module")
def on_grid_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    if reason := gridengine.missing() or hosts.missing():
        pytest.skip(reason)
    tmp = tmp_path_factory.mktemp("sge")
    with gridengine.running(two_hosts=True) as engine:
        text = engine.profile_toml("engine", scratch=tmp / "scratch")
        text += f'\n[execution]\nmode = "pilot"\naddress = "{engine.address}"\n'
        with product(tmp, text, GridEngine(environment=engine.environment), site="engine") as made:
            yield made


def volume_of(volume: Path) -> dict[str, str]:
    """What the manifest says of the volume."""
    record = json.loads(Path(f"{volume}.manifest.json").read_text())
    return {**record["outputs"][0], "provenance": record["provenance"]}


def reconstruct(here: Product, scan: Path, out: Path, placing: dict[str, str], arguments: dict[str, str]) -> Run:
    definition = here.client.definition("tomography")
    given = {"filePath": str(scan), "outputDir": str(out), **arguments}
    plan = here.client.plan(definition, given, placing=Placing(site=here.site, **placing))
    return here.wait(here.client.submit(plan), 180)


@pytest.mark.parametrize("way", WAYS)
def test_the_demo_on_slurm(on_slurm: Product, scan: Path, reference: str, way: str, tmp_path: Path) -> None:
    placing, arguments = WAYS[way]
    slurm = on_slurm.scheduler
    assert isinstance(slurm, Slurm)
    if "reservation" in placing:
        now = time.time()
        reservations.create(slurm, "beam", from_at=now, until_at=now + 3600, nodes=2, users=["root"])
    run = reconstruct(on_slurm, scan, tmp_path / "out", placing, arguments)
    assert run.status is RunStatus.DONE, run.error
    made = volume_of(tmp_path / "out" / "volume.zarr")
    assert made["checksum"] == reference  # bit by bit, however it was run
    ranks = int(arguments.get("nodes", 1)) * int(arguments.get("ranksPerNode", 1))
    gpus = int(arguments.get("gpusPerRank", 0))
    provenance = made["provenance"]
    assert isinstance(provenance, dict)
    assert (provenance["ranks"], len(provenance["devices"])) == (ranks, gpus)
    if placing["mode"] == "batch":  # a run is done when its outcome is there, a moment before its job is over
        on_slurm.until(lambda: {job.state for job in on_slurm.jobs_of(run.id)} == {JobState.DONE}, 30, "its jobs' end")
        assert len(on_slurm.jobs_of(run.id)) == len(run.tasks)
    else:
        assert on_slurm.jobs_of(run.id) == []
    if "reservation" in placing:
        assert "beam" in {job.reservation for job in slurm.mine("bwp-") if job.state is JobState.RUNNING}
        assert {task.attempt for task in run.tasks.values()} == {1}
        slurm.cancel([job.id for job in slurm.mine("bwp-")])
        slurm.calls.run(["scontrol", "update", "ReservationName=beam", "Duration=1"])


@pytest.mark.parametrize("way", WAYS)
def test_the_demo_on_grid_engine(on_grid_engine: Product, scan: Path, reference: str, way: str, tmp_path: Path) -> None:
    placing, arguments = WAYS[way]
    engine = on_grid_engine.scheduler
    assert isinstance(engine, GridEngine)
    number = ""
    if "reservation" in placing:
        number = engine.reserve("beam", from_at=time.time() + 2, until_at=time.time() + 1800, slots=4)
    try:
        run = reconstruct(on_grid_engine, scan, tmp_path / "out", placing, arguments)
    finally:
        if number:
            engine.release(number)
    assert run.status is RunStatus.DONE, run.error
    assert {task.attempt for task in run.tasks.values()} == {1}
    made = volume_of(tmp_path / "out" / "volume.zarr")
    assert made["checksum"] == reference
    provenance = made["provenance"]
    assert isinstance(provenance, dict)
    ranks = int(arguments.get("nodes", 1)) * int(arguments.get("ranksPerNode", 1))
    assert (provenance["ranks"], len(provenance["devices"])) == (ranks, int(arguments.get("gpusPerRank", 0)))
    assert len(on_grid_engine.jobs_of(run.id)) == (len(run.tasks) if placing["mode"] == "batch" else 0)


def test_ranks_on_slurm_find_the_same_grains(on_slurm: Product, tmp_path: Path) -> None:
    frames, crystal = tmp_path / "a.h5", {"lattice": "4.0782", "spaceGroup": "Fm-3m"}
    sample = {"sampleRadius": "300", "sampleHeight": "150"}
    made = {"grains": 8, "rows": 256, "columns": 256, "pixelSize": 800, "frames": 360, "omegaStep": 1, "mosaicity": 0.4}
    contract.run("hedm.simulate", {"output": str(frames), **made, **crystal, **sample}, say=None)
    given = {"filePath": str(frames), "geometryPath": str(tmp_path / "a_geometry.yml"), **crystal, **sample}
    parallel = {"nodes": "2", "ranksPerNode": "2", "coresPerRank": "1", "outputDir": str(tmp_path / "out")}
    definition = on_slurm.client.definition("hedm_ff")
    plan = on_slurm.client.plan(definition, {**given, **parallel}, placing=Placing(site=on_slurm.site, mode="pilot"))
    run = on_slurm.wait(on_slurm.client.submit(plan), 200)
    assert run.status is RunStatus.DONE, run.error
    record = json.loads((tmp_path / "out" / "grains.nxs.manifest.json").read_text())
    assert record["provenance"]["ranks"] == 4
    alone = {"input": str(tmp_path / "out" / "spots.h5"), "output": str(tmp_path / "alone.nxs"), **crystal, **sample}
    contract.run("hedm.farfield", {**alone, "geometry": given["geometryPath"]}, say=None)
    one, four = read_grains(tmp_path / "alone.nxs"), read_grains(tmp_path / "out" / "grains.nxs")
    assert len(one) == 8
    assert np.array_equal(one.spots, four.spots)
    # OpenBLAS rounds as the processor is that it takes itself to be on, which a job's environment may say otherwise.
    for name, tolerance in (("orientation", 1e-12), ("position_um", 1e-8), ("strain", 1e-12)):
        assert np.abs(getattr(one, name) - getattr(four, name)).max() < tolerance, name


def test_ranks_on_slurm_make_the_same_map(on_slurm: Product, tmp_path: Path) -> None:
    truth, crystal = tmp_path / "l.h5", {"lattice": "4.0782", "spaceGroup": "Fm-3m"}
    layer = {"rings": "5", "width": "120", "voxelSize": "6"}
    made = {"output": str(truth), "grains": 4, "rows": 320, "columns": 448, **crystal, **layer}
    contract.run("hedm.simulate-layer", made, say=None)
    near, far = ({end: str(tmp_path / f"l_{name}.{end}") for end in ("h5", "yml")} for name in ("near", "far"))
    given = {"filePath": near["h5"], "geometryPath": near["yml"], "farPaths": far["h5"], "farGeometryPaths": far["yml"]}
    given |= {"seedsPath": str(truth), "threshold": "50", "memory": "2GB"}  # a node of the trial cluster has 6 GB
    parallel = {"nodes": "2", "ranksPerNode": "1", "coresPerRank": "1", "outputDir": str(tmp_path / "out")}
    definition = on_slurm.client.definition("hedm_nf")
    every = {**given, **crystal, **layer, **parallel}
    plan = on_slurm.client.plan(definition, every, placing=Placing(site=on_slurm.site, mode="pilot"))
    run = on_slurm.wait(on_slurm.client.submit(plan), 200)
    assert run.status is RunStatus.DONE, run.error
    record = json.loads((tmp_path / "out" / "map.nxs.manifest.json").read_text())
    assert record["provenance"]["ranks"] == 2
    alone = {name: f"{near[end]},{far[end]}" for name, end in (("input", "h5"), ("geometry", "yml"))}
    alone |= {"output": str(tmp_path / "alone.nxs"), "seeds": str(truth), "threshold": "50"}
    contract.run("hedm.nearfield", {**alone, **crystal, **layer}, say=None)
    one, two = read_map(tmp_path / "alone.nxs"), read_map(tmp_path / "out" / "map.nxs")
    assert len(one.segments.voxels) == 4
    for name in ("orientations", "confidence", "expected"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), name)
    np.testing.assert_array_equal(one.segments.grain, two.segments.grain)


def test_ranks_see_their_own_devices_only(on_slurm: Product) -> None:
    seen = on_slurm.work / "devices"
    stage = {
        "function": "tests.cluster.calls:rank_of",
        "arguments": {"path": str(seen)},
        "resources": {"nodes": 2, "ranksPerNode": 2, "gpusPerRank": 1},
    }
    run = on_slurm.run({"01-A": stage}, mode="batch")
    assert run.status is RunStatus.DONE, run.error
    lines = [line.split() for line in seen.read_text().splitlines()]
    assert sorted((int(rank), device) for rank, _, device in lines) == [(0, "0"), (1, "1"), (2, "0"), (3, "1")]
    assert len({(node, device) for _, node, device in lines}) == 4


def test_a_site_is_chosen_for_each_stage(on_slurm: Product, scan: Path, tmp_path: Path) -> None:
    """`site: auto`: what needs two nodes goes to the cluster, and the table says why."""
    client = on_slurm.client
    definition = client.definition("tomography")
    given = {"filePath": str(scan), "outputDir": str(tmp_path / "out"), "nodes": "2", "coresPerRank": "1"}
    plan = client.plan(definition, given, placing=Placing(site="auto"))
    tables = {found.stage: found for found in client.placements(plan)}
    wide = tables["05-reconstruct"]
    assert wide.chosen is not None
    assert wide.chosen.site == "trial"
    assert "needs 2 nodes; local has 1" in {c.excluded for c in wide.table if c.site == "local"}
    assert "scheduler's estimate" in wide.chosen.queue_basis
    run = on_slurm.wait(client.submit(plan), 180)
    assert run.status is RunStatus.DONE, run.error
    assert run.stages["05-reconstruct"].site == "trial"
    assert "predicted" in run.stages["05-reconstruct"].placed
