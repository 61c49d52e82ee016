"""A stage's turn: its condition, files, folders and commands, with every name bound."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace

from orchestrator.definition import explain, loader
from orchestrator.definition import plan as plans
from orchestrator.engine import opening
from orchestrator.errors import ArgumentError, InputError
from orchestrator.events import DecideRepeat, OpenStage, RepeatDecided, StageOpened, StageRefused, StageSkipped
from orchestrator.model import Plan, Run, Task
from sites import loader as loader_of_sites

AT = 1_763_700_000.0


def run_of(
    stages: dict[str, Any], given: dict[str, str] | None = None, *, directory: str = "/data", **more: Any
) -> Run:
    definition = loader.load({"name": "w", "owner": "o", "stages": stages, **more})
    plan = plans.compile_plan(definition, given or {}, directory=directory)
    return Run(
        "run-1",
        plan,
        AT,
        started_at=AT,
        variables=Map(plan.variables),
        files=opening.files_at_submission(plan),
        username="ann",
        host="host1",
    )


def opened(run: Run, stage: str = "01", repetition: int = 1, **more: Any) -> StageOpened:
    event = opening.answer(run, OpenStage(stage, repetition), AT, **more)
    assert isinstance(event, StageOpened), event
    return event


def commands(run: Run, stage: str = "01", repetition: int = 1) -> list[str]:
    return [d.command for d in opened(run, stage, repetition).drafts]


def refused(run: Run, stage: str = "01") -> str:
    event = opening.answer(run, OpenStage(stage, 1), AT)
    assert isinstance(event, StageRefused), event
    return event.reason


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for name in ("a.h5", "b.h5"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_every_automatic_name_is_bound_and_unset_ones_stay() -> None:
    run = run_of({"01": {"command": 'echo $id $username $execHost "$startTime" "$gpuID" ${4:-x} $$'}})
    (command,) = commands(run)
    assert command.startswith("echo run-1 ann host1 ")
    assert command.endswith('"$gpuID" ${4:-x} $$')
    assert "$startTime" not in command


def test_captured_values_go_in_literally_even_with_quotes() -> None:
    run = run_of({"00": {"command": "x"}, "01": {"command": 'ssh h "cmd $options"'}})
    run = replace(run, variables=run.variables.set("options", "--a='b c' ; d"))
    assert commands(run) == ["""ssh h "cmd --a='b c' ; d\""""]


def test_a_file_sees_its_own_captures_first(scans: Path) -> None:
    a, b = str(scans / "a.h5"), str(scans / "b.h5")
    stage = {"command": "use $filePath $n $m"}
    run = run_of({"01": stage}, {"filePathList": f"{a},{b}"}, directory=str(scans))
    own = Map({(a, "n"): "of-a"})
    run = replace(run, variables=run.variables.set("n", "last").set("m", "both"), item_variables=own)
    assert commands(run) == [f"use {a} of-a both", f"use {b} last both"]
    assert [d.item for d in opened(run).drafts] == [a, b]


def test_the_account_becomes_sudo_as_dm_records_it_and_the_stage_goes_first() -> None:
    stages = {"01": {"command": "echo a; echo b"}, "02": {"command": "x", "userAccount": "other"}}
    run = run_of(stages, userAccount="8ideiuser")
    assert commands(run) == ["/usr/bin/sudo -u 8ideiuser -- echo a; echo b"]
    assert commands(run, "02") == ["/usr/bin/sudo -u other -- x"]


def test_explain_shows_the_very_command() -> None:
    run = run_of({"01": {"command": "echo $a $b"}}, {"a": "1"}, userAccount="ops")
    assert [s.runs for level in explain.explain(run.plan).levels for s in level] == commands(run)


@pytest.mark.parametrize("account", ["a b", "-u root", "root; x", "a\nb", "$who", "", "x" * 65])
def test_what_is_no_account_is_refused(account: str) -> None:
    """The loader refuses it already; a plan from elsewhere must not get further either."""
    run = run_of({"01": {"command": "x"}})
    stage = replace(run.plan.stages[0], user_account=account)
    run = replace(run, plan=replace(run.plan, stages=(stage,)))
    if account:
        assert "not the name of an account" in refused(run)
    else:
        assert commands(run) == ["x"]


def test_kernels_and_transfers_take_any_value_and_get_no_shell() -> None:
    run = run_of({"01": {"transfer": {"from": "$a", "to": "/b/$a"}}}, {"a": "x; $(touch y) 'z'"}, userAccount="ops")
    (draft,) = opened(run).drafts
    assert draft.command == ""
    assert draft.arguments["to"] == "/b/x; $(touch y) 'z'"


