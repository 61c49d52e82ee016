"""Which files a task reads, and which content they must have, as far as a definition and a run say it.

A run that was begun for a file as it had arrived carries that file's checksum (`inputChecksum`). Whatever reads the
file, or a copy of it that a stage of the run has made, gets that content or fails.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from orchestrator.definition import variables
from orchestrator.engine.opening import values_of
from orchestrator.model import Run, StageKind, StagePlan, Task, TaskStatus
from orchestrator.store import files
from orchestrator.transfer.address import below, is_one

CHECKSUM = "inputChecksum"
PLACE = "site://"  # begins the name of a place at a site: site://NAME/path


def known(run: Run) -> dict[str, str]:
    """File → checksum it must have, for the run's own file and its copies. Of several files nothing is said."""
    checksum = run.plan.variables.get(CHECKSUM, "")
    own = named(run) if checksum else ()
    if len(own) != 1:
        return {}
    found = dict.fromkeys((own[0], below(own[0])), checksum)
    transfers = {s.name: s for s in run.plan.stages if s.kind is StageKind.TRANSFER}
    for task in sorted(run.tasks.values(), key=lambda t: t.number):
        if task.stage in transfers and task.status is TaskStatus.DONE:
            for source, target in copies(run, task, transfers[task.stage]):
                if source in found or _absolute(task, source) in found:
                    found |= {target: checksum, below(target): checksum}
    return found


def named(run: Run) -> Sequence[str]:
    """The files that the run was begun for."""
    path = run.plan.variables.get("filePath", "")
    if not run.files and is_one(path):
        return (path,)
    return files.paths(run.files, run.plan.variables, run.plan.directory)


def copies(run: Run, task: Task, plan: StagePlan) -> list[tuple[str, str]]:
    """(source, target) of each copy that a transfer has made: as the workflow calls them where it names a place at a
    site, else as the transfer did. Empty when it cannot be told which became which."""
    made = [p.path for p in task.outcome.products] if task.outcome is not None else []
    values = values_of(run) | ({"filePath": task.item} if task.item else {})
    asked = variables.substitute_in(plan.arguments, values)
    used = _listed(task.arguments["from"])
    if len(used) > 1 and len(made) == 1:  # one transfer of many files into a folder
        made = [os.path.join(made[0], os.path.basename(below(source))) for source in used]
    if len(used) != len(made):
        return []
    names = [a if a.startswith(PLACE) else u for a, u in zip(_listed(asked["from"]), used, strict=True)]
    to = asked["to"] if asked["to"].startswith(PLACE) else ""
    return [(name, _target(to, source, path)) for name, source, path in zip(names, used, made, strict=True)]


def _target(to: str, source: str, made: str) -> str:
    """The copy by the name of its place, which may be that of a folder it was put into."""
    if not to:
        return made
    name = os.path.basename(below(made))
    into = to.endswith("/") or (os.path.basename(to) != name == os.path.basename(below(source)))
    return os.path.join(to, name) if into else to


def _listed(given: object) -> list[str]:
    return [given] if isinstance(given, str) else list(given) if isinstance(given, list | tuple) else []


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
    here = (os.path.normpath(os.path.join(run.plan.directory, p)) for p in found if p and not is_one(p))
    return tuple(dict.fromkeys(here))


def _absolute(task: Task, path: str) -> str:
    return path if is_one(path) else os.path.normpath(os.path.join(task.working_dir, path))
