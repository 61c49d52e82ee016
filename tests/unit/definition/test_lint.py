from __future__ import annotations

import time
from typing import Any

import pytest

from orchestrator.definition import lint, loader, regexes

from .conftest import DM, Kernels, load

C = {"command": "true"}


def codes(stages: dict[str, Any], **more: Any) -> list[str]:
    return sorted({w.code for w in lint.lint(load(stages, **more))})


def grab(*names: str) -> dict[str, Any]:
    return {"outputVariableRegexList": [f"{n}: (?P<{n}>.*)" for n in names]}


def test_a_sound_definition_has_nothing_to_say() -> None:
    schema = {"a": {"required": True}, "host": {"default": "x"}}
    nested = {"command": "ssh $host \"echo '$a'\" || exit 1", "runIf": '"$a" != "x"'}
    assert codes({"1": nested}, arguments=schema) == []


@pytest.mark.parametrize(
    ("stages", "more", "expected"),
    [
        ({"1": {"command": "echo $nmae"}}, {"arguments": {"name_": {}}}, "undefined-name"),
        ({"1": {"command": "echo $x"}}, {}, "expected-arguments"),
        ({"1": {"command": "echo $x"}, "2": {**C, **grab("x")}}, {}, "used-before-captured"),
        ({"1": C}, {"arguments": {"a": {}}}, "unread-argument"),
        ({"2": C, "10": C}, {}, "stage-order"),
        ({"1": {**C, **grab("x")}}, {}, "unread-capture"),
        ({"1": {**C, **grab("status")}}, {}, "reserved-capture"),
        ({"1": {**C, "execOutFormat": "x"}}, {}, "legacy-key"),
        ({"1": {**C, "workingdir": "/x"}}, {}, "key-typo"),
        ({"1": {**C, "outputVariableRegexLst": []}}, {}, "key-typo"),
        ({"1": C}, {"desciption": "x"}, "key-typo"),
        ({"1": {**C, "arguments": {}}}, {}, "key-without-effect"),
        ({"1": {"command": "a | b"}}, {}, "pipe-status"),
        ({"1": {"command": "dm-list-files x"}}, {}, "dm-call"),
        ({"1": {**C, "outputVariableRegexList": ["a(b)"]}}, {}, "no-group"),
        ({"1": {**C, "outputVariableRegexList": ["(?P<x>(a+)+)$"]}}, {}, "slow-regex"),
        ({"1": {**C, "repeatUntil": "$x", "repeatPeriod": 1, "maxRepeats": 2}}, {}, "repeat-fixed"),
        ({"1": {"command": "$a"}}, {"arguments": {"a": {"type": "intger"}}}, "unknown-type"),
        ({"1": {"command": "$a"}}, {"arguments": {"a": {"requird": True}}}, "unknown-key"),
        (
            {"1": {"command": "$a"}},
            {"arguments": {"a": {"required": True, "default": 1}}},
            "required-with-default",
        ),
        ({"1": C}, {"arguments": {"a-b": {}}}, "unreadable-argument"),
    ],
)
def test_what_is_probably_not_meant(stages: dict[str, Any], more: dict[str, Any], expected: str) -> None:
    assert expected in codes(stages, **more)


@pytest.mark.parametrize(
    "command", ["a || b", "echo 'a | b'", 'ssh h "a | b"', "bash -c 'set -o pipefail; a | b'", "echo `a | b`"]
)
def test_pipes_that_are_fine(command: str) -> None:
    assert codes({"1": {"command": command}}) == []


SUBMIT = {"command": "sbatch --parsable run.sh", **grab("jobId")}


def monitor(command: str, until: str, names: tuple[str, ...] = ("state",)) -> dict[str, Any]:
    return {"command": command, "repeatUntil": until, "repeatPeriod": 5, "maxRepeats": 99, **grab(*names)}


@pytest.mark.parametrize(
    ("command", "until"),
    [
        ("echo state: `squeue -h -j $jobId | wc -l`", '"$state" == "0"'),
        ("sacct -j $jobId", '"$state" != "RUNNING"'),
        ("sacct -j $jobId", '"$state" == "COMPLETED" or "$state" == "FAILED"'),
        ("sacct -j $jobId", '"$state" in ["COMPLETED", "CANCELLED", "TIMEOUT"]'),
        ("my-status $jobId", 'not ("$state" == "PENDING" or "$state" == "RUNNING")'),
        ("qstat -f $jobId", '"$state" == "F"'),
    ],
)
def test_waiting_that_takes_a_failed_job_for_a_good_one(command: str, until: str) -> None:
    found = [w for w in lint.lint(load({"1": SUBMIT, "2": monitor(command, until)})) if w.code == "false-success"]
    assert len(found) == 1
    assert found[0].sentence.startswith("False success")
    assert (found[0].stage, found[0].key) == ("2", "repeatUntil")


def test_waiting_for_success_is_fine_and_so_is_testing_it_afterwards() -> None:
    good = monitor("sacct -j $jobId", '"$state" == "COMPLETED"')
    assert "false-success" not in codes({"1": SUBMIT, "2": good})
    ended = monitor("sacct -j $jobId", '"$state" != "RUNNING"')
    tested = {"command": 'test "$state" = COMPLETED'}
    assert "false-success" not in codes({"1": SUBMIT, "2": ended, "3": tested})
    assert "false-success" not in codes({"1": C, "2": monitor("cat x", '"$state" != "RUNNING"')})


def test_the_dm_fixtures() -> None:
    found = lint.lint(loader.load(DM / "xpcs.spec"))
    assert {w.code for w in found} >= {
        "false-success",
        "legacy-key",
        "dm-call",
        "pipe-status",
        "expected-arguments",
    }
    assert all(w.line for w in found)
    assert "07-MONITOR" in str(found[0])
    assert [w.code for w in lint.lint(loader.load(DM / "counter.spec"))] == ["no-group"]


def test_kernel_problems_are_errors_and_come_first(kernels: Kernels) -> None:
    found = lint.lint(load({"1": {"kernel": "tomography.recon", "arguments": {}}, "2": {"command": "a | b"}}))
    assert [w.level for w in found] == ["error", "note"]


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(a|ab?)*c", r"(\w+\s?)*:", "(x+x+)+y", "([^,]+,?)*;", "(?:a|a)*b", r"(?P<x>(\d+)*)Z"],
)
def test_slow_regexes_are_found(pattern: str) -> None:
    assert regexes.attack(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"jobId: (?P<jobId>\d+)",
        "Count: (?P<count>.*)",
        r"(?P<v>[0-9]+(\.[0-9]+)?)",
        "(?P<x>(ab|cd)*)e",
        "((((a{9}){9}){9}){9})",
        r"(?P<t>\d{4}(-\d\d){2})",
        "(a{100}){100}",
        r"(?:(?P<a>x)|(?P<b>y))+z",
        "[[a]+",
    ],
)
def test_sound_regexes_are_not_reported_and_cost_little(pattern: str) -> None:
    start = time.thread_time()
    assert regexes.attack(pattern) == ""
    assert time.thread_time() - start < 1
