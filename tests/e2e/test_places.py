"""Places at sites, as the profiles of a home know them: what has no way is refused before anything begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client import Client
from orchestrator.definition import loader
from orchestrator.errors import BeamwayError
from orchestrator.model import Run, RunStatus
from tests.conftest import workflow


def profile(home: Path, name: str, more: str = "") -> None:
    (home / "sites").mkdir(parents=True, exist_ok=True)
    text = f'[identity]\nname = "{name}"\ncontact = "ops"\n[scheduler]\nkind = "local"\n{more}'
    (home / "sites" / f"{name}.toml").write_text(text)


def moved(to: str) -> dict[str, Any]:
    return workflow(s1={"transfer": {"from": "/etc/hosts", "to": to}})


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("site://hcp/scratch/a", "There is no site 'hcp'"),
        ("site://island/scratch/a", "No way leads from one end"),
        ("site://old/scratch/a", "wants the UUID"),
        ("site://island", "reads site://NAME/path"),
    ],
)
def test_what_has_no_way_is_refused_before_it_begins(home: Path, client: Client, to: str, words: str) -> None:
    profile(home, "hpc")
    profile(home, "island", '[paths]\nshared = ["/own"]\n')
    profile(home, "old", '[[doors]]\nkind = "globus"\nendpoint = "alcf#dtn"\n')
    with pytest.raises(BeamwayError, match=words):
        client.plan(loader.load(moved(to)), {})


def test_a_site_that_an_earlier_stage_names_is_known_when_its_turn_comes(
    home: Path, client: Client, finish: Callable[..., Run], tmp_path: Path
) -> None:
    profile(home, "hpc")
    (tmp_path / "a").write_text("1 2 3")
    stages = {
        "1": {"command": "echo at hpc", "outputVariableRegexList": ["at (?P<where>.*)"]},
        "2": {"transfer": {"from": str(tmp_path / "a"), "to": f"site://$where{tmp_path}/b"}},
        "3": {"command": f"cat site://$where{tmp_path}/b", "outputVariableRegexList": ["(?P<read>.*)"]},
    }
    run = finish(client, {"name": "test", "owner": "o", "stages": stages})
    assert run.status is RunStatus.FAILED
    assert "runs at site 'local', and 'site://hpc/…' lies at site 'hpc'" in run.error
    assert (tmp_path / "b").read_text() == "1 2 3"
