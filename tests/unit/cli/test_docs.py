"""What the documentation tells people to type exists, its examples load, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from orchestrator.cli.app import cli
from orchestrator.definition import loader

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TYPED = re.compile(r"(?:^|[`$] ?)beamway ([a-z]+(?:-[a-z]+)*)((?: [^`\n|]*)?)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path) -> None:
    for name, rest in TYPED.findall(page.read_text(encoding="utf-8")):
        assert name in cli.commands, f"beamway {name}"
        command = cli.commands[name]
        while isinstance(command, click.Group) and (word := re.match(r" +([a-z]+(?:-[a-z]+)*)", rest)):
            assert word[1] in command.commands, f"beamway {name}{rest}"
            command, rest = command.commands[word[1]], rest[word.end() :]
        if isinstance(command, click.Group):
            command = command.commands.get("", command)  # what is meant when none is named
        known = {o for p in command.params for o in p.opts} | {"--help"}
        for option in re.findall(r"(?<= )--?[a-z][a-z-]*", rest):
            assert option in known, f"beamway {name}{rest}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "docs/start.md"])
def test_examples_load(page: str, tmp_path: Path) -> None:
    examples = re.findall(r"^```pyspec\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert examples
    for text in examples:
        file = tmp_path / "example.py"
        file.write_text(text, encoding="utf-8")
        assert list(loader.load(file).stages) == ["01-COUNT", "02-SAY"]
