"""Whatever stands in a value, a file name or a condition: it is data. A payload that would touch a canary never does.

The way is the whole one: a definition is loaded and compiled, the stage opened, and the command that comes out is given
to a real bash, as an agent does it.
"""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from immutables import Map

from orchestrator.definition import compat, expressions, loader, plan
from orchestrator.engine import opening
from orchestrator.errors import BeamwayError, DefinitionError
from orchestrator.events import OpenStage, StageOpened, StageRefused, StageSkipped
from orchestrator.model import Run

PAYLOADS = [
    "$(touch canary)",
    "`touch canary`",
    "; touch canary",
    "| touch canary",
    "&& touch canary",
    "& touch canary",
    "\ntouch canary\n",
    '"; touch canary; "',
    "'; touch canary; '",
    "'$(touch canary)'",
    '"$(touch canary)"',
    "${x:-$(touch canary)}",
    "$[$(touch canary)]",
    "\\$(touch canary)",
    "<(touch canary)",
    ">canary",
    "()(touch canary)",
    "$'\\x3btouch canary'",
    "#",
    "-n; touch canary",
    "x\rtouch canary",
    "{touch,canary}",
    "~/canary",
    "*",
    "!!",
    "$other",
    "__import__('os').system('touch canary')",
    '" or __import__("os").system("touch canary") or "',
]
COMMANDS = [
    "echo $a",
    'echo "$a"',
    "echo '$a'",
    "bash -c \"echo '$a'\"",
    'bash -c "bash -c \\"echo $a\\""',
    "echo `echo $a`",
    'x="$a"; echo $x; echo ok',
    "printf '%s' --opt=$a >/dev/null",
    "echo ${a} | cat",
]
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = (
    st.sampled_from(PAYLOADS)
    | st.tuples(st.sampled_from(PAYLOADS), st.text(max_size=4)).map("".join)
    | st.text(alphabet="a -~*?{}!=#[]+^%@,.:$;`'\"()\\&|<>\n\t", max_size=6)
    | st.text(alphabet="a -~*?{}!=#[]+^%@,.:\t", max_size=6)
)


