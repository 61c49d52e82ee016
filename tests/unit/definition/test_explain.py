from __future__ import annotations

import json
from pathlib import Path

from msgspec.structs import replace

from orchestrator import codec
from orchestrator.definition import explain, loader, plan
from orchestrator.model import Plan

from .conftest import DM, compiled, load


def test_the_explanation_says_what_will_run_and_why(tmp_path: Path) -> None:
    (tmp_path / "a.hdf").write_bytes(b"x" * 1500)
    d = loader.load(DM / "xpcs.spec")
    p = plan.compile_plan(d, {"filePath": str(tmp_path / "a.hdf"), "analysisMachine": "h"}, directory=str(tmp_path))
    e = explain.explain(p)
    assert [[s.name for s in level] for level in e.levels] == [[n] for n in d.stages]
    assert (e.bytes, e.trouble) == (1500, "")
    assert e.levels[0][0].runs.startswith(f'echo "resultDir: `dirname {tmp_path}/a.hdf`')
    text = explain.render(e)
    assert "input  " in text
    assert "(1.5 kB)" in text
    assert "every 20 s until" in text
    assert "not set  $USER, $gpuID, $smooth" in text
    assert json.loads(codec.dumps(e))["workflow"] == "xpcs-boost"


def test_side_by_side_stages_reasons_checks_sudo_and_moves(tmp_path: Path) -> None:
    d = load(
        {
            "1": {"command": "make", "outputs": ["a.h5"], "resources": {"nodes": 2, "gpusPerRank": 1}},
            "2": {"transfer": {"from": "a.h5", "to": "/far/a.h5"}, "inputs": ["a.h5"], "timeout": 60},
            "3": {"command": "echo $filePath", "inputs": ["a.h5"], "filePath": "none.h5"},
        },
        userAccount="ops",
    )
    e = explain.explain(plan.compile_plan(d, {}, directory=str(tmp_path)))
    text = explain.render(e)
    for line in (
        "runs     /usr/bin/sudo -u ops -- make",
        "step 2, 2 stages side by side",
        "after    1: it writes a.h5, read here",
        "moves to /far/a.h5",
        "checks   a.h5: is there, is not empty, is newer than the start",
        "needs    2 nodes, 1 rank each, 1 GPU per rank",
        "ends     after 60 s at the latest",
        "trouble  There is no input file",
    ):
        assert line in text


def test_a_missing_input_is_told_not_raised(tmp_path: Path) -> None:
    p = plan.compile_plan(load(), {"filePath": "no\nne"}, directory=str(tmp_path))
    e = explain.explain(p)
    assert "There is no input file" in e.trouble
    assert "\nne" not in explain.render(e)


def stages_of(p: Plan) -> dict[str, explain.StageExplanation]:
    return {s.name: s for level in explain.explain(p).levels for s in level}


def test_the_first_file_is_shown_and_the_others_counted(tmp_path: Path) -> None:
    for n in range(20):
        (tmp_path / f"{n:02}.h5").write_bytes(b"x" * 100)
    d = load({"1": {"command": "use $filePath", "parallelExec": False}})
    p = plan.compile_plan(d, {"filePathPattern": "*.h5"}, directory=str(tmp_path))
    s = stages_of(p)["1"]
    assert s.runs == f"use {tmp_path}/00.h5"
    assert s.times == "once per file: this one and 19 more, one by one"
    text = explain.render(p)
    assert "and 10 more files, 2 kB in all" in text
    assert "reads  2 kB" in text


def test_missing_files_do_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    p = plan.compile_plan(
        load({"1": {"command": "use $filePath"}}), {"filePathList": "no,a,none"}, directory=str(tmp_path)
    )
    e = explain.explain(p)
    assert [f.path for f in e.files] == [f"{tmp_path}/a"]
    assert e.trouble.count("There is no input file") == 2


def test_a_file_name_that_the_engine_would_refuse_is_told(tmp_path: Path) -> None:
    (tmp_path / "a\n;b").write_bytes(b"x")
    p = plan.compile_plan(load({"1": {"command": "use $filePath"}}), {"filePathPattern": "*"}, directory=str(tmp_path))
    assert "a line break" in stages_of(p)["1"].trouble
    assert all(line.isprintable() for line in explain.render(p).splitlines())
    assert "a\\n;b" in explain.render(p)


