"""How long a stage would take at a site: the transfer, the wait, the computing; each with its basis in words. Pure."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from statistics import median

from msgspec import Struct

from orchestrator.definition.explain import size_text
from orchestrator.engine.place_facts import Need, QueueFacts, SiteFacts, walltime_s
from orchestrator.engine.place_words import LONGEST_S, bounded, count, duration
from orchestrator.store.measured import Rate, Timing, Wait

GUESS_COMPUTE_S = 600.0
GUESS_WAIT_S = {"realtime": 60.0, "demand": 300.0, "debug": 600.0, "regular": 3600.0}
TURNOVER_S = 300.0  # a waiting job before ours is taken to hold us up for so long
LONGEST_GUESS_S = 43_200.0
FRESH_S = 1800.0  # what a scheduler said longer ago is not believed any more
ENOUGH = 3  # measurements before they count for more than a rule of thumb
SCALING = 0.8  # ten times the ranks are taken to make it 6.3 times as fast, not ten
ALIKE = 0.25  # inputs whose sizes differ by less count as the same
CORRECTION_LIMITS = (0.25, 4.0)
CORRECTION_WAITS = 20  # the newest so many
SLACK_S = 60.0  # waits are compared this much longer, so that 2 s instead of 1 s is no factor of two


class Estimate(Struct, frozen=True):
    seconds: float
    basis: str


class Correction(Struct, frozen=True):
    """What predicted waits of a site are multiplied with, because of how earlier ones came out."""

    factor: float = 1.0
    count: int = 0


# ---------------------------------------------------------------------------------------------------------- transfer


def transfer(need: Need, site: SiteFacts, rates: Mapping[tuple[str, str], Rate]) -> Estimate | None:
    """None: there is no way for the data to get there."""
    if need.input_bytes <= 0:
        return Estimate(0.0, "nothing to move")
    if site.name == need.data_at:
        return Estimate(0.0, "the data are there")
    seen = sum(1 for p in need.paths if _below(p, site.shared))
    if "/" in site.shared or (need.paths and seen == len(need.paths)):
        return Estimate(0.0, "it sees the files where they are")
    size = need.input_bytes * (1 - seen / len(need.paths)) if need.paths else float(need.input_bytes)
    measured = rates.get((need.data_at, site.name))
    rate = _usable(measured.bytes_per_s) if measured is not None else 0.0
    if measured is not None and rate:
        why = f"measured in {count(measured.count, 'transfer')}"
    else:
        rate = max(map(_usable, site.doors), default=0.0)
        why = "expected of its door, not measured yet"
    if not rate:
        return None
    return Estimate(min(size / rate, LONGEST_S), f"{size_text(int(size))} at {size_text(int(rate))}/s, {why}")


def _usable(rate: float) -> float:
    """A rate that can be divided by, else 0."""
    return rate if 0 < rate < float("inf") else 0.0


def _below(path: str, folders: Sequence[str]) -> bool:
    clean = os.path.normpath(path)
    return any(clean == f or clean.startswith(f.rstrip("/") + "/") for f in map(os.path.normpath, folders))


# ----------------------------------------------------------------------------------------------------------- compute


def compute(need: Need, site: SiteFacts, history: Sequence[Timing], queue: QueueFacts | None) -> Estimate:
    """By the history of this stage there, else that of other sites, else the walltime, else a guess."""
    by_site: dict[str, list[Timing]] = {}
    for t in history:
        if (t.workflow, t.stage) == (need.workflow, need.stage) and bounded(t.compute_s) is not None:
            by_site.setdefault(t.site, []).append(t)
    own = by_site.pop(site.name, [])
    if own:
        return from_history(need, own)
    if by_site:
        # The median of the sites, not of all runs together: so no site gains by another's being slow or fast.
        seconds = median(from_history(need, runs).seconds for runs in by_site.values())
        runs = sum(len(some) for some in by_site.values())
        return Estimate(seconds, f"{count(runs, 'run')} at {' and '.join(sorted(by_site))}, none here")
    wall = walltime_s(need, queue)
    if need.resources.walltime_s > 0:
        return Estimate(bounded(wall) or 0.0, "its walltime: no history")
    return Estimate(min(GUESS_COMPUTE_S, wall or GUESS_COMPUTE_S), "guess: no history")


def from_history(need: Need, runs: Sequence[Timing]) -> Estimate:
    """The time for this input, by a resistant line through runs of other inputs."""
    units = _units(need.resources.nodes * need.resources.ranks_per_node, _gpus(need))
    same = [t for t in runs if _units(t.ranks, t.gpus) == units]
    used = same if len(same) >= ENOUGH else list(runs)
    points = [(max(0, t.input_bytes), _scaled(t, units)) for t in used]
    sizes, times = [x for x, _ in points], [y for _, y in points]
    middle, usual = median(sizes), median(times)
    told = count(len(points), "run")
    if len(points) > 1:
        told = f"median of {told}"
    scaled = ", scaled to its ranks" if any(_units(t.ranks, t.gpus) != units for t in used) else ""
    if not middle or not need.input_bytes or abs(need.input_bytes - middle) <= ALIKE * middle:
        of = f" of {size_text(int(middle))}" if middle else ""
        return Estimate(usual, f"{told}{of}{scaled}")
    line = _line(points) if len(points) >= ENOUGH else None
    if line is not None:
        a, b = line
        span = f"{size_text(min(sizes))} to {size_text(max(sizes))}"
        seconds = min(a + b * need.input_bytes, LONGEST_S)
        return Estimate(seconds, f"line through {count(len(points), 'run')} of {span}{scaled}")
    seconds = min(usual * need.input_bytes / middle, LONGEST_S)
    return Estimate(seconds, f"{told} of {size_text(int(middle))}, in proportion{scaled}")


def _line(points: Sequence[tuple[int, float]]) -> tuple[float, float] | None:
    """Start and slope (neither below 0) of Tukey's line: through the medians of the outer thirds.

    None when the sizes are too much alike to say how the time grows.
    """
    ordered = sorted(points)
    third = max(1, len(ordered) // 3)
    low, high = ordered[:third], ordered[-third:]
    x0, x1 = median(x for x, _ in low), median(x for x, _ in high)
    if x1 - x0 <= ALIKE * x1:
        return None
    slope = max(0.0, (median(y for _, y in high) - median(y for _, y in low)) / (x1 - x0))
    start = median(y - slope * x for x, y in ordered)
    if start < 0:
        return 0.0, median(y / x for x, y in ordered if x)
    return start, slope


def _gpus(need: Need) -> int:
    return need.resources.nodes * need.resources.ranks_per_node * need.resources.gpus_per_rank


def _units(ranks: int, gpus: int) -> int:
    return max(1, gpus or ranks)


def _scaled(timing: Timing, units: int) -> float:
    own = _units(timing.ranks, timing.gpus)
    slower = math.pow(own / units, SCALING)
    return min(max(0.0, timing.compute_s) * slower, LONGEST_S)


# -------------------------------------------------------------------------------------------------------------- wait


def wait(need: Need, site: SiteFacts, queue: QueueFacts | None, history: Sequence[Timing], *, now: float) -> Estimate:
    """How long it would wait in the queue if it were handed in now, before any correction."""
    found = _queue_wait(need, site, queue, history, now)
    backlog = bounded(site.backlog_s) or 0.0
    if not backlog:
        return found
    return Estimate(found.seconds + backlog, f"{found.basis}; {duration(backlog)} of our own work before it")


def _queue_wait(
    need: Need, site: SiteFacts, queue: QueueFacts | None, history: Sequence[Timing], now: float
) -> Estimate:
    if not site.scheduler and queue is None:
        return Estimate(0.0, "no queue")
    name = queue.name if queue is not None else ""
    age = max(0.0, now - site.measured_at) if site.measured_at else 0.0
    fresh = age <= FRESH_S
    estimate = bounded(site.starts_in_s.get(name))
    if estimate is not None and fresh:
        old = f", {duration(age)} old" if age >= 120 else ""
        return Estimate(estimate, f"{site.starts_by}{old}")
    idle = queue.idle_nodes if queue is not None and fresh else None
    if queue is not None and idle is not None and idle >= need.resources.nodes and queue.pending <= 0:
        return Estimate(0.0, f"{count(idle, 'idle node')}, nobody waits")
    waits = [t.queue_s for t in history if t.site == site.name and bounded(t.queue_s) is not None]
    if len(waits) >= ENOUGH:
        return Estimate(bounded(median(waits)) or 0.0, f"median of {count(len(waits), 'wait')}")
    if queue is not None and idle is not None:
        return _by_pending(need, queue, idle)
    use = queue.use if queue is not None else "regular"
    return Estimate(GUESS_WAIT_S.get(use, GUESS_WAIT_S["regular"]), f"guess for a {use} queue")


def _by_pending(need: Need, queue: QueueFacts, idle: int) -> Estimate:
    before = max(0, queue.pending)
    side = max(1, queue.nodes // max(1, need.resources.nodes))
    if idle >= need.resources.nodes:
        seconds, free = TURNOVER_S * before / side, count(idle, "idle node")
    else:
        seconds, free = TURNOVER_S * (1 + before), "too few idle nodes"
    jobs = f"{count(before, 'job')} {'waits' if before == 1 else 'wait'}"
    return Estimate(min(seconds, LONGEST_GUESS_S), f"guess: {free}, {jobs}")


# -------------------------------------------------------------------------------------------------------- correction


def correction(waits: Sequence[Wait]) -> Correction:
    """From the waits of one site, newest first: the median of actual over predicted, within bounds."""
    ratios = []
    for w in waits[:CORRECTION_WAITS]:
        predicted, actual = bounded(w.predicted_s), bounded(w.actual_s)
        if predicted is not None and actual is not None:
            ratios.append((actual + SLACK_S) / (predicted + SLACK_S))
    if len(ratios) < ENOUGH:
        return Correction()
    least, most = CORRECTION_LIMITS
    return Correction(min(max(median(ratios), least), most), len(ratios))


def corrected(estimate: Estimate, by: Correction) -> Estimate:
    if not by.count or round(by.factor, 1) == 1.0:
        return estimate
    seconds = max(0.0, (estimate.seconds + SLACK_S) * by.factor - SLACK_S)
    return Estimate(seconds, f"{estimate.basis}; corrected ×{by.factor:.1f} after {count(by.count, 'wait')} there")
