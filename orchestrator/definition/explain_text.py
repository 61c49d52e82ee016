"""An explanation as lines of plain text. Every line is made printable: a hostile name stays on its own."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.definition import graph
from orchestrator.definition.explain import Explanation, Input, StageExplanation, size_text
from orchestrator.errors import printable

SHOWN = 10  # files named before "and N more"


def render(e: Explanation) -> str:
    lines = [f"{e.workflow} ({e.owner})", *(f"  {line}" for line in _head(e))]
    for number, level in enumerate(e.levels, 1):
        side = f", {len(level)} stages side by side: none waits for another" if len(level) > 1 else ""
        lines.append(f"step {number}{side}")
        for stage in level:
            lines += [f"  {stage.name}  [{stage.kind}, {stage.site}]", *(f"    {x}" for x in _details(stage))]
    return "\n".join(printable(line) for line in lines) + "\n"


def _head(e: Explanation) -> Iterator[str]:
    yield f"in     {e.directory}"
    for name, value in e.arguments.items():
        yield f"with   {name}:{value}"
    yield from _files("input ", e.files)
    if e.bytes_to_read:
        yield f"reads  {size_text(e.bytes_to_read)}"
    if e.bytes_to_move:
        yield f"moves  {size_text(e.bytes_to_move)}"
    if e.trouble:
        yield f"trouble  {e.trouble}"
    if e.unset:
        yield f"not set  {', '.join('$' + n for n in e.unset)} (the shell makes them empty)"


def _files(word: str, files: tuple[Input, ...]) -> Iterator[str]:
    for f in files[:SHOWN]:
        yield f"{word} {f.path} ({size_text(f.bytes)})"
    if len(files) > SHOWN:
        total = sum(max(0, f.bytes) for f in files)
        yield f"and {len(files) - SHOWN} more files, {size_text(total)} in all"


def _details(s: StageExplanation) -> Iterator[str]:
    yield f"runs     {s.runs}"
    if s.times != "once":
        yield f"times    {s.times}"
    if s.only_if:
        yield f"only if  {s.only_if}  ({_decided(s.decided)})"
    barrier = [w.stage for w in s.waits if w.reason == graph.BARRIER]
    if barrier:
        yield f"after    {', '.join(barrier)}: all stages before it, since it has neither after nor inputs"
    for wait in s.waits:
        if wait.reason != graph.BARRIER:
            yield f"after    {wait.stage}: it {wait.reason}"
    yield f"in       {s.working_dir}"
    yield from _files("reads   ", s.reads)
    if s.moves_to:
        yield f"moves to {s.moves_to}"
    if s.captures:
        yield f"captures {', '.join('$' + n for n in s.captures)}"
    if s.resources:
        yield f"needs    {s.resources}"
    if s.retries:
        yield f"retries  {', '.join(s.retries)}"
    if s.timeout_s:
        yield f"ends     after {s.timeout_s:g} s at the latest"
    for line in s.checks:
        yield f"checks   {line}"
    never = [f"${n.name}" for n in s.names if n.state == "never"]
    if never:
        yield f"not set  {', '.join(never)}"
    for name in s.names:
        if name.state != "never":
            yield f"open     ${name.name}: {name.comes_from}"
    if s.trouble:
        yield f"trouble  {s.trouble}"


def _decided(text: str) -> str:
    words = {"true": "already true: it will run", "false": "already false: it will be skipped"}
    return words.get(text, f"decided {text}")
