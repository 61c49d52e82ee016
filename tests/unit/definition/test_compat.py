"""DM's record, lines, arguments and definitions, as its clients and its own server read them."""

from __future__ import annotations

import ast
import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from immutables import Map

from orchestrator.definition import compat
from orchestrator.errors import ArgumentError, DefinitionError
from orchestrator.model import (
    Expectation,
    Outcome,
    Plan,
    Run,
    RunStatus,
    StageKind,
    StagePlan,
    StageState,
    StageStatus,
    Task,
    TaskStatus,
)

PLAIN: dict[str, Any] = {
    "name": "xpcs8",
    "owner": "8idiuser",
    "version": 1,
    "id": "5f3b",
    "userAccount": "8idiuser",
    "arguments": {"smooth": {"required": False, "choices": ["a", "b"], "type": "str"}},
    "beamline": {"unknown": ["kept", None, -1.5, True]},
    "stages": {
        "02-END": {"command": "echo 'done' \"$analysis\"\t\n", "runIf": '"$x" == "y"'},
        "00-START": {
            "command": "ls -l $filePath | grep \\.h5",
            "outputVariableRegexList": ["Count: (?P<count>.*)"],
            "workingDir": "~user",
            "parallelExec": False,
            "monitorCmd": "x",
        },
        "01-REPEAT": {
            "command": "echo $count",
            "repeatPeriod": 10,
            "repeatUntil": '"$count" == "3"',
            "maxRepeats": 10,
        },
    },
}


def plan(**changes: Any) -> Plan:
    stages = (
        StagePlan("00-START", StageKind.COMMAND, command="ls -l $filePath"),
        StagePlan("01-REPEAT", StageKind.COMMAND, command="echo $count", user_account="other"),
        StagePlan("02-END", StageKind.COMMAND, command="echo"),
    )
    return Plan(
        "xpcs8",
        "8idiuser",
        stages,
        variables={"filePath": "/data/a.h5", "count": "0"},
        definition=copy.deepcopy(PLAIN),
        **changes,
    )


def run(tmp_path: Path) -> Run:
    (tmp_path / "out").write_text("Count: 3\n")
    tasks = {
        0: Task(
            0,
            "00-START",
            item="/data/a.h5",
            status=TaskStatus.DONE,
            command="ls -l /data/a.h5",
            working_dir="/data",
            submitted_at=1000.0,
            started_at=1001.0,
            ended_at=1003.5,
            outcome=Outcome(exit_status=0, stdout=str(tmp_path / "out"), stderr=str(tmp_path / "gone")),
        ),
        1: Task(1, "01-REPEAT", status=TaskStatus.TIMEOUT, command="echo 1", submitted_at=1004.0),
        2: Task(2, "01-REPEAT", status=TaskStatus.BACKOFF, command="echo 2", submitted_at=1005.0),
    }
    return Run(
        "b4a1",
        plan(),
        created_at=1_732_140_753.25,
        started_at=1_732_140_754.0,
        status=RunStatus.RUNNING,
        stage="01-REPEAT",
        variables=Map(filePath="/data/a.h5", count="3"),
        stages=Map({"02-END": StageState("02-END", StageStatus.SKIPPED)}),
        tasks=Map(tasks),
        files=("/data/a.h5",),
    )


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "America/Chicago")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# --------------------------------------------------------------------------------------------------- record