@pytest.mark.parametrize(
    ("stage", "working", "data"),
    [
        ({}, "/data", "/data"),
        ({"workingDir": "$sub/x"}, "/data/s/x", "/data/s/x"),
        ({"workingDir": "/abs", "dataDir": "$workingDir/in"}, "/abs", "/abs/in"),
        ({"workingDir": "/abs", "dataDir": "/other"}, "/abs", "/other"),
        ({"workingDir": "..", "dataDir": "$sub"}, "/", "/s"),
    ],
)
def test_folders(stage: dict[str, Any], working: str, data: str) -> None:
    run = run_of({"01": {"command": "x", "expect": {"out.h5": {}}, **stage}}, {"sub": "s"})
    (draft,) = opened(run).drafts
    assert draft.working_dir == working
    assert draft.expect[0].path == os.path.join(data, "out.h5")


def test_a_false_condition_skips_with_the_reason() -> None:
    run = run_of({"01": {"command": "x", "runIf": '"$mode" == "full"'}}, {"mode": "quick"})
    event = opening.answer(run, OpenStage("01", 1), AT)
    assert event == StageSkipped(AT, "01", 'runIf is false: "$mode" == "full"')


def test_a_condition_is_asked_only_before_the_first_repetition() -> None:
    more = {"repeatPeriod": 1, "repeatUntil": '"$n" == "3"', "maxRepeats": 5}
    run = run_of({"01": {"command": "x", "runIf": '"$n" == "0"', **more}}, {"n": "0"})
    later = replace(run, variables=run.variables.set("n", "2"))
    assert opened(later, repetition=2).repetition == 2


def test_repetitions_are_substituted_again_with_the_newest_captures() -> None:
    stage = {
        "command": 'echo "Count: `expr $count + 1`"',
        "outputVariableRegexList": ["Count: (?P<count>.*)"],
        "repeatPeriod": 10,
        "repeatUntil": '"$count" == "$randomNumber"',
        "maxRepeats": 10,
    }
    run = run_of({"01": stage}, {"count": "0", "randomNumber": "2"})
    assert commands(run) == ['echo "Count: `expr 0 + 1`"']
    run = replace(run, variables=run.variables.set("count", "1"))
    assert opening.answer(run, DecideRepeat("01"), AT) == RepeatDecided(AT, "01", False)
    assert commands(run, repetition=2) == ['echo "Count: `expr 1 + 1`"']
    run = replace(run, variables=run.variables.set("count", "2"))
    assert opening.answer(run, DecideRepeat("01"), AT) == RepeatDecided(AT, "01", True)


@pytest.mark.parametrize("name", ["x$(touch y).h5", "a;b.h5", "a'b.h5", 'a"b.h5', "a`b`.h5", "a\nb.h5", "a(b).h5"])
def test_shell_text_in_a_file_name_found_by_pattern_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    stages = {"01": {"command": 'use "$filePath"'}}
    run = run_of(stages, {"filePathPattern": "*.h5"}, directory=str(tmp_path))
    assert "which a shell would read" in refused(run)
    assert "\n" not in refused(run)
    assert opened(run, where=opening.At(shell_text=True)).drafts[0].command == f'use "{tmp_path}/{name}"'


def test_names_that_a_shell_takes_as_they_are_pass(tmp_path: Path) -> None:
    names = sorted([b"-rf.h5", b"a b.h5", b"caf\xe9.h5", b"[1].h5"])
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(b"x")
    run = run_of({"01": {"command": "use '$filePath'"}}, {"filePathPattern": "*.h5"}, directory=str(tmp_path))
    assert sorted(os.path.basename(os.fsencode(d.item or "")) for d in opened(run).drafts) == names


def test_files_of_the_stage_are_taken_from_its_data_dir_when_its_turn_comes(scans: Path) -> None:
    stages = {"00": {"command": "make"}, "01": {"command": "use $filePath", "filePathPattern": "$kind*.h5"}}
    stages["01"]["dataDir"] = str(scans)
    run = run_of(stages)
    assert "needs $kind" in refused(run)
    run = replace(run, variables=run.variables.set("kind", "b"))
    assert commands(run) == [f"use {scans}/b.h5"]


def test_a_capture_may_replace_the_input_files(scans: Path) -> None:
    run = run_of({"01": {"command": "use $filePath"}}, {"filePath": "a.h5"}, directory=str(scans))
    assert commands(run) == [f"use {scans}/a.h5"]
    run = replace(run, variables=run.variables.set("filePath", str(scans / "b.h5")))
    assert commands(run) == [f"use {scans}/b.h5"]


