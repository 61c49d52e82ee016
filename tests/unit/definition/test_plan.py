from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import codec
from orchestrator.definition import graph, loader, plan
from orchestrator.errors import ArgumentError, BeamwayError, DefinitionError, InputError
from orchestrator.model import Definition, FailureClass, FileSpec, Plan, Repeat, Resources, RetryRule

from .conftest import DM, Kernels, compiled, load

C = {"command": "true"}


def stage(body: dict[str, Any], given_: dict[str, str] | None = None, **more: Any) -> Any:
    return compiled({"01": body}, given_, **more).stages[0]


def waits(plan_: Plan) -> dict[str, tuple[str, ...]]:
    return {s.name: s.after for s in plan_.stages}


def test_a_dm_definition_runs_stage_after_stage() -> None:
    d = loader.load(DM / "xpcs.spec")
    p = plan.compile_plan(d, {"filePath": "/d/a.hdf", "analysisMachine": "local"}, directory="/x")
    assert [s.name for s in p.stages] == list(d.stages)
    assert waits(p)["06-SUBMIT"] == ("00-INIT", "03-METADATA", "05-TRANSFER")
    assert [s.per_file for s in p.stages] == [True, True, False, False, False]
    assert p.stages[4].repeat == Repeat(20.0, '"$jobStatus" != "RUNNING" and "$jobStatus" != "PENDING"', 1080)
    assert not p.stages[2].parallel
    assert p.stages[0].data_dir == "/gdata/dm/8ID"
    assert p.stages[1].working_dir == "$resultDir"
    assert plan.unset_names(p) == ("USER", "gpuID", "smooth")
    assert codec.loads(codec.dumps(p), Plan) == p


def test_defaults_are_dm_s() -> None:
    s = stage(C)
    assert (s.working_dir, s.data_dir, s.placing.site, s.parallel, s.per_file) == (
        "/data",
        "$workingDir",
        "",
        True,
        False,
    )
    assert s.timeout_s == 0
    assert s.resources == Resources()


# ------------------------------------------ arguments

SCHEMA = {
    "machine": {"required": True, "choices": ["polaris", "local"]},
    "count": {"type": "integer", "default": 3},
    "out": {"type": "path", "default": "$machine/out"},
    "flag": {"type": "bool"},
}


def with_schema(given_: dict[str, Any], stages: dict[str, Any] | None = None) -> Plan:
    return compiled(stages or {"1": C}, given_, arguments=SCHEMA)


