"""Rule files: what they mean, DM's names for it, and one sentence for each mistake."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.arrival import rules, trigger
from orchestrator.arrival.readiness import Layout
from orchestrator.arrival.trigger import Condition, Parts, Rule
from orchestrator.errors import SettingsError

HEAD = 'directory = "/data"\nexperiment = "e"\n'


def one(text: str) -> Rule:
    (rule,) = rules.parse(HEAD + text, "x.toml").rules
    return rule


def test_a_rule_file() -> None:
    file = rules.parse(
        HEAD
        + """
        existing = false
        [[rule]]
        name = "tomo"
        match = "scans/**/*.h5"
        workflow = "tomo"
        min_bytes = "2 MiB"
        arguments = { sample = "{stem}", rings = true, count = 3 }
        arguments_from = { energy = "/exchange/energy" }
        when = { "/mode" = ["fly", "step"], "/energy@keV" = { min = 5, max = 20.5 } }
        ready = { layout = "dxchange", settle_s = 2, sentinel = "{stem}.done" }
        [[rule]]
        match = ["{scan}_master.h5"]
        workflow = "xpcs"
        detector = "eiger"
        parts = { pattern = "{scan}_data_{index:06}.h5", links = "/entry/data", first = 1 }
        """,
        "x.toml",
    )
    tomo, xpcs = file.rules
    assert (file.directory, file.experiment, file.existing) == ("/data", "e", False)
    assert tomo.min_bytes == 2 << 20
    assert tomo.arguments == {"sample": "{stem}", "rings": "true", "count": "3"}
    assert tomo.when == (Condition("/mode", ("fly", "step")), Condition("/energy@keV", least=5.0, most=20.5))
    assert (tomo.need.layout, tomo.need.settle_s, tomo.need.sentinel) == (Layout.DXCHANGE, 2.0, "{stem}.done")
    assert (xpcs.name, xpcs.detector, xpcs.need.parts) == ("rule-2", "eiger", True)
    assert xpcs.parts == Parts("{scan}_data_{index:06}.h5", first=1, links="/entry/data")


def test_the_names_of_a_daq_of_dm() -> None:
    file = rules.parse(
        """
        experimentName = "smith"
        dataDirectory = "/data"
        processExistingFiles = true
        processHiddenFiles = true
        includeFileExtensions = "h5, .HDF"
        excludeFileExtensions = ["tmp"]
        filePathPattern = "scan*"
        skipFilePathPattern = "*dark*"
        workflowName = "tomo"
        workflowOwner = "2bm"
        workflowArgs = "a:1 b:x:y"
        skipChecksum = true
        maxRunTimeInHours = 24
        destDirectory = "raw"
        removeSourceFiles = false
        skipTransfer = true
        skipCatalog = false
        workflowJobOwner = "user2bm"
        uploadDataDirectoryOnExit = "/data/final"
        """,
        "daq.toml",
    )
    (rule,) = file.rules
    assert (file.experiment, file.directory, file.existing, file.for_hours) == ("smith", "/data", True, 24.0)
    assert (rule.hidden, rule.checksum, rule.workflow, rule.owner) == (True, False, "tomo", "2bm")
    assert (rule.extensions, rule.exclude_extensions) == (("h5", "hdf"), ("tmp",))
    assert (rule.match, rule.skip, rule.arguments) == (("scan*",), ("*dark*",), {"a": "1", "b": "x:y"})


def test_a_daq_without_a_workflow_copies() -> None:
    (rule,) = rules.parse(HEAD + 'destDirectory = "/store/"\nmatch = "*.h5"', "x").rules
    claim = trigger.claims((rule,), "a/b/c.h5")[0][0]
    given, _ = trigger.arguments(claim, "/d/a/b/c.h5", {})
    assert (rule.workflow, given) == ("ingest", {"filePath": "/d/a/b/c.h5", "destination": "/store/a/b"})


MISTAKES = {
    HEAD + 'workflow = "w"\ndestDirectory = "/s"': "'destDirectory' copies each file, and 'w' would run beside that",
    HEAD + 'destDirectory = "/s"\nparts = {pattern = "{stem}_1.h5", links = "/x"}': "would leave the parts behind",
    HEAD + 'destDirectory = "/s"\nremoveSourceFiles = true': "a watch removes nothing",
    HEAD + 'destDirectory = "/s"\nuploadDataDirectoryOnExit = "/x"': "files are copied as they arrive",
    "x = ": "x.toml: ",
    HEAD: "rule 1: 'workflow' is not said",
    'directory = "/d"\nworkflow = "w"': "'experiment' is not said",
    HEAD + 'workflw = "w"': "there is no key 'workflw'. Did you mean 'workflow'?",
    HEAD + 'processExistingFile = true\nworkflow = "w"': "Did you mean 'processExistingFiles'?",
    HEAD + 'rule = "x"': "rules are written as [[rule]]",
    HEAD + 'workflow = "w"\n[[rule]]\nworkflow = "w"': "there is no key 'workflow'",
    HEAD + '[[rule]]\nname = "a"\nworkflow = "w"\n[[rule]]\nname = "a"\nworkflow = "w"': "two rules are called 'a'",
    HEAD + 'workflow = "w"\nworkflowName = "w"': "'workflowName' and 'workflow' are the same key",
    HEAD + 'owner = "me"': "'workflow' is not said",
    HEAD + 'workflow = "w"\nhidden = "yes"': "key 'hidden': it must be true or false, not 'yes'",
    HEAD + 'workflow = "w"\nmatch = 5': "it must be a text or a list of texts, not 5",
    HEAD + 'workflow = "w"\nmin_bytes = "3 apples"': "it must be a whole number, not '3 apples'",
    HEAD + 'workflow = "w"\nmin_bytes = true': "it must be a whole number, not True",
    HEAD + 'workflow = "w"\nmatch = "../x"': "must be relative to the directory",
    HEAD + 'workflow = "w"\nmatch = "[z-a]"': "is no pattern",
    HEAD + 'workflow = "w"\narguments = { a = "{scan}" }': "key 'arguments.a': nobody knows {scan}",
    HEAD + 'workflow = "w"\nmatch = ["{a}.h5", "{b}.h5"]\narguments = { a = "{a}" }': "nobody knows {a}",
    HEAD + 'workflow = "w"\nparts = { pattern = "{scan}_{index}", count = 3 }': "'parts.pattern': nobody knows {scan}",
    HEAD + 'workflow = "w"\narguments = { a = [1] }': "key 'arguments.a': it must be a text or a number",
    HEAD + 'workflow = "w"\nworkflowArgs = "a"': "'a' is not of the form name:value",
    HEAD + 'workflow = "w"\nready = { layout = "dx" }': "there is no layout 'dx'",
    HEAD + 'workflow = "w"\nready = { frames = "/d" }': "'frames' and 'expected' go together",
    HEAD + 'workflow = "w"\nready = { settle_s = -1 }': "must not be below 0",
    HEAD + 'workflow = "w"\nready = { settle_s = nan }': "it must be a number",
    HEAD + 'workflow = "w"\nready = { sentinel = "{stm}.done" }': "nobody knows {stm}",
    HEAD + 'workflow = "w"\nready = { setle_s = 1 }': "Did you mean 'settle_s'?",
    HEAD + 'workflow = "w"\nparts = { count = 3 }': "'pattern' is not said",
    HEAD + 'workflow = "w"\nparts = { pattern = "a_{index}" }': "is said 0 times",
    HEAD + 'workflow = "w"\nparts = { pattern = "a_{index}", count = 3, links = "/x" }': "is said 2 times",
    HEAD + 'workflow = "w"\nparts = { pattern = "a", count = 3 }': "it has no {index}",
    HEAD + 'workflow = "w"\nwhen = { "/x" = [] }': "key 'when./x'",
    HEAD + 'workflow = "w"\nwhen = { "/x" = { mn = 1 } }': "there is no key 'mn'",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_each_mistake_is_one_sentence(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        rules.parse(text, "x.toml")
    assert MISTAKES[text] in caught.value.sentence
    assert caught.value.sentence.startswith("x.toml")
    assert "\n" not in caught.value.sentence


@pytest.mark.parametrize(
    ("mistake", "line"),
    {
        'workflow = "w"\n\nhiden = true': 5,
        'workflow = "w"\nready = { setle_s = 1 }': 4,
        'existing = 3\n[[rule]]\nworkflow = "w"': 3,
        '[[rule]]\nworkflow = "w"\nhidden = true\n[[rule]]\nworkflow = "w"\nhidden = "yes"': 8,
        '[[rule]]\nworkflow = "w"\n\n[[rule]]\nname = "b"': 6,
        '[[rule]]\nworkflow = "w"\n[rule.ready]\nsettle_s = 1\nlayout = "dx"': 7,
        'workflow = = "w"': 3,
    }.items(),
)
def test_each_mistake_is_said_with_its_line(mistake: str, line: int) -> None:
    with pytest.raises(SettingsError, match=rf"x.toml:{line}\b|at line {line},"):
        rules.parse(HEAD + mistake, "x.toml")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        rules.load(tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="cannot be read"):
        rules.load(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.h5", ["a.h5", "x/y/a.h5", ".h5"], ["a.h5x", "a.hdf"]),
        ("raw/*.h5", ["raw/a.h5"], ["a.h5", "raw/x/a.h5", "x/raw/a.h5"]),
        ("raw/**/*.h5", ["raw/a.h5", "raw/x/y/a.h5"], ["a.h5", "rawx/a.h5"]),
        ("**/dark/*", ["dark/a", "x/dark/a"], ["darkx/a"]),
        ("raw/**", ["raw/a", "raw/x/a"], ["x/raw/a"]),
        ("a?[0-9].h5", ["ab1.h5"], ["a1.h5", "abc.h5"]),
        ("[!a]*.h5", ["b.h5"], ["a.h5"]),
        ("a(1)+.h5", ["a(1)+.h5"], ["a1.h5"]),
        ("{scan}_{index:03}.tif", ["x_001.tif", "x_y_1000.tif"], ["x_1.tif", "_001.tif"]),
        ("{scan}/{scan}.h5", ["a/a.h5"], ["a/b.h5"]),
    ],
)
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [name for name in yes if trigger.glob(pattern)(name) is None] == []
    assert [name for name in no if trigger.glob(pattern)(name) is not None] == []


SIMPLE = st.text("ab.*?", min_size=1, max_size=6).filter(lambda p: "**" not in p)


@given(SIMPLE, st.text("ab.\n", max_size=6))
def test_a_pattern_without_folders_is_that_of_the_shell(pattern: str, name: str) -> None:
    assert (trigger.glob(pattern)(name) is not None) is fnmatch.fnmatchcase(name, pattern)


@given(st.text(max_size=8), st.dictionaries(st.sampled_from(["scan", "stem", "name"]), st.text(max_size=5)))
def test_what_is_filled_in_is_not_looked_at_again(text: str, words: dict[str, str]) -> None:
    hostile = {name: value + "{name}{index}{stem.__class__}" for name, value in words.items()}
    filled = trigger.filled("{scan}" + text.replace("{", "") + "{name}", hostile, 3)
    assert filled == hostile.get("scan", "{scan}") + text.replace("{", "") + hostile.get("name", "{name}")


def test_by_size_and_by_what_is_in_the_file() -> None:
    rule = Rule("r", "w", min_bytes=10, max_bytes=20, when=(Condition("/m", ("fly", 1)), Condition("/e", least=5.0)))
    good = {"/m": "fly", "/e": 6}
    assert trigger.objection(rule, 15, good) == ""
    assert "fewer than 10" in trigger.objection(rule, 9, good)
    assert "more than 20" in trigger.objection(rule, 21, good)
    assert trigger.objection(rule, 15, {"/e": 6}) == "it has no /m"
    for wrong in ({"/m": "step"}, {"/m": True}, {"/e": 4.9}, {"/e": "6"}, {"/e": True}, {"/e": float("nan")}):
        assert trigger.objection(rule, 15, good | wrong).startswith("not /")


def test_arguments_are_taken_from_name_and_file() -> None:
    rule = one('workflow = "w"\nmatch = "{scan}_m.h5"\narguments = { s = "{scan}" }\narguments_from = { e = "/e" }')
    (claim,), _ = trigger.claims([rule], "deep/$(x)_m.h5")
    assert trigger.arguments(claim, "/d/x", {"/e": 5.5}) == ({"filePath": "/d/x", "s": "$(x)", "e": "5.5"}, "")
    assert "it has no /e" in trigger.arguments(claim, "/d/x", {})[1]


def test_the_first_rule_that_wants_a_name_comes_first_and_every_objection_is_said() -> None:
    first, second = Rule("a", "w", match=("a*",)), Rule("b", "w", extensions=("h5",))
    assert [c.rule.name for c in trigger.claims([first, second], "a.h5")[0]] == ["a", "b"]
    assert [c.rule.name for c in trigger.claims([first, second], "x.h5")[0]] == ["b"]
    none, why = trigger.claims([first, second], "x.tif")
    assert none == []
    assert re.search(r"rule 'a': .*; rule 'b': its name does not end with \.h5", why)
    assert trigger.claims([Rule("r", "w", hidden=True)], ".x/y")[0]
    assert trigger.claims([Rule("r", "w")], ".x/y")[1] == "it is hidden"
