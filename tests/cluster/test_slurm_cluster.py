"""The trial cluster is a real one: jobs, devices, preemption, faults, accounting; and nothing is left of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import Conflict, Unavailable
from sites import loader
from slurm import cluster
from slurm.cluster import Cluster, daemons, processes
from tests.cluster import slurm

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def trial() -> Iterator[Cluster]:
    with slurm.running() as here:
        yield here


def submit(here: Cluster, script: str, *words: str) -> str:
    return here.run("sbatch", "--parsable", "-o", "/dev/null", *words, text=f"#!/bin/bash\n{script}\n").strip()


def state(here: Cluster, job: str) -> str:
    return here.run("squeue", "--noheader", "--states=all", "--jobs", job, "--format=%T").strip()


def until(what: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)


def test_up_means_that_all_nodes_are_idle(trial: Cluster) -> None:
    assert trial.node_states() == dict.fromkeys(("n1", "n2", "n3", "n4"), "idle")
    assert all(daemon.pid for daemon in cluster.status(trial.directory))


def test_up_again_changes_nothing_and_another_shape_is_refused(trial: Cluster) -> None:
    before = [daemon.pid for daemon in cluster.status(trial.directory)]
    assert cluster.up(trial.directory).plan == trial.plan
    assert [daemon.pid for daemon in cluster.status(trial.directory)] == before
    with pytest.raises(Conflict, match="nodes is 4"):
        cluster.up(trial.directory, nodes=2)


def test_a_job_sees_the_devices_that_it_asked_for(trial: Cluster, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    job = submit(trial, f'echo "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES" > {seen}', "-w", "n3", "--gpus-per-node=2")
    until(lambda: state(trial, job) == "COMPLETED")
    assert seen.read_text() == "n3 0,1\n"


def test_tasks_of_a_job_get_a_device_each(trial: Cluster, tmp_path: Path) -> None:
    step = "srun -n4 --gpus-per-task=1 bash -c 'echo \"$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES\"'"
    job = submit(trial, f"{step} > {tmp_path}/seen", "-N2", "--ntasks-per-node=2", "--gpus-per-node=2")
    until(lambda: state(trial, job) == "COMPLETED")
    lines = (tmp_path / "seen").read_text().split("\n")[:-1]
    assert len(set(lines)) == 4
    assert {line.split()[1] for line in lines} == {"0", "1"}


def test_realtime_preempts_regular_which_goes_on_later(trial: Cluster) -> None:
    long = submit(trial, "sleep 300", "-N4", "--exclusive")
    until(lambda: state(trial, long) == "RUNNING")
    urgent = submit(trial, "sleep 1", "-p", "realtime", "-N1", "--exclusive")
    until(lambda: state(trial, urgent) == "COMPLETED")
    assert state(trial, long) == "PENDING"
    until(lambda: state(trial, long) == "RUNNING")
    trial.run("scancel", long)
    until(lambda: set(trial.node_states().values()) == {"idle"})


def test_more_memory_than_asked_for_ends_a_job(trial: Cluster) -> None:
    job = submit(trial, "python3 -c 'import time; x = bytearray(400_000_000); time.sleep(60)'", "--mem=100")
    until(lambda: state(trial, job) in ("FAILED", "OUT_OF_MEMORY"))


def test_a_paused_controller_answers_nobody(trial: Cluster) -> None:
    trial.pause_controller()
    try:
        with pytest.raises(Unavailable, match="longer than"):
            trial.run("squeue", timeout_s=1.5)
    finally:
        trial.resume_controller()
    trial.run("squeue")


def test_a_node_whose_power_is_cut_leaves_no_process(trial: Cluster, tmp_path: Path) -> None:
    script = f"setsid sleep 7311 & echo $! > {tmp_path}/pid; srun sleep 7312"
    job = submit(trial, script, "-w", "n2", "--no-requeue")
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    pid = int((tmp_path / "pid").read_text())
    trial.kill_node("n2")
    assert processes.wait_gone([pid], 1.0) == set()
    assert not trial.node_processes("n2")
    # Started again at once, the controller would not notice that the job is gone: first it has to miss the node.
    until(lambda: trial.node_states()["n2"].startswith("down"))
    trial.start_node("n2")
    until(lambda: state(trial, job) in ("NODE_FAIL", "FAILED", ""))
    until(lambda: trial.node_states()["n2"] == "idle")


def test_the_controller_comes_back_with_its_jobs(trial: Cluster) -> None:
    job = submit(trial, "sleep 300")
    until(lambda: state(trial, job) == "RUNNING")
    trial.stop_controller()
    assert trial.pid("slurmctld") == 0
    trial.start_controller()
    assert state(trial, job) == "RUNNING"
    trial.run("scancel", job)


def test_down_leaves_no_process(tmp_path: Path) -> None:
    """Neither the daemons nor what a job has left in the background."""
    with slurm.running(nodes=2) as here:
        top = here.directory
        script = f"(setsid sleep 7313 & echo $! > {tmp_path}/pid); srun sleep 7314"
        first = submit(here, script)
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
        assert cluster.down(top) >= 5
        assert processes.wait_gone([int((tmp_path / "pid").read_text())], 1.0) == set()
        assert not here.all_processes()
        assert not [pid for pid in processes.every() if str(top) in _command_line(pid)]
        assert {daemon.state for daemon in cluster.status(top)} == {"ended"}
        assert cluster.down(top) == 0
        again = cluster.up(top, nodes=2)  # and numbers of jobs are not used twice
        assert int(submit(again, "true")) > int(first)


def test_a_shell_that_only_uses_the_cluster_is_not_ended() -> None:
    with slurm.running(nodes=1) as here, subprocess.Popen(["sleep", "60"], env=os.environ | here.environment) as user:
        cluster.down(here.directory)
        assert user.poll() is None
        user.kill()


def test_accounting_knows_the_jobs() -> None:
    with slurm.running(accounting=True, nodes=2) as here:
        job = submit(here, "true", "--gpus-per-node=1", "-A", "other")
        ask = ("sacct", "-X", "--noheader", "-P", "-j", job, "-o", "State,Account,AllocTRES")
        until(lambda: here.run(*ask).startswith("COMPLETED|other|"))
        assert "gres/gpu=1" in here.run(*ask)
        with pytest.raises(Unavailable, match="Invalid account"):
            submit(here, "true", "-A", "nobody")


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def test_the_commands_add_a_site_and_take_it_away() -> None:
    if reason := daemons.missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="bw-") as top:
        home, site = Path(top) / "h", Path(top) / "h" / "sites" / "trial.toml"
        try:
            made = beamway(home, "up", "--nodes", "2")
            assert made["site"] == str(site)
            assert loader.load("trial", [site.parent]).scheduler.environment == made["environment"]
            assert [d["state"] for d in beamway(home, "status")] == ["running", "running", "idle", "idle"]
        finally:
            ended = beamway(home, "down")
        assert ended["site_removed"]
        assert not site.exists()
        site.write_text("[identity]\nname = 'trial'\ncontact = 'me'\n")
        assert beamway(home, "up")["error"]["exit_code"] == 5  # a site that was written by hand is not replaced
        assert "contact = 'me'" in site.read_text()


def beamway(home: Path, *words: str) -> Any:
    argv = [sys.executable, "-m", "orchestrator.cli", "slurm-cluster", *words, "--json"]
    done = subprocess.run(argv, env=os.environ | {"BEAMWAY_HOME": str(home)}, capture_output=True, timeout=90)
    return json.loads(done.stdout)
