from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator import codec
from orchestrator.definition import loader
from orchestrator.errors import DefinitionError, NotFound
from orchestrator.model import Definition

from .conftest import DM, load, workflow


@pytest.mark.parametrize("path", sorted(DM.iterdir()), ids=lambda p: p.stem)
def test_a_dm_definition_loads_unchanged_and_survives_json(path: Path) -> None:
    first = loader.load(path)
    again = loader.loads(json.dumps(first.raw), source="x.json")
    assert again.raw == first.raw
    assert again.stages == first.stages


def test_every_form_of_text_that_dm_files_use() -> None:
    d = loader.load(DM / "xpcs.spec")
    assert list(d.stages) == ["00-INIT", "03-METADATA", "05-TRANSFER", "06-SUBMIT", "07-MONITOR"]
    assert d.description.splitlines()[1] == "\tfilePath: raw data (required)"
    assert d.stages["03-METADATA"]["command"].endswith('"$smooth" "$gpuID" ${4:-sqmap}')
    assert '\\"from $USER\\"                 | tee' in d.stages["05-TRANSFER"]["command"]
    assert d.stages["06-SUBMIT"]["someBeamlineKey"] == {"kept": [1, 2.5, -3, None, True]}
    assert d.stages["06-SUBMIT"]["command"].endswith("s/^/jobId:\\ /")
    assert d.lines["00-INIT", "command"] == 23


def test_raw_strings_and_tuples_load() -> None:
    d = loader.loads(r"{'name': 'a', 'owner': 'b', 'stages': {'1': {'command': r'\d', 'x': (1, 2)}}}")
    assert d.stages["1"] == {"command": r"\d", "x": [1, 2]}


def test_stages_are_sorted_as_strings() -> None:
    assert list(load({n: {"command": "true"} for n in ("2", "10", "010", "1")}).stages) == [
        "010",
        "1",
        "10",
        "2",
    ]


def test_unknown_keys_are_kept() -> None:
    d = load({"01": {"command": "true", "commnd": 1}}, zone="x")
    assert d.raw["zone"] == "x"
    assert d.stages["01"]["commnd"] == 1


def test_none_counts_as_absent() -> None:
    load({"01": {"command": "true", "runIf": None, "repeatUntil": None}}, userAccount=None, description=None)