def test_conditions_are_decided_when_they_can_be() -> None:
    p = compiled(
        {
            "00": {"command": "x", "outputVariableRegexList": ["(?P<n>.)"]},
            "01": {"command": "x", "runIf": '"$mode" == "full"'},
            "02": {"command": "x", "runIf": '"$mode" != "full"'},
            "03": {"command": "x", "runIf": '"$n" == "1"'},
            "04": {"command": "x", "runIf": '"$unset" == "1"'},
            "05": {"command": "x", "runIf": '"$username" == "ann"'},
        },
        {"mode": "full"},
    )
    decided = {name: s.decided for name, s in stages_of(p).items()}
    assert decided == {
        "00": "",
        "01": "true",
        "02": "false",
        "03": "after 00",
        "04": "false",
        "05": "when the run starts",
    }
    text = explain.render(p)
    assert 'only if  "$mode" == "full"  (already true: it will run)' in text
    assert "(already false: it will be skipped)" in text
    assert "(decided after 00)" in text


def test_where_each_open_name_comes_from() -> None:
    repeat = {"repeatPeriod": 1, "repeatUntil": '"$count" == "3"', "maxRepeats": 3}
    p = compiled(
        {
            "00": {"command": "x $later $a", "outputVariableRegexList": ["(?P<n>.)", "(?P<a>.)"]},
            "01": {"command": "x $n $a $id $none", "outputVariableRegexList": ["(?P<later>.)"]},
            "02": {"command": "x $count", "outputVariableRegexList": ["(?P<count>.)"], **repeat},
            "03": {"transfer": {"from": "/in/$none", "to": "/out"}},
        },
        {"a": "1"},
    )
    names = {s.name: {n.name: (n.state, n.comes_from) for n in s.names} for s in stages_of(p).values()}
    assert names["00"] == {"later": ("maybe", "01 captures it, but is not waited for")}
    assert names["01"] == {
        "n": ("later", "00 captures it"),
        "a": ("later", "00 captures it, else it stays 1"),
        "id": ("later", "known when the run starts"),
        "none": ("never", "set by nothing: the shell makes it empty"),
    }
    assert names["02"] == {"count": ("maybe", "this stage captures it, so its first run has none")}
    assert names["03"] == {"none": ("never", "set by nothing: it stays as it is written")}


def test_bytes_to_move_come_from_the_folder_of_the_stage(tmp_path: Path) -> None:
    (tmp_path / "scan.zarr" / "0").mkdir(parents=True)
    (tmp_path / "scan.zarr" / "0" / "0").write_bytes(b"x" * 3_000_000)
    d = load({"1": {"transfer": {"from": ["scan.zarr", "not-yet"], "to": "/far/"}, "workingDir": str(tmp_path)}})
    e = explain.explain(plan.compile_plan(d, {}, directory="/"))
    assert e.bytes_to_move == 3_000_000
    assert e.bytes_to_read == 0
    text = explain.render(e)
    assert "moves  3 MB" in text
    assert f"reads    {tmp_path}/not-yet (size unknown)" in text


def test_an_address_is_no_path_of_the_stage(tmp_path: Path) -> None:
    """What lies in a collection is not looked for on this disk."""
    address = "globus://5e1f7bd9-0a1c-4b7e-9a53-2d1c6b0f9e11"
    d = load({"1": {"transfer": {"from": f"{address}$filePath", "to": f"{address}/b/"}}})
    scan = tmp_path / "a.h5"
    scan.write_bytes(b"x")
    text = explain.render(plan.compile_plan(d, {"filePath": str(scan)}, directory=str(tmp_path)))
    assert f"reads    {address}{scan} (size unknown)" in text


def test_the_address_of_a_server_is_no_path_of_this_host(tmp_path: Path) -> None:
    d = load({"1": {"transfer": {"from": "gsiftp://dtn/raw/a.h5", "to": "a.h5"}, "workingDir": str(tmp_path)}})
    text = explain.render(explain.explain(plan.compile_plan(d, {}, directory="/")))
    assert "reads    gsiftp://dtn/raw/a.h5 (size unknown)" in text


def test_retries_by_class_and_captures() -> None:
    retries = {"transient": {"most": 2, "delay": 5, "exitCodes": [137]}, "timeout": 1}
    p = compiled({"1": {"command": "x", "retries": retries, "outputVariableRegexList": ["(?P<n>.)(?P<m>.)"]}})
    text = explain.render(p)
    assert (
        "transient (exit code 75, 137) 2 after 5 s, then 2 times longer, at most 300 s, lost worker 3, timeout 1"
        in text
    )
    assert "captures $n, $m" in text


def test_a_plan_with_an_odd_account_is_explained_not_raised() -> None:
    p = compiled({"1": {"command": "x"}})
    p = replace(p, stages=(replace(p.stages[0], user_account="a b"),))
    assert "not the name of an account" in stages_of(p)["1"].trouble
