"""A detector writes whole, broken, copied and replaced scans while its watcher is killed again and again."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import xxhash

from orchestrator.arrival.scan import Root
from orchestrator.store import arrivals as store
from orchestrator.store import watches
from orchestrator.store.arrivals import ArrivalState
from orchestrator.store.database import Database
from orchestrator.store.watches import Watch
from tests.unit.arrival.test_contents import dxchange

KILLS, SCANS = 6, 60
WATCHER = """
import os, sys, threading
from orchestrator.arrival.watch import Watcher
from orchestrator.store.database import Database

url, log = sys.argv[1:3]
handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

class Runs:
    def begin(self, arrival):
        os.write(handle, f"{arrival.run_key}\\n".encode())
        return arrival.run_key[:32]

    def begun(self, run_key):
        return run_key[:32] if run_key in open(log).read() else ""

with Database(url) as database, Watcher(database, Runs()) as watcher:
    watcher.resume()
    print("watching", flush=True)
    watcher.run(threading.Event())
"""
RULES = """
directory = "{directory}"
experiment = "e"
workflow = "tomo"
ready = {{ layout = "dxchange", settle_s = 0.1, patience_s = 3 }}
"""


def write(tree: Path, number: int, by_chance: random.Random) -> None:
    """One scan, or something that happens to one."""
    path = tree / f"day{number % 3}" / f"s{number % 7}" / f"scan_{number:03}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    old = sorted(tree.rglob("*.h5"))
    kind = by_chance.choice(["whole", "whole", "whole", "broken", "copied", "replaced", "renamed"]) if old else "whole"
    if kind in ("whole", "broken"):
        dxchange(path, number + 2 - (kind == "broken"), number + 2)
    elif kind == "copied":
        shutil.copyfile(by_chance.choice(old), path)
    elif kind == "renamed":
        by_chance.choice(old).rename(path)
    else:
        dxchange(path.with_suffix(".tmp"), number + 2, number + 2)
        path.with_suffix(".tmp").rename(by_chance.choice(old))


def test_killed_at_random_it_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    by_chance = random.Random()
    tree, log, url = tmp_path / "tree", tmp_path / "log", f"sqlite:///{tmp_path}/x.db"
    tree.mkdir()
    with Database(url) as database:
        database.upgrade()
        rules = RULES.format(directory=tree)
        watches.put(database, Watch("w", "e", str(tree), rules))
        number = 0
        for turn in range(KILLS + 1):
            argv = [sys.executable, "-c", WATCHER, url, str(log)]
            with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"watching\n"
                kill_at = time.monotonic() + by_chance.uniform(0.05, 1.0)
                while number < SCANS * (turn + 1) // (KILLS + 1):
                    write(tree, number, by_chance)
                    number += 1
                if turn == KILLS:
                    wait(database, tree)
                time.sleep(max(0.0, kill_at - time.monotonic()))
                process.kill()
        audit(database, tree, log)


def places(tree: Path) -> set[bytes]:
    with Root(str(tree)) as root:
        return {store.digest_of(f.name, f.fingerprint) for batch in root.scan() for f in batch.files}


def wait(database: Database, tree: Path) -> None:
    end = time.monotonic() + 40.0
    while time.monotonic() < end:
        ended = {a.place for a in store.ls(database, watch="w") if a.state is not ArrivalState.DUE}
        if places(tree) <= ended and not store.counts(database)[ArrivalState.DUE]:
            return
        time.sleep(0.2)


def audit(database: Database, tree: Path, log: Path) -> None:
    found = store.ls(database, watch="w", limit=10_000)
    ran = [a for a in found if a.state is ArrivalState.RUN]
    by_place = {a.place: a for a in found}
    with Root(str(tree)) as root:
        there = [f for batch in root.scan() for f in batch.files]
    for file in there:
        arrival = by_place[store.digest_of(file.name, file.fingerprint)]
        content = xxhash.xxh3_128_hexdigest((tree / os.fsdecode(file.name)).read_bytes())
        if arrival.state is ArrivalState.INCOMPLETE:
            assert "projections for" in arrival.reason or "is empty" in arrival.reason, arrival
        else:
            assert [a.checksum for a in ran].count(f"xxh3:{content}") == 1, arrival
    assert not [a for a in found if a.state is not ArrivalState.RUN and not a.reason]
    assert set(log.read_text().split()) == {a.run_key for a in ran}
    assert len({a.checksum for a in ran}) == len(ran)