S = {"command": "true"}
BAD: list[tuple[Any, str]] = [
    ({"owner": "o", "stages": {"1": S}}, "no 'name'"),
    ({"name": "n", "ownr": "o", "stages": {"1": S}}, "Was 'ownr' meant to be 'owner'"),
    ({"name": "n", "owner": "o"}, "no 'stages'"),
    ({"name": "n", "owner": "o", "stages": {}}, "has no stage"),
    ({"name": "n", "owner": "o", "stages": [S]}, "dict of stages"),
    ({"name": 1, "owner": "o", "stages": {"1": S}}, "key 'name': The value must be text"),
    ({"name": " ", "owner": "o", "stages": {"1": S}}, "not empty"),
    (workflow({"1": "true"}), "stage '1': A stage must be a dict"),
    (workflow({"1": {"comand": "x"}}), "Did you mean 'command'"),
    (workflow({"1": {"command": "x", "kernel": "y"}}), "'command' and 'kernel'"),
    (workflow({"1": {"command": " "}}), "is empty"),
    (workflow({"1": {"command": 5}}), "must be text, not a number"),
    (workflow({"1": {"command": "a\0b"}}), "NUL"),
    (workflow({"1": {"function": "os.system"}}), "names no function"),
    (workflow({"1": {"transfer": {"from": "a"}}}), "needs 'to'"),
    (workflow({"1": {"transfer": {"from": "a", "too": "b"}}}), "Did you mean 'to'"),
    (workflow({"1": {"transfer": {"from": "a", "to": "b", "checks": "sum"}}}), "not a check"),
    (workflow({"1": {**S, "workingDir": 1}}), "key 'workingDir'"),
    (workflow({"1": {**S, "dataDir": []}}), "key 'dataDir'"),
    (workflow({"1": {**S, "parallelExec": "maybe"}}), "must be True or False"),
    (workflow({"1": {**S, "outputVariableRegexList": "a"}}), "a list of texts"),
    (workflow({"1": {**S, "outputVariableRegexList": ["(?P<a>x", "b"]}}), "Regex 1 is wrong at position 0"),
    (workflow({"1": {**S, "outputVariableRegexList": ["ok", "(?P<1>x)"]}}), "Regex 2 is wrong at position 4"),
    (workflow({"1": {**S, "outputVariableRegexList": ["(" * 3000 + ")" * 3000]}}), "too deeply|longer"),
    (workflow({"1": {**S, "filePathList": [1]}}), "key 'filePathList'"),
    (workflow({"1": {**S, "fileQueryDict": "x"}}), "must be a dict"),
    (workflow({"1": {**S, "runIf": "a == 1"}}), r"Write \$a"),
    (workflow({"1": {**S, "repeatUntil": "True"}}), "'repeatPeriod' and 'maxRepeats' are missing"),
    (workflow({"1": {**S, "repeatUntil": "True", "repeatPeriod": 1}}), "'maxRepeats' is missing"),
    (workflow({"1": {**S, "repeatUntil": "", "repeatPeriod": 1, "maxRepeats": 1}}), "condition"),
    (workflow({"1": {**S, "repeatUntil": "1", "repeatPeriod": -1, "maxRepeats": 1}}), "0 or more"),
    (workflow({"1": {**S, "repeatUntil": "1", "repeatPeriod": 1, "maxRepeats": 0}}), "1 or more"),
    (workflow({"1": {**S, "repeatUntil": "1", "repeatPeriod": 1, "maxRepeats": "x"}}), "1 or more"),
    (workflow({"1": {**S, "after": "1"}}), "wait for itself"),
    (workflow({"1-run": {**S, "after": ["1-rum"]}, "2": S}), "no stage '1-rum'. Did you mean '1-run'"),
    (workflow({"1": {**S, "retries": {"transint": 1}}}), "Did you mean 'transient'"),
    (workflow({"1": {**S, "retries": {"cancelled": 1}}}), "no key 'cancelled'"),
    (workflow({"1": {**S, "retries": 1000}}), "More than 100"),
    (workflow({"1": {**S, "retries": {"transient": {"delay": 1}}}}), "needs 'most'"),
    (workflow({"1": {**S, "resources": {"node": 1}}}), "Did you mean 'nodes'"),
    (workflow({"1": {**S, "resources": {"memory": "16 XB"}}}), "16 GiB"),
    (workflow({"1": {**S, "timeout": "10:00"}}), "HH:MM:SS"),
    (workflow({"1": {**S, "timeout": 0}}), "at once"),
    (workflow({"1": {**S, "expect": {"a.h5": {"shap": [1]}}}}), "Did you mean 'shape'"),
    (workflow({"1": {**S, "expect": {"a.h5": {"shape": [1]}}}}), "'dataset' must name one"),
    (workflow({"1": {**S, "expect": {"a.dat": {"finite": 1}}}}), "'opens' must say"),
    (workflow({"1": {**S, "expect": {"a": {"opens": "hdf"}}}}), "Did you mean 'hdf5'"),
    (workflow({"1": {**S, "expect": {"a.json": {"finite": 1}}}}), "no array"),
    (workflow({"1": {**S, "userAccount": "-x y"}}), "OS account"),
    (workflow(userAccount="a b"), "OS account"),
    (workflow(arguments=[1]), "dict of arguments"),
    (workflow(arguments={"status": {}}), "job record"),
    (workflow(arguments={"a": {"default": "$b"}}), "no argument"),
    (workflow(arguments={"a": {"default": "$b"}, "b": {"default": "$a"}}), "in a circle: a → b → a"),
    (workflow(arguments={"a": {"choices": ["x"], "default": "y"}}), "default is refused"),
    (workflow({1: S}), "A key must be text"),
    (workflow(x={"a": object()}), "type object"),
]


@pytest.mark.parametrize(("source", "sentence"), BAD)
def test_what_is_wrong_is_said(source: Any, sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        loader.load(source)


TEXTS = [
    ("[1]", "this is a list"),
    ("", "empty"),
    ("{'a': 1, 'a': 2}", "more than once"),
    ('{"a": {"b": 1, "b": 2}}', "more than once"),
    ("x = {}", "leave out the assignment"),
    ("{'a': open('x')}", "A function call cannot"),
    ("{'a': f'{x}'}", "An f-string cannot"),
    ("{'a': x.y}", "An attribute cannot"),
    ("{'a': true}", "Write True"),
    ("{'a': 'b' + 1}", "joins texts only"),
    ("{'a': 2 * 3}", "Arithmetic"),
    ("{'a': b'x'}", "Bytes"),
    ("{'a': 1e999}", "not finite"),
    ("{**{}}", "cannot stand"),
    ("{'a': " * 100 + "1" + "}" * 100, "nested more than 60"),
    ("(" * 50_000, "nested"),
    ("-" * 50_000 + "1", "nested more than"),
    ("{'a': 'b'" + " + 'b'" * 900 + "}", "joined by"),
    ("'a'" + "+'a'" * 50_000, "nested more than"),
    ("{'a': " + "9" * 5000 + "}", "Exceeds|digits"),
    ("{'a': '" + "x" * 10_000_000 + "'}", "10.0 MB long"),
    ("{'name': 'a'\n 'owner': 'b'}", "x.py:2"),
    ("{'a': '\0'}", "null|NUL"),
]


@pytest.mark.parametrize(("text", "sentence"), TEXTS, ids=range(len(TEXTS)))
def test_a_text_that_is_no_definition_gets_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence) as caught:
        loader.loads(text, source="x.py")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("text", ["{", "[" * 20_000, '{"a":' * 20_000, "nul", "[1]", "1" * 5000, "\ufeff"])
