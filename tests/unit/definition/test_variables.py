from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.definition import variables
from orchestrator.errors import ArgumentError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$file $fileDataDir", ("file", "fileDataDir")),
        ("${a}b $a", ("a",)),
        ("$$ $1 $? $@ ${4:-x} $(ls) ${x:-y} $((1+2))", ()),
        ("$$a $_b '$c'", ("_b", "c")),
        ("$(echo $a)", ("a",)),
        ("$a-$b.h5", ("a", "b")),
        ("$é", ()),
        ("$", ()),
    ],
)
def test_names(text: str, expected: tuple[str, ...]) -> None:
    assert variables.names(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$fileDataDir/$file", "$fileDataDir/F"),
        ('"$smooth" ${4:-sqmap} $file', '"$smooth" ${4:-sqmap} F'),
        ("${file}s $$file", "Fs $$file"),
        (r"\$file", r"\F"),
        ("$a", "$file"),
    ],
)
def test_substitution_is_literal_and_knows_only_its_names(text: str, expected: str) -> None:
    assert variables.substitute(text, {"file": "F", "a": "$file"}) == expected


def test_nested_structures() -> None:
    given = {"$a": ["$a", 1, None, {"x": "${a}"}]}
    assert variables.substitute_in(given, {"a": "A"}) == {"$a": ["A", 1, None, {"x": "A"}]}


NAMES = st.sampled_from(["a", "b", "ab", "abc"])


@given(
    st.lists(NAMES.map(lambda n: f"${n}") | st.text(alphabet="${}ab \\'", max_size=5), max_size=8).map("".join),
    st.dictionaries(NAMES, st.text(alphabet="$ab{}\\1g<>", max_size=6)),
)
def test_substitution_is_one_pass(text: str, values: dict[str, str]) -> None:
    """Values in the place of marks that stand in the place of names give the same."""
    marks = {name: f"\x01{i}\x02" for i, name in enumerate(values)}
    expected = variables.substitute(text, marks)
    for name, mark in marks.items():
        expected = expected.replace(mark, "\x03".join(values[name]) + "\x03")
    assert variables.substitute(text, values) == expected.replace("\x03", "")


@pytest.mark.parametrize(
    "value",
    [
        "a;b",
        "a\nb",
        "a\rb",
        "a\0b",
        "`x`",
        "$(x)",
        "${x}",
        "$[1]",
        "$HOME",
        "a$",
        "a|b",
        "a&b",
        "a<b",
        "a>b",
        "'",
        '"',
        "a\\",
        "\\x3b",
        "()(true)",
        "*(e:x:)",
        "#",
        "a #b",
        "\x1b[2J",
    ],
)
def test_shell_text_is_refused(value: str) -> None:
    with pytest.raises(ArgumentError, match="The value of 'a' holds"):
        variables.check_supplied("a", value)


@pytest.mark.parametrize("value", ["", "a b", "*.h5", "-n 3", "~/x", "{1..3}", "a#b", "a,b=c:d@e%f^g!", "\udcff"])
def test_plain_values_pass(value: str) -> None:
    variables.check_supplied("a", value)


FORMS = ["tool $a", 'tool "$a"', "tool '$a'", 'sh -c "tool $a"', "x=`tool $a`", "(tool $a)", "tool --x=$a"]


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_value_that_passes_runs_the_tool_and_nothing_else(shell: str, tmp_path: Path) -> None:
    """Every two-character value of the dangerous alphabet, in every quoting style: refused, or harmless."""
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho ran >> ran\n")
    tool.chmod(0o755)
    alphabet = "a ;`$|&<>'\"\\()#\n{}*!~=-[]"
    values = [x + y + z for x in alphabet for y in alphabet for z in ("", "tool")]
    values = [v for v in values if not variables.shell_text(v)]
    lines = [f"( {variables.substitute(form, {'a': v})} )" for v in values for form in FORMS]
    script = "\n".join(lines)
    done = subprocess.run(
        [shell, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
    )
    assert done.stderr == ""
    assert (tmp_path / "ran").read_text().count("ran") == len(lines)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ran", "tool"]


@pytest.mark.parametrize("name", ["status", "workflow", "id", "owner", "submissionTime", "", "a:b", "a\nb"])
def test_names_of_the_record_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError):
        variables.check_name(name)