@pytest.mark.usefixtures("zone")
def test_the_record_as_dm_clients_parse_it(tmp_path: Path) -> None:
    record = compat.job_record(run(tmp_path))
    workflow = record.pop("workflow")
    assert record == {
        "filePath": "/data/a.h5",
        "count": "3",
        "owner": "8idiuser",
        "id": "b4a1",
        "status": "running",
        "stage": "01-REPEAT",
        "submissionTime": 1_732_140_753.25,
        "submissionTimestamp": "2024/11/20 16:12:33 CST",
        "startTime": 1_732_140_754.0,
        "startTimestamp": "2024/11/20 16:12:34 CST",
        "countFiles": 1,
    }
    stages = workflow.pop("stages")
    assert workflow == {k: v for k, v in PLAIN.items() if k != "stages"}
    start = stages["00-START"]
    assert start.pop("childProcesses") == {
        "0": {
            "stageId": "00-START",
            "childProcessNumber": 0,
            "command": "ls -l /data/a.h5",
            "workingDir": "/data",
            "userAccount": None,
            "status": "done",
            "submitTime": 1000.0,
            "startTime": 1001.0,
            "endTime": 1003.5,
            "runTime": 2.5,
            "exitStatus": 0,
            "stdOut": "Count: 3\n",
            "stdErr": "",
        }
    }
    added = {"nRunningChildProcesses": 0, "nQueuedChildProcesses": 0, "nCompletedChildProcesses": 1}
    assert start == {**PLAIN["stages"]["00-START"], **added}
    repeat = stages["01-REPEAT"]
    assert list(repeat["childProcesses"]) == ["1", "2"]
    assert repeat["childProcesses"]["1"]["status"] == "timeout"
    assert repeat["childProcesses"]["1"]["command"] == "/usr/bin/sudo -u other -- echo 1"
    assert repeat["childProcesses"]["1"]["userAccount"] == "other"
    assert (repeat["nQueuedChildProcesses"], repeat["nFailedChildProcesses"]) == (1, 1)
    assert "nCompletedChildProcesses" not in repeat
    assert stages["02-END"] == {**PLAIN["stages"]["02-END"], "status": "skipped"}
    json.dumps(record)
    assert run(tmp_path).plan.definition == PLAIN  # the plan is not written into


def test_the_end_of_a_record(tmp_path: Path) -> None:
    import msgspec

    ended = msgspec.structs.replace(
        run(tmp_path), status=RunStatus.FAILED, ended_at=1_732_140_757.5, error="Stage 01-REPEAT failed."
    )
    record = compat.job_record(ended)
    assert (record["status"], record["runTime"], record["endTime"]) == ("failed", 3.5, 1_732_140_757.5)
    assert record["errorMessage"] == "Stage 01-REPEAT failed."


def test_the_records_own_keys_are_not_hidden_by_captures(tmp_path: Path) -> None:
    import msgspec

    hiding = Map(status="fine", id="x", owner="me", workflow="y", startTime="then", endTimestamp="never")
    record = compat.job_record(msgspec.structs.replace(run(tmp_path), variables=hiding))
    assert (record["status"], record["id"], record["owner"]) == ("running", "b4a1", "8idiuser")
    assert isinstance(record["workflow"], dict)
    assert record["startTime"] == 1_732_140_754.0
    assert "endTimestamp" not in record


@pytest.mark.parametrize("status", RunStatus)
def test_every_status_is_a_word_of_dm(tmp_path: Path, status: RunStatus) -> None:
    import msgspec

    words = {
        "pending",
        "running",
        "finalizing",
        "done",
        "failed",
        "skipped",
        "aborting",
        "aborted",
        "timeout",
    }
    ended = Map({n: StageState(n, StageStatus.DONE) for n in ("00-START", "01-REPEAT", "02-END")})
    for stages in (Map(), ended):
        each = msgspec.structs.replace(run(tmp_path), status=status, stages=stages)
        assert compat.job_record(each)["status"] in words
    assert set(compat._CHILD_STATUS) == set(TaskStatus)
    assert set(compat._CHILD_STATUS.values()) <= words


def test_all_stages_ended_and_the_run_not_yet_is_finalizing(tmp_path: Path) -> None:
    import msgspec

    ended = Map({n: StageState(n, StageStatus.DONE) for n in ("00-START", "01-REPEAT", "02-END")})
    assert compat.job_record(msgspec.structs.replace(run(tmp_path), stages=ended))["status"] == "finalizing"


