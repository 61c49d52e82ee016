"""The job script, run by bash as a scheduler would: what it records, whom it signals, and that it runs once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator import jobscript

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the script of `argv` as a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def run(argv: Sequence[str], *, job: str = "1", **more: object) -> subprocess.Popen[str]:
        script = tmp_path / f"script-{len(started)}"
        script.write_text(jobscript.body(argv, record=str(tmp_path / "record"), **more))  # type: ignore[arg-type]
        process = subprocess.Popen(
            ["bash", str(script)],
            env={**os.environ, "JOB_ID": job},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with process:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def until(path: Path, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def record(tmp_path: Path) -> jobscript.Record:
    found = jobscript.read(str(tmp_path / "record"))
    assert found is not None
    return found


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_status_of_the_payload_is_recorded_and_returned(start: Start, tmp_path: Path, status: int) -> None:
    assert start(["bash", "-c", f"exit {status}"], job="77").wait(20) == status
    left = record(tmp_path)
    assert (left.job, left.status, left.step, left.signal) == ("77", status, "run", "")
    assert 0 < left.started <= left.ended
    assert left.host


@pytest.mark.parametrize("status", [99, 100])
def test_a_status_that_means_something_to_grid_engine_is_recorded_and_not_returned(
    start: Start, tmp_path: Path, status: int
) -> None:
    assert start(["bash", "-c", f"exit {status}"]).wait(20) == 1
    assert record(tmp_path).status == status


def test_a_program_that_is_not_there_is_status_127(start: Start, tmp_path: Path) -> None:
    assert start(["/no/such/program"]).wait(20) == 127
    assert record(tmp_path).status == 127


def test_a_payload_killed_is_recorded_with_its_signal(start: Start, tmp_path: Path) -> None:
    assert start(["bash", "-c", "kill -KILL $$"]).wait(20) == 137
    assert record(tmp_path).status == 137


HOSTILE = ["a b", "$(touch hacked)", "`touch hacked`", "x; touch hacked", "'\"\\", "", "-n", "é\n#$ -N other", "*"]


def test_arguments_and_environment_reach_the_payload_as_they_are(start: Start, tmp_path: Path) -> None:
    program = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['BW_TEST']]))"
    process = start([sys.executable, "-c", program, *HOSTILE], environment={"BW_TEST": HOSTILE[1] + HOSTILE[4]})
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert json.loads(out) == [HOSTILE, HOSTILE[1] + HOSTILE[4]]
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("name", "group"), [("TERM", False), *((n, g) for n in ("USR1", "USR2") for g in (False, True))]
)
def test_a_signal_reaches_the_payload_as_term_and_it_gets_its_time(
    start: Start, tmp_path: Path, name: str, group: bool
) -> None:
    payload = "trap 'sleep 0.5; echo tidy >tidied; exit 5' TERM; touch ready; while :; do sleep 0.05; done"
    process = start(["bash", "-c", payload])
    until(tmp_path / "ready")
    time.sleep(0.1)
    (os.killpg if group else os.kill)(process.pid, getattr(signal, f"SIG{name}"))
    assert process.wait(20) == 5
    assert (tmp_path / "tidied").read_text() == "tidy\n"
    left = record(tmp_path)
    assert (left.signal, left.status, left.step) == (name, 5, "run")


def test_a_payload_that_ends_at_once_on_a_signal_has_its_own_status_recorded(start: Start, tmp_path: Path) -> None:
    program = (
        "import os, signal, time; signal.signal(15, lambda *_: os._exit(6)); open('ready', 'w').close(); time.sleep(60)"
    )
    process = start([sys.executable, "-c", program])
    until(tmp_path / "ready")
    process.terminate()
    assert process.wait(20) == 6
    assert record(tmp_path).status == 6


def test_a_payload_that_ignores_signals_is_waited_for(start: Start, tmp_path: Path) -> None:
    process = start(["bash", "-c", "trap '' TERM; touch ready; sleep 1; exit 3"])
    until(tmp_path / "ready")
    for _ in range(5):
        process.terminate()
        time.sleep(0.05)
    assert process.wait(20) == 3
    assert record(tmp_path).status == 3


def test_a_failing_line_of_the_profile_ends_it_at_step_init(start: Start, tmp_path: Path) -> None:
    process = start(["touch", "ran"], init=["export A=1", "false", "touch later"])
    assert process.wait(20) == 1
    assert (record(tmp_path).step, record(tmp_path).status) == ("init", 1)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "later").exists()


def test_a_line_of_the_profile_that_bash_cannot_read_leaves_a_record(start: Start, tmp_path: Path) -> None:
    assert start(["touch", "ran"], init=["fi"]).wait(20) == 2
    assert (record(tmp_path).step, record(tmp_path).status) == ("init", 2)
    assert not (tmp_path / "ran").exists()


def test_lines_of_the_profile_prepare_the_payload(start: Start, tmp_path: Path) -> None:
    init = ["export A='from init'", "status=9 step=mine record=/nowhere child=1", "cd /"]
    process = start(["bash", "-c", 'echo "$A"; pwd'], init=init)
    out, _ = process.communicate(timeout=20)
    assert out.splitlines() == ["from init", "/"]
    assert record(tmp_path).status == 0


def test_a_signal_while_it_prepares_ends_it(start: Start, tmp_path: Path) -> None:
    process = start(["touch", "ran"], init=["touch ready; sleep 0.5"])
    until(tmp_path / "ready")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == 143
    assert (record(tmp_path).step, record(tmp_path).signal) == ("init", "USR1")
    assert not (tmp_path / "ran").exists()


def test_a_script_that_is_killed_leaves_no_record(start: Start, tmp_path: Path) -> None:
    process = start(["bash", "-c", "touch ready; sleep 60"])
    until(tmp_path / "ready")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)
    assert jobscript.read(str(tmp_path / "record")) is None


def test_of_two_jobs_of_one_token_one_runs(start: Start, tmp_path: Path) -> None:
    argv = ["bash", "-c", "echo ran >>ran; sleep 0.3"]
    processes = [start(argv, job=str(number)) for number in range(6)]
    said = [process.communicate(timeout=20) for process in processes]
    assert [process.returncode for process in processes] == [0] * 6
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert sum("claimed by job" in err for _, err in said) == 5


def test_a_job_that_the_scheduler_runs_again_runs_again(start: Start, tmp_path: Path) -> None:
    argv = ["bash", "-c", "echo ran >>ran"]
    for _ in range(2):
        assert start(argv, job="5").wait(20) == 0
    assert (tmp_path / "ran").read_text() == "ran\nran\n"


def test_a_token_that_cannot_be_claimed_is_said(tmp_path: Path) -> None:
    script = jobscript.body(["touch", "ran"], record=str(tmp_path / "missing" / "record"))
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert done.returncode == 73
    assert "cannot write" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_record_that_is_not_whole_is_none(tmp_path: Path) -> None:
    path = tmp_path / "record"
    assert jobscript.read(str(path)) is None
    path.write_bytes(b"")
    assert jobscript.read(str(path)) is None
    path.write_bytes(b"job=1\nhost=\xff\nstarted=1\n")
    assert jobscript.read(str(path)) is None
    path.write_bytes(b"status=x\nstarted=soon\n")
    assert jobscript.read(str(path)) == jobscript.Record()


def test_no_part_of_a_record_is_left_behind(start: Start, tmp_path: Path) -> None:
    start(["true"]).wait(20)
    assert sorted(p.name for p in tmp_path.glob("record*")) == ["record", "record.claim"]


@pytest.mark.parametrize("name", ["a b", "a'b", "$(touch hacked)", "-x"])
def test_the_path_of_a_record_is_quoted(tmp_path: Path, name: str) -> None:
    script = jobscript.body(["true"], record=str(tmp_path / name))
    assert subprocess.run(["bash", "-c", script], cwd=tmp_path, timeout=20).returncode == 0
    assert jobscript.read(str(tmp_path / name)) is not None
    assert not (tmp_path / "hacked").exists()


def test_it_gives_signs_of_life_until_it_ends(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobscript, "BEAT_S", 0.1)
    process = start(["bash", "-c", "touch ready; while [ ! -e go ]; do sleep 0.05; done"])
    until(tmp_path / "ready")
    (beat,) = tmp_path.glob("*.beat")
    before = beat.stat().st_mtime_ns
    time.sleep(0.5)
    assert beat.stat().st_mtime_ns > before
    (tmp_path / "go").touch()
    assert process.wait(20) == 0
    assert not beat.exists()


def test_a_script_that_is_killed_gives_no_more_signs(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobscript, "BEAT_S", 0.1)
    process = start(["bash", "-c", "touch ready; sleep 60"])
    until(tmp_path / "ready")
    process.kill()
    process.wait(20)
    time.sleep(0.5)
    (beat,) = tmp_path.glob("*.beat")
    before = beat.stat().st_mtime_ns
    time.sleep(0.5)
    assert beat.stat().st_mtime_ns == before
