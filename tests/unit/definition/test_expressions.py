from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.definition import expressions
from orchestrator.errors import DefinitionError

DM = '"$analysisMachine" != "polaris" and (".master" in "$filePath" or ".mda" in "$filePath")'


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        (DM, {"filePath": "/d/a.mda"}, True),
        (DM, {"filePath": "/d/a.h5"}, False),
        (DM, {"filePath": "/d/a.mda", "analysisMachine": "polaris"}, False),
        ('not "a" in "$x"', {"x": "b"}, True),
        ("'$x' not in ['a', 'b']", {"x": "c"}, True),
        ('"$x" in ("a", "b",)', {"x": "b"}, True),
        ('"$a" == "$b"', {}, False),
        ('"$a" != "$b"', {}, True),
        ('"$a" == "$a"', {}, False),
        ("$a == None", {}, True),
        ("$a == None", {"a": "None"}, True),
        ('"$a" == None', {"a": "None"}, False),
        ('"$a" == ""', {}, False),
        ('"$a" == ""', {"a": ""}, True),
        ('"$a" in "a$a"', {}, False),
        ("$a", {}, False),
        ('"$a"', {}, False),
        ('"$a"', {"a": "False"}, True),
        ("$a", {"a": "False"}, False),
        ("$a", {"a": "0"}, False),
        ("$a", {"a": "x"}, True),
        ("$count > 3", {"count": "5"}, True),
        ('"$count" == 3', {"count": "3.0"}, True),
        ('"$count" == "3"', {"count": "3.0"}, False),
        ("$a == $b", {"a": "3", "b": "3.0"}, True),
        ('"$a" < "10"', {"a": "9"}, True),
        ('"$a" < "b"', {"a": "a"}, True),
        ('"$a" > "0.9"', {"a": "failed"}, False),
        ('"$a" < "0.1"', {"a": ""}, False),
        ('"$a" < "0.1"', {"a": "nan"}, False),
        ("$a <= 0.1", {"a": "nan"}, False),
        ("$a < 3", {"a": "x"}, False),
        ("$a >= 3", {"a": "x"}, False),
        ("$a < 3", {}, False),
        ("1 < $a <= 3", {"a": "3"}, True),
        ("$a == True", {"a": "true"}, True),
        ("$a == -1.5e0", {"a": "-1.5"}, True),
        ("1 == 1 or 2 == 3 and 4 == 5", {}, True),
        ("not not (not False)", {}, True),
        ("True", {}, True),
        ("5 in '$a'", {"a": "15"}, True),
        ('"$a" == "a\\"b"', {"a": 'a"b'}, True),
        ("${a} == 'x'", {"a": "x"}, True),
        ('"pre-$a" == "pre-x"', {"a": "x"}, True),
        ("'$a' ==\n 'x'", {"a": "x"}, True),
        ("$a > 1", {"a": "9" * 1000}, False),
    ],
)
def test_conditions(text: str, values: dict[str, str], expected: bool) -> None:
    assert expressions.parse(text).evaluate(values) is expected


def test_names_are_those_in_texts_and_bare_ones() -> None:
    assert expressions.parse('"$a/$b" == $c and "$a" in ["$d"]').names == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "ends where"),
        ("a && b", r"Write \$a"),
        ("1 && 1", "Write and"),
        ("!1", "Write not"),
        ("$a = 1", "Write =="),
        ("$a <> 1", "Write !="),
        ("$a is None", "Write =="),
        ('"a', "quote is not closed"),
        ("count == 1", r"Write \$count for a variable"),
        ("1 in 2", "needs a text or a list"),
        ("()", "empty"),
        ("(1", "is missing"),
        ("1)", "should end"),
        ("f(1)", "a value is expected"),
        ("$a.b == 1", "cannot|should end"),
        ("(" * 100, "more than 40"),
        ("not " * 1000 + "1", "more than 40"),
        ("$1 == 2", "column 1"),
        ("1 1", "should end"),
        ("1 not 2", "followed by 'in'"),
        ("lambda: 1", "a value is expected"),
        ("1" * 30_000, "longer than"),
        ("a\0", "column"),
    ],
)
def test_other_texts_are_refused_with_the_column(text: str, sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        expressions.parse(text)


HOSTILE = [
    '"',
    "'",
    '" or "1" == "1',
    "') or True or ('",
    "\\",
    "$b",
    "__import__('os').system('touch canary')",
    "\n",
    "#",
]


@given(st.text() | st.sampled_from(HOSTILE), st.text() | st.sampled_from(HOSTILE))
def test_values_never_change_the_logic(a: str, b: str) -> None:
    values = {"a": a, "b": b}
    assert expressions.parse('"$a" == "$b"').evaluate(values) is (a == b)
    assert expressions.parse("'$a' in \"$b\"").evaluate(values) is (a in b)
    assert expressions.parse('"$a" == "no" and "$b" == "no"').evaluate(values) is (a == "no" == b)
    assert expressions.parse('not "$a$b" == "x"').evaluate(values) is (a + b != "x")


TOKENS = [
    "$a",
    '"$b"',
    "1",
    "True",
    "None",
    "and",
    "or",
    "not",
    "in",
    "==",
    "<",
    "(",
    ")",
    "[",
    "]",
    ",",
    "-",
    "x",
    "'",
]


@given(st.lists(st.sampled_from(TOKENS), max_size=14).map(" ".join) | st.text(max_size=30), st.text(max_size=6))
def test_any_text_is_a_condition_or_a_definition_error(text: str, value: str) -> None:
    try:
        condition = expressions.parse(text)
    except DefinitionError:
        return
    for values in ({}, {"a": value, "b": "5"}):
        assert condition.evaluate(values) in (True, False)


OPERANDS = st.sampled_from(["1", "2", "True", "False", "'a'", "'b'", "''"])


def _extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    joined = st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
    return joined | inner.map(lambda x: f"(not {x})")


LOGIC = st.recursive(
    st.tuples(OPERANDS, st.sampled_from(["==", "!="]), OPERANDS).map(lambda t: f"{t[0]} {t[1]} {t[2]}") | OPERANDS,
    _extend,
    max_leaves=8,
)


@given(LOGIC)
def test_constants_mean_what_they_mean_in_python(text: str) -> None:
    assert expressions.parse(text).evaluate({}) is bool(eval(text, {"__builtins__": {}}))  # noqa: S307
