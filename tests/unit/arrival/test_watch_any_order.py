"""Whatever is done to files, in whatever order and by whichever watcher: each content that stays runs once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.errors import Unavailable
from orchestrator.store import arrivals as store
from orchestrator.store.arrivals import Arrival
from orchestrator.store.database import Database
from tests.unit.arrival.test_watch import Bench, Service

NAMES = st.sampled_from(["a.h5", "b.h5", "d/a.h5", "d/e/c.h5"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), NAMES, st.integers(1, 4)),
        st.tuples(st.just("append"), NAMES, st.integers(1, 4)),
        st.tuples(st.sampled_from(["rename", "copy", "link"]), NAMES, NAMES),
        st.tuples(st.sampled_from(["touch", "remove", "remove folder"]), NAMES, st.just(0)),
        st.tuples(st.sampled_from(["time", "begin anew", "service away", "service back"]), st.just(""), st.just(0)),
        st.tuples(st.just("time"), st.just(""), st.integers(1, 8)),
    ),
    max_size=25,
)


class Reading(Service):
    """Notes what each run would have read."""

    def __init__(self, tree: Path) -> None:
        super().__init__()
        self.tree, self.contents = tree, Counter[bytes]()

    def begin(self, arrival: Arrival) -> str:
        run_id = super().begin(arrival)
        self.contents[(self.tree / arrival.name).read_bytes()] += 1
        return run_id


def do(bench: Bench, tree: Path, what: str, name: str, with_: str | int) -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        match what:
            case "write":
                path.unlink(missing_ok=True)
                path.write_bytes(b"x" * int(with_))  # of its own size, so that a clock's tick hides nothing
            case "append":
                with path.open("ab") as file:
                    file.write(b"y" * int(with_))
            case "rename":
                other = tree / str(with_)
                other.parent.mkdir(parents=True, exist_ok=True)
                path.rename(other)
            case "copy":
                shutil.copyfile(path, tree / str(with_))
            case "link":
                os.link(path, tree / str(with_))
            case "touch":
                os.utime(path)
            case "remove":
                path.unlink()
            case "remove folder":
                shutil.rmtree(tree / "d", ignore_errors=True)
            case "time":
                bench.settle(0.25 * int(with_))
            case "begin anew":
                bench.again()
            case "service away":
                bench.service.fail = Unavailable("Away.")
            case "service back":
                bench.service.fail = None
    except (FileNotFoundError, FileExistsError, shutil.SameFileError):
        pass


@settings(max_examples=30)
@example([("write", "a.h5", 1), ("service away", "", 0), ("time", "", 8), ("rename", "a.h5", "b.h5"), ("time", "", 8)])
@given(STEPS)
def test_each_content_that_stays_runs_once(steps: list[tuple[str, str, str | int]]) -> None:
    place = Path(tempfile.mkdtemp(prefix="bw-any-order-"))
    try:
        with Database(f"sqlite:///{place}/x.db") as database:
            database.upgrade()
            bench = Bench(database, place)
            bench.watcher.close()
            bench.service = Reading(place / "w")
            bench.watcher = bench._new()
            tree = bench.watch()
            try:
                for step in steps:
                    do(bench, tree, *step)
                bench.service.fail = None
                bench.settle(80.0)
                there = {p.read_bytes(): str(p.relative_to(tree)) for p in tree.rglob("*.h5")}
                assert isinstance(bench.service, Reading)
                assert there.keys() <= bench.service.contents.keys()
                assert set(bench.service.contents.values()) <= {1}
                states = {a.place: a.state.value for a in store.ls(database)}
                found = [f for batch in bench.watcher.trees["w"].root.scan() for f in batch.files]
                ended = {states.get(store.digest_of(f.name, f.fingerprint)) for f in found}
                assert ended <= {"run", "duplicate"}
            finally:
                bench.watcher.close()
    finally:
        shutil.rmtree(place)