def test_missing_files_refuse_the_submission_or_the_stage(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no input file"):
        run_of({"01": {"command": "use $filePath"}}, {"filePath": "none.h5"}, directory=str(tmp_path))
    run = run_of({"01": {"command": "use $filePath", "filePath": "none.h5"}}, directory=str(tmp_path))
    assert "no input file" in refused(run)


def test_files_that_no_stage_reads_need_not_be_there() -> None:
    assert run_of({"01": {"command": "x"}}, {"filePath": "/none"}).files == ()


def test_the_data_dir_argument_is_where_the_files_of_the_run_are(scans: Path) -> None:
    given = {"filePath": "a.h5", "dataDir": str(scans)}
    run = run_of({"01": {"command": "use $filePath"}}, given, directory="/")
    assert run.files == (f"{scans}/a.h5",)
    assert explain.explain(run.plan).files[0].path == f"{scans}/a.h5"


def parent(site_allows: bool, value: str) -> Plan:
    child = loader.load({"name": "c", "owner": "o", "stages": {"1": {"command": "echo $x"}}})
    definition = loader.load(
        {"name": "p", "owner": "o", "stages": {"01": {"workflow": "c", "arguments": {"x": "$value"}}}}
    )
    run = Run("r", plans.compile_plan(definition, {}, directory="/data", find_child=lambda name: child), AT)
    task = Task(0, "01", call="c", arguments={"x": value}, working_dir="/data")
    return opening.child_plan(run, task, shell_text=lambda site: site_allows)


def test_a_child_is_checked_as_a_submission_is() -> None:
    assert parent(False, "5").variables == {"x": "5"}
    with pytest.raises(ArgumentError, match="semicolon"):
        parent(False, "a; b")
    assert parent(True, "a; b").variables == {"x": "a; b"}


DOOR = '[[doors]]\nkind = "gridftp"\nendpoint = "dtn.hpc.gov:2811"\nroot = "/"\n'
SITES = {
    "local": loader_of_sites.parse('[identity]\nname = "local"\ncontact = "ops"\n'),
    "hpc": loader_of_sites.parse(f'[identity]\nname = "hpc"\ncontact = "ops"\n{DOOR}'),
}


def at(site: str) -> opening.At:
    return opening.At(site, profiles=SITES.__getitem__)


def test_a_place_at_a_site_is_the_path_there_and_an_address_elsewhere() -> None:
    run = run_of(
        {
            "01": {"transfer": {"from": "/raw/a.h5", "to": "site://hpc/$dir/a.h5"}},
            "02": {"kernel": "tomography.inspect", "arguments": {"input": "$filePath"}},
            "03": {"command": "ls $filePath site://hpc$dir", "expect": {"$filePath.out": {}}},
        },
        {"filePath": "site://hpc/scratch/a.h5", "dir": "/scratch"},
    )
    (moved,) = opened(run, "01", where=at("local")).drafts
    assert moved.arguments == {"from": "/raw/a.h5", "to": "gsiftp://dtn.hpc.gov:2811/scratch/a.h5"}
    (there,) = opened(run, "02", where=at("hpc")).drafts
    assert (there.item, there.arguments) == ("site://hpc/scratch/a.h5", {"input": "/scratch/a.h5"})
    (listed,) = opened(run, "03", where=at("hpc")).drafts
    assert (listed.command, listed.expect[0].path) == ("ls /scratch/a.h5 /scratch", "/scratch/a.h5.out")
    for stage in ("02", "03"):
        event = opening.answer(run, OpenStage(stage, 1), AT, at("local"))
        assert isinstance(event, StageRefused)
        assert "runs at site 'local', and 'site://hpc/…' lies at site 'hpc'" in event.reason


def test_a_place_at_a_site_is_no_way_past_the_shell() -> None:
    run = run_of({"01": {"command": "ls $where"}}, {"where": "x"})
    plan = replace(run.plan, variables={"where": "site://hpc/$(id)"}, supplied=("where",))
    event = opening.answer(replace(run, plan=plan, variables=Map(plan.variables)), OpenStage("01", 1), AT, at("hpc"))
    assert isinstance(event, StageRefused)
    assert "dollar" in event.reason


def test_a_child_runs_where_its_stage_says() -> None:
    child = loader.load({"name": "c", "owner": "o", "stages": {"1": {"command": "true"}}})
    stage = {"workflow": "c", "site": "$site", "reservation": "beam", "arguments": {"filePath": "site://$site/a"}}
    definition = loader.load({"name": "p", "owner": "o", "stages": {"01": stage}})
    plan = plans.compile_plan(definition, {"site": "hpc"}, directory="/", find_child=lambda name: child)
    run = Run("r", plan, AT, variables=Map(plan.variables))
    (draft,) = opened(run, where=at("hpc")).drafts
    assert draft.arguments == {"filePath": "site://hpc/a"}  # the child finds out by itself
    placing = opening.child_plan(run, Task(0, "01", call="c", working_dir="/")).stages[0].placing
    assert (placing.site, placing.reservation) == ("hpc", "beam")
