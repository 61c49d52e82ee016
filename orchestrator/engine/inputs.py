"""Which files a task reads, and which content they must have, as far as a definition and a run say it.

A run that was begun for a file as it had arrived carries that file's checksum (`inputChecksum`). Whatever reads the
file, or a copy of it that a stage of the run has made, gets that content or fails.
"""

from __future__ import annotations

import os

from orchestrator.definition import variables
from orchestrator.engine.opening import values_of
from orchestrator.model import Run, StageKind, StagePlan, Task, TaskStatus
from orchestrator.store import files
from orchestrator.transfer.address import below

CHECKSUM = "inputChecksum"


def known(run: Run) -> dict[str, str]:
    """File → checksum it must have, for the run's own file and its copies. Of several files nothing is said."""
    checksum = run.plan.variables.get(CHECKSUM, "")
    own = files.paths(run.files, run.plan.variables, run.plan.directory) if checksum else ()
    if len(own) != 1:
        return {}
    found = {os.path.normpath(own[0]): checksum}
    transfers = {s.name for s in run.plan.stages if s.kind is StageKind.TRANSFER}
    for task in sorted(run.tasks.values(), key=lambda t: t.number):
        if task.stage in transfers and task.status is TaskStatus.DONE and task.outcome is not None:
            given, made = task.arguments["from"], task.outcome.products
            sources = [given] if isinstance(given, str) else given
            if len(sources) == len(made):
                copies = [p.path for s, p in zip(sources, made, strict=True) if _absolute(task, s) in found]
                found |= {name: checksum for path in copies for name in (path, below(path))}
    return found


def declared(run: Run, task: Task, plan: StagePlan, must: dict[str, str]) -> tuple[str, ...]:
    """What it reads beside what a kernel's or a transfer's arguments name; of a command that declares no output, and
    of which nothing must be known, nothing: nobody would ask."""
    if not (plan.expect or must):
        return ()
    values = values_of(run) if plan.inputs else {}
    found = [
        variables.substitute(text, values | ({"filePath": task.item} if task.item else {})) for text in plan.inputs
    ]
    found += [task.item] if task.item else []
    found += [path for path in must if path in task.command]
    return tuple(dict.fromkeys(os.path.normpath(os.path.join(run.plan.directory, p)) for p in found if p))


def _absolute(task: Task, path: str) -> str:
    return path if "://" in path else os.path.normpath(os.path.join(task.working_dir, path))