def test_defaults_are_filled_in_and_paths_made_absolute() -> None:
    p = with_schema({"machine": "local", "flag": "yes"})
    assert p.variables == {"machine": "local", "flag": "yes", "count": "3", "out": "/data/local/out"}
    assert p.supplied == ("flag", "machine")


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ({}, "needs the argument 'machine'.*It takes: machine, count"),
        ({"machine": "polars"}, "cannot be 'polars'. Did you mean 'polaris'"),
        ({"machine": "local", "cout": "3"}, "no argument 'cout'. Did you mean .*It takes"),
        ({"machine": "local", "count": "3.5"}, "must be a whole number"),
        ({"machine": "local", "flag": "maybe"}, "true or false"),
        ({"machine": ""}, "cannot be ''"),
        ({"machine": "local", "status": "done"}, "job record"),
        ({"machine": "local", "count": "1\0"}, "NUL"),
        ({"machine": ["local"]}, "text or a number"),
    ],
)
def test_arguments_are_checked_before_anything_runs(given_: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        with_schema(given_)


def test_empty_means_none_for_an_optional_argument() -> None:
    assert with_schema({"machine": "local", "out": "", "flag": ""}).variables["out"] == ""
    with pytest.raises(ArgumentError, match="must be a path"):
        compiled({"1": C}, {"p": ""}, arguments={"p": {"type": "path", "required": True}})


def test_input_files_may_always_be_given() -> None:
    assert with_schema({"machine": "local", "filePath": "/dev/null"}).files.path == "/dev/null"


def test_without_a_schema_anything_goes() -> None:
    assert compiled({"1": C}, {"any": "thing"}).variables == {"any": "thing"}


def test_a_default_that_reads_a_missing_argument_stays_unset() -> None:
    p = compiled({"1": C}, arguments={"a": {}, "b": {"default": "$a/x"}, "c": {"default": "$b/y"}})
    assert p.variables == {}


@pytest.mark.parametrize("command", ["tool $a", 'ssh h "tool $b"'])
def test_shell_text_is_refused_when_a_command_uses_it(command: str) -> None:
    schema = {"a": {}, "b": {"default": "x-$a"}}
    with pytest.raises(ArgumentError, match=r"'a' holds a semicolon.*used by stage '1'"):
        compiled({"1": {"command": command}}, {"a": "x; rm y"}, arguments=schema)


def test_shell_text_is_fine_where_the_site_allows_it() -> None:
    d = load({"1": {"command": "echo $a", "site": "open"}})
    p = plan.compile_plan(d, {"a": "x; y"}, directory="/data", shell_text=lambda site: site == "open")
    assert p.variables == {"a": "x; y"}
    with pytest.raises(ArgumentError, match="semicolon"):
        plan.compile_plan(d, {"a": "x; y"}, directory="/data", shell_text=lambda site: site == "other")


def test_half_a_character_is_refused_and_bytes_of_a_file_name_are_not() -> None:
    with pytest.raises(ArgumentError, match="half a character"):
        compiled({"1": {"command": "echo $a"}}, {"a": "\ud800"})
    assert compiled({"1": {"command": "echo $a"}}, {"a": "caf\udce9"}).variables == {"a": "caf\udce9"}
    with pytest.raises(DefinitionError, match="half a character"):
        compiled({"1": {"command": "echo \ud800"}})


def test_shell_text_is_fine_where_no_shell_sees_it(kernels: Kernels) -> None:
    calls = {"kernel": "tomography.reconstruct", "arguments": {"input": "$a", "output": "o"}}
    assert compiled({"1": calls}, {"a": "x; rm y"}).variables["a"] == "x; rm y"


def test_hostile_file_names_are_refused_in_commands_only() -> None:
    with pytest.raises(ArgumentError, match="'filePath' holds"):
        compiled({"1": {"command": "tool $filePath"}}, {"filePath": "/d/$(x).h5"})
    assert compiled({"1": C}, {"filePath": "/d/$a.h5", "a": "b"}).files == FileSpec(path="$filePath")


def test_a_file_specification_is_needed_where_it_is_used() -> None:
    uses = {"command": "tool $filePath"}
    with pytest.raises(InputError, match="once per file"):
        compiled({"1": uses})
    assert compiled({"1": {**uses, "filePathPattern": "*.h5"}}).stages[0].files == FileSpec(pattern="*.h5")
    assert compiled({"0": {**C, "outputVariableRegexList": ["(?P<filePath>.*)"]}, "1": uses}).stages
    assert compiled({"1": C}).files == FileSpec()
    with pytest.raises(InputError, match=r"Invalid input file specification\."):
        plan.compile_plan(load(), {}, directory="/", strict=True)


def test_a_file_list_is_split_at_commas_or_space() -> None:
    assert compiled({"1": C}, {"filePathList": "a.h5 b.h5"}).files.paths == ("a.h5", "b.h5")
    assert compiled({"1": C}, {"filePathList": "a b.h5, c.h5,"}).files.paths == ("a b.h5", "c.h5")
    assert compiled({"1": C}, {"fileQueryDict": '{"run": 1}'}).files.query == {"run": 1}
    with pytest.raises(ArgumentError, match="written as JSON"):
        compiled({"1": C}, {"fileQueryDict": "run"})


# ------------------------------------------ graph


def test_a_stage_that_says_nothing_is_a_barrier() -> None:
    p = compiled({"1": C, "2": {**C, "after": []}, "3": C})
    assert waits(p) == {"1": (), "2": (), "3": ("1", "2")}
    assert p.stages[2].because == (graph.BARRIER, graph.BARRIER)


def test_dataflow_edges_and_their_reasons() -> None:
    p = compiled(
        {
            "1-make": {**C, "outputs": ["out/a.h5"], "outputVariableRegexList": ["(?P<n>.)"]},
            "2-log": {**C, "after": []},
            "3-read": {**C, "inputs": "./out/a.h5"},
            "4-dir": {**C, "inputs": ["out"]},
            "5-name": {"command": "echo $n", "after": "2-log"},
            "6-if": {**C, "after": [], "runIf": "$n > 1"},
        }
    )
    assert waits(p) == {
        "1-make": (),
        "2-log": (),
        "3-read": ("1-make",),
        "4-dir": ("1-make",),
        "5-name": ("1-make", "2-log"),
        "6-if": ("1-make",),
    }
    assert p.stages[4].because == ("captures $n, used here", "is named in after")


def test_a_captured_argument_counts_as_captured() -> None:
    p = compiled(
        {"1": {**C, "outputVariableRegexList": ["(?P<a>.)"]}, "2": {"command": "echo $a", "after": []}},
        {"a": "x"},
    )
    assert waits(p)["2"] == ("1",)


def test_the_capture_before_counts_when_a_later_stage_captures_the_same() -> None:
    grab = {**C, "after": [], "outputVariableRegexList": ["(?P<s>.)"]}
    p = compiled({"1": grab, "2": {"command": "echo $s", "after": []}, "3": {**grab, "after": ["2"]}})
    assert waits(p) == {"1": (), "2": ("1",), "3": ("2",)}


def test_a_circle_is_spelled_out() -> None:
    with pytest.raises(DefinitionError, match=r"'a' waits for 'b', which is named in after; 'b' waits for 'a'"):
        compiled({"a": {**C, "after": "b"}, "b": {**C, "after": "a"}})
    with pytest.raises(DefinitionError, match="comes before it in the order of names"):
        compiled({"a": {**C, "after": "b"}, "b": C})


@given(st.lists(st.none() | st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=8))
def test_the_order_respects_every_wait_or_a_circle_is_named(after: list[list[int] | None]) -> None:
    n = len(after)
    stages = {
        str(i): C if a is None else {**C, "after": [str(x) for x in a if x < n and x != i]} for i, a in enumerate(after)
    }
    try:
        p = compiled(stages)
    except DefinitionError as e:
        said = e.sentence
        assert "in a circle" in said
        return
    seen: set[str] = set()
    for s in p.stages:
        assert set(s.after) <= seen
        assert len(s.after) == len(s.because)
        seen.add(s.name)
    assert seen == set(stages)
    assert sorted(s.name for level in graph.levels(p.stages) for s in level) == sorted(seen)


# ------------------------------------------ extensions


def rules(body: dict[str, Any]) -> dict[str, int]:
    return {str(r.failure): r.most for r in stage({**C, **body}).retries}


def test_retries() -> None:
    jobs = {"node failure": 3, "preempted": 10, "walltime": 1, "out of memory": 1, "reservation": 5, "site": 2}
    assert rules({}) == {"lost worker": 3, **jobs}
    assert rules({"retries": 0}) == {}
    counted = {"transient": 2, "lost worker": 2, "bad output": 2, "node failure": 2}
    assert rules({"retries": 2}) == {**jobs, **counted}
    assert rules({"retries": {"transient": 1, "lost worker": 0, "walltime": 0}}) == {
        "transient": 1,
        **{name: most for name, most in jobs.items() if name != "walltime"},
    }
    spec = {"most": 3, "delay": "5 s", "factor": 1.5, "longest": "1 min", "exitCodes": [9, 137]}
    rule = next(r for r in stage({**C, "retries": {"transient": spec}}).retries if r.failure is FailureClass.TRANSIENT)
    assert (rule.failure, rule.most, rule.delay_s, rule.factor) == (FailureClass.TRANSIENT, 3, 5.0, 1.5)
    assert (rule.delay_max_s, rule.exit_codes) == (60.0, (9, 137))


def test_a_class_that_holds_has_exit_codes_and_no_budget() -> None:
    found = stage({**C, "retries": {"authentication": {"exitCodes": [77]}}}).retries
    assert RetryRule(FailureClass.AUTHENTICATION, 0, exit_codes=(77,)) in found
    for wrong in (3, {"most": 3}, {"most": 3, "exitCodes": [77]}):
        with pytest.raises(DefinitionError, match="on hold and has no budget"):
            stage({**C, "retries": {"authentication": wrong}})
    with pytest.raises(DefinitionError, match="no key 'site down'"):
        stage({**C, "retries": {"site down": 1}})


def test_kernels_are_retried_by_default(kernels: Kernels) -> None:
    s = stage({"kernel": "tomography.reconstruct", "arguments": {"input": "a", "output": "b"}})
    found = {str(r.failure): r.most for r in s.retries}
    assert {"bad output": 1, "transient": 2, "lost worker": 3}.items() <= found.items()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
        ("10 min", 600),
        ("2h", 7200),
        ("3 days", 259200),
        ("01:30:00", 5400),
        ("1-00:00:10", 86410),
        ("5 sec", 5),
        ("5 seconds", None),
        ("1 fortnight", None),
        ("-1", None),
        ("1e5", None),
    ],
)
def test_timeouts(value: object, seconds: float | None) -> None:
    if seconds is None:
        with pytest.raises(DefinitionError, match="key 'timeout'"):
            stage({**C, "timeout": value})
    else:
        assert stage({**C, "timeout": value}).timeout_s == seconds


