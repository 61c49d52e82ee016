"""The command `logs`: what the tasks of a run wrote."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from orchestrator.cli import session
from orchestrator.cli.session import json_option, run_argument
from orchestrator.errors import NotFound, nearest, printable

if TYPE_CHECKING:
    from orchestrator.client import Client
    from orchestrator.model import Run, Task

POLL_S = 0.2
POLL_FAR_S = 1.0


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
                if len(tasks) > 1:
                    out.write(f"{_title(task)}\n".encode())
                out.writelines(_pieces(client, run, task, stderr=stderr))
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


def _pieces(client: Client, run: Run, task: Task, *, stderr: bool, after: int = 0) -> Iterator[bytes]:
    """What the task's newest attempt has written until now, after so many bytes."""
    while piece := client.written(run.id, task.number, task.attempt, stderr=stderr, after=after):
        yield piece
        after += len(piece)


def _title(task: Task) -> str:
    item = f" {printable(task.item)}" if task.item is not None else ""
    again = f", attempt {task.attempt}" if task.attempt > 1 else ""
    return f"── {task.number} {printable(task.stage)}{item} ({task.status.value}{again})"


def _record(client: Client, run: Run, task: Task) -> dict[str, object]:
    out, err = (b"".join(_pieces(client, run, task, stderr=s)).decode("utf-8", "replace") for s in (False, True))
    return {
        "number": task.number,
        "stage": task.stage,
        "item": task.item,
        "attempt": task.attempt,
        "status": task.status.value,
        "command": task.command,
        "stdout": out,
        "stderr": err,
    }


def _follow(client: Client, run: Run, which: str | None, stderr: bool) -> None:
    """Write whatever comes, in the order it is seen, with a title where the task changes."""
    from orchestrator.model import TASK_ENDED, TaskStatus

    out = sys.stdout.buffer
    seen: dict[tuple[int, int], int] = {}  # (number, attempt) -> bytes
    over: set[tuple[int, int]] = set()
    titled: tuple[int, int] | None = None
    for now in _until_over(client, run):
        tasks = _chosen(now, which)
        for task in tasks:
            key = task.number, task.attempt
            if key in over or task.status is TaskStatus.PENDING:
                continue
            for piece in _pieces(client, now, task, stderr=stderr, after=seen.get(key, 0)):
                if key != titled and len(tasks) > 1:
                    out.write(f"{_title(task)}\n".encode())
                titled = key
                out.write(piece)
                seen[key] = seen.get(key, 0) + len(piece)
            if task.status in TASK_ENDED:
                over.add(key)
        out.flush()


def _until_over(client: Client, run: Run) -> Iterator[Run]:
    from orchestrator.model import RUN_ENDED

    while True:
        yield run
        if run.status in RUN_ENDED:
            return
        time.sleep(POLL_FAR_S if client.settings.url else POLL_S)
        run = client.run(run.id)
