"""Watched directories in one loop: scanned in turn, decided in batches, and run as many of each experiment at a time.

Everything that must outlive it is in the store: what was decided, and what is due. So it can be ended anywhere and made
again: files that were only waiting are found again, what is due is asked for again under the same key.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import structlog
from msgspec.structs import replace

from orchestrator.arrival import rules
from orchestrator.arrival.contents import Reader
from orchestrator.arrival.hints import Hints
from orchestrator.arrival.rules import WatchFile
from orchestrator.arrival.scan import Root
from orchestrator.arrival.tree import DECISIONS, Tree, opened
from orchestrator.arrival.trigger import Rule
from orchestrator.errors import BeamwayError, Denied, Retry, SettingsError, Stale, Unavailable
from orchestrator.store import arrivals as store
from orchestrator.store import watches
from orchestrator.store.arrivals import Arrival
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease
from orchestrator.store.watches import Report, Watch

QUOTA, QUOTA_S = DECISIONS, 0.1  # runs of an experiment that one turn begins, and for how long
DUE = 200  # that are read at a time: where runs begin slowly more would be read for nothing
AGAIN_S, AGAIN_MOST_S = 0.5, 5.0
SHELVED = 20  # arrivals
HEIRS = 500  # duplicates of a failed run that are looked at
MOST_REST_S = 0.5
LOOK_S = 0.5  # how often the store is asked what is to be watched
SAID_S = 10.0  # how old what is said of a watch may be
TROUBLES = 20  # places that are named with it

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
        site: str = "",
        version: Callable[[Rule], str] = lambda rule: rule.workflow,
        shelve: Callable[[Sequence[Arrival]], None] = lambda arrivals: None,
        fence: Lease | None = None,
        hints: bool = True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`site`: whose watches these are; empty: all. `shelve`: called with arrivals before their runs are begun, as
        often as it takes."""
        self._database, self._runs, self._site = database, runs, site
        self._version, self._shelve = version, shelve
        self._fence, self._hinted, self._clock, self._now = fence, hints, clock, now
        self._reader = Reader()
        self._aside = ThreadPoolExecutor(2, "checksum")
        self.trees: dict[str, Tree] = {}
        self._mine: list[str] | None = None  # watches whose runs are ours to begin
        self._errors: dict[str, str] = {}  # watches that cannot be watched
        self._reported: dict[str, Report] = {}
        self._hints: dict[str, Hints] = {}
        self._unwritten: dict[str, list[Arrival]] = {}
        self._last = ""  # experiment that had its turn first
        self._silent_until, self._silence_s = 0.0, 0.0
        self._looked_at = -LOOK_S
        self._failing = ""  # why the store cannot be asked
        self._refused = ""  # why no run can be begun

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, name: str, text: str) -> Tree:
        """Begin to watch what a rule file says, or go on with it; changed rules hold from now. Raises SettingsError."""
        file = rules.parse(text, rules.checked_name(name))
        known = {watch.name: watch for watch in watches.ls(self._database)}
        if name in known and known[name].directory != file.directory:
            raise SettingsError(
                f"The watch {name!r} is of the directory '{known[name].directory}'.",
                "Watch another directory under another name.",
            )
        watch = known.get(name) or Watch(name, file.experiment, file.directory, text, created_at=self._now())
        watch = replace(watch, experiment=file.experiment, directory=file.directory, rules=text, stopped_at=0.0)
        opened(watch).close()
        watches.put(self._database, watch, fence=self._fence)
        self._let_go(name)
        return self._open(watch)

    def resume(self) -> None:
        """Watch what the store says, as it says it now; what cannot be is tried again the next time."""
        mine = [watch for watch in watches.ls(self._database) if self._site in ("", watch.site)]
        wanted = {watch.name: watch for watch in mine if not watch.stopped_at}
        self._mine = [watch.name for watch in mine] if self._site else None
        self._errors = {name: error for name, error in self._errors.items() if name in wanted}
        for name, tree in list(self.trees.items()):
            if name not in wanted or _asked(wanted[name]) != _asked(tree.watch):
                self._let_go(name)
        for name in wanted.keys() - self.trees.keys():
            try:
                self._open(wanted[name])
                self._errors.pop(name, None)
            except Unavailable:
                raise
            except BeamwayError as error:  # the others are watched all the same
                if self._errors.get(name) != str(error):
                    log.warning("watch.not_resumed", watch=name, reason=str(error))
                self._errors[name] = str(error)

    def stop(self, name: str) -> None:
        """Watch it no more; what is due of it still runs."""
        watches.stop(self._database, name, self._now(), fence=self._fence)
        self._let_go(name)

    def _let_go(self, name: str) -> None:
        tree = self.trees.pop(name, None)
        if tree is not None:
            tree.root.close()
        if (hints := self._hints.pop(name, None)) is not None:
            hints.close()
        self._unwritten.pop(name, None)

    def close(self) -> None:
        for hints in self._hints.values():
            hints.close()
        self._aside.shutdown(wait=True, cancel_futures=True)
        self._reader.close()
        for tree in self.trees.values():
            tree.root.close()

    def _open(self, watch: Watch) -> Tree:
        file = rules.parse(watch.rules, watch.name, directory=watch.directory, experiment=watch.experiment)
        root = opened(watch)
        try:
            tree = self._tree_of(watch, file, root)
        except BaseException:
            root.close()
            raise
        self.trees[watch.name] = tree
        if self._hinted:
            hints = self._hints[watch.name] = Hints(watch.directory)
            if hints.why_not:
                log.info("watch.polls", watch=watch.name, reason=hints.why_not)
        return tree

    def _tree_of(self, watch: Watch, file: WatchFile, root: Root) -> Tree:
        device = root.device if not watch.device or root.inode != watch.inode else watch.device
        tree = Tree(
            watches.follow(self._database, watch, device, root.inode, fence=self._fence),
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
        return tree

    def report(self) -> None:
        """Write down how each watch stands, where that has changed or was said too long ago."""
        at = self._now()
        found = {name: self._report(name, tree, at) for name, tree in self.trees.items()}
        found |= {name: Report(at, error) for name, error in self._errors.items()}
        news = {name: said for name, said in found.items() if _is_news(said, self._reported.get(name))}
        if news:
            watches.put_reports(self._database, news, fence=self._fence)
        self._reported = {name: news.get(name) or self._reported[name] for name in found}

    def _report(self, name: str, tree: Tree, at: float) -> Report:
        hints = self._hints.get(name)
        troubles = dict(itertools.islice(tree.troubles.items(), TROUBLES))
        polls = hints.why_not if hints is not None else ""
        error = f"No run can be begun: {self._refused}" if self._refused else ""
        return Report(at, error, tree.scans, tree.scanned_at, tree.scan_s, tree.waiting, polls, troubles)

    # ---- the loop

    def run(self, over: threading.Event, each: Callable[[], None] = lambda: None) -> None:
        """Until `over`, with what the store says is to be watched. `each`: called in each turn. A store or service that
        does not answer is waited for. Raises Stale."""
        while not over.is_set():
            each()
            busy = self.turn()
            rest_s = 0.0 if busy else min(MOST_REST_S, *(tree.next_s for tree in self.trees.values()), MOST_REST_S)
            end = time.monotonic() + rest_s
            while not over.is_set() and not self._heard() and time.monotonic() < end:
                over.wait(min(0.02, rest_s))

    def _heard(self) -> bool:
        """What is heard before the first scan is over wakes nobody: it is not taken before."""
        return any(hints.heard.is_set() for name, hints in self._hints.items() if self.trees[name].scans)

    def turn(self) -> bool:
        """A little of everything; whether there is more to do at once. Raises Stale."""
        try:
            if self._clock() >= self._looked_at + LOOK_S:
                self.resume()
                self._inherit()
                self.report()
                self._looked_at = self._clock()
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
            hints = self._hints.get(name) if tree.scans else None
            if hints is not None:
                hints.follow(tree.folders)
            self._unwritten[name] = tree.step(hints.take() if hints is not None else ())
        decided = self._unwritten[name]
        if decided:
            store.decide(self._database, decided, fence=self._fence)
            tree.written(decided)
        self._unwritten[name] = []
        if tree.scans and not tree.watch.baseline_at:
            tree.watch = watches.change(self._database, name, fence=self._fence, baseline_at=self._now())
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
            begun: list[tuple[int, str]] = []
            end = self._clock() + QUOTA_S
            try:
                for number, arrival in enumerate(self._due(experiment), 1):
                    begun += self._begin_run(arrival)
                    if number >= QUOTA or self._clock() >= end:
                        more = True
                        break
            except Stale:
                raise
            except (Unavailable, Denied) as error:
                self._silence_s = min(AGAIN_MOST_S, max(AGAIN_S, 2 * self._silence_s))
                self._silent_until = self._clock() + self._silence_s
                if self._refused != error.sentence:
                    log.warning("watch.cannot_submit", experiment=experiment, reason=error.sentence)
                self._refused = error.sentence
                return False
            finally:
                if begun:
                    store.started(self._database, begun, fence=self._fence)
            self._silence_s = 0.0
        self._last = (later or experiments or [""])[0]
        self._refused = ""
        return more

    def _due(self, experiment: str) -> Iterator[Arrival]:
        """What is due of an experiment, each shelved before it is given."""
        last = 0
        while due := store.due(self._database, experiment, after=last, limit=DUE, of=self._mine):
            for start in range(0, len(due), SHELVED):
                self._shelve(due[start : start + SHELVED])
                yield from due[start : start + SHELVED]
            if len(due) < DUE:
                return
            last = due[-1].id

    def _inherit(self) -> None:
        """A run that has failed and would not find its file again: a duplicate that is there runs in its place.

        So it is with what was renamed after its run was begun and before that had read it.
        """
        for arrival in store.failed_with_duplicates(self._database):
            tree = self.trees.get(arrival.watch)
            if tree is None or not tree.missing(arrival):
                continue
            for heir in store.duplicates(self._database, arrival.run_key, limit=HEIRS):
                there = self.trees.get(heir.watch)
                if there is not None and not there.missing(heir):
                    reason = f"in the place of {arrival.name!r}, which is gone and whose run has failed"
                    store.inherit(self._database, arrival, heir, reason, fence=self._fence)
                    break

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


def _asked(watch: Watch) -> tuple[str, str, str]:
    """What people have asked for."""
    return watch.directory, watch.experiment, watch.rules


def _is_news(said: Report, before: Report | None) -> bool:
    if before is None or said.at > before.at + SAID_S:
        return True
    same = {"at": 0.0, "scans": bool(said.scans), "scanned_at": 0.0, "scan_s": 0.0}
    return replace(said, **same) != replace(before, **{**same, "scans": bool(before.scans)})
