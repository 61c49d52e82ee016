"""The command `logs`: what the tasks of a run wrote."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from orchestrator.cli import session
from orchestrator.cli.session import json_option, run_argument
from orchestrator.errors import NotFound, Unavailable, nearest, printable

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.model import Run, Task

POLL_S = 0.2


@click.command()
@run_argument
@click.argument("which", metavar="[STAGE|NUMBER]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run is over.")
@click.option("--stderr", is_flag=True, help="What they wrote to stderr, instead of stdout.")
@json_option
def logs(run_id: str, which: str | None, follow: bool, stderr: bool, as_json: bool) -> None:
    """Print what the tasks of a run wrote: of all, of a STAGE, or of the task with this NUMBER."""
    from orchestrator.cli import formats

    with session.client() as client:
        run = client.run(session.find(client, run_id))
        tasks = _chosen(run, which)
        if as_json:
            formats.emit([_record(client, run, task) for task in tasks])
        elif follow:
            _follow(client, run, which, stderr)
        else:
            out = sys.stdout.buffer
            for task in tasks:
                path = _paths(client, run, task)[stderr]
                if len(tasks) > 1:
                    out.write(f"{_title(task)}\n".encode())
                _copy(path, 0, out)
            out.flush()


def _chosen(run: Run, which: str | None) -> list[Task]:
    """The tasks of a stage, or the one with this number; a stage's name comes first. Raises NotFound."""
    tasks = [run.tasks[number] for number in sorted(run.tasks)]
    if which is None:
        return tasks
    names = [p.name for p in run.plan.stages]
    if which in names:
        return [t for t in tasks if t.stage == which]
    if which.isdecimal() and int(which) in run.tasks:
        return [run.tasks[int(which)]]
    raise NotFound(
        f"Run {run.id} has no stage and no task {which!r}.{nearest(which, names)}",
        f"Its stages: {', '.join(names)}; it has {len(tasks)} tasks.",
    )


def _paths(client: Client, run: Run, task: Task) -> tuple[Path, Path]:
    """stdout and stderr of the task's newest attempt. While it runs they are where its agent writes them."""
    directory = client.settings.runs_directory
    if client.settings.url and not directory.is_dir():
        raise Unavailable(
            f"The logs lie where the service and its agents keep them, and {directory} is not there.",
            "Look on a host that sees them; the setting `runs` (BEAMWAY_RUNS) names their directory.",
        )
    stem = directory / run.id / "logs" / f"{task.number}.{task.attempt}"
    return Path(f"{stem}.out"), Path(f"{stem}.err")


def _title(task: Task) -> str:
    item = f" {printable(task.item)}" if task.item is not None else ""
    again = f", attempt {task.attempt}" if task.attempt > 1 else ""
    return f"── {task.number} {printable(task.stage)}{item} ({task.status.value}{again})"


def _record(client: Client, run: Run, task: Task) -> dict[str, object]:
    out, err = _paths(client, run, task)
    return {
        "number": task.number,
        "stage": task.stage,
        "item": task.item,
        "attempt": task.attempt,
        "status": task.status.value,
        "command": task.command,
        "stdout": _text(out),
        "stderr": _text(err),
    }


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _copy(path: Path, offset: int, out: BinaryIO) -> int:
    """Write what the file holds after `offset`; the new offset. A file that is not there holds nothing."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while block := file.read(1 << 16):
                out.write(block)
                offset += len(block)
    except FileNotFoundError:
        return offset
    return offset


def _follow(client: Client, run: Run, which: str | None, stderr: bool) -> None:
    """Write whatever comes, in the order it is seen, with a title where the task changes."""
    out = sys.stdout.buffer
    offsets: dict[Path, int] = {}
    titled: Path | None = None
    for now in _until_over(client, run):
        tasks = _chosen(now, which)
        for task in tasks:
            path = _paths(client, now, task)[stderr]
            before = offsets.get(path, 0)
            try:
                grown = path.stat().st_size > before
            except OSError:
                continue
            if not grown:
                continue
            if path != titled and len(tasks) > 1:
                out.write(f"{_title(task)}\n".encode())
            titled = path
            offsets[path] = _copy(path, before, out)
        out.flush()


def _until_over(client: Client, run: Run) -> Iterator[Run]:
    from orchestrator.model import RUN_ENDED

    while True:
        yield run
        if run.status in RUN_ENDED:
            return
        time.sleep(POLL_S)
        run = client.run(run.id)
