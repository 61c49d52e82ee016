"""What a plan will do, before it does it: as records for programs, and as text for people."""

from __future__ import annotations

import os
from collections.abc import Iterator

from msgspec import Struct

from orchestrator.definition import files, graph, variables
from orchestrator.definition.plan import unset_names
from orchestrator.errors import InputError, printable
from orchestrator.model import Expectation, FileSpec, Plan, Resources, StageKind, StagePlan

SUDO = "/usr/bin/sudo -u {account} -- {command}"
MAX_ENTRIES = 100_000  # files counted below a folder before its size is called unknown


class Wait(Struct, frozen=True):
    stage: str
    reason: str


class Input(Struct, frozen=True):
    path: str
    bytes: int  # -1: unknown


class StageExplanation(Struct, frozen=True):
    name: str
    kind: StageKind
    runs: str  # the command line, or the call with its arguments
    waits: tuple[Wait, ...] = ()
    only_if: str = ""
    times: str = ""
    working_dir: str = ""
    site: str = ""
    resources: str = ""
    retries: str = ""
    timeout_s: float = 0.0
    checks: tuple[str, ...] = ()
    reads: tuple[Input, ...] = ()  # its own input files; those of the run are in `Explanation.files`
    moves_to: str = ""
    unset: tuple[str, ...] = ()
    trouble: str = ""


class Explanation(Struct, frozen=True):
    workflow: str
    owner: str
    levels: tuple[tuple[StageExplanation, ...], ...]  # the stages of one level run side by side
    files: tuple[Input, ...] = ()
    bytes: int = 0
    unset: tuple[str, ...] = ()
    trouble: str = ""  # why the input files cannot be found


def explain(plan: Plan) -> Explanation:
    """Looks at the disk for the input files, and changes nothing. A missing file is told in `trouble`."""
    found, trouble = _resolve(plan.files, plan, plan.directory)
    unset = unset_names(plan)
    return Explanation(
        workflow=plan.workflow,
        owner=plan.owner,
        levels=tuple(tuple(_stage(s, plan, found, unset) for s in level) for level in graph.levels(plan.stages)),
        files=found,
        bytes=sum(max(0, f.bytes) for f in found),
        unset=unset,
        trouble=trouble,
    )


def _resolve(spec: FileSpec, plan: Plan, directory: str) -> tuple[tuple[Input, ...], str]:
    try:
        return tuple(Input(p, _size(p)) for p in files.resolve(spec, plan.variables, directory)), ""
    except InputError as e:
        return (), f"{e.sentence} {e.hint}".strip()


def _size(path: str) -> int:
    """Bytes of a file, or of all files in a folder; -1 when they cannot be counted."""
    try:
        if not os.path.isdir(path):
            return os.stat(path).st_size
        total = 0
        for count, size in enumerate(_sizes(path)):
            if count > MAX_ENTRIES:
                return -1
            total += size
        return total
    except OSError:
        return -1


def _sizes(folder: str) -> Iterator[int]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield os.lstat(os.path.join(parent, name)).st_size


def _stage(stage: StagePlan, plan: Plan, run_files: tuple[Input, ...], unset: tuple[str, ...]) -> StageExplanation:
    values = dict(plan.variables)
    reads: tuple[Input, ...] = ()
    trouble = ""
    working_dir = variables.substitute(stage.working_dir, values)
    if stage.files:
        base = variables.substitute(stage.data_dir, {**values, "workingDir": working_dir})
        reads, trouble = _resolve(stage.files, plan, base)
    if stage.kind is StageKind.TRANSFER:
        sources = stage.arguments["from"]
        sources = variables.substitute_in([sources] if isinstance(sources, str) else sources, values)
        reads = tuple(Input(s, _size(s)) for s in sources)
    items = reads or run_files
    if stage.per_file and len(items) == 1:
        values["filePath"] = items[0].path
    elif stage.per_file:
        values.pop("filePath", None)
    return StageExplanation(
        name=stage.name,
        kind=stage.kind,
        runs=_runs(stage, values),
        waits=tuple(Wait(a, b) for a, b in zip(stage.after, stage.because, strict=True)),
        only_if=stage.run_if,
        times=_times(stage, len(items)),
        working_dir=working_dir,
        site=stage.site,
        resources=_resources(stage.resources),
        retries=", ".join(f"{r.failure} {r.most}" for r in stage.retries),
        timeout_s=stage.timeout_s,
        checks=tuple(_check(e, values) for e in stage.expect),
        reads=reads,
        moves_to=variables.substitute(str(stage.arguments.get("to", "")), values)
        if stage.kind is StageKind.TRANSFER
        else "",
        unset=tuple(name for name in graph.used(stage) if name in unset),
        trouble=trouble,
    )


