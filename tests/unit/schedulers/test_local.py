"""The scheduler that starts processes of this host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator import jobscript
from orchestrator.jobs import JobState
from orchestrator.schedulers.local import LocalScheduler
from tests.unit.schedulers.contract import Bench, SchedulerContract


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    work = tmp_path / "work"
    work.mkdir()
    return Bench(open=lambda: LocalScheduler(tmp_path / "ledger"), directory=work)


class TestLocal(SchedulerContract):
    def test_a_job_outlives_whoever_submitted_it(self, bench: Bench, tmp_path: Path) -> None:
        program = (
            "from orchestrator.jobs import JobSpec; from orchestrator.schedulers.local import LocalScheduler\n"
            "import sys; ledger, out, err = sys.argv[1:]\n"
            "print(LocalScheduler(ledger).submit_once(JobSpec('bw-lives', 'sleep 1; echo ran\\n', out, err)))"
        )
        paths = [str(tmp_path / name) for name in ("ledger", "out", "err")]
        done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        assert bench.until(done.stdout.strip()).state is JobState.DONE
        assert (tmp_path / "out").read_text() == "ran\n"

    def test_a_walltime_ends_all_processes_of_a_job(self, bench: Bench) -> None:
        number = bench.run("bw-wall", ["bash", "-c", "trap '' TERM; sleep 600 & sleep 600"], walltime_s=0.2)
        started = time.monotonic()
        job = bench.until(number)
        assert job.state is JobState.WALLTIME
        assert time.monotonic() - started < 15
        assert jobscript.read(f"{bench.directory}/bw-wall.record") is None

    def test_what_a_script_leaves_behind_is_ended(self, bench: Bench) -> None:
        number = bench.run("bw-left", ["bash", "-c", "sleep 600 & echo $! >bw-left.pid"])
        bench.until(number)
        pid = int((bench.directory / "bw-left.pid").read_text())
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_a_runner_that_is_killed_is_a_node_that_failed(self, bench: Bench, tmp_path: Path) -> None:
        number = bench.run("bw-killed", ["bash", "-c", "touch bw-up; sleep 600"])
        bench.wait_for("bw-up")
        (folder,) = (tmp_path / "ledger").glob(f"{number}~*")
        os.kill(int((folder / "runner").read_text()), signal.SIGKILL)
        time.sleep(0.2)
        assert bench.scheduler.jobs([number])[number].state is JobState.RUNNING
        bench.scheduler.cancel([number])
        assert bench.until(number).state is JobState.CANCELLED

    def test_processes_that_are_gone_are_a_node_that_failed(self, bench: Bench, tmp_path: Path) -> None:
        number = bench.run("bw-lost-node", ["bash", "-c", "touch bw-up; exec sleep 600"])
        bench.wait_for("bw-up")
        (folder,) = (tmp_path / "ledger").glob(f"{number}~*")
        os.kill(int((folder / "runner").read_text()), signal.SIGKILL)
        os.killpg(json.loads((folder / "started.json").read_text())["pid"], signal.SIGKILL)
        job = bench.until(number)
        assert job.state is JobState.NODE
        assert job.reason

    def test_a_job_that_was_written_down_and_not_started_is_started(self, bench: Bench, tmp_path: Path) -> None:
        scheduler = LocalScheduler(tmp_path / "ledger")
        spec = bench.spec("bw-half", ["true"])
        scheduler.ping()
        scheduler._write_down(spec)
        assert [job.state for job in scheduler.find("bw-half")] == [JobState.PENDING]
        assert bench.until(scheduler.submit_once(spec, known=True)).state is JobState.DONE

    def test_a_directory_that_is_not_there_is_said(self, bench: Bench) -> None:
        job = bench.until(bench.run("bw-nowhere", ["true"], directory="/no/such/place"))
        assert job.state is JobState.REFUSED
        assert "/no/such/place" in job.reason
