"""A store with millions of runs, on SQLite and PostgreSQL: each search, and the start with many runs in flight.

The store is filled in bulk with two years of a beamline's runs: thousands of experiments, a raw file a run with a name
of its own, most of them done. Stages and tasks are there of the newest 100,000. Then each search is asked for its first
50 runs with parameters drawn by chance: cold, the first after the database was started again and its files were put out
of the page cache, with how often it read from the disk; and warm. On a busy machine the time that went by waiting for a
processor is taken off in `alone`. Last the runs that are not over are taken up into `Run` objects, as an engine does.

    python benchmarks/scale.py [--runs 5000000] [--in-flight 10000] [--only sqlite|postgresql]

The physical limit of a warm search is to look up as many runs by their ids (the line `50 ids`); of a cold one a read
from the disk (printed) for each read (printed). That of the start is decoding the runs, timed without a database.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from immutables import Map

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from orchestrator import codec  # noqa: E402 - the tests' PostgreSQL lies beside the benchmarks
from orchestrator.model import Plan, Run, RunStatus, StageKind, StagePlan, StageState, StageStatus, Task  # noqa: E402
from orchestrator.store import files, runs, search  # noqa: E402
from orchestrator.store.database import Database  # noqa: E402
from orchestrator.store.search import Wanted  # noqa: E402
from tests.postgres import Postgres, missing  # noqa: E402

BAR_SEARCH_MS, BAR_START_S = 100.0, 5.0
DAYS, NEWEST = 730, 1_790_000_000.0
EXPERIMENT_RUNS = 1500
PERSONS = 300  # each of two experiments of ten has no people
DETAILED = 100_000  # the newest runs that have stages and tasks
COLD, WARM, PAGE = 5, 100, 50
SAMPLES = ("bone", "shale", "Cathode", "leaf", "Foam", "amber", "wire", "fibre")
PLANS = {
    f"workflow-{w:02}": Plan(
        f"workflow-{w:02}",
        "beamline",
        tuple(
            StagePlan(stage, StageKind.COMMAND, command="process --input $filePath", per_file=True)
            for stage in ("01-check", "02-process", "03-publish")
        ),
    )
    for w in range(40)
}
WORKFLOWS = list(PLANS)
COLUMNS = {
    "runs": "id workflow experiment owner status stage error parent created_at started_at ended_at plan request doc "
    "username open",
    "run_files": "part word created_at run_id",
    "experiment_people": "experiment person role",
}


# -------------------------------------------------------------------------------------------------------- what there is


class Made:
    """The runs by number, the newest last; the same each time."""

    def __init__(self, count: int, in_flight: int) -> None:
        self.count, self.in_flight = count, in_flight
        self._digests = {name: hashlib.sha256(codec.dumps(plan).encode()).hexdigest() for name, plan in PLANS.items()}
        request = runs.Request(
            {"filePath": "@F", "experimentName": "@E"}, ("filePath",), PLANS[WORKFLOWS[0]].files, "", ("@F",), "me", "h"
        )
        self._request = codec.dumps(request)
        self._doc = codec.dumps(runs.Learned({"filePath": "@F", "experimentName": "@E"}, 3))

    def at(self, i: int) -> float:
        return NEWEST - (self.count - i) * DAYS * 86_400.0 / self.count

    def id(self, i: int) -> str:
        bits = f"{_mixed(i):016x}{_mixed(~i):016x}"
        return f"{bits[:8]}-{bits[8:12]}-{bits[12:16]}-{bits[16:20]}-{bits[20:]}"

    def experiment(self, i: int) -> str:
        return f"2026-{i // EXPERIMENT_RUNS % 3 + 1}/group-{i // EXPERIMENT_RUNS:05}" if i % 10 else ""

    def person(self, i: int) -> str:
        return f"person-{i // EXPERIMENT_RUNS % PERSONS}"

    def closed(self, i: int) -> bool:
        """Its experiment has people."""
        return bool(self.experiment(i)) and i // EXPERIMENT_RUNS % 10 < 8

    def people(self) -> list[tuple[str, str, str]]:
        first = range(1, self.count, EXPERIMENT_RUNS)
        return [(self.experiment(i), self.person(i), "member") for i in first if self.closed(i)]

    def workflow(self, i: int) -> str:
        return WORKFLOWS[int(40 * (_mixed(i + 7) / 2**64) ** 3)]  # few do most of the work

    def file(self, i: int) -> str:
        return f"/data/{self.experiment(i) or 'commissioning'}/raw/{SAMPLES[i // 100 % 8]}_scan_{i:08}.h5"

    def status(self, i: int) -> RunStatus:
        if i >= self.count - self.in_flight:
            return RunStatus.RUNNING
        drawn = _mixed(i + 13) / 2**64
        return RunStatus.ABORTED if drawn < 0.001 else RunStatus.FAILED if drawn < 0.021 else RunStatus.DONE

    def row(self, i: int) -> tuple[Any, ...]:
        at, status, workflow, experiment = self.at(i), self.status(i), self.workflow(i), self.experiment(i)
        request, doc = (t.replace("@F", self.file(i)).replace("@E", experiment) for t in (self._request, self._doc))
        error = "Stage '02-process' failed: the command ended with exit code 1." if status is RunStatus.FAILED else ""
        ended_at = 0.0 if status is RunStatus.RUNNING else at + 60.0
        stage, digest = ("03-publish" if ended_at else "02-process"), self._digests[workflow]
        named = (self.id(i), workflow, experiment, "beamline", status.value, stage, error, "")
        return (*named, at, at + 0.1, ended_at, digest, request, doc, self.person(i), int(not self.closed(i)))

    def words(self, span: range) -> list[tuple[Any, ...]]:
        rows = (row for i in span for row in files.rows(self.id(i), self.at(i), (self.file(i),)))
        return sorted(tuple(row.values()) for row in rows)

    def run(self, i: int) -> Run:
        """One that is at its second stage, or over, with all that belongs to it."""
        over, at = self.status(i) is not RunStatus.RUNNING, self.at(i)
        stages, tasks = {}, {}
        for n, stage in enumerate(PLANS[self.workflow(i)].stages):
            status = StageStatus.DONE if over or n == 0 else StageStatus.RUNNING if n == 1 else StageStatus.PENDING
            stages[stage.name] = StageState(stage.name, status, 1, at + n, site="local", tasks=1)
            if over or n < 2:
                command = f"process --input {self.file(i)} --output {self.file(i)}.{n}"
                tasks[n] = Task(n, stage.name, self.file(i), command=command, submitted_at=at + n, site="local")
        return Run(self.id(i), PLANS[self.workflow(i)], at, stages=Map(stages), tasks=Map(tasks))


def _mixed(i: int) -> int:
    """A number of 64 bits that looks like chance (splitmix64)."""
    z = (i * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return z ^ z >> 31


def batches(count: int, size: int = 20_000) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(count, start + size))


# ------------------------------------------------------------------------------------------------------------- filling


def fill_sqlite(path: Path, made: Made) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-1500000", "locking_mode=EXCLUSIVE"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    put = {
        t: f"INSERT INTO {t} ({c.replace(' ', ',')}) VALUES ({','.join('?' * len(c.split()))})"
        for t, c in COLUMNS.items()
    }
    for span in batches(made.count):
        connection.executemany(put["runs"], map(made.row, span))
        connection.executemany(put["run_files"], made.words(span))
    connection.executemany(put["experiment_people"], made.people())
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


def fill_postgresql(cluster: Postgres, name: str, made: Made) -> None:
    with cluster.connect(name) as connection, connection.cursor() as cursor:
        for span in batches(made.count):
            people = made.people() if span.start == 0 else []
            for table, rows in zip(COLUMNS, (map(made.row, span), made.words(span), people), strict=True):
                with cursor.copy(f"COPY {table} ({COLUMNS[table].replace(' ', ',')}) FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(row)
        cursor.execute("VACUUM ANALYZE")  # as autovacuum does in time
        cursor.execute("CHECKPOINT")


def fill_details(database: Database, made: Made) -> None:
    """The plans, and the newest runs' stages and tasks, by the store's own writer."""
    writer = runs.Writer(database)
    with database.write() as connection:
        writer._put_plan(connection, [{"digest": made._digests[n], "doc": codec.dumps(p)} for n, p in PLANS.items()])
    for span in batches(min(DETAILED, made.count), 5000):
        some = [made.run(made.count - 1 - i) for i in span]
        with database.write() as connection:
            writer._put_stage(connection, [runs._stage_row(r.id, s) for r in some for s in r.stages.values()])
            writer._put_task(connection, [runs._task_row(r.id, t) for r in some for t in r.tasks.values()])


# ------------------------------------------------------------------------------------------------------------ searches


def searches(made: Made) -> dict[str, Callable[[random.Random], Wanted]]:
    """Each search by its name, with parameters drawn by chance."""

    def any_run(draw: random.Random) -> int:
        return draw.randrange(made.count)

    def place(draw: random.Random) -> tuple[float, str]:
        i = any_run(draw)
        return made.at(i), made.id(i)

    def status(draw: random.Random) -> str:
        return draw.choice(["failed", "aborted", "running", "done", "pending"])

    def workflow(draw: random.Random) -> str:
        return draw.choice(WORKFLOWS)

    def experiment(draw: random.Random) -> str:
        return made.experiment(any_run(draw))

    def file(draw: random.Random) -> str:
        return made.file(any_run(draw))

    def folder(draw: random.Random) -> str:
        return file(draw).rpartition("/")[0]

    def word(draw: random.Random) -> str:
        return draw.choice(SAMPLES)

    def day(draw: random.Random) -> dict[str, float]:
        at = made.at(any_run(draw))
        return {"since": at - 86_400, "until": at}

    def of_one(draw: random.Random) -> Wanted:
        """All there is to ask, as one run answers it."""
        i = any_run(draw)
        at = made.at(i)
        return Wanted(
            made.status(i), made.workflow(i), made.experiment(i), made.file(i).rpartition("/")[0], at - 9e4, at + 9e4
        )

    def file_of_experiment(draw: random.Random) -> Wanted:
        i = any_run(draw)
        return Wanted(experiment=made.experiment(i), file=made.file(i).rpartition("/")[draw.choice((0, 2))])

    def who(draw: random.Random) -> str:
        return draw.choice(["stranger", made.person(any_run(draw))])

    return {
        "newest": lambda draw: Wanted(),
        "seen": lambda draw: Wanted(seen_by=who(draw)),
        "seen_page": lambda draw: Wanted(seen_by=who(draw), before=place(draw)),
        "seen_status": lambda draw: Wanted(status(draw), seen_by=who(draw)),
        "seen_workflow": lambda draw: Wanted(workflow=workflow(draw), seen_by=who(draw)),
        "seen_workflow_status": lambda draw: Wanted(status(draw), workflow(draw), seen_by=who(draw)),
        "seen_experiment": lambda draw: Wanted(experiment=experiment(draw), seen_by=who(draw)),
        "seen_day": lambda draw: Wanted(seen_by=who(draw), **day(draw)),
        "seen_file": lambda draw: Wanted(file=file(draw), seen_by=who(draw)),
        "seen_folder": lambda draw: Wanted(file=folder(draw), seen_by=who(draw)),
        "seen_word": lambda draw: Wanted(file=word(draw), seen_by=who(draw)),
        "seen_word_status": lambda draw: Wanted(status(draw), file=word(draw), seen_by=who(draw)),
        "seen_file_of_none": lambda draw: Wanted(file=f"nothing{any_run(draw)}", seen_by=who(draw)),
        "page": lambda draw: Wanted(before=place(draw)),
        "status": lambda draw: Wanted(status=status(draw)),
        "status_page": lambda draw: Wanted(status=status(draw), before=place(draw)),
        "workflow": lambda draw: Wanted(workflow=workflow(draw)),
        "workflow_status": lambda draw: Wanted(workflow=workflow(draw), status=status(draw), before=place(draw)),
        "experiment": lambda draw: Wanted(experiment=experiment(draw)),
        "experiment_status": lambda draw: Wanted(experiment=experiment(draw), status=status(draw)),
        "experiment_workflow": lambda draw: Wanted(experiment=experiment(draw), workflow=workflow(draw)),
        "experiment_day": lambda draw: Wanted(experiment=experiment(draw), **day(draw)),
        "date": lambda draw: Wanted(since=made.at(any_run(draw)) - 86_400, until=made.at(any_run(draw))),
        "date_page": lambda draw: Wanted(since=made.at(0), until=made.at(made.count - 1), before=place(draw)),
        "date_status": lambda draw: Wanted(status(draw), **day(draw)),
        "file_path": lambda draw: Wanted(file=file(draw)),
        "file_name": lambda draw: Wanted(file=file(draw).rpartition("/")[2]),
        "file_number": lambda draw: Wanted(file=f"{any_run(draw):08}"),
        "file_folder": lambda draw: Wanted(file=folder(draw)),
        "file_of_many": lambda draw: Wanted(file=word(draw), before=place(draw)),
        "file_of_all": lambda draw: Wanted(file="scan", before=place(draw)),
        "file_of_none": lambda draw: Wanted(file=f"nothing{any_run(draw)}"),
        "file_rare": lambda draw: Wanted(draw.choice(["pending", "aborted"]), file="/data/commissioning"),
        "file_status": lambda draw: Wanted(status(draw), file=folder(draw)),
        "name_status": lambda draw: Wanted(status(draw), file=file(draw).rpartition("/")[2]),
        "word_status": lambda draw: Wanted(status(draw), file=word(draw)),
        "all_status": lambda draw: Wanted(status(draw), file="scan"),
        "file_workflow": lambda draw: Wanted(workflow=workflow(draw), file=folder(draw)),
        "word_workflow": lambda draw: Wanted(workflow=workflow(draw), file=word(draw)),
        "file_experiment": file_of_experiment,
        "word_experiment": lambda draw: Wanted(experiment=experiment(draw), file=word(draw)),
        "word_experiment_status": lambda draw: Wanted(status(draw), experiment=experiment(draw), file=word(draw)),
        "word_day": lambda draw: Wanted(file=word(draw), **day(draw)),
        "word_day_status": lambda draw: Wanted(status(draw), file=word(draw), **day(draw)),
        "everything": of_one,
    }


class Took(NamedTuple):
    """One search. `alone_ms`: without the time for which a processor was busy with the work of others."""

    ms: float
    alone_ms: float
    reads: int


def measure(database: Database, made: Made, restart: Callable[[], None]) -> dict[str, tuple[list[Took], list[Took]]]:
    """Search → how long it takes warm and cold; prints it."""
    found = {}
    for name, draw_wanted in searches(made).items():
        draw = random.Random(name)
        cold = []
        for _ in range(COLD):
            restart()
            cold += asked(database, [draw_wanted(draw)])
        asked(database, [draw_wanted(draw) for _ in range(10)])
        warm = asked(database, [draw_wanted(draw) for _ in range(WARM)])
        found[name] = warm, cold
        print(
            f"  {name:22} warm {spread([t.ms for t in warm])}, alone p95 {p95([t.alone_ms for t in warm]):6.1f}; "
            f"cold {spread([t.ms for t in cold])}, alone max {max(t.alone_ms for t in cold):6.1f}, "
            f"reads at most {max(t.reads for t in cold)}",
            flush=True,
        )
    draw = random.Random(1)
    drawn = [[made.id(draw.randrange(made.count)) for _ in range(PAGE)] for _ in range(WARM)]
    print("  50 ids", spread([timed(partial(search.known, database, ids)) for ids in drawn]))
    print("  find", spread([timed(partial(search.find, database, ids[0][:13])) for ids in drawn]))
    print("  counts", spread([timed(partial(search.counts, database)) for _ in range(5)]), flush=True)
    return found


def asked(database: Database, some: list[Wanted]) -> list[Took]:
    """These searches one after another, on a connection that is open."""
    processes = [os.getpid()]
    if database.postgresql:
        with database.read() as connection:
            processes.append(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
    else:
        search.known(database, ["x"])
    took = []
    for wanted in some:
        waited, read = sum(map(waited_ms, processes)), reads(processes[-1])
        ms = timed(partial(search.listing, database, wanted, limit=PAGE))
        read, waited = reads(processes[-1]) - read, sum(map(waited_ms, processes)) - waited
        took.append(Took(ms, ms - waited, read))
    return took


def spread(times: list[float]) -> str:
    return f"p50 {statistics.median(times):6.1f}  p95 {p95(times):6.1f}  max {max(times):6.1f} ms"


def waited_ms(process: int) -> float:
    """For how long it could have run so far and no processor was free (proc(5), `schedstat`)."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e6


