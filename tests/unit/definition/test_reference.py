"""The workflow reference is true: its examples load, and it names every key and every lint code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.definition import arguments, expressions, extensions, lint, loader, stages

TEXT = (Path(__file__).parents[3] / "docs" / "workflow-reference.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_examples_load(block: str) -> None:
    if block.startswith("'"):
        expressions.parse(block.strip()[1:-1])
        return
    head = "'name': 'w', 'owner': 'o',"
    body = "{" + block + "}"
    if block.startswith("#"):
        body = block
    elif block.startswith('"arguments"'):
        body = f"{{{head} 'stages': {{'1': {{'command': 'true'}}}}, {block}}}"
    elif block.startswith('"01'):
        body = f"{{{head} 'stages': {{{block}}}}}"
    else:
        body = f"{{{head} 'stages': {{'1': {{'command': 'true', {block}}}}}}}"
    loader.loads(body)


KEYS = {*loader.WORKFLOW_KEYS, *stages.KEYS, *arguments.KEYS, *extensions.RESOURCES, *extensions.RETRY}


@pytest.mark.parametrize("key", sorted({*KEYS, *extensions.EXPECT} - {"description"}))
def test_every_key_is_named(key: str) -> None:
    assert f"`{key}`" in TEXT or f'"{key}"' in TEXT


def test_every_lint_code_is_named() -> None:
    codes = set(re.findall(r'"(?:error|warning|note)", "([a-z-]+)"', Path(lint.__file__).read_text()))
    assert len(codes) > 15
    assert codes == {c for c in codes if f"`{c}`" in TEXT}
