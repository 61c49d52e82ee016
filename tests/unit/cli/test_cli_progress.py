"""What is shown while a run goes on."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from cli_samples import ID, Beamway, FakeClient, done, running
from msgspec.structs import replace

from orchestrator.cli import progress
from orchestrator.model import Run


def test_a_quiet_run_says_once_what_it_waits_for(
    client: FakeClient, beamway: Beamway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET_S", -1.0)
    client.known[ID] = quiet = running()
    client.pong = replace(client.pong, agents=()) if client.pong else None
    client.follows = lambda run_id: iter([quiet, quiet, quiet, done()])
    said = beamway("watch", "last")
    assert said.out.count("waits for the agent of site 'local', which is not connected") == 1


def test_each_change_is_a_line(client: FakeClient, beamway: Beamway) -> None:
    client.known[ID] = done()
    client.follows = lambda run_id: iter([running(), running(), done()])
    lines = [line.split(" ", 1)[-1] for line in beamway("watch", "last").out.splitlines()]
    before, after = lines.index("01-A running"), lines.index("01-A done after 6.00 s")
    assert before < after < lines.index("02-B done after 6.00 s")
    assert any(line.endswith(f"run {ID} done") for line in lines)
    assert lines.count("01-A running") == 1


def test_the_table_of_a_terminal(
    client: FakeClient, beamway: Beamway, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    client.known[ID] = done()
    monkeypatch.setattr(progress, "_terminal", lambda: True)

    def follow(run_id: str) -> Iterator[Run]:
        yield running()
        yield done()

    client.follows = follow
    said = beamway("watch", "last")
    assert said.exit_code == 0
    assert "compute s" in said.out


def test_progress_of_tasks_counts(client: FakeClient) -> None:
    from rich.console import Console

    out = io.StringIO()
    table = progress._table(running(), {f"{ID}.0.1": (0.5, "slab\n3")}, "It waits.")
    Console(file=out, width=120).print(table)
    text = out.getvalue()
    assert "slab\\n3" in text
    assert "It waits." in text
    assert progress._fraction(running(), progress.records.stage_lines(running())[0], {f"{ID}.0.1": (0.5, "")}) == (
        0.5,
        "",
    )