def reads(process: int) -> int:
    """How often it has read from a file so far."""
    counted = dict(line.split(": ") for line in Path(f"/proc/{process}/io").read_text().splitlines())
    return int(counted["syscr"])


def p95(times: list[float]) -> float:
    return sorted(times)[math.ceil(0.95 * len(times)) - 1]


def timed(action: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    action()
    return (time.perf_counter() - begun) * 1e3


def forget(place: Path) -> None:
    """Put the files below out of the page cache."""
    for path in place.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def read_ms(place: Path) -> float:
    """The median time of reading a page that is not cached from a large file."""
    large = max((p for p in place.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    forget(place)
    descriptor = os.open(large, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    draw = random.Random(2)
    pages = [draw.randrange(large.stat().st_size // 8192) * 8192 for _ in range(200)]
    times = [timed(partial(os.pread, descriptor, 8192, at)) for at in pages]
    os.close(descriptor)
    return statistics.median(times)


def start_s(database: Database, made: Made) -> tuple[float, float]:
    """(taking up the runs in flight, decoding the same texts alone)"""
    begun = time.perf_counter()
    found = runs.load_unfinished(database)
    taken_s = time.perf_counter() - begun
    assert len(found) == made.in_flight, len(found)
    assert all(len(r.tasks) == 2 and len(r.stages) == 3 for r in found)
    texts = [(codec.dumps(s), StageState) for r in found for s in r.stages.values()]
    texts += [(codec.dumps(t), Task) for r in found for t in r.tasks.values()]
    begun = time.perf_counter()
    for text, kind in texts:
        codec.loads(text, kind)
    return taken_s, time.perf_counter() - begun


# --------------------------------------------------------------------------------------------------------------- both


def one(kind: str, made: Made) -> None:
    cluster = None
    with tempfile.TemporaryDirectory(prefix="beamway-scale-") as scratch:
        place = Path(scratch)
        if kind == "postgresql":
            cluster = Postgres(max_wal_size="8GB", shared_buffers="1GB", maintenance_work_mem="512MB")
            place, url = cluster.place, cluster.new_database()
        else:
            url = f"sqlite:///{place}/scale.db"
        try:
            database = Database(url)
            database.upgrade()
            database.close()
            begun = time.perf_counter()
            if cluster is None:
                fill_sqlite(place / "scale.db", made)
            else:
                fill_postgresql(cluster, "test1", made)
            fill_details(database, made)
            print(
                f"{kind}: {made.count:,} runs in {time.perf_counter() - begun:.0f} s, {size(place) / 1e9:.1f} GB; "
                f"one read from the disk {read_ms(place):.2f} ms (median)",
                flush=True,
            )

            def restart() -> None:
                database.close()
                if cluster is not None:
                    cluster.stop()
                forget(place)
                if cluster is not None:
                    cluster.start()

            restart()
            cold_s, _ = start_s(database, made)
            taken_s, decoding_s = start_s(database, made)
            print(
                f"  {made.in_flight:,} runs taken up: cold {cold_s:.2f} s, warm {taken_s:.2f} s; "
                f"decoding alone {decoding_s:.2f} s"
            )
            found = measure(database, made, restart)
        finally:
            if cluster is not None:
                cluster.remove()
    for name, (warm, cold) in found.items():
        for what, ms in (("p95_ms", p95([t.ms for t in warm])), ("cold_ms", max(t.ms for t in cold))):
            print(f"RESULT name={kind}_{name}_{what} ours={ms:.1f} rival=- ratio=- bar={BAR_SEARCH_MS:g}")
    print(f"RESULT name={kind}_start_s ours={max(cold_s, taken_s):.2f} rival=- ratio=- bar={BAR_START_S:g}", flush=True)


def size(place: Path) -> int:
    return sum(p.stat().st_size for p in place.rglob("*") if p.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5_000_000)
    parser.add_argument("--in-flight", type=int, default=10_000)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    options = parser.parse_args()
    made = Made(options.runs, options.in_flight)
    for kind in [options.only] if options.only else ["sqlite", "postgresql"]:
        if kind == "postgresql" and missing():
            print(f"postgresql: not measured: {missing()}")
            continue
        one(kind, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
