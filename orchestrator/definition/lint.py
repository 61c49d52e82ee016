"""What is probably not meant in a definition that loads.

An `error` will refuse the run, a `warning` may make it wrong, a `note` is worth knowing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

from msgspec import Struct

from orchestrator.definition import (
    arguments,
    batchjobs,
    expressions,
    graph,
    regexes,
    registry,
    stages,
    variables,
)
from orchestrator.definition.loader import WORKFLOW_KEYS
from orchestrator.definition.place import Place
from orchestrator.errors import DefinitionError, nearest
from orchestrator.model import Definition, StageKind, StagePlan

Level = Literal["error", "warning", "note"]


class Warning_(Struct, frozen=True):
    level: Level
    code: str
    sentence: str
    fix: str = ""
    file: str = ""
    line: int = 0
    stage: str = ""
    key: str = ""

    def __str__(self) -> str:
        spot = f"{self.file}:{self.line}" if self.line else self.file
        stage = f" stage {self.stage!r}:" if self.stage else ""
        return f"{spot}:{stage} {self.level}: {self.sentence} {self.fix}".strip() + f" [{self.code}]"


def lint(definition: Definition) -> list[Warning_]:
    """All that is found, errors first, then by line."""
    place = Place(definition.source, definition.lines)
    planned = [stages.read(name, body, place) for name, body in definition.stages.items()]
    subject = _Subject(definition, planned, place)
    found = [w for check in _CHECKS for w in check(subject)]
    rank = ("error", "warning", "note")
    return sorted(found, key=lambda w: (rank.index(w.level), w.line, w.stage, w.code))


class _Subject:
    """A definition under the checks."""

    def __init__(self, definition: Definition, planned: Sequence[StagePlan], place: Place) -> None:
        self.definition = definition
        self.stages = planned
        self.place = place

    def say(self, level: Level, code: str, sentence: str, fix: str = "", *, stage: str = "", key: str = "") -> Warning_:
        spot = self.place.at(stage=stage, key=key)
        return Warning_(level, code, sentence, fix, spot.file, spot.line, stage, key)


Check = Callable[[_Subject], Iterator[Warning_]]


def _undefined(s: _Subject) -> Iterator[Warning_]:
    """Names that nobody sets: no argument, no capture of this stage or one before it, not automatic."""
    schema = s.definition.arguments
    set_so_far = {*variables.AUTOMATIC, *variables.FILE_ARGUMENTS, *(schema or {})}
    later = {n for stage in s.stages for n in graph.captured(stage)}
    expected: dict[str, None] = {}
    for stage in s.stages:
        set_so_far.update(graph.captured(stage))
        for name in graph.used(stage):
            if name in set_so_far:
                continue
            if schema is None and name not in later:
                expected[name] = None
            elif name in later:
                text = f"${name} is read here, and captured by a later stage only."
                yield s.say("warning", "used-before-captured", text, stage=stage.name)
            else:
                text = f"Nobody sets ${name}.{nearest(name, set_so_far)}"
                fix = "Declare it in 'arguments', or capture it in an earlier stage."
                yield s.say("warning", "undefined-name", text, fix, stage=stage.name)
    if expected:
        text = f"The arguments are not declared; expected: {', '.join(expected)}."
        fix = "An 'arguments' schema lets a typo in an argument be refused at submission."
        yield s.say("note", "expected-arguments", text, fix, key="stages")


def _unread_arguments(s: _Subject) -> Iterator[Warning_]:
    read = {name for stage in s.stages for name in graph.used(stage)}
    read.update(variables.names_in(s.definition.stages))
    schema = s.definition.arguments or {}
    read.update(n for spec in schema.values() for n in variables.names(spec.default or ""))
    for name in schema:
        if name not in read and name not in arguments.ALWAYS:
            text = f"No stage reads the argument {name!r}.{nearest(name, read)}"
            yield s.say("warning", "unread-argument", text, key="arguments")


def _schema(s: _Subject) -> Iterator[Warning_]:
    declared = s.definition.raw.get("arguments") or {}
    for name, spec in declared.items():
        kind = str((spec or {}).get("type") or "string")
        if kind.lower() not in arguments.TYPES:
            text = f"Type {kind!r} of argument {name!r} is not known and counts as text."
            fix = nearest(kind, arguments.TYPES).strip() or f"Known: {', '.join(arguments.TYPES)}."
            yield s.say("warning", "unknown-type", text, fix, key="arguments")
        for key in spec or {}:
            if key not in arguments.KEYS:
                text = f"Key {key!r} of argument {name!r} is not known.{nearest(key, arguments.KEYS)}"
                yield s.say("warning", "unknown-key", text, key="arguments")
        if (spec or {}).get("required") and (spec or {}).get("default") is not None:
            text = f"Argument {name!r} is required and has a default, so it is never missing."
            yield s.say("note", "required-with-default", text, key="arguments")
        if not variables.IDENTIFIER.fullmatch(name):
            text = f"Argument {name!r} cannot be read as $name: a variable has letters, digits and _ only."
            yield s.say("warning", "unreadable-argument", text, key="arguments")


def _order(s: _Subject) -> Iterator[Warning_]:
    numbered = [(int(m[0]), n) for n in s.definition.stages if (m := re.match(r"\d{1,9}", n))]
    for (a, first), (b, second) in pairwise(numbered):
        if a > b:
            text = f"Stage {first!r} runs before {second!r}: stages are sorted as text, not by number."
            yield s.say("warning", "stage-order", text, "Write 02- for 2-.", stage=second)


def _kernels(s: _Subject) -> Iterator[Warning_]:
    calls = [stage for stage in s.stages if stage.kind is StageKind.KERNEL]
    known = registry.kernels() if calls else None
    for stage in calls:
        for sentence in registry.problems(stage.call, stage.arguments, known):
            yield s.say("error", "kernel", sentence, stage=stage.name, key="kernel")


def _false_success(s: _Subject) -> Iterator[Warning_]:
    for index, stage in enumerate(s.stages):
        if seen := batchjobs.accepts_failure(s.stages, index):
            text = f"False success: {seen} ends this stage as done, and the run goes on."
            fix = (
                "Wait for the state that means success, or add a stage that fails otherwise: "
                "test \"$state\" = COMPLETED. A stage with 'resources' submits and checks the job by itself."
            )
            yield s.say("warning", "false-success", text, fix, stage=stage.name, key="repeatUntil")


def _captures(s: _Subject) -> Iterator[Warning_]:
    key = "outputVariableRegexList"
    for index, stage in enumerate(s.stages):
        for pattern in stage.captures:
            if not graph.groups(pattern):
                text = f"The regex {pattern!r} has no named group, so it captures nothing."
                yield s.say("warning", "no-group", text, "Write (?P<name>...).", stage=stage.name, key=key)
            if regexes.attack(pattern):
                text = f"The regex {pattern!r} can run for ever on output that nearly matches."
                fix = "Take one of its nested repeats out."
                yield s.say("warning", "slow-regex", text, fix, stage=stage.name, key=key)
        read_later = {n for other in s.stages[index + 1 :] for n in graph.used(other)}
        for name in graph.captured(stage):
            if name in variables.RESERVED:
                text = f"${name} is captured, and the job record has a key of that name."
                fix = "Capture it under another name."
                yield s.say("warning", "reserved-capture", text, fix, stage=stage.name, key=key)
            if name not in read_later and name not in graph.used(stage):
                text = f"${name} is captured, and no stage after this one reads it."
                yield s.say("note", "unread-capture", text, stage=stage.name, key=key)


def _repeats(s: _Subject) -> Iterator[Warning_]:
    for stage in s.stages:
        if stage.repeat:
            names = expressions.parse(stage.repeat.until).names
            if not set(names) & set(graph.captured(stage)):
                text = "repeatUntil reads nothing that this stage captures, so repeating cannot change it."
                fix = "Capture the state that is waited for with outputVariableRegexList."
                yield s.say("warning", "repeat-fixed", text, fix, stage=stage.name, key="repeatUntil")


def _keys(s: _Subject) -> Iterator[Warning_]:
    for stage, body, known in _bodies(s):
        for key in body:
            if key in known:
                continue
            close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.75)
            if not close:
                close = [k for k in known if k.lower() == key.lower()]
            if close:
                text = f"Key {key!r} is kept and means nothing. Did you mean {close[0]!r}?"
                yield s.say("warning", "key-typo", text, stage=stage, key=key)
    for stage, body, _ in _bodies(s):
        for key in stages.LEGACY:
            if stage and key in body:
                text = f"{key!r} is a legacy key: it is kept and has no effect."
                yield s.say("note", "legacy-key", text, stage=stage, key=key)
        if stage and "arguments" in body and ("command" in body or "transfer" in body):
            text = "'arguments' has no effect in a stage of this kind."
            yield s.say("warning", "key-without-effect", text, stage=stage, key="arguments")


def _bodies(s: _Subject) -> Iterable[tuple[str, dict[str, object], tuple[str, ...]]]:
    yield "", s.definition.raw, WORKFLOW_KEYS
    for name, body in s.definition.stages.items():
        yield name, body, tuple(stages.KEYS)


_QUOTED = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*"|`[^`]*`|\$\([^)]*\)|\\.""", re.DOTALL)
_PIPE = re.compile(r"(?<![|>])\|(?!\|)")


def _commands(s: _Subject) -> Iterator[Warning_]:
    for stage in s.stages:
        bare = _QUOTED.sub("", stage.command)
        if _PIPE.search(bare) and "pipefail" not in stage.command:
            text = "Only the exit code of the last command of the pipe counts."
            fix = "If the others can fail: bash -c 'set -o pipefail; ...'."
            yield s.say("note", "pipe-status", text, fix, stage=stage.name, key="command")
        if m := re.search(r"(?<![\w/.-])dm-[a-z][a-z-]+", stage.command):
            text = f"{m[0]} talks to a DM server; here it needs one that answers."
            yield s.say("note", "dm-call", text, stage=stage.name, key="command")


_CHECKS: tuple[Check, ...] = (
    _undefined,
    _unread_arguments,
    _schema,
    _order,
    _kernels,
    _false_success,
    _captures,
    _repeats,
    _keys,
    _commands,
)


def of_error(error: DefinitionError) -> Warning_:
    """A definition that cannot be loaded at all, as a complaint among the others."""
    return Warning_(
        "error", "load", error.sentence, error.hint, file=error.file, line=error.line, stage=error.stage, key=error.key
    )
