"""What each stage waits for, and why; and an order in which they can run.

A stage that says nothing waits for every stage before it in DM's order. A stage with `after` or `inputs`
waits for
exactly: the stages it names in `after`, those whose outputs it reads, and those that capture a variable it
uses.
"""

from __future__ import annotations

import heapq
import posixpath
import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from msgspec.structs import replace

from orchestrator.definition import expressions, variables
from orchestrator.definition.place import Place
from orchestrator.model import StagePlan

BARRIER = "comes before it, and this stage has neither after nor inputs"


def captured(stage: StagePlan) -> tuple[str, ...]:
    """The variables that a stage can set: the named groups of its regexes."""
    return tuple(dict.fromkeys(name for pattern in stage.captures for name in groups(pattern)))


def groups(pattern: str) -> tuple[str, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(re.compile(pattern).groupindex)


def used(stage: StagePlan) -> tuple[str, ...]:
    """The variables that a stage reads anywhere, each once."""
    texts: list[Any] = [stage.command, stage.call, stage.arguments, stage.working_dir, stage.data_dir]
    texts += [stage.inputs, stage.outputs, [e.path for e in stage.expect]]
    if stage.files:
        texts += [stage.files.path, stage.files.paths, stage.files.pattern, stage.files.query]
    found = list(variables.names_in(texts))
    for condition in (stage.run_if, stage.repeat.until if stage.repeat else ""):
        if condition:
            found += expressions.parse(condition).names
    return tuple(name for name in dict.fromkeys(found) if name != "workingDir")


def connect(stages: Sequence[StagePlan], written: Mapping[str, Mapping[str, Any]], place: Place) -> list[StagePlan]:
    """The stages with `after` and `because`, in an order that can run. `stages` come sorted as strings.

    Raises DefinitionError when stages wait for each other in a circle.
    """
    waits = {s.name: _waits(i, stages, written[s.name]) for i, s in enumerate(stages)}
    connected = {s.name: replace(s, after=tuple(waits[s.name]), because=tuple(waits[s.name].values())) for s in stages}
    left = {name: set(w) for name, w in waits.items()}
    followers: dict[str, list[str]] = {name: [] for name in waits}
    for name, before in waits.items():
        for other in before:
            followers[other].append(name)
    ready = [name for name, w in left.items() if not w]
    heapq.heapify(ready)
    order: list[StagePlan] = []
    while ready:
        name = heapq.heappop(ready)
        order.append(connected[name])
        for follower in followers[name]:
            left[follower].discard(name)
            if not left[follower]:
                heapq.heappush(ready, follower)
    if len(order) < len(stages):
        raise _circle(left, waits, {s.name for s in order}, place)
    return order


def _waits(index: int, stages: Sequence[StagePlan], raw: Mapping[str, Any]) -> dict[str, str]:
    """Stage name → reason."""
    stage = stages[index]
    if raw.get("after") is None and raw.get("inputs") is None:
        return {s.name: BARRIER for s in stages[:index]}
    named = raw.get("after") or []
    waits = dict.fromkeys([named] if isinstance(named, str) else named, "is named in after")
    for other in stages:
        if other is stage:
            continue
        for path in stage.inputs:
            if any(_reads(path, output) for output in other.outputs):
                waits.setdefault(other.name, f"writes {path}, read here")
    wanted = set(used(stage)) - set(captured(stage))
    for name in sorted(wanted):
        setters = [s.name for s in stages[:index] if name in captured(s)]
        setters = setters or [s.name for s in stages[index + 1 :] if name in captured(s)]
        for setter in setters:
            waits.setdefault(setter, f"captures ${name}, used here")
    return dict(sorted(waits.items()))


def _reads(path: str, output: str) -> bool:
    """Whether reading `path` reads `output`: they are the same, or one is a folder that holds the other."""
    a, b = posixpath.normpath(path), posixpath.normpath(output)
    return a == b or a.startswith(b + "/") or b.startswith(a + "/")


def _circle(
    left: Mapping[str, set[str]], waits: Mapping[str, Mapping[str, str]], done: set[str], place: Place
) -> Exception:
    name = min(n for n in left if n not in done)
    path: list[str] = []
    while name not in path:
        path.append(name)
        name = min(n for n in waits[name] if n not in done)
    circle = [*path[path.index(name) :], name]
    told = "; ".join(f"{a!r} waits for {b!r}, which {waits[a][b]}" for a, b in pairwise(circle))
    told = told.replace(BARRIER, "comes before it in the order of names")
    return place.at(stage=circle[0]).error(
        f"Stages wait for each other in a circle: {told}.",
        "Give one of them an 'after' that leaves the other out; 'after': [] waits for nothing.",
    )


def levels(stages: Sequence[StagePlan]) -> list[list[StagePlan]]:
    """The stages in groups that can run side by side; each group needs only the groups before it."""
    level: dict[str, int] = {}
    for stage in stages:
        level[stage.name] = 1 + max((level[name] for name in stage.after), default=-1)
    found: list[list[StagePlan]] = [[] for _ in range(1 + max(level.values(), default=-1))]
    for stage in stages:
        found[level[stage.name]].append(stage)
    return found
