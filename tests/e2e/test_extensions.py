"""What Beamway adds to DM's language: checks, retries, time-outs, side by side, child runs, transfers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.client import Client
from orchestrator.model import FailureClass, RunStatus, StageStatus, TaskStatus
from tests.conftest import submit, wait, workflow

MAKE = "tests.e2e.makers"

BAD = {
    "missing": "exist",
    "empty": "empty",
    "short": "shape",
    "nan": "finite",
    "wrong_type": "dtype",
    "stale": "newer",
    "not_hdf5": "hdf5",
}


@pytest.mark.parametrize("fault", BAD)
def test_exit_zero_with_bad_output_is_failed_bad_output(shared_client: Client, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "out.h5"
    if fault == "stale":
        from tests.e2e.makers import make

        make(str(path), "good")
        time.sleep(0.2)
    run = wait(
        shared_client,
        submit(
            shared_client,
            workflow(
                s1={
                    "function": f"{MAKE}:make",
                    "arguments": {"path": str(path), "fault": fault},
                    "expect": {
                        str(path): {
                            "opens": "hdf5",
                            "dataset": "data",
                            "shape": [4, 8],
                            "dtype": "float32",
                            "finite": 1.0,
                        }
                    },
                },
                s2={"command": "true"},
            ),
        ),
    )
    assert run.status is RunStatus.FAILED
    outcome = run.tasks[0].outcome
    assert outcome is not None
    assert outcome.failure is FailureClass.BAD_OUTPUT
    assert "out.h5" in outcome.reason
    assert any(not f.passed for f in outcome.findings)
    assert run.stages["2"].status is StageStatus.PENDING


def test_a_command_is_checked_too(shared_client: Client, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    stages = workflow(
        s1={"command": f"echo something > {good}", "outputs": [str(good)]},
        s2={"command": f"touch {bad}", "outputs": [str(bad)]},
    )
    run = wait(shared_client, submit(shared_client, stages))
    assert run.stages["1"].status is StageStatus.DONE
    assert run.tasks[0].outcome is not None
    assert [p.path for p in run.tasks[0].outcome.products] == [str(good)]
    assert run.stages["2"].status is StageStatus.FAILED
    assert run.tasks[1].outcome is not None
    assert run.tasks[1].outcome.failure is FailureClass.BAD_OUTPUT


def test_a_transient_failure_is_repeated_after_a_delay(shared_client: Client, tmp_path: Path) -> None:
    count = tmp_path / "count"
    command = f"echo x >> {count}; [ $(wc -l < {count}) -ge 3 ] || exit 11"
    retries = {"transient": {"most": 3, "delay": 0.2, "factor": 1, "exitCodes": [11]}}
    run = wait(shared_client, submit(shared_client, workflow(s1={"command": command, "retries": retries})))
    assert run.status is RunStatus.DONE, run.error
    assert run.tasks[0].attempt == 3


def test_a_user_error_is_not_repeated(shared_client: Client, tmp_path: Path) -> None:
    retries = {"transient": 5}
    run = wait(shared_client, submit(shared_client, workflow(s1={"command": "exit 2", "retries": retries})))
    assert run.tasks[0].attempt == 1


@pytest.mark.parametrize(
    "stage", [{"command": "sleep 1000"}, {"function": "time:sleep", "arguments": {}}], ids=["command", "call"]
)
def test_timeout(shared_client: Client, stage: dict[str, object]) -> None:
    if "function" in stage:
        stage = {"function": f"{MAKE}:wait", "arguments": {"seconds": 1000}}
    run = wait(shared_client, submit(shared_client, workflow(s1={**stage, "timeout": 0.5})))
    assert run.status is RunStatus.FAILED
    assert run.tasks[0].status is TaskStatus.TIMEOUT
    assert "0.5 s" in run.error


def test_stages_with_no_path_between_them_run_side_by_side(shared_client: Client) -> None:
    run = wait(
        shared_client,
        submit(
            shared_client,
            workflow(
                s1={"command": "true"},
                s2={"command": "sleep 1", "after": ["1"]},
                s3={"command": "sleep 1", "after": ["1"]},
                s4={"command": "true", "after": ["2", "3"]},
            ),
        ),
    )
    assert run.status is RunStatus.DONE
    two, three = run.stages["2"], run.stages["3"]
    assert min(two.ended_at, three.ended_at) - max(two.started_at, three.started_at) > 0.5


def test_a_function_returns_metrics_and_its_output_is_captured(shared_client: Client) -> None:
    stages = workflow(
        s1={"function": f"{MAKE}:measure", "outputVariableRegexList": ["value is (?P<value>.*)"]},
        s2={"command": "echo got $value"},
    )
    run = wait(shared_client, submit(shared_client, stages))
    assert run.tasks[0].outcome is not None
    assert run.tasks[0].outcome.metrics == {"answer": 42}
    assert run.tasks[1].command == "echo got 7"


def test_an_exception_of_a_function_is_the_reason(shared_client: Client) -> None:
    run = wait(shared_client, submit(shared_client, workflow(s1={"function": f"{MAKE}:fail"})))
    assert run.error == "stage '1': ValueError: the detector was covered"
    assert run.tasks[0].outcome is not None
    assert "Traceback" in Path(run.tasks[0].outcome.stderr).read_text()


def test_a_function_that_exits_is_a_failure_not_a_lost_worker(shared_client: Client) -> None:
    run = wait(shared_client, submit(shared_client, workflow(s1={"function": f"{MAKE}:leave"})))
    assert run.error == "stage '1': SystemExit: 3"
    assert run.tasks[0].attempt == 1


def test_a_short_silent_command_leaves_no_files(shared_client: Client) -> None:
    run_id = submit(shared_client, workflow(s1={"command": "true"}))
    wait(shared_client, run_id)
    logs = shared_client.settings.home / "runs" / run_id / "logs"
    over = time.monotonic() + 5
    while list(logs.iterdir()):
        assert time.monotonic() < over, list(logs.iterdir())
        time.sleep(0.02)


def test_workers_write_no_line_a_task(shared_client: Client) -> None:
    run = wait(shared_client, submit(shared_client, workflow(s1={"function": f"{MAKE}:measure"})))
    assert run.status is RunStatus.DONE
    logs = list((shared_client.settings.home / "agents" / "local" / "parsl").rglob("worker_*.log"))
    assert logs
    assert not any("task" in log.read_text() for log in logs)


def test_a_child_run_per_file(shared_client: Client, tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        "{'name': 'child', 'owner': 't', 'arguments': {'filePath': {'required': True}, 'label': {'required': True}},"
        " 'stages': {'1': {'command': 'echo $label >> $filePath.out'}}}"
    )
    for name in ("a", "b"):
        (tmp_path / name).write_text("x")
    stages = workflow(s1={"workflow": str(child), "arguments": {"filePath": "$filePath", "label": "hello"}})
    run = wait(shared_client, submit(shared_client, stages, {"filePathList": f"{tmp_path}/a,{tmp_path}/b"}))
    assert run.status is RunStatus.DONE, run.error
    assert (tmp_path / "a.out").read_text() == (tmp_path / "b.out").read_text() == "hello\n"
    parents = {r.parent.split(".")[0] for r in shared_client.runs(workflow="child")}
    assert parents == {run.id}


def test_a_failing_child_fails_its_parent(shared_client: Client, tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text("{'name': 'failing', 'owner': 't', 'stages': {'1': {'command': 'exit 3'}}}")
    run = wait(shared_client, submit(shared_client, workflow(s1={"workflow": str(child)})))
    assert run.status is RunStatus.FAILED
    assert "child run" in run.error
    assert "exit status 3" in run.error


def test_a_transfer_copies_and_verifies(shared_client: Client, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/scan's $(file).h5").write_bytes(b"data" * 1000)
    target = tmp_path / "copy"
    stages = workflow(s1={"transfer": {"from": str(tmp_path / "raw"), "to": str(target)}})
    run = wait(shared_client, submit(shared_client, stages))
    assert run.status is RunStatus.DONE, run.error
    assert (target / "scan's $(file).h5").read_bytes() == b"data" * 1000
    assert run.tasks[0].outcome is not None
    assert run.tasks[0].outcome.transfer_s > 0


def test_a_transfer_of_nothing_is_bad_input(shared_client: Client, tmp_path: Path) -> None:
    stages = workflow(s1={"transfer": {"from": str(tmp_path / "absent"), "to": str(tmp_path / "copy")}})
    run = wait(shared_client, submit(shared_client, stages))
    assert run.status is RunStatus.FAILED
    assert run.tasks[0].outcome is not None
    assert run.tasks[0].outcome.failure is FailureClass.BAD_INPUT


def test_retry_goes_on_where_it_failed(shared_client: Client, tmp_path: Path) -> None:
    flag, first = tmp_path / "flag", tmp_path / "first"
    stages = workflow(s1={"command": f"echo x >> {first}"}, s2={"command": f"test -e {flag}"}, s3={"command": "true"})
    run_id = submit(shared_client, stages)
    assert wait(shared_client, run_id).status is RunStatus.FAILED
    flag.touch()
    shared_client.retry(run_id)
    assert wait(shared_client, run_id).status is RunStatus.DONE
    assert first.read_text() == "x\n"
    shared_client.retry(run_id, "1")
    assert wait(shared_client, run_id).status is RunStatus.DONE
    assert first.read_text() == "x\nx\n"


def test_many_files_side_by_side(shared_client: Client, tmp_path: Path) -> None:
    for n in range(200):
        (tmp_path / f"{n:03d}.tif").write_text(str(n))
    stages = workflow(s1={"function": f"{MAKE}:echo", "arguments": {"value": "$filePath"}})
    run = wait(shared_client, submit(shared_client, stages, {"filePathPattern": f"{tmp_path}/*.tif"}))
    assert run.status is RunStatus.DONE, run.error
    assert {t.outcome.metrics["value"] for t in run.tasks.values() if t.outcome} == {
        f"{tmp_path}/{n:03d}.tif" for n in range(200)
    }


@pytest.mark.parametrize("name", ["it's", 'a "b"', "$(touch x)", "a;b", "a\nb", "-rf", b"not\xffutf8"])
def test_hostile_file_names_reach_a_call_whole(shared_client: Client, tmp_path: Path, name: str | bytes) -> None:
    import os

    text = os.fsdecode(name)
    (tmp_path / text).write_text("x")
    stages = workflow(s1={"function": f"{MAKE}:size", "arguments": {"path": "$filePath"}})
    run = wait(shared_client, submit(shared_client, stages, {"filePath": str(tmp_path / text)}, directory=tmp_path))
    assert run.status is RunStatus.DONE, run.error
    assert run.tasks[0].outcome is not None
    assert run.tasks[0].outcome.metrics == {"bytes": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == [text]
