"""How far a copy is, in one line, the same whatever carries it: a progress line of the kernel contract.

    progress 0.42 1.2 GB of 2.9 GB, 310 MB/s, 6 s left

The rate is that of the last seconds, so that what was there already and is passed over at once promises nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from orchestrator.definition.explain import size_text

EACH_S = 0.5  # at most so often a line
OVER_S = 10.0  # what the rate is measured over


def line(done: int, total: int, rate: float, note: str = "") -> str:
    """`rate` in bytes per second; 0 is not known."""
    fraction = min(1.0, done / total) if total else 0.0
    parts = [f"{size_text(done)} of {size_text(total)}" if total else size_text(done)]
    if rate > 0:
        parts.append(f"{size_text(int(rate))}/s")
        if done < total:
            parts.append(f"{_duration((total - done) / rate)} left")
    return f"progress {fraction:.4f} {', '.join([*parts, note] if note else parts)}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Told:
    """A `progress(bytes, total)` of a copy that tells lines. Of several copies it is told which one this is."""

    def __init__(
        self, tell: Callable[[str], None], *, which: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell, self._which, self._clock = tell, which, clock
        self._seen: deque[tuple[float, int]] = deque()
        self._told_at = float("-inf")

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        if now - self._told_at < EACH_S and done < total:
            return
        self._told_at = now
        self._seen.append((now, done))
        while now - self._seen[0][0] > OVER_S and len(self._seen) > 2:
            self._seen.popleft()
        (begun, before), rate = self._seen[0], 0.0
        if now > begun:
            rate = max(0.0, (done - before) / (now - begun))
        self._tell(line(done, total, rate, self._which))
