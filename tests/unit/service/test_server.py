from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import protocol
from orchestrator.model import Plan, StageKind, StagePlan
from orchestrator.service import holding
from orchestrator.service.peers import Question
from orchestrator.service.server import Server
from orchestrator.settings import Settings
from orchestrator.store.database import Database


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    settings = Settings(home=tmp_path)
    with Database(settings.database_url) as database:
        database.ensure()
        held = holding.take(database, tmp_path, "")
        assert held is not None
        made = Server(settings, database, held, supervises=False)
        yield made
        made.gate.close()


def live(server: Server, run_id: str) -> protocol.Live:
    asking = Question()
    server._hear(asking, protocol.Peek(run_id))
    said = asking.answer.result(0)
    assert isinstance(said, protocol.Live)
    return said


def test_what_is_told_of_a_run_that_is_over_is_not_kept(server: Server) -> None:
    """Its end has come and would have taken it away: nothing will do it later."""
    plan = Plan("w", "o", (StagePlan("s", StageKind.COMMAND, command="true"),))
    server._hear(Question(), protocol.Submit("going", plan))
    for run_id in ("going", "over"):
        told = (
            protocol.Progress(f"{run_id}.0.1", 0.5, "half"),
            protocol.Waits(f"{run_id}.1.1", time.time(), "a queue"),
        )
        server._hear(Question(), protocol.Report(1, told))
    assert (live(server, "going").progress, len(live(server, "going").waits)) == ({"going.0.1": (0.5, "half")}, 1)
    assert (live(server, "over").progress, live(server, "over").waits) == ({}, {})
