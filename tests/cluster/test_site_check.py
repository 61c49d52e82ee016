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


def test_reservations_are_made_and_given_back_by_commands(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "trial.toml").write_text(profile_toml(cluster))

    def reservation(*words: str) -> tuple[int, Any]:
        argv = [sys.executable, "-m", "orchestrator.cli", "reservation", *words, "--json"]
        environment = {**os.environ, "BEAMWAY_HOME": str(tmp_path)}
        said = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
        return said.returncode, msgspec.json.decode(said.stdout)

    code, made = reservation("create", "trial", "beam", "--for", "2h", "--nodes", "2")
    assert (code, made["node_count"], made["queue"]) == (0, 2, "regular")
    code, longer = reservation("extend", "trial", "beam", "--for", "1h")
    assert code == 0
    assert longer["until"] > made["until"]
    assert [r["name"] for r in reservation("ls", "trial")[1]] == ["beam"]
    code, refused = reservation("create", "trial", "big", "--for", "1h", "--nodes", "3")
    assert code != 0
    assert "only 2 of the 3 nodes" in refused["error"]["sentence"]
    assert reservation("delete", "trial", "baem")[1]["error"]["sentence"].endswith("Did you mean 'beam'?")
    assert reservation("delete", "trial", "beam") == (0, {"name": "beam", "deleted": True})
    assert reservation("ls", "trial") == (0, [])
