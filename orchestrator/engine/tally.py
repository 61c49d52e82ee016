"""What the engine has done since it began, as plain numbers: its own thread adds, any thread may read.

A reader copies and never waits, so that it may see an observation in one number and not yet in the next.
"""

from __future__ import annotations

from bisect import bisect_left

from orchestrator.records import Costs

TURN_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)  # s
PHASE_BOUNDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)  # s


class Histogram:
    """How many observations were at most as large as each bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # each by itself; the last: larger than all bounds
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Tally:
    def __init__(self) -> None:
        self.turns = Histogram(TURN_BOUNDS)
        self.writes = Histogram(TURN_BOUNDS)
        self.phases: dict[tuple[str, str], Histogram] = {}  # (site, phase)
        self.failures: dict[str, int] = {}  # class -> attempts that ended so
        self.retries: dict[str, int] = {}  # class -> of them those that are tried again
        self.holds: dict[str, int] = {}  # class -> of them those that wait for a person or the site
        self.finished: dict[str, int] = {}  # state -> runs

    def attempt(self, failure: str, *, again: bool = False, held: bool = False) -> None:
        """One has ended. `failure` is empty when it went well."""
        if failure:
            self.failures[failure] = self.failures.get(failure, 0) + 1
        if again:
            self.retries[failure] = self.retries.get(failure, 0) + 1
        if held:
            self.holds[failure] = self.holds.get(failure, 0) + 1

    def took(self, site: str, costs: Costs) -> None:
        """How long the phases of an attempt were; those that most attempts have not, only where there was one."""
        self._phase(site, "queue", costs.queue_s)
        self._phase(site, "compute", costs.compute_s)
        if costs.transfer_s:
            self._phase(site, "transfer", costs.transfer_s)
        if costs.checks_s:
            self._phase(site, "checks", costs.checks_s)

    def run(self, state: str) -> None:
        """A run is over."""
        self.finished[state] = self.finished.get(state, 0) + 1

    def _phase(self, site: str, phase: str, seconds: float) -> None:
        found = self.phases.get((site, phase))
        if found is None:
            found = self.phases[site, phase] = Histogram(PHASE_BOUNDS)
        found.add(seconds)
