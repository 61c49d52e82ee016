"""What a plan will do, before it does it: as records for programs, and as text for people.

It looks at the disk for input files and changes nothing. Commands are shown with the values known now; what only a
running stage can know stays as `$name`, and `Name` says where its value will come from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from orchestrator.definition import commands, expressions, extensions, files, graph, variables
from orchestrator.definition.plan import unset_names
from orchestrator.errors import ArgumentError, InputError
from orchestrator.model import Expectation, FailureClass, FileSpec, Placing, Plan, Resources, StageKind, StagePlan

MAX_ENTRIES = 100_000  # files counted below a folder before its size is called unknown
AT_START = ("id", "username", "execHost", "startTime")  # the engine knows these when the run starts


class Wait(Struct, frozen=True):
    stage: str
    reason: str


class Input(Struct, frozen=True):
    path: str
    bytes: int  # -1: unknown


class Name(Struct, frozen=True):
    """A `$name` of a stage whose value is not known now, or can still change, and where it comes from."""

    name: str
    state: str  # "later": a stage before captures it, or the start of the run sets it | "maybe" | "never"
    comes_from: str


class StageExplanation(Struct, frozen=True):
    name: str
    kind: StageKind
    runs: str  # the command line, or the call with its arguments; once per file: for the first of them
    waits: tuple[Wait, ...] = ()
    only_if: str = ""
    decided: str = ""  # "true", "false", or when that will be known; empty without a condition
    times: str = ""
    captures: tuple[str, ...] = ()
    working_dir: str = ""
    site: str = ""
    resources: str = ""
    retries: tuple[str, ...] = ()
    timeout_s: float = 0.0
    checks: tuple[str, ...] = ()
    reads: tuple[Input, ...] = ()  # its own input files; those of the run are in `Explanation.files`
    moves_to: str = ""
    names: tuple[Name, ...] = ()
    trouble: str = ""  # why it would be refused as things stand


class Explanation(Struct, frozen=True):
    workflow: str
    owner: str
    levels: tuple[tuple[StageExplanation, ...], ...]  # the stages of one level run side by side
    directory: str = ""
    arguments: dict[str, str] = {}
    files: tuple[Input, ...] = ()
    bytes: int = 0  # of `files`
    bytes_to_read: int = 0  # by all stages, each file once, transfers aside
    bytes_to_move: int = 0  # by transfers, as far as their sources are there now
    unset: tuple[str, ...] = ()
    trouble: str = ""  # why the input files cannot be found


def explain(plan: Plan) -> Explanation:
    """Raises nothing for a compiled plan: what is missing or would be refused is told in `trouble`."""
    found, trouble = _resolve(plan.files, plan.variables, commands.data_directory(plan))
    before = _ancestors(plan)
    stages = {s.name: _stage(s, plan, found, before[s.name]) for s in plan.stages}
    read = {f.path: max(0, f.bytes) for f in found}
    moved: dict[str, int] = {}
    for stage in stages.values():
        into = moved if stage.kind is StageKind.TRANSFER else read
        into.update({f.path: max(0, f.bytes) for f in stage.reads})
    return Explanation(
        workflow=plan.workflow,
        owner=plan.owner,
        levels=tuple(tuple(stages[s.name] for s in level) for level in graph.levels(plan.stages)),
        directory=plan.directory,
        arguments=dict(plan.variables),
        files=found,
        bytes=sum(max(0, f.bytes) for f in found),
        bytes_to_read=sum(read.values()),
        bytes_to_move=sum(moved.values()),
        unset=unset_names(plan),
        trouble=trouble,
    )


def render(explanation: Explanation | Plan) -> str:
    """The explanation, or that of a plan, as lines of plain text."""
    from orchestrator.definition import explain_text

    return explain_text.render(explain(explanation) if isinstance(explanation, Plan) else explanation)


def _ancestors(plan: Plan) -> dict[str, frozenset[str]]:
    """stage → every stage that has ended before it begins."""
    found: dict[str, frozenset[str]] = {}
    for stage in plan.stages:  # a topological order
        found[stage.name] = frozenset(stage.after).union(*(found[name] for name in stage.after))
    return found


# ---------------------------------------------------------------------------------------------------------- files


def _resolve(spec: FileSpec, values: Mapping[str, str], directory: str) -> tuple[tuple[Input, ...], str]:
    """The files, named ones one by one, so that a missing one does not hide the others."""
    parts = [FileSpec(path=spec.path)] if spec.path else []
    parts += [FileSpec(paths=(entry,)) for entry in spec.paths]
    parts += [FileSpec(pattern=spec.pattern)] if spec.pattern else []
    parts += [FileSpec(query=spec.query)] if spec.query else []
    found: dict[str, Input] = {}
    trouble: list[str] = []
    for part in parts:
        try:
            found.update({p: Input(p, _size(p)) for p in files.resolve(part, values, directory)})
        except InputError as e:
            trouble.append(f"{e.sentence} {e.hint}".strip())
    return tuple(found.values()), " ".join(dict.fromkeys(trouble))


def _sources(stage: StagePlan, values: Mapping[str, str], working: str) -> tuple[Input, ...]:
    """What a transfer reads; an earlier stage may still have to write it."""
    given = stage.arguments["from"]
    paths = variables.substitute_in([given] if isinstance(given, str) else given, values)
    places = [path if "://" in path else os.path.join(working, path) for path in paths]
    return tuple(Input(place, _size(place)) for place in places)


def _size(path: str) -> int:
    """Bytes of a file, or of all files in a folder; -1 when they cannot be counted."""
    total = count = 0
    try:
        if not os.path.isdir(path):
            return os.stat(path).st_size
        for parent, _, names in os.walk(path):
            count += len(names)
            if count > MAX_ENTRIES:
                return -1
            total += sum(os.lstat(os.path.join(parent, name)).st_size for name in names)
    except (OSError, ValueError):
        return -1
    return total


# ---------------------------------------------------------------------------------------------------------- stage


def _stage(stage: StagePlan, plan: Plan, run_files: tuple[Input, ...], before: frozenset[str]) -> StageExplanation:
    values = dict(plan.variables)
    working, data = commands.directories(plan, stage, values)
    captured = {name: [s for s in by if s in before] for name, by in _capturing(plan).items()}
    captured = {name: by for name, by in captured.items() if by}
    reads, missing = _resolve(stage.files, values, data) if stage.files else ((), "")
    items = reads if stage.files else run_files
    if stage.per_file and items:
        values["filePath"] = items[0].path
    elif stage.per_file:
        values.pop("filePath", None)
    runs, refused = _runs(stage, plan, values, [f.path for f in items] if stage.per_file else [])
    is_transfer = stage.kind is StageKind.TRANSFER
    return StageExplanation(
        name=stage.name,
        kind=stage.kind,
        runs=runs,
        waits=tuple(Wait(a, b) for a, b in zip(stage.after, stage.because, strict=True)),
        only_if=stage.run_if,
        decided=_decided(stage, plan.variables, captured),
        times=_times(stage, len(items)),
        captures=graph.captured(stage),
        working_dir=working,
        site=_place(stage.placing),
        resources=_resources(stage.resources),
        retries=_retries(stage),
        timeout_s=stage.timeout_s,
        checks=tuple(_check(e, values) for e in stage.expect),
        reads=_sources(stage, values, working) if is_transfer else reads,
        moves_to=variables.substitute(str(stage.arguments["to"]), values) if is_transfer else "",
        names=_names(stage, plan, captured),
        trouble=" ".join(t for t in (refused, missing) if t),
    )


def _place(placing: Placing) -> str:
    """`trial, queue realtime, reservation beam1, batch`."""
    words = [f"{key} {value}" for key in ("queue", "account", "reservation") if (value := getattr(placing, key))]
    return ", ".join([placing.site or "default site", *words, *filter(None, [placing.mode])])


def _runs(stage: StagePlan, plan: Plan, values: Mapping[str, str], items: list[str]) -> tuple[str, str]:
    """What runs, for the first file, and why the engine would refuse it for one of them."""
    if stage.kind is StageKind.COMMAND:
        try:
            line = commands.command_line(plan, stage, values)
            for item in items:
                variables.check_supplied("filePath", item)
        except ArgumentError as e:
            return variables.substitute(stage.command, values), f"{e.sentence} {e.hint}".strip()
        return line, ""
    given = variables.substitute_in(stage.arguments, values)
    return " ".join([stage.call, *(f"{name}={value}" for name, value in given.items())]).strip(), ""


def _capturing(plan: Plan) -> dict[str, list[str]]:
    """name → the stages that capture it."""
    found: dict[str, list[str]] = {}
    for stage in plan.stages:
        for name in graph.captured(stage):
            found.setdefault(name, []).append(stage.name)
    return found


def _decided(stage: StagePlan, known: Mapping[str, str], captured: Mapping[str, list[str]]) -> str:
    """Only what no capture and no start of the run can change is decided now; an unset name counts as unset."""
    if not stage.run_if:
        return ""
    condition = expressions.parse(stage.run_if)
    waiting = dict.fromkeys(s for name in condition.names for s in captured.get(name, ()))
    if waiting:
        return f"after {' and '.join(waiting)}"
    if any(name in AT_START for name in condition.names):
        return "when the run starts"
    return str(condition.evaluate(known)).lower()


def _names(stage: StagePlan, plan: Plan, captured: Mapping[str, list[str]]) -> tuple[Name, ...]:
    """Every name of the stage whose value is open, in the order of use."""
    anywhere = _capturing(plan)
    in_shell = variables.names(stage.command)
    found: list[Name] = []
    for name in graph.used(stage):
        if name in captured:
            stays = f", else it stays {plan.variables[name] or 'empty'}" if name in plan.variables else ""
            found.append(Name(name, "later", f"{' or '.join(captured[name])} captures it{stays}"))
        elif name in plan.variables or (name == "filePath" and stage.per_file):
            continue
        elif name in AT_START:
            found.append(Name(name, "later", "known when the run starts"))
        elif stage.name in anywhere.get(name, ()):
            found.append(Name(name, "maybe", "this stage captures it, so its first run has none"))
        elif name in anywhere:
            found.append(Name(name, "maybe", f"{' or '.join(anywhere[name])} captures it, but is not waited for"))
        else:
            empty = "the shell makes it empty" if name in in_shell else "it stays as it is written"
            found.append(Name(name, "never", f"set by nothing: {empty}"))
    return tuple(found)


# ---------------------------------------------------------------------------------------------------------- words


def _times(stage: StagePlan, count: int) -> str:
    told = []
    if stage.per_file:
        side = "side by side" if stage.parallel else "one by one"
        more = f": this one and {count - 1} more" if count > 1 else f" ({count} file)" if count else ""
        told.append(f"once per file{more}, {side}")
    if stage.repeat:
        r = stage.repeat
        told.append(f"every {r.period_s:g} s until {r.until}, at most {r.most} times")
    return "; ".join(told) or "once"


def _retries(stage: StagePlan) -> tuple[str, ...]:
    told = []
    for rule in stage.retries:
        if rule == extensions.OF_JOBS.get(rule.failure):
            continue  # the same for every stage
        codes = ""
        if rule.failure is FailureClass.AUTHENTICATION:
            told.append(f"on hold at exit code {', '.join(map(str, rule.exit_codes))}")
            continue
        if rule.failure is FailureClass.TRANSIENT:
            codes = f" (exit code {', '.join(str(c) for c in dict.fromkeys((75, *rule.exit_codes)))})"
        usual = replace(rule, delay_s=1.0, factor=2.0, delay_max_s=300.0)
        waits = f" after {rule.delay_s:g} s, then {rule.factor:g} times longer, at most {rule.delay_max_s:g} s"
        told.append(f"{rule.failure.value}{codes} {rule.most}{'' if rule == usual else waits}")
    return tuple(told)


def _resources(r: Resources) -> str:
    if r == Resources():
        return ""
    told = [f"{r.nodes} node{'s' * (r.nodes != 1)}", f"{r.ranks_per_node} rank{'s' * (r.ranks_per_node != 1)} each"]
    told += [f"{r.cores_per_rank} cores per rank"] if r.cores_per_rank != 1 else []
    told += [f"{r.gpus_per_rank} GPU{'s' * (r.gpus_per_rank != 1)} per rank"] if r.gpus_per_rank else []
    told += [f"{size_text(r.memory_bytes)} of memory"] if r.memory_bytes else []
    told += [f"{r.walltime_s:g} s at most"] if r.walltime_s else []
    return ", ".join(told)


def _check(e: Expectation, values: Mapping[str, str]) -> str:
    told = ["is there", f"has at least {e.min_bytes} bytes" if e.min_bytes > 1 else "is not empty"]
    told += ["is newer than the start"] if e.newer else []
    told += [f"opens as {e.opens}"] if e.opens else []
    told += [f"dataset {e.dataset}"] if e.dataset else []
    if e.shape is not None:
        told.append(f"shape ({', '.join('any' if n is None else str(n) for n in e.shape)})")
    told += [f"type {e.dtype}"] if e.dtype else []
    told += [f"at least {e.finite:.4g} finite"] if e.finite is not None else []
    told += ["is not constant"] if e.nonconstant else []
    return f"{variables.substitute(e.path, values)}: {', '.join(told)}"


def size_text(count: int) -> str:
    if count < 0:
        return "size unknown"
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}" if unit != "B" else f"{count} B"