def _runs(stage: StagePlan, values: dict[str, str]) -> str:
    if stage.kind is StageKind.COMMAND:
        command = variables.substitute(stage.command, values)
        account = stage.user_account
        return SUDO.format(account=account, command=command) if account else command
    given = variables.substitute_in(stage.arguments, values)
    return " ".join([stage.call, *(f"{name}={value}" for name, value in given.items())]).strip()


def _times(stage: StagePlan, count: int) -> str:
    told = []
    if stage.per_file:
        side = "side by side" if stage.parallel else "one by one"
        told.append(f"once per file, {side} ({count} file{'s' * (count != 1)})" if count else f"once per file, {side}")
    if stage.repeat:
        r = stage.repeat
        told.append(f"every {r.period_s:g} s until {r.until}, at most {r.most} times")
    return "; ".join(told) or "once"


def _resources(r: Resources) -> str:
    if r == Resources():
        return ""
    told = [
        f"{r.nodes} node{'s' * (r.nodes != 1)}",
        f"{r.ranks_per_node} rank{'s' * (r.ranks_per_node != 1)} each",
    ]
    told += [f"{r.cores_per_rank} cores per rank"] if r.cores_per_rank != 1 else []
    told += [f"{r.gpus_per_rank} GPUs per rank"] if r.gpus_per_rank else []
    told += [f"{r.memory_bytes / 1e9:.3g} GB"] if r.memory_bytes else []
    told += [f"{r.walltime_s:g} s at most"] if r.walltime_s else []
    return ", ".join(told)


def _check(e: Expectation, values: dict[str, str]) -> str:
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


def render(explanation: Explanation) -> str:
    """The explanation as lines of plain text."""
    e = explanation
    lines = [f"{e.workflow} ({e.owner})"]
    lines += [f"  input  {f.path} ({size_text(f.bytes)})" for f in e.files[:10]]
    if len(e.files) > 10:
        lines.append(f"  and {len(e.files) - 10} more files, {size_text(e.bytes)} in all")
    if e.trouble:
        lines.append(f"  trouble  {e.trouble}")
    if e.unset:
        lines.append(f"  not set  {', '.join('$' + n for n in e.unset)} (the shell makes them empty)")
    for number, level in enumerate(e.levels, 1):
        side = f", {len(level)} stages side by side" if len(level) > 1 else ""
        lines.append(f"step {number}{side}")
        for stage in level:
            lines += [f"  {stage.name}  [{stage.kind}, {stage.site}]", *(f"    {x}" for x in _details(stage))]
    return "\n".join(printable(line) for line in lines) + "\n"


def _details(s: StageExplanation) -> Iterator[str]:
    yield f"runs     {s.runs}"
    if s.times != "once":
        yield f"times    {s.times}"
    if s.only_if:
        yield f"only if  {s.only_if}"
    barrier = [w.stage for w in s.waits if w.reason == graph.BARRIER]
    if barrier:
        yield f"after    {', '.join(barrier)}: all stages before it, since it has neither after nor inputs"
    for wait in s.waits:
        if wait.reason != graph.BARRIER:
            yield f"after    {wait.stage}: it {wait.reason}"
    yield f"in       {s.working_dir}"
    for item in s.reads:
        yield f"reads    {item.path} ({size_text(item.bytes)})"
    if s.moves_to:
        yield f"moves to {s.moves_to}"
    if s.resources:
        yield f"needs    {s.resources}"
    if s.retries:
        yield f"retries  {s.retries}"
    if s.timeout_s:
        yield f"ends     after {s.timeout_s:g} s at the latest"
    for check in s.checks:
        yield f"checks   {check}"
    if s.unset:
        yield f"not set  {', '.join('$' + n for n in s.unset)}"
    if s.trouble:
        yield f"trouble  {s.trouble}"
