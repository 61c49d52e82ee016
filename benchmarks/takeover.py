"""How long nothing goes on when the engine is killed under load, and whether anything is carried out twice.

Two services on one PostgreSQL, an agent, and a stream of runs of two short commands, each of which leaves a mark. Again
and again the service that has the engine is killed with SIGKILL, and started again once the other one has it. Measured
is the time from the kill until the other one is ready, and until the next command of any run begins. In the end every
run has to be done, and every command to have been carried out as often as attempts of it are recorded.

    python benchmarks/takeover.py [--kills 10] [--rate 10]

The limit is the lease of the engine (8 s): until it is over, the one that was killed might only be slow.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from orchestrator.client import Client  # noqa: E402 - the tests' parts lie beside the benchmarks
from orchestrator.definition import loader  # noqa: E402
from orchestrator.errors import BeamwayError  # noqa: E402
from orchestrator.settings import Secret, Settings  # noqa: E402
from tests.http.conftest import Running  # noqa: E402
from tests.postgres import Postgres  # noqa: E402

BAR_S = 15.0
MOST_S = 60.0


class Stream(threading.Thread):
    """Asks for runs at a rate until it is told to stop, whoever has the engine."""

    def __init__(self, settings: Settings, marks: Path, rate: float) -> None:
        super().__init__(daemon=True)
        self._settings, self._marks, self._rate = settings, marks, rate
        self.stop = threading.Event()
        self.ids: list[str] = []

    def run(self) -> None:
        with Client(self._settings) as client:
            while not self.stop.wait(1.0 / self._rate):
                name = len(self.ids)
                stages = {s: {"command": f"echo x >>{self._marks}/{name}.{s}; sleep 0.2"} for s in ("0", "1")}
                definition = loader.load({"name": "takeover", "owner": "benchmark", "stages": stages})
                try:
                    self.ids.append(client.submit(client.plan(definition, {}, directory="/tmp")))
                except BeamwayError as error:
                    print(f"a request was refused: {error.sentence}", flush=True)


def until(there: object, what: str) -> float:
    begun = time.monotonic()
    while not there():  # type: ignore[operator]
        if time.monotonic() - begun > MOST_S:
            raise SystemExit(f"waited {MOST_S:g} s for {what}")
        time.sleep(0.02)
    return time.monotonic()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rate", type=float, default=10.0, help="Runs a second.")
    options = parser.parse_args()
    ready_s: list[float] = []
    work_s: list[float] = []
    with tempfile.TemporaryDirectory(prefix="beamway-bench-") as scratch, Postgres(durable=True) as database:
        place = Path(scratch)
        (marks := place / "marks").mkdir()
        url, runs = database.new_database(), str(place / "runs")
        first = Running(place / "a", database=url, runs=runs)
        second = Running(place / "b", database=url, runs=runs, beside=first)
        urls = f"{first.url},{second.url}"
        settings = Settings(home=place / "client", url=urls, token=Secret(first.tokens["operator"]))
        stream = Stream(settings, marks, options.rate)
        try:
            processes = {first: first.start(), second: second.start(path="/health/live")}
            first.agent(place / "one", urls=urls)
            stream.start()
            leading, other = first, second
            for number in range(options.kills):
                begun = len(os.listdir(marks))
                until(lambda n=begun: len(os.listdir(marks)) >= n + 20, "runs to flow")
                os.killpg(processes[leading].pid, signal.SIGKILL)
                at, seen = time.monotonic(), None
                ready_s.append(until(other.ready, "the other service") - at)
                seen = len(os.listdir(marks))
                work_s.append(until(lambda n=seen: len(os.listdir(marks)) > n, "work to go on") - at)
                print(f"kill {number + 1}: ready after {ready_s[-1]:.1f} s, work after {work_s[-1]:.1f} s", flush=True)
                processes[leading].wait()
                processes[leading] = leading.start(path="/health/live")
                leading, other = other, leading
            stream.stop.set()
            stream.join()
            with Client(settings) as client:
                until(lambda: client.ended(stream.ids) == set(stream.ids), "all runs to end")
                wrong = judged(client, stream.ids, marks)
        finally:
            stream.stop.set()
            first.stop()
            second.stop()
    print(f"{len(stream.ids)} runs; {len(wrong)} of them wrong {wrong[:5]}")
    for name, found in (("engine_takeover_s", ready_s), ("work_after_kill_s", work_s)):
        print(f"{name}: median {statistics.median(found):.1f} s of {len(found)}")
        print(f"RESULT name={name}_max ours={max(found):.1f} rival=- ratio=- bar={BAR_S:g}")
    return 1 if wrong else 0


def judged(client: Client, ids: list[str], marks: Path) -> list[str]:
    times = Counter({path.name: len(path.read_text().splitlines()) for path in marks.iterdir()})
    wrong = []
    for number, run_id in enumerate(ids):
        run = client.run(run_id)
        tasks = [(times[f"{number}.{t.stage}"], t.attempt) for t in run.tasks.values()]
        if run.status != "done" or len(tasks) != 2 or any(not 1 <= done <= attempt for done, attempt in tasks):
            wrong.append(f"{run_id}: {run.status} {tasks} {run.error}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
