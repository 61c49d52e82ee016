"""What a plan would do, told before it does: as records for programs, as text for people.

It looks at the disk for input files and changes nothing. Commands are shown with the values known now; what only a
running stage can know stays as `$name`, with a line that says where the value will come from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec import Struct

from orchestrator.definition import commands, expressions, files, variables
from orchestrator.definition.plan import capturing, used_names
from orchestrator.errors import ArgumentError, BeamwayError
from orchestrator.model import Expectation, FileSpec, Plan, Resources, StageKind, StagePlan

MOST_ENTRIES = 100_000  # files counted below a folder before its size is called unknown
AT_START = ("id", "username", "execHost", "startTime")  # the engine knows these when the run starts


class Wait(Struct, frozen=True):
    stage: str
    because: str


class Input(Struct, frozen=True):
    path: str
    bytes: int | None  # None: not known


class Inputs(Struct, frozen=True):
    """Files found now, and why not when they were not."""

    files: tuple[Input, ...] = ()
    bytes: int = 0
    trouble: str = ""


class Name(Struct, frozen=True):
    """A `$name` whose value is not known now, or can still change, and where it comes from."""

    name: str
    state: str  # "at start" | "captured" | "may change" | "late" | "nothing"
    comes_from: str


class StageExplanation(Struct, frozen=True):
    name: str
    kind: str
    runs: str  # the command line, or the call with its arguments; of a per-file stage, for its first file
    waits: tuple[Wait, ...] = ()
    run_if: str = ""
    decided: str = ""  # "true" | "false" | "when stage …"; empty without a condition
    per_file: bool = False
    parallel: bool = True
    count: int = 1  # commands or calls that are known now
    inputs: Inputs = Inputs()  # of a stage with its own specification, and what a transfer reads
    repeat: str = ""
    captures: tuple[str, ...] = ()
    working_dir: str = ""
    site: str = ""
    resources: str = ""
    timeout_s: float = 0.0
    retries: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    names: tuple[Name, ...] = ()
    trouble: str = ""  # why this stage would be refused as things stand


class Explanation(Struct, frozen=True):
    workflow: str
    owner: str
    directory: str
    arguments: dict[str, str]
    inputs: Inputs
    bytes_to_read: int  # of all input files, each once
    bytes_to_move: int  # by transfer stages, as far as the sources are there now
    levels: tuple[tuple[StageExplanation, ...], ...]  # the stages of one level run side by side


def explain(plan: Plan) -> Explanation:
    """Raises nothing for a compiled plan: what is missing or would be refused is told in `trouble`."""
    run_inputs = _find(plan.files, plan.variables, commands.data_directory(plan))
    if not any(s.per_file and s.files is None for s in plan.stages):
        run_inputs = Inputs(run_inputs.files, run_inputs.bytes)  # nobody reads them: none has to be there
    before = _ancestors(plan)
    stages = {s.name: _stage(plan, s, run_inputs, before[s.name]) for s in plan.stages}
    read = {f.path: f.bytes or 0 for f in run_inputs.files}
    moved: dict[str, int] = {}
    for stage in stages.values():
        into = moved if stage.kind == StageKind.TRANSFER else read
        into.update({f.path: f.bytes or 0 for f in stage.inputs.files})
    return Explanation(
        workflow=plan.workflow,
        owner=plan.owner,
        directory=plan.directory,
        arguments=dict(plan.variables),
        inputs=run_inputs,
        bytes_to_read=sum(read.values()),
        bytes_to_move=sum(moved.values()),
        levels=tuple(tuple(stages[n] for n in level) for level in _levels(plan)),
    )


def render(plan: Plan) -> str:
    """The explanation as lines of plain text."""
    from orchestrator.definition import explain_text

    return explain_text.render(explain(plan))


# ---------------------------------------------------------------------------------------------------------- graph


def _ancestors(plan: Plan) -> dict[str, frozenset[str]]:
    """stage → every stage that has ended before it begins."""
    found: dict[str, frozenset[str]] = {}
    for stage in plan.stages:  # topological
        found[stage.name] = frozenset(stage.after).union(*(found[a] for a in stage.after))
    return found


def _levels(plan: Plan) -> list[list[str]]:
    level: dict[str, int] = {}
    for stage in plan.stages:
        level[stage.name] = max((level[a] + 1 for a in stage.after), default=0)
    return [[n for n in level if level[n] == depth] for depth in sorted(set(level.values()))]


# ---------------------------------------------------------------------------------------------------------- stage


def _stage(plan: Plan, stage: StagePlan, run_inputs: Inputs, before: frozenset[str]) -> StageExplanation:
    values = dict(plan.variables)
    working, data = commands.directories(plan, stage, values)
    captured = {n: [s for s in by if s in before] for n, by in capturing(list(plan.stages)).items()}
    captured = {n: by for n, by in captured.items() if by}
    inputs = _find(stage.files, values, data) if stage.files else Inputs()
    items = inputs if stage.files else run_inputs
    if stage.per_file and items.files:
        values["filePath"] = items.files[0].path
    elif stage.per_file:
        values.pop("filePath", None)
    runs, trouble = _runs(plan, stage, values, [f.path for f in items.files] if stage.per_file else [])
    if stage.kind is StageKind.TRANSFER:
        inputs = _sources(stage, values, working)
    decided = _decided(stage, plan.variables, captured)
    if stage.per_file and items.trouble and decided != "false":
        trouble = trouble or items.trouble
    return StageExplanation(
        name=stage.name,
        kind=stage.kind.value,
        runs=runs,
        waits=tuple(Wait(a, b) for a, b in zip(stage.after, stage.because, strict=True)),
        run_if=stage.run_if,
        decided=decided,
        per_file=stage.per_file,
        parallel=stage.parallel,
        count=len(items.files) if stage.per_file else 1,
        inputs=inputs,
        repeat=_repeat(stage),
        captures=tuple(n for n, by in capturing([stage]).items() if by),
        working_dir=working,
        site=stage.site,
        resources=_resources(stage.resources),
        timeout_s=stage.timeout_s,
        retries=_retries(stage),
        checks=tuple(_check(e, data, values) for e in stage.expect),
        names=_names(plan, stage, captured),
        trouble=trouble,
    )


def _runs(plan: Plan, stage: StagePlan, values: Mapping[str, str], items: list[str]) -> tuple[str, str]:
    """What runs, for the first file, and why the engine would refuse it for any."""
    if stage.kind is StageKind.COMMAND:
        try:
            shown = commands.command_line(plan, stage, values)
            for item in items:
                variables.check_supplied("filePath", item)
        except ArgumentError as error:
            return variables.substitute(stage.command, values), str(error)
        return shown, ""
    given = variables.substitute_in(stage.arguments, values)
    if stage.kind is StageKind.TRANSFER:
        return f"copy {given['from']} to {given['to']}, checked by {given.get('checks', 'checksum')}", ""
    return " ".join([stage.call, *(f"{name}={value}" for name, value in given.items())]), ""


def _decided(stage: StagePlan, known: Mapping[str, str], captured: Mapping[str, list[str]]) -> str:
    if not stage.run_if:
        return ""
    condition = expressions.parse(stage.run_if)
    waiting = [by[-1] for n in condition.names for by in (captured.get(n, []),) if by]
    if waiting:
        return f"when stage {waiting[-1]!r} has ended"
    if any(n in AT_START for n in condition.names):
        return "when the run starts"
    return str(condition.evaluate(known)).lower()


def _names(plan: Plan, stage: StagePlan, captured: Mapping[str, list[str]]) -> tuple[Name, ...]:
    """Every name of the stage whose value is open, in the order of use."""
    anywhere = capturing(list(plan.stages))
    found = []
    for name in used_names(stage):
        known = name in plan.variables
        sources = " or ".join(repr(s) for s in captured.get(name, ()))
        if name in ("filePath",) and stage.per_file:
            continue
        if sources:
            state = "may change" if known else "captured"
            found.append(Name(name, state, f"captured by stage {sources}, if it matches"))
        elif known:
            continue
        elif name in AT_START:
            found.append(Name(name, "at start", "known when the run starts"))
        elif stage.name in anywhere.get(name, ()):
            found.append(Name(name, "captured", "captured by this stage itself: empty in its first run"))
        elif name in anywhere:
            others = " or ".join(repr(s) for s in anywhere[name])
            found.append(Name(name, "late", f"captured by stage {others}, which this stage does not wait for"))
        elif name == "workingDir" and name not in variables.names(stage.command):
            continue
        else:
            empty = "the shell makes it empty" if name in variables.names(stage.command) else "it stays as text"
            found.append(Name(name, "nothing", f"set by nothing: {empty}"))
    return tuple(found)


# ---------------------------------------------------------------------------------------------------------- files


def _find(spec: FileSpec, values: Mapping[str, str], directory: str) -> Inputs:
    """Named files one by one, so that a missing one does not hide the others."""
    parts = [FileSpec(path=p) for p in (*([spec.path] if spec.path else []), *spec.paths)]
    parts += [FileSpec(pattern=spec.pattern)] if spec.pattern else []
    parts += [FileSpec(query=spec.query)] if spec.query else []
    found: dict[str, Input] = {}
    trouble = []
    for part in parts:
        try:
            found.update({p: Input(p, size(p)) for p in files.resolve(part, values, directory)})
        except BeamwayError as error:
            trouble.append(error.sentence)
    return Inputs(tuple(found.values()), sum(f.bytes or 0 for f in found.values()), " ".join(trouble))


def _sources(stage: StagePlan, values: Mapping[str, str], working: str) -> Inputs:
    """What a transfer would read, as far as it is there: an earlier stage may still have to write it."""
    given = stage.arguments.get("from", "")
    paths = [os.path.join(working, variables.substitute(p, values)) for p in ([given] if given else [])]
    found = tuple(Input(p, size(p)) for p in paths if "\0" not in p and os.path.exists(p))
    return Inputs(found, sum(f.bytes or 0 for f in found))


def size(path: str) -> int | None:
    """Bytes of a file, or of all files in a folder; None when they cannot be counted."""
    total = 0
    try:
        if not os.path.isdir(path):
            return os.stat(path).st_size
        count = 0
        for parent, _, names in os.walk(path):
            count += len(names)
            if count > MOST_ENTRIES:
                return None
            total += sum(os.lstat(os.path.join(parent, n)).st_size for n in names)
    except OSError:
        return None
    return total


# ---------------------------------------------------------------------------------------------------------- words


def _repeat(stage: StagePlan) -> str:
    r = stage.repeat
    return f"every {r.period_s:g} s until {r.until}; fails when not so after {r.most} times" if r else ""


def _retries(stage: StagePlan) -> tuple[str, ...]:
    told = []
    for rule in stage.retries:
        codes = "".join(f", exit code {c}" for c in (75, *rule.exit_codes)) if rule.failure == "transient" else ""
        many = "never" if not rule.most else f"{rule.most} time{'s' * (rule.most != 1)}"
        told.append(f"{rule.failure.value}{codes}: {many}" + (f", first after {rule.delay_s:g} s" * bool(rule.most)))
    return tuple(told)


def _resources(r: Resources) -> str:
    if r == Resources():
        return ""
    parts = [f"{r.nodes} node{'s' * (r.nodes != 1)}", f"{r.ranks_per_node} rank{'s' * (r.ranks_per_node != 1)} each"]
    parts += [f"{r.cores_per_rank} core{'s' * (r.cores_per_rank != 1)} per rank"]
    parts += [f"{r.gpus_per_rank} GPU{'s' * (r.gpus_per_rank != 1)} per rank"] if r.gpus_per_rank else []
    parts += [f"{size_text(r.memory_bytes)} of memory"] if r.memory_bytes else []
    parts += [f"{r.walltime_s:g} s at most"] if r.walltime_s else []
    return ", ".join(parts)


def _check(e: Expectation, data: str, values: Mapping[str, str]) -> str:
    told = [f"at least {size_text(e.min_bytes)}"]
    told += ["changed since the start"] if e.newer else []
    told += [f"opens as {e.opens}"] if e.opens else []
    told += [f"dataset {e.dataset}"] if e.dataset else []
    told += [f"shape ({', '.join('any' if n is None else str(n) for n in e.shape)})"] if e.shape is not None else []
    told += [f"type {e.dtype}"] if e.dtype else []
    told += [f"at least {e.finite:.4g} finite"] if e.finite is not None else []
    told += ["not constant"] if e.nonconstant else []
    path = os.path.normpath(os.path.join(data, variables.substitute(e.path, values)))
    return f"{path}: {', '.join(told)}"


def size_text(count: int | None) -> str:
    if count is None:
        return "size unknown"
    shown = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if shown < 1000:
            return f"{shown:.3g} {unit}"
        shown /= 1000
    return f"{shown:.4g} TB"
