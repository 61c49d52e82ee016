"""What a stage means at the moment its turn comes: its condition, its files, its commands with every name bound.

The only part of the engine that reads the workflow language. It answers the commands `OpenStage` and `DecideRepeat`
with an event, and looks at the file system only to find input files.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from orchestrator.definition import commands, expressions, files, variables
from orchestrator.definition import plan as plans
from orchestrator.errors import ArgumentError, BeamwayError
from orchestrator.events import (
    DecideRepeat,
    Event,
    OpenStage,
    RepeatDecided,
    StageOpened,
    StageRefused,
    StageSkipped,
    TaskDraft,
)
from orchestrator.model import Expectation, FileSpec, Plan, Run, StageKind, StagePlan, Task
from orchestrator.protocol import Submit
from orchestrator.states import stage_plan
from orchestrator.transfer import places
from sites import loader


class At(NamedTuple):
    """Where a stage runs."""

    site: str = "local"
    shell_text: bool = False  # allowed there in supplied values
    profiles: places.Profiles = loader.load


def answer(run: Run, command: OpenStage | DecideRepeat, at: float, where: At | None = None) -> Event:
    """The event that answers `command`; the stage runs at `where`."""
    plan = stage_plan(run, command.stage)
    try:
        if isinstance(command, DecideRepeat):
            assert plan.repeat is not None
            satisfied = expressions.parse(plan.repeat.until).evaluate(values_of(run))
            return RepeatDecided(at, plan.name, satisfied)
        where = where or At()
        return _open(run, plan, command.repetition, at, where._replace(profiles=functools.cache(where.profiles)))
    except BeamwayError as error:
        return StageRefused(at, plan.name, str(error))


def values_of(run: Run) -> dict[str, str]:
    """Every name known to the commands of this run."""
    started = time.strftime("%Y/%m/%d %H:%M:%S %Z", time.localtime(run.started_at))
    own = {"id": run.id, "username": run.username, "execHost": run.host, "startTime": started}
    return {**own, **run.variables}


def _open(run: Run, plan: StagePlan, repetition: int, at: float, where: At) -> Event:
    values = values_of(run)
    if repetition == 1 and plan.run_if and not expressions.parse(plan.run_if).evaluate(values):
        return StageSkipped(at, plan.name, f"runIf is false: {plan.run_if}")
    if not plan.per_file:
        return StageOpened(at, plan.name, repetition, (_draft(run, plan, None, values, where),))
    captured: dict[str, dict[str, str]] = {}
    for (item, name), value in run.item_variables.items():
        captured.setdefault(item, {})[name] = value
    drafts = (
        _draft(run, plan, item, {**values, **captured.get(item, {}), "filePath": item}, where)
        for item in _files(run, plan, values)
    )
    return StageOpened(at, plan.name, repetition, tuple(drafts))


def files_at_submission(plan: Plan) -> tuple[str, ...]:
    """The files that a run's own specification names, looked up before it is accepted. Raises InputError."""
    if plan.files == FileSpec() or not any(s.per_file and s.files is None for s in plan.stages):
        return ()
    return files.resolve(plan.files, plan.variables, commands.data_directory(plan))


def submission(plan: Plan, run_id: str, username: str, host: str, *, instead_of: str = "") -> Submit:
    """The wish for a run of this plan. Raises InputError when a file that it names is not there."""
    return Submit(run_id, plan, files=files_at_submission(plan), username=username, host=host, instead_of=instead_of)


def child_plan(run: Run, task: Task, *, shell_text: Callable[[str], bool] = lambda site: False) -> Plan:
    """The plan of the run that a task of a WORKFLOW stage starts, placed as that stage where its own are silent.

    Raises ArgumentError, InputError.
    """
    arguments = {name: "" if v is None else str(v) for name, v in task.arguments.items()}
    child = replace(run.plan.children[task.call], placing=stage_plan(run, task.stage).placing)
    return plans.bind(child, arguments, directory=task.working_dir, shell_text=shell_text)


def _files(run: Run, plan: StagePlan, values: Mapping[str, str]) -> tuple[str, ...]:
    """The stage's own specification, else the run's; looked up again when a capture has changed it."""
    if plan.files is not None:
        return files.resolve(plan.files, values, commands.directories(run.plan, plan, values)[1])
    given, now = run.plan.variables, run.variables
    changed = any(now.get(n) != given.get(n) for n in variables.FILE_ARGUMENTS)
    if not changed and run.files:
        return run.files
    spec = run.plan.files
    if changed:
        spec = FileSpec(
            path="$filePath" if now.get("filePath") else "",
            paths=("$filePathList",) if now.get("filePathList") else (),
            pattern="$filePathPattern" if now.get("filePathPattern") else "",
        )
    return files.resolve(spec, values, commands.data_directory(run.plan))


def _draft(run: Run, plan: StagePlan, item: str | None, given: dict[str, str], where: At) -> TaskDraft:
    """With every place at a site as the stage sees it: its path there, or for a transfer the way to it."""
    values = places.at_hand(given, where.site, where.profiles)
    working, data = commands.directories(run.plan, plan, values)
    command = ""
    if plan.kind is StageKind.COMMAND:
        if not where.shell_text:
            _refuse_shell_text(run, plan, item, given)
        command = places.in_command(commands.command_line(run.plan, plan, values), where.site)
        if "\0" in command:
            raise ArgumentError("The command holds a NUL character.")
    arguments = variables.substitute_in(plan.arguments, given)
    if plan.kind is StageKind.TRANSFER:
        arguments = places.routed(arguments, where.site, where.profiles)
    elif plan.kind is not StageKind.WORKFLOW:
        arguments = variables.substitute_in(plan.arguments, values)
        arguments = places.at_hand(arguments, where.site, where.profiles)
        places.check_at_hand([arguments, command], where.site)
    return TaskDraft(
        item=item,
        command=command,
        call=plan.call,
        arguments=arguments,
        working_dir=working,
        expect=tuple(_bound(e, data, values, where) for e in plan.expect),
    )


def _refuse_shell_text(run: Run, plan: StagePlan, item: str | None, values: Mapping[str, str]) -> None:
    """Values that people and file names supply must not reach a shell as shell text; captures are the author's."""
    used = set(variables.names(plan.command)) | set(variables.names(plan.user_account or run.plan.user_account))
    for name in sorted(used):
        supplied = name in run.plan.supplied and run.plan.variables.get(name) == values.get(name)
        if name in values and (supplied or (name == "filePath" and item is not None)):
            variables.check_supplied(name, values[name])


def _bound(expectation: Expectation, data: str, values: Mapping[str, str], where: At) -> Expectation:
    path = places.at_hand(variables.substitute(expectation.path, values), where.site, where.profiles)
    places.check_at_hand(path, where.site)
    return replace(expectation, path=os.path.normpath(os.path.join(data, path)))