def test_resources_may_read_arguments() -> None:
    given_ = {"nodes": "$n", "ranksPerNode": 4, "gpusPerRank": 1, "memory": "16 GiB", "walltime": "00:30:00"}
    s = stage({**C, "resources": given_, "timeout": "$t min"}, {"n": "8", "t": "5"})
    assert s.resources == Resources(8, 4, 1, 1, 16 * 2**30, 1800.0)
    assert s.timeout_s == 300
    with pytest.raises(DefinitionError, match="needs the argument 'n'"):
        stage({**C, "resources": given_}, {"t": "5"})
    with pytest.raises(DefinitionError, match="at least 1"):
        stage({**C, "resources": given_}, {"t": "5", "n": "0"})


def test_expectations() -> None:
    checks = {
        "dataset": "/x",
        "shape": [64, None],
        "dtype": "float32",
        "finite": 0.99,
        "minSize": "1 MB",
        "newer": False,
        "nonconstant": True,
    }
    s = stage({**C, "outputs": ["./a.h5", "b.txt"], "expect": {"a.h5": checks}})
    first, second = s.expect
    assert (first.path, first.opens, first.dataset, first.shape) == ("a.h5", "hdf5", "/x", (64, None))
    assert (first.min_bytes, first.newer, first.nonconstant, first.finite) == (10**6, False, True, 0.99)
    assert (second.path, second.opens, second.min_bytes, second.newer) == ("b.txt", "", 1, True)
    listed = stage({**C, "expect": ["x", {"path": "y.npy", "finite": 1}]}).expect
    assert [(e.path, e.finite) for e in listed] == [("x", None), ("y.npy", 1.0)]
    for bad in ([1], [{"finite": 1}], ["x", {"path": "x"}]):
        with pytest.raises(DefinitionError, match="key 'expect'"):
            stage({**C, "expect": bad})


