"""Which content a task must find, and what a run says of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from immutables import Map
from msgspec.structs import replace

from orchestrator.engine import accounts, inputs, orders
from orchestrator.model import (
    Content,
    Expectation,
    Outcome,
    Plan,
    Product,
    Run,
    RunStatus,
    StageKind,
    StagePlan,
    StageState,
    Task,
    TaskStatus,
)
from orchestrator.store.catalog import FileKind
from orchestrator.store.lineage import Step

ARRIVED = {"filePath": "/d/raw", "inputChecksum": "xxh3:aa", "experimentName": "e1"}
MOVE = StagePlan("01", StageKind.TRANSFER, arguments={"from": "$filePath", "to": "/s/"})
WORK = StagePlan("02", StageKind.COMMAND, inputs=("/s/raw", "mask"), expect=(Expectation("/s/out"),))


def run_of(*done: Task, variables: dict[str, str] = ARRIVED, plans: tuple[StagePlan, ...] = (MOVE, WORK)) -> Run:
    plan = Plan("w", "o", plans, variables=variables, directory="/home/me")
    stages = Map({p.name: StageState(p.name) for p in plans})
    tasks = Map({t.number: t for t in done})
    return Run("r", plan, 1.0, RunStatus.DONE, 1.0, 9.0, variables=Map(variables), stages=stages, tasks=tasks)


def moved(**more: Any) -> Task:
    told = {"products": (Product("/s/raw", 3, "", "sha256:bb"),), "inputs": (Content("/d/raw", 3, "xxh3:aa", 0.5),)}
    arguments = {"from": "/d/raw", "to": "/s/"}
    return Task(0, "01", status=TaskStatus.DONE, arguments=arguments, outcome=Outcome(**told | more, ended_at=2.0))


def worked(**more: Any) -> Task:
    read = (Content("/s/raw", 3, "xxh3:aa", 2.0), Content("/home/me/mask", 1, "xxh3:cc", 0.1))
    told = {"products": (Product("/s/out", 4, "", "xxh3:dd"),), "inputs": read, "software": {"k": "1"}}
    return Task(1, "02", status=TaskStatus.DONE, command="k", outcome=Outcome(**told | more, ended_at=3.0))


def test_a_copy_must_have_the_content_that_arrived() -> None:
    assert inputs.known(run_of()) == {"/d/raw": "xxh3:aa"}
    assert inputs.known(run_of(moved())) == {"/d/raw": "xxh3:aa", "/s/raw": "xxh3:aa"}
    assert inputs.known(run_of(moved(), variables=ARRIVED | {"inputChecksum": ""})) == {}


def test_of_several_files_nothing_is_said() -> None:
    assert inputs.known(replace(run_of(), files=("/d/raw", "/d/other"))) == {}


def test_a_copy_at_a_place_is_known_by_its_name_there() -> None:
    plan = replace(MOVE, arguments={"from": "$filePath", "to": "site://far/s/"})
    task = replace(moved(products=(Product("gsiftp://dtn/s/raw", 3),)))
    assert inputs.known(run_of(task, plans=(plan, WORK))).keys() == {"/d/raw", "site://far/s/raw", "/s/raw"}
    [_, copy] = accounts.account(run_of(task, plans=(plan, WORK)), "local").steps
    assert (copy.place, copy.address, copy.source) == ("far", "/s/raw", ("local", "/d/raw"))


def test_many_files_of_one_transfer() -> None:
    plan = replace(MOVE, arguments={"from": ["/d/a", "/d/b"], "to": "/s"})
    task = replace(moved(products=(Product("/s", 3),)), arguments={"from": ["/d/a", "/d/b"], "to": "/s"})
    assert inputs.copies(run_of(), task, plan) == [("/d/a", "/s/a"), ("/d/b", "/s/b")]


def test_an_order_says_what_is_read_where_somebody_asks() -> None:
    run = run_of(moved())
    task = Task(1, "02", command="k /s/raw", working_dir="/w")
    order = orders.order(run, task, WORK, Path("/runs"), adopt=False)
    assert order.inputs == ("/s/raw", "/home/me/mask")
    assert order.known["/s/raw"] == "xxh3:aa"
    nobody = run_of(variables={"filePath": "/d/raw"})
    plain = orders.order(nobody, task, replace(WORK, expect=()), Path("/runs"), adopt=False)
    assert (plain.inputs, plain.known) == ((), {})


def test_an_account_in_the_order_of_the_work() -> None:
    found = accounts.account(run_of(moved(), worked()), "local")
    assert (found.run_id, found.experiment) == ("r", "e1")
    assert [(s.address, s.made, s.source) for s in found.steps] == [
        ("/d/raw", False, None),
        ("/s/raw", False, ("local", "/d/raw")),
        ("/s/raw", False, None),
        ("/home/me/mask", False, None),
        ("/s/out", True, None),
    ]
    assert [s.kind for s in found.steps if s.address in ("/d/raw", "/home/me/mask")] == [
        FileKind.RAW,
        FileKind.CALIBRATION,
    ]
    made: Step = found.steps[-1]
    assert (made.checksum, made.at, made.facts.software, made.facts.call) == ("xxh3:dd", 3.0, {"k": "1"}, "k")


def test_of_what_was_written_twice_the_last_counts() -> None:
    first = replace(worked(), number=2)
    second = replace(worked(products=(Product("/s/out", 4, "", "xxh3:ee"),)), number=3)
    found = accounts.account(run_of(first, second), "local")
    assert [s.checksum for s in found.steps if s.made] == ["xxh3:ee"]


def test_what_nobody_looked_at_is_named_all_the_same() -> None:
    found = accounts.account(run_of(variables={"filePath": "raw"}), "local")
    assert [(s.address, s.bytes, s.kind) for s in found.steps] == [("/home/me/raw", -1, FileKind.RAW)]


def test_a_run_without_files_has_nothing_to_say() -> None:
    assert accounts.summary(run_of(variables={})) == ""
    assert accounts.summary(run_of(moved(), worked())) == "3 read, 2 made"
    assert accounts.summary(replace(run_of(moved()), status=RunStatus.FAILED)) == ""


def test_what_a_site_sees_alone_is_said() -> None:
    found = accounts.account(run_of(moved(), worked()), "far", lambda site, path: site if path > "/h" else "")
    assert {(step.address, step.site) for step in found.steps} == {
        ("/d/raw", ""),
        ("/s/raw", "far"),
        ("/home/me/mask", "far"),
        ("/s/out", "far"),
    }
