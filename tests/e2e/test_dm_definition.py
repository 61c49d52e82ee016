"""A definition in DM's form, with every key of the language, runs with the meaning it has there."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client import Client
from orchestrator.definition import compat, loader
from orchestrator.model import Run, RunStatus, StageStatus
from tests.conftest import submit, wait, workflow

EVERYTHING = Path(__file__).with_name("dm_everything.py")


@pytest.fixture(scope="module")
def ran(shared_client: Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    place = tmp_path_factory.mktemp("dm")
    (place / "out").mkdir()
    for name, text in (("a.h5", "1234"), ("b.h5", "12345678")):
        (place / name).write_text(text)
    arguments = {"filePathPattern": f"{place}/*.h5", "outputDir": str(place / "out")}
    plan = shared_client.plan(loader.load(EVERYTHING), arguments)
    return wait(shared_client, shared_client.submit(plan)), place


def test_the_run_is_done(ran: tuple[Run, Path]) -> None:
    run, _ = ran
    assert run.status is RunStatus.DONE, run.error
    skipped = [n for n, s in run.stages.items() if s.status is StageStatus.SKIPPED]
    assert skipped == ["05-SKIPPED"]


def test_stages_run_in_sorted_order_not_in_order_of_insertion(ran: tuple[Run, Path]) -> None:
    run, _ = ran
    begun = sorted((s for s in run.stages.values() if s.status is StageStatus.DONE), key=lambda s: s.started_at)
    assert [s.name for s in begun] == sorted(s.name for s in begun)


def test_a_stage_with_file_path_runs_once_per_file_one_by_one(ran: tuple[Run, Path]) -> None:
    run, place = ran
    tasks = [t for t in run.tasks.values() if t.stage == "02-PER-FILE"]
    assert [t.item for t in tasks] == [f"{place}/a.h5", f"{place}/b.h5"]
    assert tasks[1].started_at >= tasks[0].ended_at
    assert [t.outcome.captures["fileSize"] for t in tasks if t.outcome] == ["4", "8"]


def test_each_file_sees_its_own_captures_and_the_run_the_last(ran: tuple[Run, Path]) -> None:
    run, place = ran
    pairs = (place / "out/pairs.txt").read_text().splitlines()
    assert sorted(pairs) == [f"{place}/a.h5:a.h5", f"{place}/b.h5:b.h5"]
    assert run.variables["baseName"] == "b.h5"


def test_a_stage_may_name_its_own_files_relative_to_its_data_dir(ran: tuple[Run, Path]) -> None:
    _, place = ran
    assert (place / "out/own.txt").read_text().split("\n") == ["own b.h5", "listed b.h5", "listed a.h5", ""]


def test_a_catalog_query_says_what_is_missing(shared_client: Client) -> None:
    stages = workflow(s1={"command": "echo $filePath", "fileQueryDict": {"sample": "x"}})
    run = wait(shared_client, submit(shared_client, stages))
    assert run.status is RunStatus.FAILED
    assert "catalog" in run.error


def test_captured_text_stays_literal_inside_nested_quotes(ran: tuple[Run, Path]) -> None:
    _, place = ran
    assert (place / "out/ssh.txt").read_text() == "--label|a|b|"


def test_unset_variables_are_empty_arguments_for_the_shell(ran: tuple[Run, Path]) -> None:
    _, place = ran
    assert (place / "out/unset.txt").read_text() == "count: 2 [default] [none]\n"


def test_repeats_substitute_the_newest_capture_and_keep_their_period(ran: tuple[Run, Path]) -> None:
    run, _ = ran
    tasks = sorted((t for t in run.tasks.values() if t.stage == "08-REPEAT"), key=lambda t: t.number)
    assert [t.command for t in tasks] == [f'echo "Count: `expr {n} + 1`"' for n in range(3)]
    starts = [t.started_at for t in tasks]
    assert all(b - a >= 0.29 for a, b in itertools.pairwise(starts))
    assert run.variables["count"] == "3"


def test_the_record_has_what_clients_parse(ran: tuple[Run, Path]) -> None:
    run, place = ran
    record = compat.job_record(run)
    assert record["status"] == "done"
    assert record["owner"] == "tester"
    assert record["countFiles"] == 2
    assert record["randomNumber"] == "3"
    assert record["outputDir"] == str(place / "out")
    stages = record["workflow"]["stages"]
    assert stages["05-SKIPPED"]["status"] == "skipped"
    children = {k: c for s in stages.values() for k, c in s.get("childProcesses", {}).items()}
    assert sorted(map(int, children)) == list(range(len(run.tasks)))
    first = children["0"]
    assert first["exitStatus"] == 0
    assert first["stdOut"].startswith("Random number: 3\n")
    assert first["stdErr"] == "machine: polaris\n"
    line = compat.one_line(record, ["id", "owner", "status"])
    assert line == f"id={run.id} owner=tester status=done "
    json.dumps(record)


def test_export_is_the_definition_as_it_came() -> None:
    definition = loader.load(EVERYTHING)
    exported = compat.export_dm(definition.raw)
    assert exported == definition.raw
    assert list(exported["stages"]) == list(definition.raw["stages"])
    assert loader.loads(compat.to_pyspec(exported)).raw == definition.raw


def test_user_account_runs_under_sudo(shared_client: Client, tmp_path: Path) -> None:
    sudo = shutil.which("sudo")
    if sudo is None or subprocess.run([sudo, "-n", "-u", "nobody", "--", "true"], check=False).returncode:
        pytest.skip("sudo to the account 'nobody' is not possible here")
    definition: dict[str, Any] = {**workflow(s01={"command": "id -un"}), "userAccount": "nobody"}
    run = wait(shared_client, submit(shared_client, definition))
    assert run.status is RunStatus.DONE, run.error
    assert run.tasks[0].command == "/usr/bin/sudo -u nobody -- id -un"
    assert run.tasks[0].outcome is not None
    assert Path(run.tasks[0].outcome.stdout).read_text() == "nobody\n"


def test_a_failing_child_fails_stage_and_run_and_later_stages_do_not_run(shared_client: Client, tmp_path: Path) -> None:
    run = wait(
        shared_client,
        submit(shared_client, workflow(s1={"command": "echo bad >&2; exit 4"}, s2={"command": f"touch {tmp_path}/x"})),
    )
    assert run.status is RunStatus.FAILED
    assert run.stages["2"].status is StageStatus.PENDING
    assert not (tmp_path / "x").exists()
    record = compat.job_record(run)
    assert record["workflow"]["stages"]["1"]["nFailedChildProcesses"] == 1


def test_stderr_with_exit_zero_is_success(shared_client: Client) -> None:
    run = wait(shared_client, submit(shared_client, workflow(s1={"command": "echo oh >&2"})))
    assert run.status is RunStatus.DONE


def test_max_repeats_without_the_condition_fails(shared_client: Client) -> None:
    repeat = {"command": "true", "repeatPeriod": 0, "repeatUntil": '"$x" == "y"', "maxRepeats": 3}
    run = wait(shared_client, submit(shared_client, workflow(s1=repeat)))
    assert run.status is RunStatus.FAILED
    assert len(run.tasks) == 3
