"""The same folders under other names."""

from __future__ import annotations

import pytest

from orchestrator.agent import folders
from orchestrator.model import Expectation, FailureClass, Finding, Order, Outcome, Product, StageKind

PAIRS = [("/data", "/gpfs/beam/data"), ("/data/raw", "/raw")]


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("/data/a.h5", "/gpfs/beam/data/a.h5"),
        ("/data", "/gpfs/beam/data"),
        ("/data/raw/a.h5", "/raw/a.h5"),
        ("/database/a.h5", "/database/a.h5"),
        ("/other/data/a.h5", "/other/data/a.h5"),
        ("data/a.h5", "data/a.h5"),
    ],
)
def test_a_path_is_mapped_by_the_longest_name(name: str, there: str) -> None:
    assert folders.path(name, PAIRS) == there
    assert folders.path(there, [(new, old) for old, new in PAIRS]) == name


@pytest.mark.parametrize(
    ("command", "there"),
    [
        ("cp /data/a /data/raw/b", "cp /gpfs/beam/data/a /raw/b"),
        ("cat '/data/a b' >/data/c", "cat '/gpfs/beam/data/a b' >/gpfs/beam/data/c"),
        ("run --in=/data/a", "run --in=/gpfs/beam/data/a"),
        ("ls /database ./data/a /x/data/a", "ls /database ./data/a /x/data/a"),
        ("PATH=/data:/data/raw", "PATH=/gpfs/beam/data:/raw"),
        ("", ""),
    ],
)
def test_paths_in_a_command(command: str, there: str) -> None:
    assert folders.text(command, PAIRS) == there


def test_an_order_there_and_its_outcome_back() -> None:
    order = Order(
        "t.0.1",
        StageKind.KERNEL,
        "s",
        arguments={
            "input": "/data/a.h5",
            "several": "a=/data/a,b=/data/raw/b",
            "list": ["/data/raw/x", 3],
            "deep": {"p": "/data"},
            "n": 2,
        },
        working_dir="/data",
        expect=(Expectation("/data/out.h5"),),
        log_dir="/data/home/logs",
    )
    there = folders.order(order, PAIRS)
    assert there.arguments == {
        "input": "/gpfs/beam/data/a.h5",
        "several": "a=/gpfs/beam/data/a,b=/raw/b",
        "list": ["/raw/x", 3],
        "deep": {"p": "/gpfs/beam/data"},
        "n": 2,
    }
    assert (there.working_dir, there.expect[0].path) == ("/gpfs/beam/data", "/gpfs/beam/data/out.h5")
    assert there.log_dir == order.log_dir
    came = Outcome(
        FailureClass.BAD_OUTPUT,
        "/gpfs/beam/data/out.h5 is empty",
        products=(Product("/raw/x"),),
        findings=(Finding("/gpfs/beam/data/out.h5", "empty", False),),
    )
    back = folders.outcome(came, PAIRS)
    assert (back.reason, back.products[0].path) == ("/data/out.h5 is empty", "/data/raw/x")
    assert back.findings[0].path == "/data/out.h5"


def test_without_a_map_nothing_changes() -> None:
    order = Order("t.0.1", StageKind.COMMAND, "s", command="cp /data/a /b")
    assert folders.order(order, []) is order
    outcome = Outcome()
    assert folders.outcome(outcome, []) is outcome
