"""Both ways between us and DM: job records, output lines, arguments, and definitions that DM itself can run.

The record is the one DM's clients parse; where our states are finer they become the nearest word of DM.
What DM's documents leave open is decided here: a key that is asked for and missing prints as `None`;
control characters in a value print as escapes (a line break as `\\n`), so that a record stays one line; a
stage carries `status` only when it was skipped; a run that timed out is `failed`, its child process is
`timeout`.
"""

from __future__ import annotations

import copy
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orchestrator.errors import ArgumentError, DefinitionError, printable
from orchestrator.model import (
    RUN_GOING,
    STAGE_ENDED,
    Plan,
    Run,
    StageKind,
    StagePlan,
    StageStatus,
    Task,
    TaskStatus,
)

OUTPUT_LIMIT = 64 << 10  # characters of stdOut or stdErr kept of one child process
RECORD_LIMIT = 8 << 20  # of all child processes of a record together
START_KEYS = ("id", "owner", "status")  # what `dm-start-processing-job` prints

# --------------------------------------------------------------------------------------------------- records

_CHILD_STATUS = {
    TaskStatus.PENDING: "pending",
    TaskStatus.RUNNING: "running",
    TaskStatus.BACKOFF: "pending",
    TaskStatus.ON_HOLD: "pending",
    TaskStatus.DONE: "done",
    TaskStatus.FAILED: "failed",
    TaskStatus.TIMEOUT: "timeout",
    TaskStatus.ABORTED: "aborted",
}
_COUNTED = {
    "nRunningChildProcesses": (TaskStatus.RUNNING,),
    "nQueuedChildProcesses": (TaskStatus.PENDING, TaskStatus.BACKOFF, TaskStatus.ON_HOLD),
    "nCompletedChildProcesses": (TaskStatus.DONE,),
    "nFailedChildProcesses": (TaskStatus.FAILED, TaskStatus.TIMEOUT),
}
_ALWAYS_COUNTED = ("nRunningChildProcesses", "nQueuedChildProcesses")


