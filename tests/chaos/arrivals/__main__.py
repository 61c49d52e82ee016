"""See the package."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from orchestrator.model import RUN_ENDED
from tests.chaos.arrivals import work
from tests.chaos.arrivals.audit import audit, look, lost
from tests.chaos.arrivals.detector import Detector
from tests.chaos.arrivals.faults import blind
from tests.chaos.arrivals.plant import WATCH, Killer, Plant
from tests.chaos.arrivals.truth import Truth

SETTLE_S = 60.0  # without any change, while something is not as it has to be


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Scans arrive while all that takes them up is killed at random.")
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="Leave everything on the disk.")
    options = parser.parse_args(arguments)
    place, begun = Path(tempfile.mkdtemp(prefix="bw-scans-")), time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True)

    print(f"seed {options.seed}, {options.scans} scans in {options.minutes:g} min, in {place}", flush=True)
    plant = Plant(place)
    seconds = 60 * options.minutes
    detector = Detector(plant.tree, plant.beside, scans=options.scans, seconds=seconds, seed=options.seed)
    killer = Killer(plant, options.seed, say)
    work.warm(place)
    try:
        plant.start()
        detector.start()
        killer.start()
        truth = detector.join()
        say("all is written")
        killer.stop.set()
        killer.join()
        settle(plant, truth)
        say("nothing happens any more")
    finally:
        plant.close()
    left = look(place, plant.url, WATCH)
    wrong = audit(left, truth)
    wrong += [] if wrong else blind(plant, truth)
    for kind, count in sorted(truth.kinds.items()):
        print(f"  {count:4} x {kind.replace('_', ' ')}")
    states = Counter(a.state.value for a in left.arrivals)
    print(f"arrivals: {', '.join(f'{count} {state}' for state, count in sorted(states.items()))}")
    print(f"killed: {', '.join(f'{who} {count} times' for who, count in sorted(killer.count.items()))}")
    print(f"{lost(left, truth)} runs did not find their file as it had arrived, and say so")
    for sentence in wrong[:100]:
        print(f"WRONG {sentence}")
    print(
        f"{len(truth.whole)} whole scans, {len(left.runs)} runs, {len(wrong)} wrong, {time.monotonic() - begun:.0f} s"
    )
    if not options.keep and not wrong:
        shutil.rmtree(place, ignore_errors=True)
    return 1 if wrong else 0


def settle(plant: Plant, truth: Truth) -> None:
    """Until all is as it has to be, or nothing changes any more."""
    before, since = -1, time.monotonic()
    while time.monotonic() < since + SETTLE_S:
        left = look(plant.place, plant.url, WATCH)
        if not audit(left, truth, volumes=False):
            return
        now = len(left.arrivals) + sum(run.status in RUN_ENDED for run in left.runs.values())
        if now != before:
            before, since = now, time.monotonic()
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
