"""A day of runs through one service and one agent: memory, open files and threads of each process from the warm-up on.

A fresh home, its service and its agent as `beamway up` starts them. The runs come as fast as they go, a bounded number
of them in flight: calls, chains, commands with captures, commands that fail once and are tried again, commands that
fail for good (some asked for again), three tasks on three files, commands that are cancelled before or while they run.
At the end the store has to say of each what it should.

    python benchmarks/day.py [--runs 100000] [--csv PATH] [--http]

In the results `ours` is the median of the last tenth of the runs and `rival` that of the second, when all is warm. The
physical limit is a ratio of 1: nothing of a run that is over has to stay in memory.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
import psutil
from orchestration import beamway
from over_http import over_http

BAR = 1.1
BATCH, IN_FLIGHT = 100, 400
LOOKS, SAY_S, POLL_S = 200, 30.0, 0.1
PARTS = 4  # service, agent, interchange, workers
FORK_S = 0.5  # a younger process may be one of the agent's that is about to become a command
STUCK_S = 180.0  # without the end of any run
MB = 1e6

CALL = {"function": "builtins:dict", "arguments": {"n": "$number"}}
FLAKY = "rm $mark 2>/dev/null || { touch $mark; exit 75; }"
# kind: (its share of twenty, its end, its stages)
KINDS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "call": (9, "done", {"01-call": CALL}),
    "chain": (4, "done", {"01-first": CALL, "02-second": CALL}),
    "command": (
        2,
        "done",
        {"01-say": {"command": "echo n=$number", "outputVariableRegexList": ["n=(?P<seen>[0-9]+)"]}},
    ),
    "flaky": (1, "done", {"01-try": {"command": FLAKY, "retries": {"transient": {"most": 2, "delay": "0.5 s"}}}}),
    "broken": (1, "failed", {"01-fail": {"command": "echo $number is wrong >&2; exit 3"}}),
    "files": (2, "done", {"01-each": {"function": "builtins:dict", "arguments": {"path": "$filePath"}}}),
    "cancelled": (1, "aborted", {"01-wait": {"command": "exec sleep 600"}}),
}
TURN = [kind for kind, (share, _, _) in KINDS.items() for _ in range(share)]


# ------------------------------------------------------------------------------------------------ what is watched


class Seen(NamedTuple):
    """One part of the product at one moment."""

    at_s: float
    runs: int  # that are over
    part: str
    processes: int
    rss_mb: float
    uss_mb: float  # of it what is nobody else's
    files: int
    threads: int
    cpu_s: float  # since they began


class Watch:
    """The processes of this home, found by their environment."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._parts: dict[str, list[psutil.Process]] = {}
        self.seen: list[Seen] = []
        self.losses = 0

    def look(self, at_s: float, runs: int) -> None:
        try:
            if len(self._parts) < PARTS:
                self._find()
            for part, some in self._parts.items():
                memory = [p.memory_full_info() for p in some]
                rss, uss = sum(m.rss for m in memory) / MB, sum(m.uss for m in memory) / MB
                files, threads = sum(p.num_fds() for p in some), sum(p.num_threads() for p in some)
                cpu_s = sum(t.user + t.system for t in (p.cpu_times() for p in some))
                self.seen.append(Seen(at_s, runs, part, len(some), rss, uss, files, threads, cpu_s))
        except psutil.Error:  # one has ended, perhaps before another took its place
            self._parts = {}
            self.losses += 1

    def _find(self) -> None:
        from orchestrator.agent.processes import with_environment

        self._parts = {}
        born = time.time() - FORK_S
        ours = [p for p in with_environment("BEAMWAY_HOME", str(self._home)) if p.create_time() < born]
        for process in ours:
            self._parts.setdefault(_part(process), []).append(process)
            # Its title lies where its environment was.
            for child in process.children():
                if child not in ours and "interchange" in _words(child):
                    self._parts.setdefault("interchange", []).append(child)

    def of(self, part: str, begin: float, end: float) -> list[Seen]:
        """What was seen of it between these fractions of all runs."""
        last = self.seen[-1].runs
        return [s for s in self.seen if s.part == part and begin * last <= s.runs <= end * last]

    @property
    def parts(self) -> list[str]:
        return list(dict.fromkeys(s.part for s in self.seen))


