"""What a running kernel holds: a way to tell its progress, to report what it measured, and to write its outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kernels import outputs
from kernels.cautions import Caution, Code
from kernels.errors import printable
from kernels.outputs import Staged
from kernels.ranks import Ranks

Metric = float | int | str
ProgressCallback = Callable[[float, str, str], None]
Check = Callable[[Path], None]

_INTERVAL_S = 0.25


class Job:
    """One run of one kernel. Kernels get it as their first argument.

    Progress is passed on at most four times a second, except the first and the last message, which always pass.
    """

    def __init__(self, progress: ProgressCallback | None = None, ranks: Ranks | None = None) -> None:
        self.ranks = ranks or Ranks()
        self.metrics: dict[str, Metric] = {}
        self.warnings: list[Caution] = []
        self.timings: dict[str, float] = {}
        self.staged: list[Staged] = []
        self.inputs: list[str] = []  # files that no argument is the path of by itself
        self._progress = progress
        self._told_at = float("-inf")

    def progress(self, fraction: float, phase: str, text: str = "") -> None:
        """Say how far the run is: `fraction` 0 to 1, `phase` one word, `text` for people.

        Raises `PeerFailed` when another rank has failed.
        """
        self.ranks.look()
        now = time.monotonic()
        if self._progress and (now - self._told_at >= _INTERVAL_S or fraction >= 1.0):
            self._told_at = now
            self._progress(min(max(fraction, 0.0), 1.0), phase, text)

    def metric(self, name: str, value: Metric) -> None:
        """Report a measured figure under a word that captures can name."""
        self.metrics[name] = value

    def warn(self, code: Code, sentence: str) -> None:
        """Say what stays with the products as a warning; once, however often it is said. With several ranks: rank 0's
        word counts."""
        caution = Caution(code, printable(sentence))
        if caution not in self.warnings:
            self.warnings.append(caution)

    def count(self, name: str, more: int) -> None:
        """Add to a metric that counts."""
        self.metrics[name] = int(self.metrics.get(name, 0)) + more

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside towards phase `name`, seconds of wall clock."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.monotonic() - start

    def stage(
        self,
        path: str | Path,
        *,
        directory: bool = False,
        check: Check | None = None,
        run: str = "",
        needs: int = 0,
        **facts: object,
    ) -> Path:
        """Claim an output and return the part to write. It gets its final name only when the whole run succeeds.

        `needs`: bytes that it will have, as far as that is known. With `run`, a fingerprint, it may hold what a killed
        run of the same has written (see `kernels.resume`). With several ranks: for rank 0, or for all of them by
        `stage_together`.
        """
        staged = outputs.claim(path, directory=directory, run=run, needs=needs)
        staged.check = check
        staged.facts.update(facts)
        self.staged.append(staged)
        return staged.part

    def stage_together(
        self, path: str | Path, *, directory: bool = False, check: Check | None = None, run: str = "", needs: int = 0
    ) -> Path:
        """As `stage`, for an output that all ranks write into; all of them come here."""
        first = self.ranks.first
        part = self.stage(path, directory=directory, check=check, run=run, needs=needs) if first else None
        return Path(self.ranks.told(str(part)))

    def describe(self, part: Path, **facts: object) -> None:
        """Add facts (shape, dtype, finiteFraction) about a staged output to the manifest."""
        next(s for s in self.staged if s.part == part).facts.update(facts)
