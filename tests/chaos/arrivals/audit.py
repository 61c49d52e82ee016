"""What is left, looked at from outside: the tree, the store and the products must agree with who wrote the scans."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from orchestrator.model import RUN_ENDED, Run, RunStatus
from orchestrator.store import arrivals as store
from orchestrator.store import runs, search
from orchestrator.store.arrivals import Arrival, ArrivalState
from orchestrator.store.database import Database
from tests.chaos.arrivals import work
from tests.chaos.arrivals.truth import Content, Item, Truth

Fingerprint = tuple[int, int, int, int]
OTHER = (work.CHANGED, "is not what arrived", "changed while it was copied")
LOST = ("No such file", "not there", "does not exist", "is missing", "cannot be read")


class Left(NamedTuple):
    """What was found; the audit itself asks nobody."""

    place: Path
    tree: dict[str, Fingerprint]
    arrivals: list[Arrival]
    runs: dict[str, Run]
    products: dict[str, dict[str, str]]
    marks: Counter[str]


def look(place: Path, url: str, watch: str) -> Left:
    with Database(url) as database:
        arrivals: list[Arrival] = []
        while page := store.ls(database, watch=watch, after=arrivals[-1].id if arrivals else 0, limit=1000):
            arrivals += page
        ids = [line.id for line in search.listing(database, search.Wanted(), limit=10 * len(arrivals) + 100)]
        found = {i: runs.load(database, i) for i in ids}
    proofs = (p for p in (place / "products").glob("*.json") if not p.name.endswith(".manifest.json"))
    products = {p.stem: json.loads(p.read_text()) for p in proofs}  # those of a volume go while it is made anew
    marks = Counter({p.name: len(p.read_text().splitlines()) for p in (place / "marks").iterdir()})
    return Left(place, dict(_walk(place / "tree")), arrivals, found, products, marks)


def _walk(tree: Path) -> Iterator[tuple[str, Fingerprint]]:
    for folder, folders, files in os.walk(tree):
        for name in [*files, *(f for f in folders if os.path.islink(os.path.join(folder, f)))]:
            path = os.path.join(folder, name)
            s = os.lstat(path)
            regular = stat.S_ISREG(s.st_mode)
            mark = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) if regular else (s.st_dev, s.st_ino, 0, 0)
            yield os.path.relpath(path, tree), mark


def _parts(folder: Path) -> Iterator[str]:
    """What has such a name, also while things come and go: what has gone is not looked into."""
    for place, folders, files in os.walk(folder):
        yield from (os.path.join(place, name) for name in (*folders, *files) if ".part" in name)


def audit(left: Left, truth: Truth, *, volumes: bool = True) -> list[str]:
    """Sentences about what is wrong; none when every whole scan has run once, and everything else says why not.
    `volumes`: what was reconstructed is opened, which takes its time."""
    seen = Audit(left, truth)
    wrong = list(truth.failed)
    wrong += [f"{name!r} is in the tree and nobody wrote it" for name in left.tree.keys() - truth.items.keys()]
    wrong += [f"{name!r} was written and is not in the tree" for name in truth.items.keys() - left.tree.keys()]
    for item in truth.items.values():
        if item.name in left.tree:
            wrong += seen.of_item(item)
    for content in truth.contents.values():
        wrong += seen.of_content(content)
    for arrival in left.arrivals:
        wrong += seen.of_arrival(arrival)
    for run in left.runs.values():
        wrong += seen.of_run(run)
        if volumes and run.status is RunStatus.DONE and run.plan.workflow.endswith("arrivals-tomo"):
            wrong += seen.of_volume(run)
    wrong += [f"{run_id} is the run of {times} arrivals" for run_id, times in seen.begun.items() if times > 1]
    folders = [left.place / name for name in ("products", "work", "home")]
    wrong += [f"left over: {path}" for folder in folders for path in _parts(folder)]
    return wrong


class Audit:
    def __init__(self, left: Left, truth: Truth) -> None:
        self.left, self.truth = left, truth
        self.by_place: defaultdict[tuple[str, Fingerprint], list[Arrival]] = defaultdict(list)
        self.by_checksum: defaultdict[str, list[Arrival]] = defaultdict(list)
        self.whole: defaultdict[str, list[Content]] = defaultdict(list)
        for arrival in left.arrivals:
            self.by_place[arrival.name, arrival.fingerprint].append(arrival)
            if arrival.state is ArrivalState.RUN:
                self.by_checksum[arrival.checksum].append(arrival)
        for content in truth.contents.values():
            self.whole[content.checksum].append(content)
        self.begun = Counter(a.run_id for a in left.arrivals if a.state is ArrivalState.RUN)

    def of_item(self, item: Item) -> Iterator[str]:
        """What is in the tree in the end."""
        here = self.by_place[item.name, self.left.tree[item.name]]
        if len(here) != 1:
            yield f"{item.name!r} ({item.kind}) is accounted for {len(here)} times"
            return
        (arrival,) = here
        if arrival.state.value not in item.states:
            wanted = " or ".join(sorted(item.states))
            yield f"{item.name!r} ({item.kind}) is {arrival.state.value}, not {wanted}: {arrival.reason!r}"
        elif item.words and not any(word in arrival.reason for word in item.words):
            yield f"{item.name!r} ({item.kind}) is {arrival.state.value} for another reason: {arrival.reason!r}"
        if item.checksum and arrival.state is ArrivalState.RUN and arrival.checksum != item.checksum:
            yield f"{item.name!r} ({item.kind}) runs with the checksum {arrival.checksum}, and has {item.checksum}"

    def of_content(self, content: Content) -> Iterator[str]:
        """A whole scan, under whatever names: one run, whose product only this content gives."""
        begun = [a for a in self.by_checksum[content.checksum] if not self._lost(a)]
        twins = self.whole[content.checksum]
        products = [self.left.products.get(a.run_id, {}).get("proof") for a in begun]
        mine = products.count(content.proof)
        names = ", ".join(repr(a.name) for a in begun)
        if len(begun) > len(twins) or mine > 1:
            yield f"a scan ({content.kind}) has run {max(len(begun), mine)} times: {names}"
        if content.stays and not mine and not (content.away and self.by_checksum[content.checksum]):
            yield f"a whole scan ({content.kind}, {content.checksum}) has no product: {names or 'it has not run'}"

    def of_arrival(self, arrival: Arrival) -> Iterator[str]:
        said = f"arrival {arrival.id} {arrival.name!r}"
        if arrival.name not in self.truth.items and arrival.name not in self.truth.passing:
            yield f"{said}: nobody wrote it"
        match arrival.state:
            case ArrivalState.DUE:
                yield f"{said} is still due"
            case ArrivalState.RUN:
                yield from self._of_begun(arrival, said)
            case ArrivalState.DUPLICATE:
                if not self.by_checksum[arrival.checksum] and arrival.checksum:
                    yield f"{said} is a duplicate of what has not run"
        if arrival.state is not ArrivalState.RUN and not arrival.reason:
            yield f"{said} is {arrival.state.value} and does not say why"

    def _of_begun(self, arrival: Arrival, said: str) -> Iterator[str]:
        contents = self.whole[arrival.checksum]
        if not contents:
            yield f"{said} runs, and was never whole"
        run = self.left.runs.get(arrival.run_id)
        if run is None:
            yield f"{said} runs as {arrival.run_id}, which is not there"
        elif run.status not in RUN_ENDED:
            yield f"{said}: its run is {run.status.value}"
        elif run.status is RunStatus.DONE:
            product = self.left.products.get(run.id, {})
            if (product.get("checksum"), product.get("proof")) not in {(c.checksum, c.proof) for c in contents}:
                yield f"{said}: the product of {run.id} is not of its scan: {product}"
        elif not (self._lost(arrival) and any(c.moved or c.away or not c.stays for c in contents)):
            yield f"{said}: its run {run.id} has failed: {run.error}"

    def _lost(self, arrival: Arrival) -> bool:
        """Whether its run says that it did not find the file as it had arrived."""
        run = self.left.runs.get(arrival.run_id)
        words = (*LOST, *OTHER)
        return run is not None and run.status is RunStatus.FAILED and any(word in run.error for word in words)

    def of_run(self, run: Run) -> Iterator[str]:
        if not self.begun[run.id]:
            yield f"run {run.id} ({run.plan.workflow}) is of no arrival"
        attempts = sum(task.attempt for task in run.tasks.values() if task.call.startswith("tests."))
        if self.left.marks[run.id] > attempts:
            yield f"run {run.id} was carried out {self.left.marks[run.id]} times in {attempts} attempts"
        if run.status is RunStatus.DONE and not self.left.marks[run.id]:
            yield f"run {run.id} is done and was never carried out"

    def of_volume(self, run: Run) -> Iterator[str]:
        """What was reconstructed against what its scan gives now; the scan is the copy that was checked."""
        from kernels.io.omezarr import open_level

        scan, volume = self.left.place / "work" / run.id, self.left.place / "products" / f"{run.id}.zarr"
        with tempfile.TemporaryDirectory(prefix="bw-volume-") as folder:
            again = work.reconstructed(scan, Path(folder) / "again.zarr")
            found, wanted = (np.asarray(open_level(str(each), "0")[...]) for each in (volume, again))
        if found.shape != wanted.shape or not np.allclose(found, wanted, atol=1e-5):
            yield f"the volume of {run.id} is not of its scan"


def lost(left: Left, truth: Truth) -> int:
    """How many runs say that their file went from under them."""
    seen = Audit(left, truth)
    return sum(seen._lost(a) for a in left.arrivals if a.state is ArrivalState.RUN)
