"""Ranks as Slurm starts them: one world through PMIx, or none at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels import contract
from orchestrator.model import RunStatus
from slurm.client import Slurm
from slurm.cluster import Cluster, profile_toml
from tests.cluster import slurm as trial
from tests.cluster.product import product

RECONSTRUCT = [sys.executable, "-m", "kernels", "tomography.reconstruct"]
# Ranks of different nodes are on one machine here: the shared memory of Open MPI takes one for another.
OPEN_MPI = {"OMPI_MCA_btl": "self,tcp", "OMPI_MCA_btl_tcp_if_include": "lo"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with trial.running(nodes=2) as here:
        yield here


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    contract.run("tomography.simulate", {"output": str(path), "columns": "96", "rows": "70", "angles": "91"}, say=None)
    return path


def srun(cluster: Cluster, *words: str, ranks: int = 4) -> subprocess.CompletedProcess[str]:
    argv = ["srun", "--nodes=2", f"--ntasks={ranks}", "--cpus-per-task=1", "--kill-on-bad-exit=1", *words]
    environment = {**os.environ, **cluster.environment, **OPEN_MPI}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=100)


def test_pmix_joins_the_ranks_and_the_volume_is_the_same(cluster: Cluster, scan: Path, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone.zarr", tmp_path / "together.zarr"
    contract.run("tomography.reconstruct", {"input": str(scan), "output": str(alone)}, say=None)
    said = srun(cluster, "--mpi=pmix", *RECONSTRUCT, "--input", str(scan), "--output", str(together))
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("product ") == 1
    files = [p.relative_to(alone) for p in alone.rglob("*") if p.is_file()]
    assert files == [p for p in files if (together / p).read_bytes() == (alone / p).read_bytes()]


@pytest.mark.parametrize("kind", ["none", "pmi2"])
def test_without_pmix_no_rank_does_the_work_alone(cluster: Cluster, kind: str, scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.zarr"
    said = srun(cluster, f"--mpi={kind}", *RECONSTRUCT, "--input", str(scan), "--output", str(out))
    assert said.returncode != 0
    assert "product" not in said.stdout
    assert not list(tmp_path.iterdir())


def test_a_failing_rank_ends_all_and_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    words = ["--input", str(tmp_path / "no.h5"), "--output", str(tmp_path / "v.zarr")]
    said = srun(cluster, "--mpi=pmix", *RECONSTRUCT, *words)
    assert said.returncode == 66
    assert said.stderr.count("error bad input: The input") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(240)
def test_workers_on_each_node_of_a_block_are_no_ranks(cluster: Cluster, scan: Path, tmp_path: Path) -> None:
    """The launcher that starts one worker a node says two, and means no kernel."""
    profile = profile_toml(cluster, execution={"blocks": 1, "block_nodes": 2})
    with product(tmp_path, profile, Slurm(environment=cluster.environment)) as here:
        call = {"kernel": "tomography.inspect", "arguments": {"input": str(scan)}}
        run = here.run({"1": call}, mode="pilot", timeout_s=150)
        assert run.status is RunStatus.DONE, run.error
