"""See the package: `make chaos`."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.store.database import Database
from slurm.cluster import daemons
from tests.chaos.callers import History
from tests.chaos.storm.audit import audit, blind
from tests.chaos.storm.plant import Plant
from tests.chaos.storm.weather import Weather
from tests.chaos.storm.work import Requests
from tests.cluster import hosts
from tests.cluster import slurm as trial
from tests.postgres import Postgres
from tests.postgres import missing as no_database

SETTLE_S = 420.0  # from the last disturbance to the end of the last run


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own, where we may mount one."""
    path.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "beamway", str(path)]
    mounted = os.geteuid() == 0 and subprocess.run(words, check=False).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(path)], check=False)


def missing() -> str:
    """Why there can be no storm here; empty when there can."""
    return daemons.missing() or no_database() or hosts.missing()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Runs flow while everything dies, hangs and comes back.")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="Leave everything on the disk.")
    options = parser.parse_args(arguments)
    if reason := missing():
        print(f"There is no storm: {reason}")
        return 2
    place, begun = Path(tempfile.mkdtemp(prefix="bw-storm-")), time.monotonic()
    place.chmod(0o755)

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True)

    print(f"seed {options.seed}, {options.runs} runs in {options.minutes:g} min, in {place}", flush=True)
    with (
        small_disk(place / "runs", 256),
        hosts.joined("bw-database", place) as (host, address),
        Postgres(durable=True, address=address, inside=host.inside) as database,
        trial.running() as cluster,
    ):
        plant = Plant(place, database, host, cluster)
        try:
            plant.start()
            history = History(lambda: plant.client("viewer"), pause_s=0.25)
            requests = Requests(plant, history, options.runs, options.minutes * 60, options.seed)
            weather = Weather(plant, options.seed, say)
            for each in (requests, history, weather):
                each.start()
            requests.join()
            weather.stop.set()
            weather.join(60.0)
            say(f"the storm is over: {len(requests.acknowledged)} requests were acknowledged")
            left = settle(plant, requests.acknowledged)
            with Database(plant.url) as store:
                wrong = history.stop(store)
        finally:
            plant.close()
        time.sleep(3.0)
        wrong += [f"{i} was not over after {SETTLE_S:g} s" for i in left]
        wrong += requests.refused
        wrong += audit(plant, requests.asked, requests.acknowledged)
        wrong += [] if wrong else blind(plant, requests.asked, requests.acknowledged)
    for name, count in sorted(weather.count.items()):
        print(f"  {count:3} x {name}")
    for trouble in weather.failed:
        print(f"  not done: {trouble}")
    print(f"{len(history.ops)} operations noted by clients")
    for sentence in wrong[:100]:
        print(f"WRONG {sentence}")
    print(f"{len(requests.acknowledged)} runs, {sum(weather.count.values())} disturbances, {len(wrong)} wrong")
    if not options.keep and not wrong:
        shutil.rmtree(place, ignore_errors=True)
    return 1 if wrong else 0


def settle(plant: Plant, ids: list[str]) -> list[str]:
    """Wait for the end of all runs; those that are not over in time."""
    over = time.monotonic() + SETTLE_S
    with plant.client() as client:
        left = set(ids)
        while left and time.monotonic() < over:
            with contextlib.suppress(Exception):
                left -= client.ended(left)
            time.sleep(0.5)
        for run_id in sorted(left)[:5]:
            with contextlib.suppress(Exception):
                print(run_id, client.why(run_id).sentence, flush=True)
    return sorted(left)


if __name__ == "__main__":
    sys.exit(main())
