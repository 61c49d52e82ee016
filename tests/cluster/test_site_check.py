"""`beamway site check` against a real Slurm: the trial cluster passes, and each thing that is wrong is named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from slurm.cluster import Cluster, profile_toml
from tests.cluster import slurm as trial


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with trial.running(accounting=True) as here:
        yield here


def check(cluster: Cluster, home: Path, *words: str, **changes: Any) -> tuple[int, dict[str, dict[str, Any]]]:
    (home / "sites").mkdir(parents=True, exist_ok=True)
    (home / "sites" / "trial.toml").write_text(profile_toml(cluster, **changes))
    argv = [sys.executable, "-m", "orchestrator.cli", "site", "check", "trial", "--json", *words]
    environment = {**os.environ, "BEAMWAY_HOME": str(home)}
    said = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=110)
    rows = msgspec.json.decode(said.stdout)
    assert isinstance(rows, list), said.stdout + said.stderr
    return said.returncode, {row["name"]: row for row in rows}


def failed(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: row for name, row in rows.items() if row["result"] == "failed"}


def test_the_trial_cluster_is_as_its_profile_says(cluster: Cluster, tmp_path: Path) -> None:
    code, rows = check(cluster, tmp_path, "--live")
    assert failed(rows) == {}
    assert code == 0
    assert any("mpi" in name.lower() or "rank" in name.lower() for name in rows)
    assert all(row["seconds"] >= 0 for row in rows.values())


def test_each_fault_is_named_with_its_remedy(cluster: Cluster, tmp_path: Path) -> None:
    """Wrong partition, missing account, no MPI, a scratch that cannot be written to."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    queues = [
        {"name": "regular", "use": "regular", "max_walltime_s": 3600},
        {"name": "regluar", "use": "debug", "max_walltime_s": 3600},
    ]
    code, rows = check(
        cluster,
        tmp_path,
        "--live",
        "--queue",
        "regular",
        queues=queues,
        accounts={"default": "nobody", "allowed": []},
        policies={"fallback": []},
        paths={"scratch": str(blocked / "scratch")},
    )
    assert code == 1
    said = {name: f"{row['seen']} {row['remedy']}" for name, row in failed(rows).items()}
    text = "\n".join(f"{name}: {words}" for name, words in said.items())
    assert "regluar" in text
    assert "nobody" in text
    assert "scratch" in text
    assert all(row["remedy"] for row in failed(rows).values())
    code, rows = check(cluster, tmp_path, "--live", launcher={"kind": "srun", "options": ["--mpi=none"]})
    assert code == 1
    assert any("mpi" in f"{name}{row['seen']}{row['remedy']}".lower() for name, row in failed(rows).items())