def _words(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


def _part(process: psutil.Process) -> str:
    words = _words(process)
    if "interchange" in words:
        return "interchange"
    if "orchestrator.service" in words or "orchestrator.cli service" in words:
        return "service"
    return "agent" if "orchestrator.agent" in words else "workers"


# ------------------------------------------------------------------------------------------------------- the runs


def wanted(runs: int, marks: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(kind, arguments) of each run."""
    files = [marks / f"{letter}.h5" for letter in "abc"]
    for path in files:
        path.touch()
    more = {"files": {"filePathList": ",".join(map(str, files))}}
    for number in range(runs):
        kind = TURN[number % len(TURN)]
        more["flaky"] = {"mark": f"{marks}/{number}"}
        yield kind, {"number": str(number), "experimentName": f"experiment-{number // 500}", **more.get(kind, {})}


class Day:
    """The runs in flight, and how many are over."""

    def __init__(self, client: Any, runs: int, marks: Path) -> None:
        from orchestrator.definition import loader

        self._client, self._source = client, wanted(runs, marks)
        self._definitions = {
            kind: loader.load({"name": kind, "owner": "benchmark", "stages": stages})
            for kind, (_, _, stages) in KINDS.items()
        }
        self.going: dict[str, str] = {}  # id -> kind
        self.over = 0
        self._to_cancel: list[str] = []  # once they run
        self._broken = 0
        self._asked_again: set[str] = set()

    def begin(self) -> bool:
        """A batch, unless too many are in flight."""
        if IN_FLIGHT - len(self.going) < BATCH:
            return False
        batch: dict[str, list[dict[str, str]]] = {}
        for kind, arguments in itertools.islice(self._source, BATCH):
            batch.setdefault(kind, []).append(arguments)
        for kind, many in batch.items():
            ids = self._client.start_all(self._definitions[kind], many)
            self.going.update(dict.fromkeys(ids, kind))
            if kind == "cancelled":
                self._to_cancel += ids[::2]
                for run_id in ids[1::2]:
                    self._client.cancel(run_id)
        return bool(batch)

    def tend(self) -> None:
        """Cancel what is to be cancelled while it runs, ask again for some that failed, count what is over."""
        for run_id in list(self._to_cancel):
            if any(t.status == "running" for t in self._client.run(run_id).tasks.values()):
                self._client.cancel(run_id)
                self._to_cancel.remove(run_id)
        for run_id in self._client.ended(self.going):
            if self.going[run_id] == "broken" and run_id not in self._asked_again:
                self._broken += 1
                if self._broken % 3 == 0:
                    self._client.retry(run_id)
                    self._asked_again.add(run_id)
                    continue
            del self.going[run_id]
            self.over += 1


def through(day: Day, runs: int, watch: Watch) -> list[tuple[float, int]]:
    """(seconds, runs over) as it went."""
    course = [(0.0, 0)]
    begun = time.monotonic()
    said_at = ended_at = 0.0
    while day.over < runs:
        more = day.begin()
        day.tend()
        now = time.monotonic() - begun
        if day.over > course[-1][1]:
            ended_at = now
        elif now - ended_at > STUCK_S:
            raise SystemExit(f"{len(day.going)} runs do not end: {', '.join(list(day.going)[:3])}, …")
        course.append((now, day.over))
        if day.over * LOOKS // runs > course[-2][1] * LOOKS // runs:
            watch.look(now, day.over)
        if now - said_at >= SAY_S and watch.seen:
            said_at = now
            newest = [s for s in watch.seen[-len(watch.parts) :] if s.at_s == watch.seen[-1].at_s]
            print(f"{now:5.0f} s {day.over:7} runs  " + "  ".join(map(_line, newest)), flush=True)
        if not more:
            time.sleep(POLL_S)
    return course


def _line(seen: Seen) -> str:
    return f"{seen.part} {seen.rss_mb:.1f} MB {seen.files} files {seen.threads} threads"


# --------------------------------------------------------------------------------------------------- what is said


def rates(course: list[tuple[float, int]]) -> list[float]:
    """Runs a second in each tenth of the runs."""
    part = course[-1][1] / 10
    return [part / (_when(course, part * n) - _when(course, part * (n - 1))) for n in range(1, 11)]


def _when(course: list[tuple[float, int]], runs: float) -> float:
    """The second at which so many were over, in a straight line between two looks."""
    after = next(place for place, (_, over) in enumerate(course) if over >= runs and over)
    (begin, before), (end, over) = course[after - 1], course[after]
    return begin + (end - begin) * (runs - before) / (over - before)


def report(watch: Watch, course: list[tuple[float, int]]) -> None:
    tenths = rates(course)
    print(f"runs/s in each tenth: {' '.join(f'{rate:.0f}' for rate in tenths)}")
    print(f"times that a process was gone and looked for again: {watch.losses}")
    results = []
    for part in watch.parts:
        tenth = [statistics.median(s.rss_mb for s in watch.of(part, n / 10, (n + 1) / 10)) for n in range(10)]
        seen = watch.of(part, 0.1, 1.0)  # all but the warm-up
        slope, _ = statistics.linear_regression([s.runs for s in seen], [s.rss_mb for s in seen])
        files, threads = ([getattr(s, name) for s in seen] for name in ("files", "threads"))
        print(f"{part}: MB in each tenth: {' '.join(f'{mb:.1f}' for mb in tenth)}; {slope * 1e5:+.2f} per 100,000 runs")
        cpu_ms = [_cpu_ms(watch.of(part, n / 10, (n + 1) / 10)) for n in (1, 9)]
        print(
            f"  {seen[-1].processes} processes; open files {_range(files)}; threads {_range(threads)}; "
            f"processor {cpu_ms[0]:.2f} ms a run in the second tenth, {cpu_ms[1]:.2f} in the last"
        )
        ratio = tenth[-1] / tenth[1]
        results.append((f"day_{part}_memory_mb", f"{tenth[-1]:.1f}", f"{tenth[1]:.1f}", ratio, f"{BAR}"))
    results.append(("day_runs_per_s", f"{tenths[-1]:.0f}", f"{tenths[0]:.0f}", tenths[-1] / tenths[0], "-"))
    for name, ours, rival, ratio, bar in results:
        print(f"RESULT name={name} ours={ours} rival={rival} ratio={ratio:.2f} bar={bar}", flush=True)


def _cpu_ms(seen: list[Seen]) -> float:
    """Processor time a run, which other work on the machine changes less than the rate."""
    return (seen[-1].cpu_s - seen[0].cpu_s) / (seen[-1].runs - seen[0].runs) * 1e3


def _range(seen: list[int]) -> str:
    return f"{min(seen)} to {max(seen)}, {seen[-1]} at the end"


def sizes(home: Path, runs: int) -> None:
    """What the home takes on the disk, by its first level."""
    found: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for directory, _, names in os.walk(home):
        for name in [*names, "."]:
            path = Path(directory, name)
            part = path.relative_to(home).parts[0] if path != home else "."
            found[part] += path.lstat().st_blocks * 512
            count[part] += 1
    for part, size in found.most_common():
        print(f"  {part}: {size / MB:.1f} MB in {count[part]} files and folders, {size / runs:.0f} bytes a run")
    print(f"home: {sum(found.values()) / MB:.1f} MB, {sum(found.values()) / runs:.0f} bytes a run")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--csv", type=Path, help="write what was seen there")
    parser.add_argument("--http", action="store_true", help="a service and an agent that speak HTTP")
    options = parser.parse_args()
    if options.runs < 20 * BATCH:
        parser.error(f"--runs: less than {20 * BATCH} say nothing")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory(prefix="beamway-bench-") as scratch:
        home, marks = Path(scratch) / "home", Path(scratch) / "marks"
        marks.mkdir()
        watch = Watch(home)
        with (over_http if options.http else beamway)(home) as client:
            before = Counter(client.counts())
            try:
                course = through(Day(client, options.runs, marks), options.runs, watch)
            finally:
                if options.csv:
                    with options.csv.open("w", newline="") as file:
                        csv.writer(file).writerows([Seen._fields, *watch.seen])
            expected = Counter(KINDS[TURN[n % len(TURN)]][1] for n in range(options.runs))
            found = {k: v - before[k] for k, v in client.counts().items() if v - before[k]}
            print(f"{options.runs} runs in {course[-1][0]:.0f} s: {found}")
            assert found == expected, f"it should be {expected}"
            sizes(home, options.runs)
        report(watch, course)
    return 0


if __name__ == "__main__":
    sys.exit(main())