def read_output(path: str) -> str:
    """The kept output at `path`: its beginning and end when it is long, nothing when it is gone."""
    try:
        with open(path, "rb") as file:
            head = file.read(OUTPUT_LIMIT // 2)
            size = file.seek(0, 2)
            rest = max(len(head), size - OUTPUT_LIMIT // 2)
            file.seek(rest)
            tail = file.read(OUTPUT_LIMIT // 2)
    except OSError:
        return ""
    left_out = rest - len(head)
    between = f"\n[{left_out} bytes left out]\n".encode() if left_out else b""
    return (head + between + tail).decode(errors="replace")


def job_record(run: Run, *, read: Callable[[str], str] = read_output) -> dict[str, Any]:
    """The run as DM's job record. `read` answers the text of a child's kept output, given its path."""
    record: dict[str, Any] = dict(run.plan.variables)
    record.update(run.variables)
    record.pop("workflow", None)
    # From here on the record's own keys: a captured variable of the same name does not hide them.
    record["workflow"] = _workflow(run, read)
    record["owner"] = run.plan.owner
    record["id"] = run.id
    record["status"] = _status(run)
    if run.stage:
        record["stage"] = run.stage
    for name, moment in (("submission", run.created_at), ("start", run.started_at), ("end", run.ended_at)):
        for key in (f"{name}Time", f"{name}Timestamp"):
            record.pop(key, None)
        if moment:
            record[f"{name}Time"] = moment
            record[f"{name}Timestamp"] = timestamp(moment)
    if run.started_at and run.ended_at:
        record["runTime"] = run.ended_at - run.started_at
    record["countFiles"] = len(run.files)
    if run.error:
        record["errorMessage"] = run.error
    return record


def timestamp(moment: float) -> str:
    """`2024/11/20 16:12:33 CST`: DM's form, in the zone of this host."""
    return time.strftime("%Y/%m/%d %H:%M:%S %Z", time.localtime(moment))


def _status(run: Run) -> str:
    known = len(run.stages) == len(run.plan.stages) > 0
    ended = known and all(state.status in STAGE_ENDED for state in run.stages.values())
    if run.status in RUN_GOING:
        return "finalizing" if ended else "running"
    return run.status.value


def _workflow(run: Run, read: Callable[[str], str]) -> dict[str, Any]:
    workflow = copy.deepcopy(run.plan.definition)
    by_stage: dict[str, list[Task]] = {}
    for number in sorted(run.tasks):
        by_stage.setdefault(run.tasks[number].stage, []).append(run.tasks[number])
    left = RECORD_LIMIT

    def output(path: str) -> str:
        nonlocal left
        text = read(path)[: OUTPUT_LIMIT + 100] if path and left > 0 else ""
        left -= len(text)
        return text

    for plan in run.plan.stages:
        stage = workflow.get("stages", {}).get(plan.name)
        if stage is None:
            continue
        state, tasks = run.stages.get(plan.name), by_stage.get(plan.name, [])
        if state is not None and state.status is StageStatus.SKIPPED:
            stage["status"] = "skipped"
        elif tasks:
            stage["childProcesses"] = {str(t.number): _child(t, plan, run.plan, output) for t in tasks}
            for key, statuses in _COUNTED.items():
                if (many := sum(t.status in statuses for t in tasks)) or key in _ALWAYS_COUNTED:
                    stage[key] = many
    return workflow


def _child(task: Task, stage: StagePlan, plan: Plan, output: Callable[[str], str]) -> dict[str, Any]:
    account = stage.user_account or plan.user_account
    command = task.command or f"{stage.kind.value} {task.call or stage.call}".strip()
    sudo = f"/usr/bin/sudo -u {account} -- "
    if account and stage.kind is StageKind.COMMAND and not command.startswith(sudo):
        command = sudo + command
    outcome = task.outcome
    started = task.started_at or (outcome.started_at if outcome else 0.0)
    ended = task.ended_at or (outcome.ended_at if outcome else 0.0)
    return {
        "stageId": stage.name,
        "childProcessNumber": task.number,
        "command": command,
        "workingDir": task.working_dir,
        "userAccount": account or None,
        "status": _CHILD_STATUS[task.status],
        "submitTime": task.submitted_at or None,
        "startTime": started or None,
        "endTime": ended or None,
        "runTime": ended - started if started and ended else None,
        "exitStatus": outcome.exit_status if outcome else None,
        "stdOut": output(outcome.stdout) if outcome else "",
        "stdErr": output(outcome.stderr) if outcome else "",
    }


def one_line(record: Mapping[str, Any], keys: Sequence[str] | str | None = None) -> str:
    """`key=value key=value ` with the space at the end, as scripts cut it. `keys`: names, `a,b`, or `ALL`."""
    if keys is None:
        keys = START_KEYS
    elif isinstance(keys, str):
        keys = tuple(record) if keys == "ALL" else tuple(k for k in keys.split(",") if k)
    elif list(keys) == ["ALL"]:
        keys = tuple(record)
    return "".join(f"{key}={printable(record.get(key))} " for key in keys)


# -------------------------------------------------------------------------------------------------- arguments

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_arguments(texts: Iterable[str]) -> dict[str, str]:
    """`key:value` arguments as a dict. The value may be empty and may hold `:`; a key counts once."""
    arguments: dict[str, str] = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not _NAME.fullmatch(name):
            key, equals, rest = text.partition("=")
            if equals and _NAME.fullmatch(key):
                raise ArgumentError(f"The argument '{text}' has no ':'.", f"Write '{key}:{rest}'.")
            hint = "A key is made of letters, digits and '_'."
            raise ArgumentError(f"The argument '{text}' does not read key:value.", hint)
        if name in arguments:
            raise ArgumentError(f"The argument '{name}' is given twice.")
        arguments[name] = value
    return arguments


# --------------------------------------------------------------------------------------------- export to DM

# What only adds safety or speed here: without it, DM runs the same commands in the same order.
_STRIPPED_ABOVE = ("expect", "retries", "timeout", "site", "resources", "queue", "account", "reservation", "mode")
_STRIPPED = (*_STRIPPED_ABOVE, "inputs", "outputs", "after")
_OWN_KINDS = ("kernel", "transfer", "function", "workflow")
_ANYWHERE = ("", "local", "auto")
_ONE_OF_EACH = ("nodes", "ranksPerNode")


def export_dm(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The definition without our extensions. `DefinitionError` names the stage and key that DM cannot
    express.

    A plain DM definition comes back equal, `id`, unknown keys and the order of keys included.
    """
    exported = copy.deepcopy(dict(definition))
    stages = exported.get("stages")
    if not isinstance(stages, dict) or not stages:
        raise DefinitionError("the workflow has no stages", key="stages")
    for name, stage in stages.items():
        _check_stage(name, stage)
    _check_order(stages)
    for stage in stages.values():
        for key in _STRIPPED:
            stage.pop(key, None)
    _check_place("", exported)
    for key in _STRIPPED_ABOVE:
        exported.pop(key, None)
    _check_arguments(exported)
    return exported


def _check_stage(name: str, stage: Any) -> None:
    if not isinstance(stage, dict):
        raise DefinitionError("a stage is a dict", stage=name)
    for key in _OWN_KINDS:
        if key in stage:
            raise DefinitionError("DM runs only 'command' stages", "Keep this stage here.", stage=name, key=key)
    if not isinstance(stage.get("command"), str):
        raise DefinitionError("DM needs a command", stage=name, key="command")
    _check_place(name, stage)


def _check_place(name: str, stage: Mapping[str, Any]) -> None:
    if (site := stage.get("site", "")) not in _ANYWHERE:
        raise DefinitionError(f"DM cannot run a stage at the site {site!r}", stage=name, key="site")
    resources = stage.get("resources")
    if isinstance(resources, dict):
        for key in _ONE_OF_EACH:
            if resources.get(key, 1) != 1:
                sentence = f"DM starts one process, and {key} is {resources[key]}"
                raise DefinitionError(sentence, stage=name, key="resources")


def _check_order(stages: Mapping[str, Mapping[str, Any]]) -> None:
    """DM runs stages one after another, sorted as strings: each must come after all before it here too."""
    order = sorted(stages)
    producers: dict[str, list[str]] = {}
    for name in order:
        for path in _names(stages[name].get("outputs")):
            producers.setdefault(path, []).append(name)
    reached: dict[str, set[str]] = {}
    for position, name in enumerate(order):
        stage = stages[name]
        before = dict.fromkeys(_names(stage.get("after")), "after")
        for path in _names(stage.get("inputs")):
            before.update({n: "inputs" for n in producers.get(path, []) if n != name})
        for other, key in before.items():
            if other not in stages:
                raise DefinitionError(f"there is no stage {other!r}", stage=name, key=key)
            if other >= name:
                sentence = f"DM runs it before {other!r}, because names are sorted as strings"
                raise DefinitionError(sentence, stage=name, key=key)
        if position and "after" not in stage and "inputs" not in stage:
            before[order[position - 1]] = ""
        reached[name] = set(before).union(*(reached[n] for n in before))
        if position and order[position - 1] not in reached[name]:
            key = "after" if "after" in stage else "inputs"
            sentence = f"it runs beside {order[position - 1]!r}; DM runs one stage at a time"
            raise DefinitionError(sentence, stage=name, key=key)


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [v for v in value if isinstance(v, str)] if isinstance(value, list | tuple | dict) else []


def _check_arguments(exported: Mapping[str, Any]) -> None:
    arguments = exported.get("arguments")
    for name, spec in arguments.items() if isinstance(arguments, dict) else ():
        if isinstance(spec, dict) and spec.get("default") is not None:
            raise DefinitionError(f"DM fills in no default for {name!r}", "Make it required.", key="arguments")


def to_pyspec(definition: Mapping[str, Any]) -> str:
    """The definition as py-spec text, one key a line, that loads back equal."""
    return _literal(definition, "", ()) + "\n"


def _literal(value: Any, indent: str, where: tuple[str, ...]) -> str:
    if isinstance(value, Mapping):
        if not value:
            return "{}"
        deeper = indent + "    "
        lines = (
            f"{deeper}{_literal(k, deeper, where)}: {_literal(v, deeper, (*where, str(k)))},\n"
            for k, v in value.items()
        )
        return "{\n" + "".join(lines) + indent + "}"
    if isinstance(value, list | tuple):
        inner = ", ".join(_literal(v, indent, where) for v in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    plain = value is None or isinstance(value, str | bytes | bool | int)
    if plain or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    stage = where[1] if len(where) > 1 and where[0] == "stages" else ""
    raise DefinitionError(f"{value!r} cannot be written as text", stage=stage, key=where[-1] if where else "")