def test_bad_json_gets_a_sentence(text: str) -> None:
    with pytest.raises(DefinitionError, match=r"x.json"):
        loader.loads(text, source="x.json")


def test_an_error_names_file_line_stage_and_key(tmp_path: Path) -> None:
    path = tmp_path / "w.py"
    path.write_text("{'name': 'n',\n 'owner': 'o',\n 'stages': {\n  '01': {'command': 'x',\n   'after': '02'}}}")
    with pytest.raises(DefinitionError) as caught:
        loader.load(path)
    e = caught.value
    assert (e.file, e.line, e.stage, e.key) == (str(path), 5, "01", "after")


def test_json_errors_name_the_line_too() -> None:
    with pytest.raises(DefinitionError) as caught:
        loader.loads('{"name": "n",\n"owner": "o", "stages": {"1":\n {"command": true}}}', source="w.json")
    assert (caught.value.line, caught.value.key) == (3, "command")


def test_files_that_are_no_definitions(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        loader.load(tmp_path / "none.py")
    with pytest.raises(DefinitionError, match="regular file"):
        loader.load(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DefinitionError, match="regular file"):
        loader.load(tmp_path / "fifo")
    (tmp_path / "latin.py").write_bytes(b"{\n'a': '\xb0'}")
    with pytest.raises(DefinitionError, match=r"latin.py:2: Byte 0xb0 is not UTF-8"):
        loader.load(tmp_path / "latin.py")


def test_a_dict_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["a"] = loop["b"] = loop
    with pytest.raises(DefinitionError, match=r"nested|values"):
        loader.load(workflow(x=loop))


def test_find_takes_a_file_then_a_name(tmp_path: Path) -> None:
    text = json.dumps(workflow())
    (tmp_path / "tomo.json").write_text(text)
    (tmp_path / "_private.py").write_text("")
    assert loader.find("tomo", [tmp_path / "missing", tmp_path]).name == "w"
    assert loader.find(str(tmp_path / "tomo.json"), []).name == "w"
    with pytest.raises(NotFound, match=r"Did you mean 'tomo'.*Known by name: tomo"):
        loader.find("tomm", [tmp_path])


def test_an_argument_schema() -> None:
    d = load(
        arguments={
            "a": {"required": True, "choices": [1, "b"], "type": "int"},
            "c": None,
            "d": {"type": "zz"},
        }
    )
    assert d.arguments is not None
    assert d.arguments["a"].choices == ("1", "b")
    assert d.arguments["a"].type == "integer"
    assert d.arguments["d"].type == "string"
    assert load().arguments is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from([*"ab", *loader.WORKFLOW_KEYS, *loader.stages.KEYS])
STAGE = st.dictionaries(KEYS, VALUES | st.sampled_from(["x", "$a", "$a == 1", "(?P<a>.)", 1]), max_size=6)


@given(st.text(max_size=200) | st.text(alphabet="{}[]()'\"\\,:+-#\n \x00ab1$", max_size=80))
@example("\\")
@example("{}\\")
@example("{'a': '''")
def test_any_text_is_a_definition_or_a_definition_error(text: str) -> None:
    for source in ("x.py", "x.json", "x"):
        with pytest.raises(DefinitionError):
            loader.loads(text, source=source)


@given(st.dictionaries(KEYS, VALUES, max_size=5), st.dictionaries(st.text(max_size=4), STAGE, max_size=3))
def test_any_dict_is_a_definition_or_a_definition_error(more: dict[str, Any], stages: dict[str, Any]) -> None:
    raw = {**more, "name": "n", "owner": "o", "stages": stages}
    try:
        d = loader.load(raw)
    except DefinitionError:
        return
    assert codec.loads(codec.dumps(d.raw), dict) == d.raw
    assert loader.load(d.raw) == d


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**60), 2**60)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
                inner,
                max_size=3,
            )
        ),
        max_leaves=10,
    )
)
def test_what_python_prints_is_what_loads(extra: Any) -> None:
    raw = workflow(extra=extra)
    assert loader.loads(repr(raw), source="x.py").raw == raw
    text = json.dumps(raw)
    assert loader.loads(text, source="x.json").raw == raw
    assert isinstance(loader.loads(text), Definition)
