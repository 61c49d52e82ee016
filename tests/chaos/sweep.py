"""A run of its own for each kind of stage, each named crash point that it reaches, and each database.

    python -m tests.chaos.sweep [--kind KIND] [--at-once 3]

Prints a line for each, and ends with 1 when one was wrong. Half an hour on two cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos import crashes
from tests.chaos.crashes import KINDS, Case
from tests.postgres import Postgres


def crash(place: Path, database: str, kind: str, point: str) -> list[str]:
    case, begun = Case(place, database), time.monotonic()
    with case.client(point) as client:
        run = crashes.carry_out(case, client, kind)
        wrong = crashes.judge(case, client, run, kind)
    if not case.crashed():
        wrong.append("nothing was killed")
    crashes.forget(case)
    print(f"{kind:9} {point:22} {time.monotonic() - begun:5.1f} s  {'; '.join(wrong) or 'well'}", flush=True)
    return wrong


def points_of(place: Path, database: str, kind: str) -> list[str]:
    case = Case(place, database)
    with case.client() as client:
        run = crashes.carry_out(case, client, kind)
        assert crashes.judge(case, client, run, kind) == []
    return case.reached()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--at-once", type=int, default=3)
    options = parser.parse_args()
    wrong = done = 0
    with Postgres() as cluster, tempfile.TemporaryDirectory(prefix="bw-sweep-") as scratch:
        databases: dict[str, Callable[[], str]] = {"sqlite": lambda: "", "postgresql": cluster.new_database}
        for name, new in databases.items():
            print(f"on {name}", flush=True)
            for kind in options.kind or list(KINDS):
                place = Path(scratch) / name / kind
                points = points_of(place / "undisturbed", new(), kind)
                with ThreadPoolExecutor(options.at_once) as pool:
                    cases = [pool.submit(crash, place / str(n), new(), kind, p) for n, p in enumerate(points)]
                    wrong += sum(bool(case.result()) for case in cases)
                done += len(points)
    print(f"{done} runs were killed, {wrong} of them went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
