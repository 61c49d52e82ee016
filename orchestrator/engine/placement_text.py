"""A placement for people: the sentence, the table, and afterwards how good the prediction was. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.engine.place_words import duration
from orchestrator.engine.placement import Candidate, Placement
from orchestrator.errors import printable
from orchestrator.store.measured import PlacementRow

HEAD = ("", "site", "queue", "transfer", "queue wait", "compute", "total", "why")
RIGHT = frozenset({3, 4, 5, 6})  # columns of durations


def sentence(placement: Placement) -> str:
    """`goes to perlmutter (regular): 14 min predicted, 4 min before polaris (demand)`"""
    best = placement.chosen
    if best is None:
        if not placement.table:
            return "goes nowhere: no site is known"
        reasons = "; ".join(f"{_where(c)} {c.excluded}" for c in placement.table)
        return printable(f"goes nowhere now: {reasons}")
    told = f"goes to {_where(best)}: {duration(best.total_s)} predicted"
    other = next((c for c in placement.table[1:] if not c.excluded), None)
    if other is None:
        return printable(f"{told}, the only one that can")
    ahead = other.total_s - best.total_s
    if ahead < 0:
        return printable(f"{told}, about as soon as {_where(other)}, and cheaper")
    if duration(ahead) == "0 s":
        return printable(f"{told}, as soon as {_where(other)}")
    return printable(f"{told}, {duration(ahead)} before {_where(other)}")


def table(placement: Placement) -> str:
    """Aligned lines, the chosen one marked; below them what each number of the chosen one is based on."""
    if not placement.table:
        return "no site is known\n"
    best = placement.chosen
    lines = _aligned([HEAD, *(_row(c, c == best) for c in placement.table)])
    if best is not None:
        lines += ["", f"{_where(best)}:"]
        parts = (
            ("transfer", best.transfer_s, best.transfer_basis),
            ("queue wait", best.queue_s, best.queue_basis),
            ("compute", best.compute_s, best.compute_basis),
        )
        lines += [f"  {name:<10}  {duration(seconds):>8}  {basis}" for name, seconds, basis in parts]
        lines += [f"  {best.note}"] if best.note else []
    return "\n".join(printable(line) for line in lines) + "\n"


def _row(c: Candidate, chosen: bool) -> tuple[str, ...]:
    if c.excluded:
        return ("", c.site, _queue(c), "", "", "", "-", c.excluded)
    times = (c.transfer_s, c.queue_s, c.compute_s, c.total_s)
    why = "; ".join(w for w in (c.queue_basis, c.compute_basis, c.note) if w)
    return (">" if chosen else "", c.site, _queue(c), *(duration(t) for t in times), why)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(r[i]) for r in rows) for i in range(len(HEAD) - 1)] + [0]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if i in RIGHT else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def _queue(c: Candidate) -> str:
    return c.reservation or c.queue or "-"


def _where(c: Candidate) -> str:
    name = f"reservation {c.reservation}" if c.reservation else c.queue
    return f"{c.site} ({name})" if name else c.site


# ---------------------------------------------------------------------------------------------------------- afterwards


def outcome(row: PlacementRow) -> str:
    """How the prediction came out: `16 min, predicted 14 min (queue wait 12 min, predicted 10 min)`."""
    parts = (
        ("transfer", row.predicted_transfer_s, row.transfer_s),
        ("queue wait", row.predicted_queue_s, row.queue_s),
        ("compute", row.predicted_compute_s, row.compute_s),
    )
    known = [(name, predicted, actual) for name, predicted, actual in parts if actual is not None]
    if not known:
        return f"{duration(sum(p for _, p, _ in parts))} predicted; not known yet how long it takes"
    took, thought = sum(a for _, _, a in known), sum(p for _, p, _ in known)
    each = "; ".join(f"{n} {duration(a)}, predicted {duration(p)}" for n, p, a in known if duration(a) != duration(p))
    return f"{duration(took)}, predicted {duration(thought)}" + (f" ({each})" if each else "")
