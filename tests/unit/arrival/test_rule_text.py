"""What the words of a command line say is read as a rule file would be."""

from __future__ import annotations

import pytest

from orchestrator.arrival import rule_text, rules
from orchestrator.errors import ArgumentError, SettingsError

NASTY = 'so\udcffme "x" \\ \n\x7f\x01 {stem} é'


def read(*pairs: str, **said: object) -> rules.WatchFile:
    return rules.parse(rule_text.text_of(pairs, **said), "w", directory="/d", experiment="e")


def test_each_kind_of_value_comes_through() -> None:
    pairs = ("includeFileExtensions:h5,tif", "min_bytes:1MiB", "processHiddenFiles:yes", "for_hours:8", "kind:other")
    file = read(*pairs, workflow="t", match=("*.h5", "a*"), arguments={"a": "1", "b": NASTY}, existing=False)
    (rule,) = file.rules
    assert (file.directory, file.experiment, file.existing, file.for_hours) == ("/d", "e", False, 8.0)
    assert (rule.workflow, rule.match, rule.extensions) == ("t", ("*.h5", "a*"), ("h5", "tif"))
    assert (rule.min_bytes, rule.hidden, rule.kind) == (2**20, True, "other")
    assert rule.arguments == {"a": "1", "b": NASTY}


def test_arguments_as_dm_writes_them() -> None:
    assert read("workflowName:t", "workflowArgs:a:1 b:x:y").rules[0].arguments == {"a": "1", "b": "x:y"}


@pytest.mark.parametrize(
    ("pair", "sentence"),
    {
        "min_byte:3": "Did you mean 'min_bytes'?",
        "hidden": "is no KEY:VALUE",
        "hidden:perhaps": "yes or no",
        "for_hours:long": "is a number",
        "ready:x": "is no KEY:VALUE",
        "workflow:u": "said twice",
        "workflowName:u": "said twice",
    }.items(),
)
def test_a_mistake_is_one_sentence(pair: str, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence.replace("?", r"\?")):
        rule_text.text_of((pair,), workflow="t")


def test_an_argument_needs_a_name() -> None:
    with pytest.raises(ArgumentError, match="name:value"):
        rule_text.arguments_of(["a:1", ":2"])


def test_what_a_rule_file_and_the_command_say_must_agree() -> None:
    with pytest.raises(SettingsError, match="and not '/d'"):
        rules.parse('directory = "/other"\nworkflow = "t"\n', "w", directory="/d", experiment="e")
