"""`explain` with `--site auto` in a home where some sites are of no use: the others are told, and stdout is JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_samples import Beamway

OTHER = """[identity]
name = "{name}"
contact = "nobody"
[scheduler]
kind = "globus-compute"
"""


def test_a_site_that_is_wrong_or_not_built_hides_no_other(
    beamway: Beamway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEAMWAY_HOME", str(tmp_path / "home"))
    sites = tmp_path / "home" / "sites"
    sites.mkdir(parents=True)
    (sites / "wrong.toml").write_text("nonsense = 1\n")
    (sites / "later.toml").write_text(OTHER.format(name="later"))
    definition = tmp_path / "w.py"
    definition.write_text('{"name": "w", "owner": "o", "stages": {"01-A": {"command": "true"}}}\n')
    said = beamway("explain", str(definition), "--site", "auto", "--json")
    assert said.exit_code == 0, said.err
    (found,) = json.loads(said.out)["placements"]
    assert found["chosen"]["site"] == "local"
    assert {c["site"] for c in found["table"]} == {"local", "later"}
