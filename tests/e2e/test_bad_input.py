"""A user's mistake gets a sentence and an exit code; no traceback, no half output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from orchestrator.client import Client
from tests.conftest import ROOT

GOOD = {"name": "w", "owner": "o", "stages": {"1": {"command": "echo $filePath"}}}

DEFINITIONS: dict[str, tuple[str, str]] = {
    "not a dict": ("[1, 2]", "dict"),
    "code": ("__import__('os').system('touch canary')", "function call"),
    "no owner": ("{'name': 'w', 'stages': {'1': {'command': 'true'}}}", "'owner'"),
    "no stages": ("{'name': 'w', 'owner': 'o', 'stages': {}}", "no stage"),
    "no kind": ("{'name': 'w', 'owner': 'o', 'stages': {'1': {'comand': 'true'}}}", "'command'"),
    "two kinds": ("{'name': 'w', 'owner': 'o', 'stages': {'1': {'command': 'true', 'kernel': 'k'}}}", "one kind"),
    "cycle": (
        "{'name': 'w', 'owner': 'o', 'stages': {'1': {'command': 'a', 'after': ['2']},"
        " '2': {'command': 'b', 'after': ['1']}}}",
        "wait for each other",
    ),
    "bad regex": (
        "{'name': 'w', 'owner': 'o', 'stages': {'1': {'command': 'a', 'outputVariableRegexList': ['(?P<x']}}}",
        "Regex",
    ),
    "half a repeat": (
        "{'name': 'w', 'owner': 'o', 'stages': {'1': {'command': 'a', 'repeatPeriod': 3}}}",
        "maxRepeats",
    ),
    "unknown kernel": (
        "{'name': 'w', 'owner': 'o', 'stages': {'1': {'kernel': 'tomography.reconstuct'}}}",
        "tomography.reconstruct",
    ),
    "bad condition": (
        "{'name': 'w', 'owner': 'o', 'stages': {'1': {'command': 'a', 'runIf': 'open(1)'}}}",
        "condition",
    ),
    "syntax": ("{'name': 'w',\n 'owner' 'o'}", ":"),
    "NUL": ("{'name': 'w\0'}", "NUL"),
    "deep": ("[" * 5000 + "]" * 5000, "nested"),
}


def beamway(home: Path, *words: str | bytes, cwd: Path) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *words],
        env={**os.environ, "BEAMWAY_HOME": str(home), "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        timeout=100,
    )
    assert "Traceback" not in result.stdout + result.stderr
    return result


@pytest.fixture
def warm(shared_client: Client) -> Path:
    return shared_client.settings.home


@pytest.mark.parametrize("case", DEFINITIONS)
def test_a_wrong_definition(warm: Path, tmp_path: Path, case: str) -> None:
    text, expected = DEFINITIONS[case]
    path = tmp_path / "w.py"
    path.write_text(text)
    result = beamway(warm, "run", str(path), cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) <= 2
    assert expected in result.stderr
    assert "w.py" in result.stderr
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "name", ["it's.h5", 'a"b.h5', "$(touch canary).h5", "a;touch canary;.h5", "a\ntouch canary\n.h5"]
)
def test_a_hostile_file_name_in_a_command_is_refused(warm: Path, tmp_path: Path, name: str) -> None:
    safe = tmp_path / "w.json"
    safe.write_text(json.dumps(GOOD))
    (tmp_path / name).write_text("x")
    result = beamway(warm, "run", str(safe), f"filePath:{tmp_path / name}", "--wait", cwd=tmp_path)
    assert result.returncode == 2
    assert "which a shell would read" in result.stderr
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("pattern", ["*.h5"])
def test_a_hostile_file_name_found_by_a_pattern_is_refused_too(warm: Path, tmp_path: Path, pattern: str) -> None:
    safe = tmp_path / "w.json"
    safe.write_text(json.dumps(GOOD))
    (tmp_path / "a`touch canary`.h5").write_text("x")
    result = beamway(warm, "run", str(safe), f"filePathPattern:{pattern}", "--wait", cwd=tmp_path)
    assert result.returncode in (1, 2)
    assert "which a shell would read" in result.stderr + result.stdout
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["-rf.h5", "with space.h5", b"not\xffutf8.h5"])
def test_an_odd_but_harmless_name_is_no_obstacle(warm: Path, tmp_path: Path, name: str | bytes) -> None:
    path = tmp_path / "w.json"
    stages = {"1": {"command": 'stat -c %n "$filePath"'}}
    path.write_text(json.dumps({"name": "w", "owner": "o", "stages": stages}))
    (tmp_path / os.fsdecode(name)).write_text("x")
    result = beamway(warm, "run", str(path), b"filePath:" + os.fsencode(name), "--wait", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr + result.stdout


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("status:x", "job record"),
        ("id:x", "job record"),
        ("nocolon", "nocolon"),
        ("filePath:/no/such/file.h5", "There is no input file"),
    ],
)
def test_a_wrong_argument(warm: Path, tmp_path: Path, argument: str, expected: str) -> None:
    path = tmp_path / "w.json"
    path.write_text(json.dumps(GOOD))
    result = beamway(warm, "run", str(path), argument, cwd=tmp_path)
    assert result.returncode in (2, 66)
    assert expected in result.stderr


def test_unknown_missing_and_impossible_arguments_of_a_declared_workflow(warm: Path, tmp_path: Path) -> None:
    for words, expected in (
        (["filePath:x", "rotationAxes:3"], "rotationAxis"),
        ([], "filePath"),
        (["filePath:x", "filter:rump"], "ramp"),
    ):
        result = beamway(warm, "run", "tomography", *words, cwd=tmp_path)
        assert result.returncode in (2, 66)
        assert expected in result.stderr


def scan(path: Path, **changes: Any) -> None:
    sets: dict[str, Any] = {
        "exchange/data": np.full((11, 2, 16), 500, "u2"),
        "exchange/data_white": np.full((2, 2, 16), 1000, "u2"),
        "exchange/data_dark": np.full((2, 2, 16), 10, "u2"),
        "exchange/theta": np.linspace(0, 180, 11),
        **changes,
    }
    with h5py.File(path, "w") as file:
        for name, value in sets.items():
            if value is not None:
                file[name] = value


SCANS: dict[str, tuple[dict[str, Any], str]] = {
    "no theta": ({"exchange/theta": None}, "theta"),
    "no data": ({"exchange/data": None}, "data"),
    "zero flats": ({"exchange/data_white": np.zeros((2, 2, 16), "u2")}, "flat"),
    "wrong rank": ({"exchange/data": np.zeros((4, 4), "u2")}, "data"),
}


@pytest.mark.parametrize("case", [*SCANS, "empty", "truncated", "text"])
def test_a_bad_scan_fails_in_a_sentence_and_leaves_nothing(warm: Path, tmp_path: Path, case: str) -> None:
    path = tmp_path / "scan.h5"
    expected = "scan.h5"
    if case in SCANS:
        changes, expected = SCANS[case]
        scan(path, **changes)
    elif case == "empty":
        path.touch()
    elif case == "text":
        path.write_text("not a scan\n" * 100)
    else:
        scan(path)
        path.write_bytes(path.read_bytes()[:1500])
    words = ["run", "tomography", f"filePath:{path}", f"outputDir:{tmp_path}/out", "--wait", "--json"]
    result = beamway(warm, *words, cwd=tmp_path)
    assert result.returncode == 1
    answer = json.loads(result.stdout)
    assert answer["status"] == "failed"
    assert expected in answer["error"]
    assert answer["outputs"] == []
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_resources_that_the_site_does_not_have(warm: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    stages = {"1": {"kernel": "tomography.inspect", "arguments": {"input": "x"}, "resources": {"nodes": 2}}}
    path.write_text(json.dumps({"name": "w", "owner": "o", "stages": stages}))
    result = beamway(warm, "run", str(path), cwd=tmp_path)
    assert result.returncode == 2
    assert "needs 2 nodes; local has 1" in result.stderr


def test_a_run_id_that_would_leave_the_home_is_refused(shared_client: Client, tmp_path: Path) -> None:
    from orchestrator.definition import loader
    from orchestrator.errors import BeamwayError

    plan = shared_client.plan(loader.load({"name": "w", "owner": "o", "stages": {"1": {"command": "true"}}}), {})
    with pytest.raises(BeamwayError, match="cannot be the id of a run"):
        shared_client.submit(plan, run_id="../../../tmp/x")