def bash(command: str, folder: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    done = [["bash", "-c", os.fsencode(command)]]
    subprocess.run(done[0], cwd=folder, env=env, capture_output=True, check=False, timeout=20, stdin=subprocess.DEVNULL)


def opened(stage: dict[str, Any], given: dict[str, str], folder: Path, **more: Any) -> list[str]:
    """The commands that are accepted."""
    definition = loader.load({"name": "w", "owner": "o", "stages": {"1": stage}, **more})
    try:
        compiled = plan.compile_plan(definition, given, directory=str(folder))
        files = opening.files_at_submission(compiled)
    except BeamwayError:
        return []
    run = Run("r", compiled, 1.0, variables=Map(compiled.variables), files=files, username="ann", host="h")
    event = opening.answer(run, OpenStage("1", 1), 1.0)
    if isinstance(event, StageRefused | StageSkipped):
        return []
    assert isinstance(event, StageOpened)
    return [d.command for d in event.drafts]


def test_the_payloads_would_run_if_they_were_let_in(tmp_path: Path) -> None:
    ran = set()
    for number, payload in enumerate(PAYLOADS):
        for command in COMMANDS:
            folder = tmp_path / str(number)
            folder.mkdir(exist_ok=True)
            bash(command.replace("$a", payload).replace("${a}", payload).replace("\0", ""), folder)
            if (folder / "canary").exists():
                ran.add(payload)
    assert len(ran) > len(PAYLOADS) / 2


@pytest.mark.parametrize("command", COMMANDS)
def test_the_payloads_that_are_accepted_do_nothing(command: str, tmp_path: Path) -> None:
    accepted = [line for p in PAYLOADS for line in opened({"command": command}, {"a": p}, tmp_path)]
    assert 0 < len(accepted) < len(PAYLOADS)
    for line in accepted:
        bash(line, tmp_path)
    assert list(tmp_path.iterdir()) == []


@FEW
@given(st.sampled_from(COMMANDS), VALUES)
def test_no_value_runs(tmp_path: Path, command: str, value: str) -> None:
    for line in opened({"command": command}, {"a": value}, tmp_path):
        bash(line, tmp_path)
    assert list(tmp_path.iterdir()) == []


@FEW
@given(st.sampled_from(COMMANDS), VALUES)
def test_no_value_runs_through_a_default_that_reads_it(tmp_path: Path, command: str, value: str) -> None:
    schema = {"dir": {}, "between": {"default": "$dir/x"}, "a": {"default": "pre-$between"}}
    for line in opened({"command": command}, {"dir": value}, tmp_path, arguments=schema):
        bash(line, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [c.replace("$a", "$filePath").replace("${a}", "${filePath}") for c in COMMANDS])
@pytest.mark.parametrize("key", ["filePath", "filePathList", "filePathPattern"])
def test_no_file_name_runs(tmp_path: Path, command: str, key: str) -> None:
    scans, work = tmp_path / "scans", tmp_path / "work"
    work.mkdir()
    for index, payload in enumerate([*PAYLOADS, "caf\udce9", "-rf", "plain"]):
        folder = scans / str(index)
        folder.mkdir(parents=True)
        name = payload.replace("/", "_")
        (folder / name).write_bytes(b"")
        given = {key: "*" if key == "filePathPattern" else name, "dataDir": str(folder)}
        for line in opened({"command": command}, given, work):
            bash(line, work)
    assert list(work.iterdir()) == []
    assert not list(scans.rglob("canary"))


@pytest.mark.parametrize("command", COMMANDS)
def test_no_folder_name_runs(tmp_path: Path, command: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for index, payload in enumerate(PAYLOADS):
        folder = tmp_path / str(index) / payload.replace("/", "_")
        folder.mkdir(parents=True)
        for kind in ({"default": "results"}, {"default": "."}, {"required": True}):
            given = {"a": "results"} if "required" in kind else {}
            for line in opened({"command": command}, given, folder, arguments={"a": {"type": "path", **kind}}):
                bash(line, work)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("text", ['"$a" == "x"', "$a", "not $a", '"$a" in "$b"', "$a > 3 or '$a' == '$b'"])
def test_no_value_of_a_condition_runs_or_changes_it(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    condition = expressions.parse(text)
    for payload in PAYLOADS:
        assert condition.evaluate({"a": payload, "b": "x"}) in (True, False)
        stage = {"command": "true", "runIf": text}
        opened(stage, {"a": payload, "b": "x"}, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_of_a_condition_runs(payload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in (payload, f"({payload})", f"True or {payload}", f'"{payload}" == "x"'):
        try:
            expressions.parse(text).evaluate({})
        except DefinitionError:
            continue
    assert list(tmp_path.iterdir()) == []


# ---- definitions

NODES = [
    "1",
    "'a'",
    "x",
    "f'{x}'",
    "b'a'",
    "...",
    "1j",
    "None",
    "__import__('os').system('touch canary')",
    "open('canary', 'w')",
    "(lambda: open('canary', 'w'))()",
    "[open('canary', 'w') for _ in 'a']",
    "{**{}}",
    "{1: 2}",
    "x if y else z",
    "{'a'}",
    "()",
]


def _wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.tuples(inner, inner)
    return (
        two.map(lambda t: f"({t[0]} + {t[1]})")
        | two.map(lambda t: f"{{'a': {t[0]}, 'stages': {t[1]}}}")
        | two.map(lambda t: f"{{{t[0]}: {t[1]}}}")
        | two.map(lambda t: f"({t[0]})({t[1]})")
        | two.map(lambda t: f"({t[0]})[{t[1]}]")
        | inner.map(lambda t: f"[{t}]")
        | inner.map(lambda t: f"-({t})")
        | inner.map(lambda t: f"({t}).real")
        | inner.map(lambda t: f"{{'name': 'n', 'owner': 'o', 'stages': {{'1': {t}}}}}")
        | inner.map(lambda t: f"{{'name': 'n', 'owner': 'o', 'stages': {{'1': {{'command': {t}}}}}}}")
    )


@given(st.recursive(st.sampled_from(NODES), _wider, max_leaves=6))
@example("(lambda x: x)(open('canary', 'w'))")
def test_any_python_expression_is_data_or_refused(text: str) -> None:
    ast.parse(text, mode="eval")
    try:
        loader.loads(text, source="w.py")
    except DefinitionError as refused:
        file = refused.file
    else:
        file = "w.py"
    assert file == "w.py"
    assert not Path("canary").exists()


@given(st.text() | st.text(alphabet="{}[]()'\"\\\n,:#+ naemowrstgcd1$", max_size=60))
def test_any_text_is_a_definition_or_a_definition_error(text: str) -> None:
    for source in ("w.py", "w.json", "w"):
        try:
            loader.loads(text, source=source)
        except DefinitionError:
            continue


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | TEXTS
    | st.floats(allow_nan=False, width=32).filter(lambda x: abs(x) < 1e30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
STAGE = st.fixed_dictionaries(
    {"command": TEXTS.filter(str.strip)},
    optional={
        "workingDir": TEXTS,
        "dataDir": TEXTS,
        "outputVariableRegexList": st.lists(st.sampled_from(["a: (?P<a>.*)", r"\d+(?P<b>\s)"])),
        "parallelExec": st.booleans(),
        "runIf": st.sampled_from(['"$a" == "b"', "$a", ""]),
        "filePathPattern": TEXTS,
        "execOutFormat": PLAIN,
        "theirs": PLAIN,
    },
)
DM = st.fixed_dictionaries(
    {"name": NAMES, "owner": NAMES, "stages": st.dictionaries(NAMES, STAGE, min_size=1, max_size=4)},
    optional={"id": st.text("abc0123", max_size=8), "version": st.just("0.0.0") | st.integers(0, 9), "theirs": PLAIN},
)


@given(DM)
def test_a_definition_survives_its_text_forms_and_goes_back_to_dm_as_it_came(written: dict[str, Any]) -> None:
    loaded = loader.load(written)
    assert loaded.raw == written
    assert list(loaded.stages) == sorted(written["stages"])
    again = loader.loads(compat.to_pyspec(loaded.raw), source="w.py")
    assert again.raw == loaded.raw
    assert compat.export_dm(written) == written
    assert list(compat.export_dm(written)["stages"]) == list(written["stages"])
