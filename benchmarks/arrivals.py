"""Many files in a watched tree: how fast they are found, decided and stored, how fast runs of them begin, and in how
much memory; then a scan that finds nothing new, and a start of a watcher that knows them all.

    python benchmarks/arrivals.py [--files 1000000] [--only sqlite|postgresql|service] [--place DIR]

The files are of one byte each, in folders of 1000; the runs are begun by nobody, so that what is measured is ours. The
physical limits beside it: `scandir` and `stat` of the same tree, and nothing else; the checksums are read, too.

`service`: from the close of a file to the start of the command of its run, through the real watcher, service and agent.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from orchestrator.arrival.watch import Watcher  # noqa: E402 - the tests' PostgreSQL lies beside the benchmarks
from orchestrator.client import Client  # noqa: E402
from orchestrator.settings import Settings  # noqa: E402
from orchestrator.store import arrivals as store  # noqa: E402
from orchestrator.store.arrivals import Arrival  # noqa: E402
from orchestrator.store.database import Database  # noqa: E402
from orchestrator.store.watches import Wish  # noqa: E402
from tests.postgres import Postgres, missing  # noqa: E402

SINGLE = 200  # files, one after the other
NOTE = {
    "name": "note",
    "owner": "benchmark",
    "stages": {"1": {"command": "date +%s.%N >$(dirname $filePath)/../$(basename $filePath).started"}},
}
LATE = 500  # files that appear one by one when all the others are known
RULES = """
directory = "{directory}"
experiment = "benchmark"
workflow = "none"
extensions = "h5"
ready = {{ settle_s = 0.2 }}
"""


def make(tree: Path, count: int) -> None:
    for number in range(count):
        folder = tree / f"{number // 100_000:03}" / f"{number // 1000:06}"
        if number % 1000 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / f"scan_{number:09}.h5", os.O_WRONLY | os.O_CREAT)
        os.write(handle, number.to_bytes(5, "big"))
        os.close(handle)


def plain_scan(place: str) -> int:
    count = 0
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                count += plain_scan(entry.path)
            else:
                entry.stat(follow_symlinks=False)
                count += 1
    return count


class Service:
    """Begins nothing, and counts how much."""

    def __init__(self) -> None:
        self.count = 0
        self.begun_at: dict[str, float] = {}

    def begin(self, arrival: Arrival) -> str:
        self.count += 1
        if arrival.name.startswith("late"):
            self.begun_at[arrival.name] = time.monotonic()
        return arrival.run_key[:32]

    def begun(self, run_key: str) -> str:
        return ""


def timed(what: str, do: Callable[[], object], count: int) -> tuple[float, int]:
    """Prints what it took; files a second, and the peak of the memory in MB."""
    begun, cpu = time.monotonic(), time.process_time()
    do()
    took_s, cpu_s = time.monotonic() - begun, time.process_time() - cpu
    now, peak = psutil.Process().memory_info().rss >> 20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"  {what:32} {took_s:8.1f} s {cpu_s:8.1f} s CPU {count / took_s:12,.0f} files/s {now:6} MB, peak {peak} MB")
    return count / took_s, peak


def until(watcher: Watcher, over: Callable[[], bool]) -> None:
    while not over():
        if not watcher.turn():
            time.sleep(0.01)


def measure(url: str, tree: Path, count: int) -> None:
    service = Service()
    with Database(url) as database:
        database.upgrade()
        with Watcher(database, service) as watcher:
            made = watcher.add("benchmark", RULES.format(directory=tree))
            rate, peak = timed(
                "found, decided and run begun", lambda: until(watcher, lambda: service.count >= count), count
            )
            kind = "sqlite" if Path(url).suffix == ".db" else "postgresql"
            print(f"RESULT name=arrivals_per_s_{kind} ours={rate:.0f} rival=- ratio=- bar=-")
            print(f"RESULT name=arrivals_peak_mb_{kind} ours={peak} rival=- ratio=- bar=-")
            assert store.counts(database) == {store.ArrivalState.RUN: count}
            scans = made.scans
            timed("a scan that finds nothing new", lambda: until(watcher, lambda: made.scans > scans + 1), 2 * count)
        with Watcher(database, service) as watcher:
            timed("start of another watcher", watcher.resume, count)
            assert len(watcher.trees["benchmark"].known) == count
            latency(watcher, service, tree, Path(url).suffix == ".db")


def latency(watcher: Watcher, service: Service, tree: Path, sqlite: bool) -> None:
    """From the close of a file to the begin of its run, while the loop runs and knows all the others."""
    over, closed_at = threading.Event(), dict[str, float]()
    thread = threading.Thread(target=watcher.run, args=(over,))
    thread.start()
    try:
        while not watcher.trees["benchmark"].scans:
            time.sleep(0.1)
        (tree / "late").mkdir(exist_ok=True)
        for number in range(LATE):
            name = f"late/{'s' if sqlite else 'p'}{number}.h5"
            (tree / name).write_bytes(os.urandom(1000))
            closed_at[name] = time.monotonic()
            time.sleep(0.02)
        end = time.monotonic() + 120.0
        while len(service.begun_at) < LATE and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        over.set()
        thread.join()
    shutil.rmtree(tree / "late")
    took = sorted(service.begun_at[name] - at for name, at in closed_at.items())
    print(f"  closed to run begun: p50 {took[LATE // 2]:.2f} s, p99 {took[LATE * 99 // 100]:.2f} s (aims 0.5 and 2 s)")


def through_service(place: Path) -> None:
    """Single files, while nothing else runs; and what the same command takes when it is submitted by hand."""
    home, tree = place / "home", place / "service"
    tree.mkdir()
    (home / "workflows").mkdir(parents=True)
    (home / "workflows" / "note.py").write_text(repr(NOTE))
    with Client(Settings(home=home)) as client:
        try:
            rules = 'workflow = "note"\nready = { settle_s = 0.2 }\n'
            client.watches.put(Wish(rules, directory=str(tree), experiment="benchmark", name="service"))
            warm = [put(client, tree, f"warm{number}.h5") for number in range(5)]
            took = sorted(put(client, tree, f"scan{number}.h5") for number in range(SINGLE))
        finally:
            client.stop_service()
    p50, p99 = took[SINGLE // 2], took[SINGLE * 99 // 100]
    print(f"  the first {len(warm)}, with the start of everything: {max(warm):.2f} s at most")
    print(f"RESULT name=arrival_to_start_s_p50 ours={p50:.2f} rival=- ratio=- bar=0.5")
    print(f"RESULT name=arrival_to_start_s_p99 ours={p99:.2f} rival=- ratio=- bar=2")


def put(client: Client, tree: Path, name: str) -> float:
    """Seconds from the close of a file to the start of its run's command, which says itself when that was."""
    (tree / name).write_bytes(os.urandom(1000))
    closed_at = time.time()
    started = Path(f"{tree}/../{name}.started")
    while not started.exists() or not started.read_text():
        if time.time() > closed_at + 60.0:
            raise SystemExit(f"{name} has not run: {client.watches.arrivals(newest=True, limit=3)}")
        time.sleep(0.01)
    time.sleep(0.1)
    return float(started.read_text()) - closed_at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["sqlite", "postgresql", "service"])
    parser.add_argument("--place", help="where to make the tree; it is removed at the end")
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="bw-arrivals-", dir=given.place))
    try:
        if given.only in (None, "service"):
            through_service(place)
        if given.only == "service":
            return
        make(place / "tree", given.files)
        print(f"{given.files:,} files")
        timed("scandir and stat alone", lambda: plain_scan(str(place / "tree")), given.files)
        if given.only != "postgresql":
            print("sqlite")
            measure(f"sqlite:///{place}/x.db", place / "tree", given.files)
        if given.only != "sqlite" and not missing():
            print("postgresql")
            with Postgres(durable=True) as cluster:
                measure(cluster.new_database(), place / "tree", given.files)
    finally:
        shutil.rmtree(place, ignore_errors=True)  # an agent that has just ended may still clear up


if __name__ == "__main__":
    main()
