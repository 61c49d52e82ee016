"""`docs/sites.md`: its profiles load, its keys are those of the schema, its checks are those that are made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_samples import Beamway

from orchestrator.sitecheck import answers, live
from sites import loader, manual

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "sites.md").read_text(encoding="utf-8")
EXAMPLES = [re.sub(r"^   ", "", text, flags=re.MULTILINE) for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)]


def test_the_example_is_a_profile_and_the_other_tables_fit_into_it() -> None:
    site, reservation, maintenance = EXAMPLES
    profile = loader.parse(f"{site}\n{reservation}\n{maintenance}")
    assert profile.name == "mycluster"
    assert [f.kind for f in loader.fallbacks(profile)] == ["wait", "queue", "queue", "site"]
    assert (len(profile.reservations), len(profile.maintenance)) == (1, 1)


def test_every_key_is_listed() -> None:
    assert PAGE.endswith(manual.text()), "put the output of `python -m sites.manual` at the end of docs/sites.md"


def test_the_checks_of_a_job_are_those_that_are_made() -> None:
    listed = re.findall(r"^\| ([\w ]+) \| `--live`", PAGE, re.MULTILINE)
    assert listed == [live.JOB, *answers.NAMES]


def test_the_commands_work_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beamway: Beamway) -> None:
    monkeypatch.setenv("BEAMWAY_HOME", str(tmp_path / "home"))
    file = tmp_path / "mycluster.toml"
    text = EXAMPLES[0].replace('"slurm"', '"local"').replace('"srun"', '"none"')
    file.write_text(text.replace("/data/scratch", str(tmp_path / "scratch")))
    assert beamway("site", "check", str(file)).exit_code == 0
    assert beamway("site", "add", str(file)).exit_code == 0
    assert beamway("site", "check", "mycluster").exit_code == 0
    assert "mycluster" in beamway("site", "ls").out
