"""Watched directories in one loop: scanned in turn, decided in batches, and run as many of each experiment at a time.

Everything that must outlive it is in the store: what was decided, and what is due. So it can be ended anywhere and made
again: files that were only waiting are found again, what is due is asked for again under the same key.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import structlog
from msgspec.structs import replace

from orchestrator.arrival import rules
from orchestrator.arrival.contents import Reader
from orchestrator.arrival.hints import Hints
from orchestrator.arrival.rules import WatchFile
from orchestrator.arrival.scan import Root
from orchestrator.arrival.tree import Tree, opened
from orchestrator.arrival.trigger import Rule
from orchestrator.errors import BeamwayError, Denied, Retry, SettingsError, Unavailable
from orchestrator.store import arrivals as store
from orchestrator.store.arrivals import Arrival, Watch
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease

QUOTA, QUOTA_S = 500, 0.1  # runs of an experiment that one turn begins, and for how long
AGAIN_S, AGAIN_MOST_S = 0.5, 30.0
MOST_REST_S = 1.0

NAME = re.compile(r"[\w.:-]{1,128}", re.ASCII)

log = structlog.get_logger()


class Runs(Protocol):
    """Where runs are begun."""

    def begin(self, arrival: Arrival) -> str:
        """Begin the run of an arrival and give its id; asked again with the same `run_key` it is the same run.

        Raises Unavailable or Denied when none can be begun now, another BeamwayError when this one never can.
        """

    def begun(self, run_key: str) -> str:
        """The id of the run that was begun under this key; empty when there is none. Raises Unavailable."""


class Watcher:
    """Of one store, and of one service that begins its runs."""

    def __init__(
        self,
        database: Database,
        runs: Runs,
        *,
        version: Callable[[Rule], str] = lambda rule: rule.workflow,
        fence: Lease | None = None,
        hints: bool = True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database, self._runs, self._version = database, runs, version
        self._fence, self._hinted, self._clock, self._now = fence, hints, clock, now
        self._reader = Reader()
        self._aside = ThreadPoolExecutor(2, "checksum")
        self.trees: dict[str, Tree] = {}
        self._hints: dict[str, Hints] = {}
        self._unwritten: dict[str, list[Arrival]] = {}
        self._last = ""  # experiment that had its turn first
        self._silent_until, self._silence_s = 0.0, 0.0
        self._failing = ""

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, name: str, text: str) -> Tree:
        """Begin to watch what a rule file says, or go on with it; changed rules hold from now. Raises SettingsError."""
        if not NAME.fullmatch(name):
            raise SettingsError(f"A watch cannot be called {name!r}.", "Up to 128 letters, digits and any of . _ : -")
        file = rules.parse(text, name)
        known = {watch.name: watch for watch in store.watches(self._database)}
        if name in known and known[name].directory != file.directory:
            raise SettingsError(
                f"The watch {name!r} is of the directory '{known[name].directory}'.",
                "Watch another directory under another name.",
            )
        if name in self.trees:
            self.stop(name)
        watch = known.get(name) or Watch(name, file.experiment, file.directory, text, created_at=self._now())
        watch = replace(watch, experiment=file.experiment, directory=file.directory, rules=text, stopped_at=0.0)
        root = opened(watch)
        if not watch.device or root.inode != watch.inode:
            watch = replace(watch, device=root.device, inode=root.inode)
        store.put_watch(self._database, watch, fence=self._fence)
        return self._begin(watch, file, root)

    def resume(self) -> None:
        """Go on with every watch of the store that was not stopped."""
        for watch in store.watches(self._database):
            if not watch.stopped_at and watch.name not in self.trees:
                try:
                    self.add(watch.name, watch.rules)
                except BeamwayError as error:  # the others are watched all the same
                    log.warning("watch.not_resumed", watch=watch.name, reason=error.sentence)

    def stop(self, name: str) -> None:
        """Watch it no more; what is due of it still runs."""
        tree = self.trees.pop(name)
        tree.root.close()
        if (hints := self._hints.pop(name, None)) is not None:
            hints.close()
        store.put_watch(self._database, replace(tree.watch, stopped_at=self._now()), fence=self._fence)

    def close(self) -> None:
        for hints in self._hints.values():
            hints.close()
        self._aside.shutdown(wait=True, cancel_futures=True)
        self._reader.close()
        for tree in self.trees.values():
            tree.root.close()

    def _begin(self, watch: Watch, file: WatchFile, root: Root) -> Tree:
        tree = Tree(
            watch,
            file,
            root,
            reader=self._reader,
            aside=self._aside,
            version=self._version,
            clock=self._clock,
            now=self._now,
        )
        for place, final in store.known(self._database, watch.name):
            if final:
                tree.known.add(place)
        self.trees[watch.name] = tree
        if self._hinted:
            hints = self._hints[watch.name] = Hints(watch.directory)
            if hints.why_not:
                log.info("watch.polls", watch=watch.name, reason=hints.why_not)
        return tree

    # ---- the loop

    def run(self, over: threading.Event) -> None:
        """Until `over`. A store or service that does not answer is waited for. Raises Stale."""
        while not over.is_set():
            busy = self.turn()
            rest_s = 0.0 if busy else min(MOST_REST_S, *(tree.next_s for tree in self.trees.values()), MOST_REST_S)
            end = time.monotonic() + rest_s
            while not over.is_set() and not self._heard() and time.monotonic() < end:
                over.wait(min(0.02, rest_s))

    def _heard(self) -> bool:
        return any(hints.heard.is_set() for hints in self._hints.values())

    def turn(self) -> bool:
        """A little of everything; whether there is more to do at once. Raises Stale."""
        try:
            busy = [self._tree(name, tree) for name, tree in list(self.trees.items())]
            more = self._begin_runs()
            self._failing = ""
            return any(busy) or more
        except Unavailable as error:
            if error.__class__ is not Unavailable:
                raise  # Stale: another watches now
            if self._failing != error.sentence:
                log.warning("watch.store_failed", reason=error.sentence)
            self._failing = error.sentence
            return False

    def _tree(self, name: str, tree: Tree) -> bool:
        if not self._unwritten.get(name):
            hints = self._hints.get(name)
            if hints is not None:
                hints.follow(tree.folders)
            self._unwritten[name] = tree.step(hints.take() if hints is not None and tree.scans else ())
        decided = self._unwritten[name]
        if decided:
            store.decide(self._database, decided, fence=self._fence)
            tree.written(decided)
        self._unwritten[name] = []
        if tree.scans and not tree.watch.baseline_at:
            watch = replace(tree.watch, baseline_at=self._now())
            store.put_watch(self._database, watch, fence=self._fence)
            tree.watch = watch
        if tree.over:
            self.stop(name)
            return False
        return bool(decided) or tree.next_s <= 0.0

    def _begin_runs(self) -> bool:
        """Begin what is due, a few of each experiment; the next turn begins with another one."""
        if self._clock() < self._silent_until:
            return False
        more = False
        experiments = store.due_experiments(self._database)
        later = [e for e in experiments if e > self._last]
        for experiment in later + experiments[: len(experiments) - len(later)]:
            due = store.due(self._database, experiment, limit=QUOTA)
            begun: list[tuple[int, str]] = []
            end = self._clock() + QUOTA_S
            try:
                for arrival in due:
                    begun += self._begin_run(arrival)
                    if self._clock() >= end:
                        more = True
                        break
            except (Unavailable, Denied) as error:
                self._silence_s = min(AGAIN_MOST_S, max(AGAIN_S, 2 * self._silence_s))
                self._silent_until = self._clock() + self._silence_s
                log.warning("watch.cannot_submit", experiment=experiment, reason=error.sentence)
                return False
            finally:
                if begun:
                    store.started(self._database, begun, fence=self._fence)
            self._silence_s = 0.0
            more = more or len(due) == QUOTA
        self._last = (later or experiments or [""])[0]
        return more

    def _begin_run(self, arrival: Arrival) -> list[tuple[int, str]]:
        tree = self.trees.get(arrival.watch)
        if tree is not None and (reason := tree.missing(arrival)):
            begun = self._refuse(arrival, reason)
            if not begun:
                tree.known.forget(arrival.place)  # it may come back as it was
            return begun
        try:
            return [(arrival.id, self._runs.begin(arrival))]
        except (Unavailable, Denied):
            raise
        except BeamwayError as error:
            if error.retry is not Retry.NEVER:
                raise Unavailable(error.sentence, error.hint) from error
            return self._refuse(arrival, f"its run cannot be begun: {error.sentence} {error.hint}".strip())

    def _refuse(self, arrival: Arrival, reason: str) -> list[tuple[int, str]]:
        """Nothing comes of it, unless its run was begun before somebody who should have noted that down died."""
        if run_id := self._runs.begun(arrival.run_key):
            return [(arrival.id, run_id)]
        store.refused(self._database, arrival, reason, fence=self._fence)
        return []