def test_long_output_keeps_its_ends_and_a_record_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"begin" + b"\xff" * 10_000_000 + b"end")
    text = compat.read_output(str(path))
    assert text.startswith("begin")
    assert text.endswith("end")
    assert f"[{10_000_008 - compat.OUTPUT_LIMIT} bytes left out]" in text
    short = "x" * (compat.OUTPUT_LIMIT - 1)
    path.write_text(short)
    assert compat.read_output(str(path)) == short
    import msgspec

    outcome = Outcome(exit_status=0, stdout="p")
    tasks = Map({i: Task(i, "00-START", status=TaskStatus.DONE, outcome=outcome) for i in range(1000)})
    record = compat.job_record(
        msgspec.structs.replace(run(tmp_path), tasks=tasks), read=lambda _: "y" * 10**6
    )
    assert len(json.dumps(record)) < compat.RECORD_LIMIT + 10**6


# ------------------------------------------------------------------------------------------- lines, arguments


def test_one_line_is_cut_by_position(tmp_path: Path) -> None:
    record = {"id": "b4a1", "owner": "me", "status": "pending", "n": 3, "note": "a\nb\tc", "d": {"k": "v\n"}}
    assert compat.one_line(record) == "id=b4a1 owner=me status=pending "
    assert compat.one_line(record, ["n", "id"]) == "n=3 id=b4a1 "
    assert compat.one_line(record, "status,nope") == "status=pending nope=None "
    everything = "id=b4a1 owner=me status=pending n=3 note=a\\nb\\tc d={'k': 'v\\n'} "
    assert compat.one_line(record, "ALL") == compat.one_line(record, ["ALL"]) == everything


@given(st.dictionaries(st.from_regex(r"[a-z]+", fullmatch=True), st.text()))
def test_one_line_is_always_one_line(record: dict[str, str]) -> None:
    line = compat.one_line(record, "ALL")
    assert len(line.splitlines()) <= 1
    assert line.encode() or not record


def test_arguments() -> None:
    given_ = [
        "filePath:/a/b:c",
        "empty:",
        "n:3",
        "equation:x=y",
        "filePathList:a.h5,b.h5",
        "url:http://h:80/",
    ]
    assert compat.parse_arguments(given_) == {
        "filePath": "/a/b:c",
        "empty": "",
        "n": "3",
        "equation": "x=y",
        "filePathList": "a.h5,b.h5",
        "url": "http://h:80/",
    }


@pytest.mark.parametrize(
    ("texts", "clause"),
    [
        (["n=3"], "Write 'n:3'"),
        (["n=/a:b"], "Write 'n:/a:b'"),
        (["n"], "does not read key:value"),
        ([":3"], "does not read key:value"),
        (["a b:3"], "does not read key:value"),
        (["--n:3"], "does not read key:value"),
        ([""], "does not read key:value"),
        (["n:1", "n:2"], "'n' is given twice"),
    ],
)
def test_refused_arguments(texts: list[str], clause: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        compat.parse_arguments(texts)
    assert clause in str(caught.value)


name = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)


@given(st.dictionaries(name, st.text()))
def test_arguments_come_back(arguments: dict[str, str]) -> None:
    assert compat.parse_arguments([f"{k}:{v}" for k, v in arguments.items()]) == arguments


# ---------------------------------------------------------------------------------------------------- export


def same_order(left: Any, right: Any) -> bool:
    return json.dumps(left) == json.dumps(right)


def test_a_plain_definition_comes_back_equal() -> None:
    before = copy.deepcopy(PLAIN)
    exported = compat.export_dm(PLAIN)
    assert exported == PLAIN == before
    assert same_order(exported, PLAIN)
    assert exported["stages"] is not PLAIN["stages"]


def test_what_only_adds_safety_is_left_out() -> None:
    ours = copy.deepcopy(PLAIN)
    ours["retries"] = {"transient": 2}
    ours["stages"]["00-START"].update(
        expect=[{"path": "x"}],
        timeout=5,
        site="auto",
        resources={"nodes": 1, "gpusPerRank": 1},
        outputs=["a"],
    )
    ours["stages"]["01-REPEAT"].update(inputs=["a"], outputs=["b"], reservation="beam")
    ours["stages"]["02-END"].update(after=["00-START", "01-REPEAT"])
    exported = compat.export_dm(ours)
    assert exported == PLAIN
    assert same_order(exported, PLAIN)


