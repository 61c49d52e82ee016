"""Shows a run while it goes on: a live table on a terminal, one line per change elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from orchestrator import records
from orchestrator.cli import Interrupted, formats
from orchestrator.errors import RunFailed, printable
from orchestrator.model import RUN_ENDED, Run, RunStatus, StageStatus, split_token

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.client import Client

BEAT_S = 0.5  # how often a live table is drawn anew
QUIET_S = 10.0  # a run that has not changed for so long is asked why, so that nothing waits silently

Progress = dict[str, tuple[float, str]]


def follow(client: Client, run_id: str, *, quiet: bool = False) -> Run:
    """Show the run until it is over. Ctrl-C leaves it going on, and says how to come back to it."""
    try:
        if quiet:
            return _last(client, run_id)
        return _live(client, run_id) if _terminal() else _lines(client, run_id)
    except KeyboardInterrupt:
        hint = f"`beamway watch {run_id}` shows it again, `beamway cancel {run_id}` ends it."
        raise Interrupted(f"Run {run_id} goes on.", hint) from None


def require_done(run: Run) -> None:
    """Raises RunFailed unless the run is done."""
    if run.status is not RunStatus.DONE:
        reason = f": {run.error.rstrip('.')}" if run.error else ""
        raise RunFailed(f"Run {run.id} {run.status.value}{reason}.", f"`beamway why {run.id}` says more.")


def _terminal() -> bool:
    return sys.stdout.isatty()


def _last(client: Client, run_id: str) -> Run:
    *_, run = client.follow(run_id)
    return run


class _Silence:
    """What a run waits for, once it has been quiet for a while."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._run: Run | None = None
        self._asked_at = 0.0
        self._sentence = ""

    def broken(self, run: Run) -> str:
        """A sentence while the run is quiet, otherwise nothing. Call it with each round of `follow`."""
        now = time.monotonic()
        if run is not self._run:
            self._run, self._asked_at, self._sentence = run, now, ""
        elif now - self._asked_at > QUIET_S:
            self._asked_at = now
            self._sentence = self._client.why(run.id).sentence
        return self._sentence


def _lines(client: Client, run_id: str) -> Run:
    shown: dict[str, str] = {}
    silence, said = _Silence(client), ""
    run = None
    for run in client.follow(run_id, beat_s=BEAT_S):
        sentence = silence.broken(run)
        if sentence and sentence != said:
            click.echo(f"{formats.local(time.time())} {printable(sentence)}")
        said = sentence
        for line in records.stage_lines(run):
            text = _change(line)
            if text and shown.get(line.plan.name) != text:
                shown[line.plan.name] = text
                click.echo(f"{formats.local(time.time())} {line.plan.name} {text}")
    assert run is not None
    click.echo(f"{formats.local(run.ended_at)} run {run.id} {run.status.value}")
    return run


def _change(line: records.StageLine) -> str:
    """What a log of stages says of this one; empty before it has begun."""
    state = line.state
    match state.status:
        case StageStatus.PENDING | StageStatus.OPENING:
            return ""
        case StageStatus.RUNNING if state.on_hold:
            return f"running, {state.on_hold} of {state.tasks} tasks on hold"
        case StageStatus.RUNNING:
            again = f", repetition {state.repetition}" if state.repetition > 1 else ""
            return f"running{again}"
        case _:
            after = f" after {formats.duration(line.wall_s)}" if line.wall_s is not None else ""
            reason = f": {printable(state.reason)}" if state.reason else ""
            return f"{state.status.value}{after}{reason}"


def _live(client: Client, run_id: str) -> Run:
    from rich.live import Live

    silence = _Silence(client)
    run = None
    with Live(auto_refresh=False, transient=True) as display:
        for run in client.follow(run_id, beat_s=BEAT_S):
            going = {} if run.status in RUN_ENDED else client.live(run_id).progress
            display.update(_table(run, going, silence.broken(run)), refresh=True)
    assert run is not None
    click.echo(stage_table(run))
    return run


def _table(run: Run, progress: Progress, sentence: str) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "status", "tasks", "progress", "time", ""):
        table.add_column(heading)
    now = time.time()
    for line in records.stage_lines(run):
        state, status = line.state, line.state.status.value
        fraction, text = _fraction(run, line, progress)
        elapsed = line.wall_s if line.wall_s is not None else now - state.started_at if state.started_at else None
        table.add_row(
            Text(printable(state.name)),
            Text(status, style=formats.COLOURS.get(status, "")),
            Text(f"{state.done}/{state.tasks}" if state.tasks else "-"),
            ProgressBar(total=1.0, completed=fraction, width=24),
            Text(formats.duration(elapsed)),
            Text(printable(state.reason or text)),
        )
    title = Text(f"{printable(run.plan.workflow)}  {run.id}  {run.status.value}")
    return Group(title, table, *([Text(printable(sentence))] if sentence else []))


def _fraction(run: Run, line: records.StageLine, progress: Progress) -> tuple[float, str]:
    """How far a stage is, counting what its running tasks say of themselves; and what one of them says."""
    state = line.state
    if state.status in (StageStatus.DONE, StageStatus.SKIPPED):
        return 1.0, ""
    if not state.tasks:
        return 0.0, ""
    parts, text = 0.0, ""
    for token, (fraction, said) in progress.items():
        task = run.tasks.get(split_token(token)[1])
        if task is not None and task.stage == state.name:
            parts, text = parts + fraction, said
    return min(1.0, (state.done + parts) / state.tasks), text


def stage_table(run: Run) -> str:
    """What became of each stage, and what it cost in seconds."""
    rows = []
    for line in records.stage_lines(run):
        state, costs = line.state, line.costs
        began = bool(state.tasks)
        rows.append(
            (
                state.name,
                formats.coloured(state.status.value),
                f"{state.done}/{state.tasks}" if began else "-",
                *(f"{s:.2f}" if began else "-" for s in (costs.queue_s, costs.transfer_s, costs.compute_s)),
                f"{costs.checks_s:.2f}" if began else "-",
                state.reason or (f"{state.on_hold} on hold" if state.on_hold else ""),
            )
        )
    numbers = ("tasks", "queue s", "transfer s", "compute s", "checks s")
    return formats.table(("stage", "status", *numbers, "reason"), rows, right=numbers)
