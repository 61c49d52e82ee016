"""A catalog of a million files, on SQLite and PostgreSQL: how long a search takes until its first page of 50 is there.

The store is filled in bulk with the files of a few years of a beamline, some 20 values each: such as all files have,
such as a few or one have, such as go with the time and such as do not. Each search is asked with parameters drawn by
chance: cold, the first after the database was started again and its files were put out of the page cache; and warm. A
search may end its page early, with a cursor to go on from (`catalog_search.LONGEST_S`): `pages` is how many it takes
until the page is full or the search over, `until_full` how long all of them take. `disjoint` is the worst there is: two
values that half of all files have each, and none has both.

    python benchmarks/catalog.py [--files 1000000] [--only sqlite|postgresql] [--cold 3] [--warm 50]

Beside it, the physical limit of a warm search: 50 files by their ids.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from msgspec.structs import replace

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.scale import batches, forget, p95, read_ms, reads, spread, timed, waited_ms  # noqa: E402
from orchestrator import codec  # noqa: E402
from orchestrator.store import catalog, catalog_search  # noqa: E402
from orchestrator.store.catalog import CatalogFile, FileKind, Replica, ReplicaState  # noqa: E402
from orchestrator.store.catalog_search import Match, Wanted  # noqa: E402
from orchestrator.store.database import Database  # noqa: E402
from tests.postgres import Postgres, missing  # noqa: E402

BAR_MS, PAGE = 100.0, 50
NEWEST, DAYS = 1_790_000_000.0, 1500
SAMPLES = ("bone", "shale", "Cathode", "leaf", "Foam", "amber", "wire", "fibre")
TECHNIQUES = ("tomography", "XPCS", "HEDM", "ptychography")


class Made:
    """The files by number, from 1, the newest last; the same each time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.experiments = max(10, count // 1500)

    def at(self, i: int) -> float:
        return NEWEST - DAYS * 86_400.0 * (1 - i / self.count)

    def experiment(self, i: int) -> str:
        e = i * self.experiments // (self.count + 1)
        return f"{2022 + e * 4 // self.experiments}-{1 + e % 3}-user{e:04}"

    def checksum(self, i: int) -> str:
        return f"xxh3:{i * 0x9E3779B97F4A7C15 % 2**64:016x}{i:016x}"

    def file(self, i: int) -> CatalogFile:
        chance = random.Random(i)
        experiment, at = self.experiment(i), self.at(i)
        sample = f"{SAMPLES[i // 120 % len(SAMPLES)]}_{i // 120:05}"
        kind = FileKind.CALIBRATION if i % 100 == 0 else FileKind.PRODUCT if i % 3 == 0 else FileKind.RAW
        metadata = {
            "beamline": "2-BM",  # all files
            "facility": "APS",
            "technique": TECHNIQUES[i // 3000 % 4],  # goes with the time
            "energy": round(20 + i // 120 % 40 + chance.random(), 3),  # goes with the sample
            "sample": {"name": sample, "wet": chance.random() < 0.5, "temperature": round(chance.gauss(295, 20), 2)},
            "quality": chance.choices(("good", "poor", "ruined"), (9000, 990, 10))[0],
            "parity": "even" if i % 2 == 0 else "odd",
            "odd": i % 2 == 1,
            "scan": i,  # each its own
            "start_time": codec.iso(at),
            "exposure_time": chance.choice((0.01, 0.02, 0.1, 1.0)),
            "frames": chance.choice((721, 1501, 3001)),
            "rotation": {"start": 0.0, "stop": 180.0, "step": 0.12},
            "current": round(chance.uniform(95, 102), 2),
            "operator": f"staff{i // 700 % 12}",
            "title": f"{sample} at {20 + i // 120 % 40} keV",
            "proposal": 70000 + i * self.experiments // (self.count + 1),
            "detector": {"name": f"Oryx{i // 9000 % 3}", "binning": chance.choice((1, 2))},
        }
        if i < self.count // 50:
            metadata["commissioning"] = True  # the oldest only
        name = f"/data/{experiment}/{sample}/{sample}_scan_{i:08}.h5"
        checksum = self.checksum(i)
        return CatalogFile(experiment, name, 10_000_000 + i % 997, checksum, kind, at, metadata=metadata, id=i)

    def replicas(self, i: int) -> Iterator[Replica]:
        state = ReplicaState.CORRUPTED if i % 9973 == 0 else ReplicaState.VERIFIED
        yield Replica(i, "beamline", f"/data/{i}", ReplicaState.PRUNED if i < self.count // 2 else state)
        yield Replica(i, "tape", f"gsiftp://tape/{i}", ReplicaState.VERIFIED if i % 5 else ReplicaState.UNVERIFIED)

    def rows(self, span: range) -> dict[str, list[dict[str, Any]]]:
        """Of each table, by the store's own functions."""
        made: dict[str, list[dict[str, Any]]] = {
            t: [] for t in ("catalog_files", "catalog_values", "catalog_words", "replicas")
        }
        for i in span:
            file = self.file(i)
            values, words = catalog.found_by(i, file)
            made["catalog_files"].append(catalog._row(file) | {"id": i})
            made["catalog_values"] += values
            made["catalog_words"] += words
            made["replicas"] += [catalog._replica_row(replica) for replica in self.replicas(i)]
        return made


def spans(made: Made) -> Iterator[range]:
    return (range(span.start + 1, span.stop + 1) for span in batches(made.count, 5000))


def fill_sqlite(path: Path, made: Made) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-1500000", "locking_mode=EXCLUSIVE"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    for span in spans(made):
        for table, rows in made.rows(span).items():
            names = list(rows[0])
            words = f"INSERT INTO {table} ({','.join(names)}) VALUES ({','.join('?' * len(names))})"
            connection.executemany(words, (tuple(row.values()) for row in rows))
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


def fill_postgresql(cluster: Postgres, name: str, made: Made) -> None:
    with cluster.connect(name) as connection, connection.cursor() as cursor:
        for span in spans(made):
            for table, rows in made.rows(span).items():
                with cursor.copy(f"COPY {table} ({','.join(rows[0])}) FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(tuple(row.values()))
        cursor.execute("VACUUM ANALYZE")  # as autovacuum does in time
        cursor.execute("CHECKPOINT")


# ------------------------------------------------------------------------------------------------------------ searches


def searches(made: Made) -> dict[str, Callable[[random.Random], Wanted]]:
    """Each search by its name, with parameters drawn by chance."""

    def some(draw: random.Random) -> CatalogFile:
        return made.file(draw.randrange(1, made.count + 1))

    def near(key: str, value: float, width: float) -> Match:
        return Match(key, low=value, high=value + width)

    everywhere = Match("beamline", "2-BM")
    ruined = Match("quality", "ruined")

    def day(draw: random.Random) -> dict[str, float]:
        at = some(draw).added_at
        return {"since": at - 86_400, "until": at}

    def of_one(draw: random.Random) -> Wanted:
        file = some(draw)
        meta = file.metadata
        matches = (near("energy", meta["energy"], 0.5), Match("quality", meta["quality"]), everywhere)
        return Wanted((file.experiment,), file.kind.value, "scan", (meta["sample"]["name"],), matches)

    return {
        "newest": lambda draw: Wanted(),
        "page": lambda draw: Wanted(before=some(draw).id),
        "experiment": lambda draw: Wanted((some(draw).experiment,)),
        "experiments_100": lambda draw: Wanted(tuple(some(draw).experiment for _ in range(100))),
        "experiment_kind": lambda draw: Wanted((some(draw).experiment,), "calibration"),
        "kind": lambda draw: Wanted(kind=some(draw).kind.value, before=some(draw).id),
        "checksum": lambda draw: Wanted(checksum=some(draw).checksum),
        "path": lambda draw: Wanted(name=some(draw).name),
        "name_number": lambda draw: Wanted(name=f"{some(draw).id:08}"),
        "name_of_all": lambda draw: Wanted(name="scan", before=some(draw).id),
        "name_of_none": lambda draw: Wanted(name=f"nothing{some(draw).id}"),
        "text_sample": lambda draw: Wanted(texts=(some(draw).metadata["sample"]["name"],)),
        "text_common": lambda draw: Wanted(texts=(draw.choice(SAMPLES).lower(), "scan")),
        "value_of_all": lambda draw: Wanted(matches=(everywhere,)),
        "value_of_one": lambda draw: Wanted(matches=(near("scan", some(draw).id, 0.0),)),
        "value_rare": lambda draw: Wanted(matches=(ruined,)),
        "rare_and_all": lambda draw: Wanted(matches=(ruined, everywhere)),
        "one_and_all": lambda draw: Wanted(matches=(near("scan", some(draw).id, 0.0), everywhere), name="scan"),
        "oldest_and_all": lambda draw: Wanted(matches=(Match("commissioning", "true"), everywhere)),
        "oldest_and_half": lambda draw: Wanted(matches=(Match("commissioning", "true"), Match("sample/wet", "true"))),
        "half_and_half": lambda draw: Wanted(matches=(Match("sample/wet", "true"), Match("parity", "even"))),
        "disjoint": lambda draw: Wanted(matches=(Match("odd", "true"), Match("parity", "even"))),
        "range_wide": lambda draw: Wanted(matches=(near("energy", 20.0, 30.0),)),
        "range_narrow": lambda draw: Wanted(matches=(near("energy", some(draw).metadata["energy"], 0.01),)),
        "range_tail": lambda draw: Wanted(matches=(Match("sample/temperature", low=295.0 + draw.uniform(60, 90)),)),
        "range_and_range": lambda draw: Wanted(
            matches=(near("energy", some(draw).metadata["energy"], 1.0), near("sample/temperature", 280.0, 5.0))
        ),
        "range_and_rare": lambda draw: Wanted(matches=(near("energy", draw.uniform(20, 50), 10.0), ruined)),
        "three_ranges": lambda draw: Wanted(
            matches=(near("current", 99, 2), near("sample/temperature", 300, 30), near("energy", 30, 5))
        ),
        "date_of_start": lambda draw: Wanted(matches=(near("start_time", some(draw).added_at, 3600.0),)),
        "day": lambda draw: Wanted(**day(draw)),
        "day_range": lambda draw: Wanted(**day(draw), matches=(near("sample/temperature", 290, 10),)),
        "day_text": lambda draw: Wanted(**day(draw), texts=(draw.choice(SAMPLES).lower(),)),
        "until_rare": lambda draw: Wanted(until=some(draw).added_at, matches=(ruined, everywhere)),
        "copies_corrupted": lambda draw: Wanted(copies="corrupted"),
        "copies_corrupted_all": lambda draw: Wanted(copies="corrupted", matches=(everywhere,), name="scan"),
        "copies_pruned": lambda draw: Wanted(copies="pruned", place="beamline"),
        "copies_experiment": lambda draw: Wanted((some(draw).experiment,), copies="unverified", place="tape"),
        "everything": of_one,
    }


def measure(database: Database, made: Made, restart: Callable[[], None], cold_n: int, warm_n: int) -> dict[str, Any]:
    """Search → (p50, p95 of the warm, max of the cold); prints them."""
    found = {}
    for name, draw_wanted in searches(made).items():
        draw = random.Random(name)
        cold: list[tuple[float, float, int]] = []
        for _ in range(cold_n):
            restart()
            cold += asked(database, [draw_wanted(draw)])
        asked(database, [draw_wanted(draw) for _ in range(5)])
        some = [draw_wanted(draw) for _ in range(warm_n)]
        warm = asked(database, some)
        full = [until_full(database, wanted) for wanted in some[:5]]
        alone = p95([each[1] for each in warm])
        found[name] = p95([each[0] for each in warm]), alone, cold
        worst = max(cold, default=(0.0, 0.0, 0))
        print(
            f"  {name:20} warm {spread([each[0] for each in warm])}, alone p95 {alone:6.1f}; cold max {worst[0]:6.1f} "
            f"alone {worst[1]:6.1f} reads {worst[2]:5}; pages {max(p for _, p in full)}, "
            f"until_full {max(ms for ms, _ in full):6.1f} ms",
            flush=True,
        )
    draw = random.Random(1)
    drawn = [[draw.randrange(1, made.count + 1) for _ in range(PAGE)] for _ in range(warm_n)]
    print("  50 ids               ", spread([timed(partial(by_ids, database, ids)) for ids in drawn]), flush=True)
    return found


def by_ids(database: Database, ids: list[int]) -> None:
    with database.read() as connection:
        assert len(catalog.several(connection, ids)) == len(set(ids))


def until_full(database: Database, wanted: Wanted) -> tuple[float, int]:
    """(how long, how many pages) until 50 files are there or there are no more."""
    begun, count, pages = time.perf_counter(), 0, 0
    while True:
        page = catalog_search.listing(database, wanted, limit=PAGE - count)
        count, pages = count + len(page.files), pages + 1
        if count >= PAGE or not page.before:
            return (time.perf_counter() - begun) * 1e3, pages
        wanted = replace(wanted, before=page.before)


def asked(database: Database, some: list[Wanted]) -> list[tuple[float, float, int]]:
    """(ms, ms without waiting for a processor, reads from the disk) of each, on a connection that is open."""
    processes = [os.getpid()]
    with database.read() as connection:
        if database.postgresql:
            processes.append(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
        else:
            connection.exec_driver_sql("SELECT 1")
    took = []
    for wanted in some:
        waited, read = sum(map(waited_ms, processes)), reads(processes[-1])
        ms = timed(partial(catalog_search.listing, database, wanted, limit=PAGE))
        waited = sum(map(waited_ms, processes)) - waited
        took.append((ms, ms - waited, reads(processes[-1]) - read))
    return took


def one(kind: str, made: Made, cold: int, warm: int) -> None:
    cluster = None
    with tempfile.TemporaryDirectory(prefix="beamway-catalog-") as scratch:
        place = Path(scratch)
        if kind == "postgresql":
            cluster = Postgres(max_wal_size="8GB", shared_buffers="1GB", maintenance_work_mem="512MB")
            place, url = cluster.place, cluster.new_database()
        else:
            url = f"sqlite:///{place}/catalog.db"
        try:
            database = Database(url)
            database.upgrade()
            added_per_s = puts_per_s(database, made)
            database.close()
            begun = time.perf_counter()
            if cluster is None:
                fill_sqlite(place / "catalog.db", made)
            else:
                fill_postgresql(cluster, "test1", made)
            took, gigabytes = time.perf_counter() - begun, sum(p.stat().st_size for p in place.rglob("*")) / 1e9
            print(
                f"{kind}: {made.count:,} files in {took:.0f} s, {gigabytes:.1f} GB; put one by one in batches of 500 "
                f"{added_per_s:,.0f}/s; one read from the disk {read_ms(place):.2f} ms (median)",
                flush=True,
            )

            def restart() -> None:
                database.close()
                if cluster is not None:
                    cluster.stop()
                forget(place)
                if cluster is not None:
                    cluster.start()

            found = measure(database, made, restart, cold, warm)
            for name, (warm_ms, alone_ms, colds) in found.items():
                cold_ms = max((each[0] for each in colds), default=0.0)
                for what, ms in (("warm_p95_ms", warm_ms), ("alone_p95_ms", alone_ms), ("cold_max_ms", cold_ms)):
                    print(f"RESULT name={kind}_{name}_{what} ours={ms:.1f} rival=- ratio=- bar={BAR_MS:g}")
            warm_all = statistics.median(each[0] for each in found.values())
            print(f"RESULT name={kind}_worst_warm_p95_ms ours={max(e[0] for e in found.values()):.1f} ", end="")
            print(f"rival={warm_all:.1f} ratio=- bar={BAR_MS:g}", flush=True)
            database.close()
        finally:
            if cluster is not None:
                cluster.remove()


def puts_per_s(database: Database, made: Made) -> float:
    """By the store's own writer, on an empty store; what it has put is taken away again."""
    files = [replace(made.file(i), id=0) for i in range(1, min(made.count, 5000) + 1)]
    begun, rest = time.perf_counter(), iter(files)
    while some := list(islice(rest, 500)):
        with database.write() as connection:
            catalog.put(connection, some)
    took = time.perf_counter() - begun
    with database.write() as connection:
        for table in ("catalog_files", "catalog_values", "catalog_words"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    return len(files) / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    parser.add_argument("--cold", type=int, default=3, help="searches of each kind after a start")
    parser.add_argument("--warm", type=int, default=50)
    given = parser.parse_args()
    for kind in ("sqlite", "postgresql"):
        if given.only not in (None, kind):
            continue
        if kind == "postgresql" and (reason := missing()):
            print(f"postgresql: skipped, {reason}")
            continue
        one(kind, Made(given.files), given.cold, given.warm)


if __name__ == "__main__":
    main()
