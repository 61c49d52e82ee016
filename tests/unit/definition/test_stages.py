"""Every stage key, and every error with file, line, stage and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.definition import loader, stages
from orchestrator.definition.place import Place
from orchestrator.errors import DefinitionError
from orchestrator.model import (
    HOLDING,
    Expectation,
    FailureClass,
    FileSpec,
    Placing,
    Repeat,
    Resources,
    StageKind,
    StagePlan,
)


def read(**raw: Any) -> StagePlan:
    return stages.read("s", {"command": "x", **raw} if not set(raw) & set(StageKind) else raw, Place("f.py"))


def test_defaults_of_a_dm_stage() -> None:
    s = read()
    assert (s.working_dir, s.data_dir, s.parallel, s.placing.site, s.per_file) == (".", "$workingDir", True, "", False)
    assert (s.captures, s.run_if, s.repeat, s.files, s.expect, s.timeout_s) == ((), "", None, None, (), 0.0)
    assert s.resources == Resources()


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("workingDir", "/a/$b", "working_dir", "/a/$b"),
        ("workingDir", "", "working_dir", "."),
        ("dataDir", "/d", "data_dir", "/d"),
        ("parallelExec", False, "parallel", False),
        ("parallelExec", "False", "parallel", False),
        ("parallelExec", 0, "parallel", False),
        ("parallelExec", "true", "parallel", True),
        ("filePath", "/a", "files", FileSpec(path="/a")),
        ("filePathList", ["a", "b c"], "files", FileSpec(paths=("a", "b c"))),
        ("filePathList", "a, b", "files", FileSpec(paths=("a", "b"))),
        ("filePathList", "a b", "files", FileSpec(paths=("a", "b"))),
        ("filePathPattern", "*.h5", "files", FileSpec(pattern="*.h5")),
        ("fileQueryDict", {"q": 1}, "files", FileSpec(query={"q": 1})),
        ("filePath", "", "files", None),
        ("runIf", "", "run_if", ""),
        ("runIf", " ", "run_if", ""),
        ("runIf", True, "run_if", "True"),
        ("runIf", "$a", "run_if", "$a"),
        ("execOutFormat", {"any": 1}, "captures", ()),
        ("monitorCmd", 5, "captures", ()),
        ("userAccount", "8ideiuser", "user_account", "8ideiuser"),
        ("site", "auto", "placing", Placing("auto")),
        ("inputs", "a.h5", "inputs", ("a.h5",)),
        ("outputs", ["a", "a", "b"], "outputs", ("a", "b")),
        ("outputs", "a", "expect", (Expectation("a"),)),
        ("timeout", "2 min", "timeout_s", 120.0),
        ("outputVariableRegexList", ["a(?P<b>.)"], "captures", ("a(?P<b>.)",)),
        ("description", "text", "command", "x"),
        ("unknownKey", object, "command", "x"),
        ("workingDir", None, "working_dir", "."),
    ],
)
def test_every_key(key: str, value: Any, field: str, expected: Any) -> None:
    assert getattr(read(**{key: value}), field) == expected


def test_repeats_take_numbers_as_texts_as_dm_clients_send_them() -> None:
    assert read(repeatPeriod="10", repeatUntil="1 == 1", maxRepeats="3").repeat == Repeat(10.0, "1 == 1", 3)


def test_the_other_kinds() -> None:
    assert read(kernel="k", arguments={"a": "$filePath"}).per_file
    assert read(function="a.b:c").call == "a.b:c"
    assert read(workflow="w").kind is StageKind.WORKFLOW
    assert read(transfer={"from": ["a", "b"], "to": "c"}).arguments == {"from": ["a", "b"], "to": "c"}


def test_what_runs_once_per_file() -> None:
    assert read(command="x '${filePath}'").per_file
    assert not read(command="x $filePathList").per_file
    assert not read(command="x $$filePath").per_file
    assert not read(runIf='".h5" in "$filePath"', workingDir="$filePath.d").per_file


def test_retries_of_every_class_with_a_budget() -> None:
    budgeted = [f for f in FailureClass if f is not FailureClass.CANCELLED and f not in HOLDING]
    given = {str(f): i + 1 for i, f in enumerate(budgeted)}
    assert {r.failure.value: r.most for r in read(retries=given).retries} == given


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"workingDir": 5}, "workingDir", "must be text"),
    ({"outputVariableRegexList": "a"}, "outputVariableRegexList", "must be a list"),
    ({"outputVariableRegexList": ["(?P<a"]}, "outputVariableRegexList", "Regex 1 is wrong at position"),
    ({"outputVariableRegexList": ["a", "(" * 5000 + ")" * 5000]}, "outputVariableRegexList", "Regex 2"),
    ({"outputVariableRegexList": ["(?P<1a>.)"]}, "outputVariableRegexList", "bad character in group name"),
    ({"parallelExec": "maybe"}, "parallelExec", "True or False"),
    ({"fileQueryDict": "x"}, "fileQueryDict", "must be a dict"),
    ({"runIf": "$a =="}, "runIf", "cannot be read"),
    ({"runIf": "__import__('os').system('x')"}, "runIf", "cannot be read"),
    ({"repeatPeriod": 1}, "repeatPeriod", "'repeatUntil' and 'maxRepeats' are missing"),
    ({"repeatPeriod": 1, "repeatUntil": "", "maxRepeats": 2}, "repeatUntil", "cannot be read"),
    ({"repeatPeriod": -1, "repeatUntil": "1", "maxRepeats": 2}, "repeatPeriod", "0 or more"),
    ({"repeatPeriod": 1, "repeatUntil": "1", "maxRepeats": 0}, "maxRepeats", "1 or more"),
    ({"repeatPeriod": 1, "repeatUntil": "1", "maxRepeats": 1.5}, "maxRepeats", "whole number"),
    ({"userAccount": "a b"}, "userAccount", "OS account"),
    ({"site": " "}, "site", "empty"),
    ({"resources": {"node": 1}}, "resources", "Did you mean 'nodes'"),
    ({"resources": {"memory": "lots"}}, "resources", "500 MB"),
    ({"retries": {"transien": 1}}, "retries", "Did you mean 'transient'"),
    ({"retries": {"transient": {"mots": 1}}}, "retries", "Did you mean 'most'"),
    ({"retries": 1000}, "retries", "More than 100"),
    ({"after": [1]}, "after", "list of texts"),
    ({"after": "01-MAK"}, "after", "Did you mean '01-MAKE'"),
    ({"after": "02-USE"}, "after", "cannot wait for itself"),
    ({"inputs": [""]}, "inputs", "empty text"),
    ({"expect": {"a.h5": {"shap": [1]}}}, "expect", "Did you mean 'shape'"),
    ({"expect": {"a.h5": {"opens": "hdf4"}}}, "expect", "Did you mean 'hdf5'"),
    ({"expect": [5]}, "expect", "a path, or a dict with 'path'"),
    ({"timeout": 0}, "timeout", "end every task at once"),
    ({"transfer": {"from": "a", "to": "b"}}, "transfer", "of one kind"),
    ({"command": None, "transfer": {"form": "a", "to": "b"}}, "transfer", "Did you mean 'from'"),
    ({"command": None, "transfer": {"from": [], "to": "b"}}, "transfer", "a path or a list of paths"),
    ({"command": None, "transfer": {"from": "a", "to": "b", "checks": "cheksum"}}, "transfer", "'checksum'"),
    ({"command": None, "function": "os.system"}, "function", "package.module:name"),
    ({"command": " "}, "command", "empty"),
]


@pytest.mark.parametrize(("more", "key", "sentence"), WRONG, ids=range(len(WRONG)))
def test_an_error_says_file_line_stage_key_and_what_was_meant(
    tmp_path: Path, more: dict[str, Any], key: str, sentence: str
) -> None:
    stage = {"command": "x", **more}
    lines = "".join(f"      {k!r}: {v!r},\n" for k, v in stage.items())
    head = "# a comment\n{'name': 'w', 'owner': 'o', 'stages': {\n  '01-MAKE': {'command': 'true'},\n  '02-USE': {\n"
    file = tmp_path / "w.py"
    file.write_text(f"{head}{lines}  }}\n}}}}")
    with pytest.raises(DefinitionError) as raised:
        loader.load(file)
    error = raised.value
    assert (error.file, error.stage, error.key) == (str(file), "02-USE", key)
    assert error.line == 5 + list(stage).index(key)
    assert sentence in str(error)
    assert str(error).startswith(f"{file}:{error.line}, stage '02-USE', key {key!r}: ")


def test_a_misspelled_kind_is_named() -> None:
    with pytest.raises(DefinitionError, match="Did you mean 'command'"):
        stages.read("s", {"comand": "x"}, Place("f.py"))