# ------------------------------------------ kernels and children


@pytest.mark.parametrize(
    ("name", "given_", "sentence"),
    [
        ("tomography.reconstrct", {}, "Did you mean 'tomography.reconstruct'"),
        ("tomography.reconstruct", {"input": "a"}, "needs the argument 'output'"),
        ("tomography.reconstruct", {"input": "a", "output": "b", "axs": 1}, "Did you mean 'axis'"),
        ("tomography.reconstruct", {"input": "a", "output": "b", "axis": "x"}, "must be of type number"),
        ("tomography.reconstruct", {"input": "a", "output": "b", "algorithm": "fpb"}, "Did you mean 'fbp'"),
        ("tomography.reconstruct", {"input": ["a"], "output": "b"}, "must be one value"),
    ],
)
def test_kernel_calls_are_checked(kernels: Kernels, name: str, given_: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        stage({"kernel": name, "arguments": given_})


def test_a_kernel_that_uses_file_path_runs_per_file(kernels: Kernels) -> None:
    call = {"input": "$filePath", "output": "$filePath.out", "axis": "$axis"}
    assert stage({"kernel": "tomography.reconstruct", "arguments": call}, {"filePath": "a"}).per_file


def parent(call: str = "child", **given_: Any) -> Definition:
    return load({"1": {"workflow": call, "arguments": given_}}, name="parent")


def test_a_child_is_compiled_with_its_parent_and_bound_when_it_starts() -> None:
    child = load({"1": {"command": "echo $a"}}, name="child", arguments={"a": {"required": True, "type": "integer"}})
    p = plan.compile_plan(parent(a="$n"), {"n": "5"}, directory="/d", find_child=lambda _: child)
    assert p.children["child"].variables == {"a": "$n"}
    assert codec.loads(codec.dumps(p), Plan) == p
    assert plan.bind(p.children["child"], {"a": "5"}).variables == {"a": "5"}
    with pytest.raises(ArgumentError, match="whole number"):
        plan.bind(p.children["child"], {"a": "x;y"})


def test_what_is_wrong_with_a_child_is_found_at_once() -> None:
    child = load(name="child", arguments={"a": {"required": True}})
    with pytest.raises(DefinitionError, match=r"stage '1', key 'arguments': Workflow 'child' needs"):
        plan.compile_plan(parent(), {}, directory="/d", find_child=lambda _: child)
    with pytest.raises(DefinitionError, match="circle: parent → parent"):
        plan.compile_plan(parent("parent"), {}, directory="/d", find_child=lambda _: parent("parent"))
    with pytest.raises(DefinitionError, match="cannot be looked up"):
        plan.compile_plan(parent(), {}, directory="/d")


@given(st.dictionaries(st.text(max_size=6), st.text(max_size=10), max_size=4))
def test_any_arguments_give_a_plan_or_one_of_our_errors(given_: dict[str, str]) -> None:
    d = load(
        {"1": {"command": "tool $filePath $a"}},
        arguments={"a": {"type": "number"}} if len(given_) % 2 else None,
    )
    try:
        p = plan.compile_plan(d, given_, directory="/d")
    except BeamwayError as e:
        assert "\n" not in str(e)  # noqa: PT017
    else:
        assert codec.loads(codec.dumps(p), Plan) == p


def test_a_stage_account_goes_before_that_of_the_workflow() -> None:
    p = compiled({"1": C, "2": {**C, "userAccount": "b"}}, userAccount="a")
    assert [s.user_account for s in p.stages] == ["a", "b"]
