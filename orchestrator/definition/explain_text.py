"""An explanation as lines of plain text; every name in it is made printable."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.definition.explain import Explanation, Inputs, StageExplanation, size_text
from orchestrator.errors import printable
from orchestrator.model import FailureClass

SHOWN = 5  # input files named before "and N more"
SORTED = "comes before it in the sorted order"


def render(e: Explanation) -> str:
    lines = [*_head(e)]
    for number, level in enumerate(e.levels, 1):
        side = f": {len(level)} stages side by side, since none waits for another" if len(level) > 1 else ""
        lines += ["", f"step {number}{side}"]
        for stage in level:
            lines += [f"  {stage.name}  ({stage.kind})", *(f"    {k:<9} {v}" for k, v in _details(stage))]
    return "\n".join(printable(line) for line in lines)


def _head(e: Explanation) -> Iterator[str]:
    yield f"{e.workflow}, owner {e.owner}"
    yield f"  {'directory':<10} {e.directory}"
    for name, value in e.arguments.items():
        yield f"  {'argument':<10} {name} = {value}"
    for line in _files(e.inputs):
        yield f"  {'input':<10} {line}"
    if e.inputs.trouble:
        yield f"  {'MISSING':<10} {e.inputs.trouble}"
    yield f"  {'to read':<10} {size_text(e.bytes_to_read)}"
    if e.bytes_to_move:
        yield f"  {'to move':<10} {size_text(e.bytes_to_move)}"


def _files(inputs: Inputs) -> Iterator[str]:
    for f in inputs.files[:SHOWN]:
        yield f"{f.path} ({size_text(f.bytes)})"
    if len(inputs.files) > SHOWN:
        yield f"and {len(inputs.files) - SHOWN} more files; {len(inputs.files)} in all, {size_text(inputs.bytes)}"


def _details(s: StageExplanation) -> Iterator[tuple[str, str]]:
    sorted_before = [w.stage for w in s.waits if w.because == SORTED]
    if sorted_before:
        every = f"{sorted_before[-1]!r} and all {len(sorted_before) - 1} before" if len(sorted_before) > 2 else ""
        yield "after", f"{every or ' and '.join(map(repr, sorted_before))}: the sorted order, as it names no 'after'"
    for wait in s.waits:
        if wait.because != SORTED:
            yield "after", f"{wait.stage!r}: {wait.because}"
    if s.run_if:
        decided = {"true": "true now: it runs", "false": "false now: skipped"}.get(s.decided, f"decided {s.decided}")
        yield "only if", f"{s.run_if}  ({decided})"
    yield "runs", s.runs
    if s.per_file:
        how = "side by side" if s.parallel else "one by one"
        shown = f"and for {s.count - 1} more files, {how}" if s.count > 1 else "once per file"
        yield "", shown if s.count else f"once per file, {how}"
    if s.repeat:
        yield "repeats", s.repeat
    if s.captures:
        yield "captures", ", ".join(f"${n}" for n in s.captures)
    yield "in", s.working_dir
    for line in _files(s.inputs):
        yield "reads", line
    yield "site", s.site or "the default"
    if s.resources:
        yield "needs", s.resources
    if s.timeout_s:
        yield "time-out", f"{s.timeout_s:g} s"
    lost = f"{FailureClass.LOST.value}: "
    for line in s.retries:
        if not line.startswith(lost):
            yield "retries", line
    for line in s.checks:
        yield "leaves", line
    for name in s.names:
        yield "open" if name.state != "nothing" else "NOT SET", f"${name.name}: {name.comes_from}"
    if s.trouble:
        yield "REFUSED", s.trouble
