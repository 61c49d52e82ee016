"""Rules are read strictly, and each mistake is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.catalog import policy
from orchestrator.errors import SettingsError
from orchestrator.store.catalog import CatalogFile, FileKind

GOOD = """
[place.tape]
address = "gsiftp://tape.example.org:2811/archive/"

[[rule]]
name = "calibrations"
kinds = "calibration"
keep = "for ever"

[[rule]]
name = "raw"
kinds = ["raw"]
places = "beamline"
experiments = "2026-*"
keep = "90 days"
grace = "12 h"
copies = 2
elsewhere = ["tape", "alcf"]
archive = "tape"
"""
FILE = CatalogFile("2026-3-smith", "/a", 1, "xxh3:0")


def test_the_first_rule_that_fits_decides() -> None:
    read = policy.parse(GOOD, "retention.toml")
    assert read.places == {"tape": "gsiftp://tape.example.org:2811/archive"}
    rule = read.rule(FILE, "beamline")
    assert rule is not None
    assert (rule.name, rule.keep_s, rule.grace_s, rule.copies) == ("raw", 90 * 86400, 12 * 3600, 2)
    assert read.rule(FILE, "tape") is None
    assert read.rule(CatalogFile("2025-1-x", "/a", 1, "xxh3:0"), "beamline") is None
    calibration = read.rule(CatalogFile("", "/a", 1, "xxh3:0", FileKind.CALIBRATION), "beamline")
    assert calibration is not None
    assert calibration.keep_s is None


def test_no_file_is_no_rule(tmp_path: Path) -> None:
    assert policy.load(tmp_path) == policy.Policy()
    (tmp_path / "retention.toml").write_text(GOOD)
    assert len(policy.load(tmp_path).rules) == 2
    (tmp_path / "retention.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="cannot be read"):
        policy.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[rule]]\n", "'keep' is not said"),
        ('[[rule]]\nkeep = "90 dogs"', "'90 dogs' is no length of time"),
        ("[[rule]]\nkeep = 90", "key 'keep': it must be a text, not 90"),
        ('[[rule]]\nkeeps = "1 d"', "no key 'keeps'. Did you mean 'keep'?"),
        ('[[rule]]\nkeep = "1 d"\nkinds = "row"', "no kind 'row'. Did you mean 'raw'?"),
        ('[[rule]]\nkeep = "1 d"\ncopies = 0', "the last copy is never removed"),
        ('[[rule]]\nkeep = "1 d"\ncopies = true', "must be a whole number"),
        ('[[rule]]\nkeep = "1 d"\ncopies = 2\nelsewhere = ["tape"]', "2 copies cannot be in 1 places"),
        ('[[rule]]\nkeep = "1 d"\narchive = "tap"\n[place.tape]\naddress = "/t"', "Did you mean 'tape'?"),
        ('[[rule]]\nname = "a"\nkeep = "1 d"\n[[rule]]\nname = "a"\nkeep = "1 d"', "two rules are called 'a'"),
        ('[place.tape]\nadress = "/t"', "Did you mean 'address'?"),
        ('[place.tape]\naddress = "t"', "must be a folder of this host"),
        ("place = 3", "written as [place.NAME]"),
        ("rule = 3", "written as [[rule]]"),
        ("rules = 3", "Did you mean 'rule'?"),
        ("[[rule", "retention.toml:"),
    ],
)
def test_a_mistake_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        policy.parse(text, "retention.toml")
    assert says in str(caught.value)
    assert caught.value.exit_code == 78


def test_the_rule_of_the_documentation_is_right() -> None:
    assert policy.__doc__ is not None
    text = "\n".join(line[4:] for line in policy.__doc__.splitlines() if line.startswith("    "))
    assert policy.parse(text, "retention.toml").rules[0].archive == "tape"
