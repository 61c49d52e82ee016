"""What concurrent clients asked and saw, and what of it cannot have been.

An operation took effect at some moment between its begin and its answer. A history is right when for each run there is
an order of such moments that explains every answer (linearizability: Herlihy and Wing 1990; looked for as by Wing and
Gong 1993). A run moves on by itself, so that it may be seen further each time; back it goes by a retry alone. A wish
without an answer may take effect at any time after it began, or never.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from math import inf
from typing import NamedTuple

from msgspec import Struct

from orchestrator.model import RUN_ENDED, RUN_GOING, RunStatus

State = RunStatus | None  # None: there is no such run

# What a run is after a while in which nobody has wished anything of it.
BY_ITSELF: dict[State, frozenset[State]] = {
    None: frozenset({None}),
    RunStatus.PENDING: frozenset({RunStatus.PENDING, *RUN_GOING, RunStatus.DONE, RunStatus.FAILED}),
    RunStatus.RUNNING: frozenset({*RUN_GOING, RunStatus.DONE, RunStatus.FAILED}),
    RunStatus.HELD: frozenset({*RUN_GOING, RunStatus.DONE, RunStatus.FAILED}),
    RunStatus.ABORTING: frozenset({RunStatus.ABORTING, RunStatus.ABORTED}),
    **{ended: frozenset({ended}) for ended in RUN_ENDED},
}


class What(StrEnum):
    SUBMIT = "submit"
    CANCEL = "cancel"
    RETRY = "retry"
    RESUME = "resume"


class Wished(Struct, frozen=True):
    """A wish that was accepted, or had no answer. One that was refused has no effect, and none of these."""

    begin: float
    end: float  # inf: there was no answer
    what: What
    run: str  # empty: a request without an answer, whose id the service would have made
    request: str = ""  # SUBMIT: the same for each time that the same was asked


class Saw(Struct, frozen=True):
    begin: float
    end: float
    run: str
    status: State


class Listed(Struct, frozen=True):
    """The whole list, from the newest to the oldest."""

    begin: float
    end: float
    lines: dict[str, RunStatus]


class Heard(Struct, frozen=True):
    """One event of a stream; the first of a listener, without a run, is the number that they asked to go on from."""

    listener: str
    seq: int
    run: str
    kind: str


Op = Wished | Saw | Listed | Heard
Step = Wished | Saw  # an operation on one run


class Kept(NamedTuple):
    """What the store holds in the end."""

    at: float
    runs: Mapping[str, tuple[str, RunStatus]]  # the request it was begun for, and how it is
    events: Mapping[int, tuple[str, str]]  # run and kind


def wrong(ops: Sequence[Op], kept: Kept) -> list[str]:
    """Sentences about what cannot have been; none when all of it can."""
    found = list(_requests(ops, kept))
    for run_id, steps in _by_run(ops, kept).items():
        found += [f"run {run_id} {sentence}" for sentence in unexplained(steps)]
    found += _whole(kept)
    streams: defaultdict[str, list[Heard]] = defaultdict(list)
    for op in ops:
        if isinstance(op, Heard):
            streams[op.listener].append(op)
    for listener, heard in streams.items():
        found += [f"{listener} {sentence}" for sentence in _stream(heard, kept)]
    return found


# ------------------------------------------------------------------------------------------------------- requests


def _requests(ops: Iterable[Op], kept: Kept) -> Iterator[str]:
    """One run for each request that was acknowledged, at most one for each that was not, none beside them."""
    asked: defaultdict[str, set[str]] = defaultdict(set)
    for op in ops:
        if isinstance(op, Wished) and op.what is What.SUBMIT:
            asked[op.request] |= {op.run} if op.end < inf else set()
    begun: defaultdict[str, set[str]] = defaultdict(set)
    for run_id, (request, _) in kept.runs.items():
        begun[request].add(run_id)
    for request, ids in asked.items():
        if len(ids) > 1:
            yield f"request {request} was acknowledged as {_named(ids)}"
        if len(begun[request]) > 1:
            yield f"request {request} has become the runs {_named(begun[request])}"
        if ids - begun[request]:
            yield f"request {request} was acknowledged as {_named(ids)}, and in the end is {_named(begun[request])}"
    for request in begun.keys() - asked.keys():
        yield f"nobody asked for {_named(begun[request])}"


def _named(ids: Iterable[str]) -> str:
    return ", ".join(sorted(ids)) or "no run"


def _whole(kept: Kept) -> Iterator[str]:
    begun = Counter(run_id for run_id, kind in kept.events.values() if kind == "run begun")
    for run_id in kept.runs:
        if begun[run_id] != 1:
            yield f"run {run_id} has begun {begun[run_id]} times"


# --------------------------------------------------------------------------------------------------------- states


def _by_run(ops: Sequence[Op], kept: Kept) -> dict[str, list[Step]]:
    """The steps of each run: what was wished of it, and every look at it, in a list as well, and at the end."""
    became = {request: run_id for run_id, (request, _) in kept.runs.items()}
    steps: defaultdict[str, list[Step]] = defaultdict(list)
    lists: list[Listed] = []
    asked_at: dict[str, float] = {}
    for op in ops:
        if isinstance(op, Wished):
            run_id = op.run or became.get(op.request, "")
            if run_id:
                steps[run_id].append(op)
            if run_id and op.what is What.SUBMIT:
                asked_at[run_id] = min(op.begin, asked_at.get(run_id, inf))
        elif isinstance(op, Saw):
            steps[op.run].append(op)
        elif isinstance(op, Listed):
            lists.append(op)
    for run_id in {*steps, *kept.runs, *(run_id for listed in lists for run_id in listed.lines)}:
        for listed in lists:
            if run_id in listed.lines or listed.begin >= asked_at.get(run_id, inf):
                steps[run_id].append(Saw(listed.begin, listed.end, run_id, listed.lines.get(run_id)))
        status = kept.runs[run_id][1] if run_id in kept.runs else None
        steps[run_id].append(Saw(kept.at, kept.at, run_id, status))
    return steps


def unexplained(steps: Sequence[Step]) -> list[str]:
    """What no order explains, as one sentence: the furthest that orders come, and what cannot be next."""
    steps = sorted(steps, key=lambda s: s.begin)
    todo: list[tuple[int, frozenset[int], State]] = [(0, frozenset(), None)]
    known = set(todo)
    furthest, sentence = -1, ""
    while todo:
        first, beyond, state = todo.pop()  # those before `first` have taken effect, and some beyond it
        candidates, horizon = _candidates(steps, first, beyond)
        if horizon == inf:
            return []
        after = [
            (i, state_after)
            for i in candidates
            for state_after in _after(steps[i], state)
            if steps[i].end < inf or state_after is not state  # else it may as well never have come
        ]
        if first + len(beyond) > furthest:
            furthest, sentence = first + len(beyond), _stuck(steps, candidates, state)
        if same := [(i, s) for i, s in after if isinstance(steps[i], Saw) and s is state]:
            after = same[:1]  # it changes nothing, so that no order is lost when it is next
        for i, state_after in sorted(after, key=lambda each: -steps[each[0]].end):
            node = (*_placed(first, beyond, i), state_after)
            if node not in known:
                known.add(node)
                todo.append(node)
    return [sentence]


def _candidates(steps: Sequence[Step], first: int, beyond: frozenset[int]) -> tuple[list[int], float]:
    """Those that can be next: none that is left had its answer before they began. And when the first answer came."""
    candidates, horizon = [], inf
    for i in range(first, len(steps)):
        if steps[i].begin > horizon:
            break
        if i not in beyond:
            candidates.append(i)
            horizon = min(horizon, steps[i].end)
    return [i for i in candidates if steps[i].begin <= horizon], horizon


def _placed(first: int, beyond: frozenset[int], i: int) -> tuple[int, frozenset[int]]:
    beyond |= {i}
    while first in beyond:
        beyond -= {first}
        first += 1
    return first, beyond


def _after(step: Step, state: State) -> Iterable[State]:
    """How the run may be when this has taken effect; nothing when it cannot have had this answer."""
    now = BY_ITSELF[state]
    if isinstance(step, Saw):
        return now & {step.status}
    match step.what:
        case What.SUBMIT:
            return {RunStatus.PENDING} if state is None else {state}
        case What.CANCEL:
            return {s if s in RUN_ENDED else RunStatus.ABORTING for s in now - {None}}
        case What.RETRY:
            return {RunStatus.RUNNING} if now & RUN_ENDED else set()
        case What.RESUME:
            return now & RUN_GOING


def _stuck(steps: Sequence[Step], candidates: Sequence[int], state: State) -> str:
    next_ = min((steps[i] for i in candidates), key=lambda s: s.end)
    then = f"was seen to be {_word(next_.status)}" if isinstance(next_, Saw) else f"took a {next_.what.value}"
    return f"was {_word(state)} and {then} between {next_.begin:.3f} and {next_.end:.3f}"


def _word(state: State) -> str:
    return "not there" if state is None else state.value


# ---------------------------------------------------------------------------------------------------------- events


def _stream(heard: Sequence[Heard], kept: Kept) -> Iterator[str]:
    """Numbers grow, and nothing that the store has is left out."""
    start, events = heard[0].seq, heard[1:]
    for before, event in zip(heard, events, strict=False):
        if event.seq <= before.seq:
            yield f"heard {event.seq} after {before.seq}"
    seqs = {event.seq for event in events}
    if lost := sorted(seq for seq in kept.events if seq > start and seq not in seqs):
        yield f"never heard of {len(lost)} events, the first is {lost[0]} ({' '.join(kept.events[lost[0]])})"
    newest = max(kept.events, default=0)
    for event in events:
        if event.seq <= newest and kept.events.get(event.seq) != (event.run, event.kind):
            there = " ".join(kept.events.get(event.seq, ("nothing",)))
            yield f"heard {event.seq} as {event.run} {event.kind}, and the store has {there}"