@pytest.mark.parametrize(
    ("stage", "change", "key", "clause"),
    [
        ("00-START", {"kernel": "gridrec"}, "kernel", "only 'command' stages"),
        ("00-START", {"transfer": {"from": "a", "to": "b"}}, "transfer", "only 'command' stages"),
        ("00-START", {"function": "a:b"}, "function", "only 'command' stages"),
        ("00-START", {"workflow": "w"}, "workflow", "only 'command' stages"),
        ("00-START", {"command": None}, "command", "needs a command"),
        ("00-START", {"site": "polaris"}, "site", "'polaris'"),
        ("00-START", {"resources": {"nodes": 2}}, "resources", "nodes is 2"),
        ("00-START", {"resources": {"ranksPerNode": 4}}, "resources", "ranksPerNode is 4"),
        ("00-START", {"after": ["02-END"]}, "after", "sorted as strings"),
        ("00-START", {"after": "00-START"}, "after", "sorted as strings"),
        ("02-END", {"after": ["00-START"]}, "after", "beside '01-REPEAT'"),
        ("01-REPEAT", {"after": []}, "after", "beside '00-START'"),
        ("01-REPEAT", {"inputs": ["z"]}, "inputs", "beside '00-START'"),
        ("02-END", {"after": ["nope"]}, "after", "no stage 'nope'"),
    ],
)
def test_what_dm_cannot_express(stage: str, change: dict[str, Any], key: str, clause: str) -> None:
    ours = copy.deepcopy(PLAIN)
    ours["stages"][stage].update(change)
    with pytest.raises(DefinitionError) as caught:
        compat.export_dm(ours)
    assert (caught.value.stage, caught.value.key) == (stage, key)
    assert clause in str(caught.value)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"stages": {}}, "stages"),
        ({"stages": None}, "stages"),
        ({"site": "polaris"}, "site"),
        ({"arguments": {"n": {"default": "3"}}}, "arguments"),
    ],
)
def test_what_dm_cannot_express_above_the_stages(change: dict[str, Any], key: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        compat.export_dm({**PLAIN, **change})
    assert caught.value.key == key


text = st.text(st.characters(exclude_categories=()))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner) | st.tuples(inner),
)


@given(st.dictionaries(text, plain))
def test_pyspec_loads_back_equal(definition: dict[str, Any]) -> None:
    written = compat.to_pyspec(definition)
    written.encode()  # lone surrogates are escapes
    read = ast.literal_eval(written)
    assert read == definition
    assert list(read) == list(definition)


def test_pyspec_reads_well_and_refuses_what_is_no_text() -> None:
    assert ast.literal_eval(compat.to_pyspec(PLAIN)) == PLAIN
    assert compat.to_pyspec({"name": "w", "stages": {"1": {"command": 'echo "it\'s"', "n": [1, ()]}}}) == (
        "{\n    'name': 'w',\n    'stages': {\n        '1': {\n"
        "            'command': 'echo \"it\\'s\"',\n            'n': [1, ()],\n        },\n    },\n}\n"
    )
    for value in (float("nan"), float("inf"), {1}, object()):
        with pytest.raises(DefinitionError) as caught:
            compat.to_pyspec({"stages": {"s": {"k": value}}})
        assert (caught.value.stage, caught.value.key) == ("s", "k")


def test_the_definitions_of_the_documentation() -> None:
    page = (Path(__file__).parents[3] / "docs" / "dm-workflows.md").read_text()
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    before, after = (ast.literal_eval(block.split("# process.py\n")[-1]) for block in blocks)
    assert before != after
    assert compat.export_dm(before) == compat.export_dm(after) == before
    (entry,) = after["stages"]["01-CORRELATE"]["expect"]
    assert set(entry) <= set(Expectation.__struct_fields__)
