"""What opens the service is the agent's alone: no command and no function of a run sees it."""

from __future__ import annotations

from pathlib import Path

from orchestrator.model import RunStatus
from tests.conftest import submit, wait, workflow
from tests.http.conftest import Running


def test_commands_and_functions_do_not_get_the_agent_s_token(running: Running, tmp_path: Path) -> None:
    stages = workflow(
        s1={"command": f"env > {tmp_path}/command"},
        s2={"function": "tests.e2e.makers:surroundings", "arguments": {"path": f"{tmp_path}/function"}},
    )
    with running.client() as client:
        run = wait(client, submit(client, stages))
    assert run.status is RunStatus.DONE, run.error
    for kind in ("command", "function"):
        environment = (tmp_path / kind).read_text()
        assert "PATH=" in environment
        assert running.tokens["agent"] not in environment, kind
