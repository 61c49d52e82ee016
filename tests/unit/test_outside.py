"""Every outside effect has crash points: one that is added without them fails here."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import outside

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("engine", "service", "agent", "transfer", "catalog", "client")
# What changes the world: by its last word, and the word before that where the last says too little.
EFFECTS = {
    "Popen": "",
    "posix_spawn": "",
    "execv": "",
    "execve": "",
    "rename": "os",
    "replace": "os",
    "killpg": "os",
    "kill": "os",
    "submit_once": "",
    "submit_transfer": "",
    "cancel_task": "",
    "cancel": "_scheduler",
    "save": "_writer",
    "release": "leases",
}
# Those that need none, and why.
FINE = {
    "agent/agent.py:_superseded": "becomes another process; what it held is the other agent's",
    "agent/agent.py:_signal_group": "asked again at each look until the worker has ended",
    "agent/batch.py:spec": "the order file: written again by whoever submits",
    "agent/claim.py:_end_worker": "of an attempt that is lost: whoever adopts it next ends it",
    "agent/leased.py:submit_once": "passes it on: who calls it stands in the effect",
    "agent/leased.py:cancel": "the same",
    "agent/shell.py:end_all": "the agent is ending: whoever adopts waits for the group",
    "agent/processes.py:group_alive": "signal 0 only asks",
    "agent/ranks.py:run": "within call.run: the ranks of an attempt end with it",
    "agent/ranks.py:main": "within call.run: what a rank says to the first one",
    "agent/wrapper.py:_call_command": "within call.run: a command in a worker ends with it",
    "agent/wrapper.py:_look_for_mark": "a worker ends itself",
    "agent/wrapper.py:_move": "the output of an attempt gets its names",
    "client/local.py:_start_service": "its lock says whether there is one",
    "transfer/ssh_end.py:_asked": "a shell that does what it is told, word by word, and ends with us",
    "service/supervisor.py:dismiss": "asked again at each look until it has ended",
    "service/holding.py:take": "a lease of nobody who lives: asked again at the next start",
    "service/holding.py:give_back": "one that is not given back runs out",
}


def calls() -> Iterator[tuple[str, str, bool, int]]:
    """(file:function, called, does it stand in an effect?, line) of every outside effect."""
    for room in ROOMS:
        for path in sorted((ROOT / "orchestrator" / room).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            yield from _walk(tree, f"{path.relative_to(ROOT / 'orchestrator')}", "", within=False)


def _walk(node: ast.AST, file: str, function: str, *, within: bool) -> Iterator[tuple[str, str, bool, int]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        function, within = node.name, False
    if isinstance(node, ast.With):
        within = within or any(_is_effect(item.context_expr) for item in node.items)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in EFFECTS:
        before = ast.unparse(node.func.value).rpartition(".")[2]
        if EFFECTS[node.func.attr] in ("", before):
            yield f"{file}:{function}", ast.unparse(node.func), within, node.lineno
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, file, function, within=within)


def _is_effect(expression: ast.expr) -> bool:
    return (
        isinstance(expression, ast.Call)
        and isinstance(expression.func, ast.Name)
        and expression.func.id == "effect"
        and isinstance(expression.args[0], ast.Constant)
        and expression.args[0].value in outside.EFFECTS
    )


def test_every_outside_effect_has_crash_points() -> None:
    bare = [
        f"{where} ({called}, line {line})"
        for where, called, within, line in calls()
        if not within and where not in FINE
    ]
    assert bare == [], "put it in `with effect(NAME):`, and say in outside.EFFECTS what finds it again"


def test_nothing_is_excused_that_is_not_there() -> None:
    assert set(FINE) <= {where for where, _, within, _ in calls() if not within}


def test_every_named_effect_is_somewhere() -> None:
    text = "".join(p.read_text() for room in ROOMS for p in (ROOT / "orchestrator" / room).rglob("*.py"))
    assert [name for name in outside.EFFECTS if f'effect("{name}")' not in text] == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_is_killed_at_its_point_once(tmp_path: Path, when: str) -> None:
    program = f"""
from orchestrator.outside import effect
with effect("store.commit"):
    open({str(tmp_path / "done")!r}, "a").write("x")
"""
    environment = {
        **os.environ,
        "BEAMWAY_CRASH": f"store.commit:{when}",
        "BEAMWAY_CRASH_MARK": str(tmp_path / "mark"),
        "BEAMWAY_CRASH_LOG": str(tmp_path / "log"),
    }
    first = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert first.returncode == -signal.SIGKILL
    assert (tmp_path / "done").exists() == (when == "after")
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
    assert (tmp_path / "log").read_text().splitlines()[-2:] == ["store.commit:before", "store.commit:after"]
