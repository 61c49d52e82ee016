"""Runs are found by what they are, whole pages at a time, as a plain filter over all of them would."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from immutables import Map
from sqlalchemy import event

from orchestrator.errors import NotFound
from orchestrator.model import Plan, Run, RunStatus
from orchestrator.store import files, search
from orchestrator.store import runs as store
from orchestrator.store.database import Database
from orchestrator.store.search import Place, Wanted

PART = files.PART_S


def run_of(run_id: str, at: float = 5.0, *, workflow: str = "w", named: tuple[str, ...] = (), **more: Any) -> Run:
    variables = {"experimentName": more.pop("experiment", "")}
    return Run(run_id, Plan(workflow, "o", (), variables=variables), at, files=named, **more)


def save(database: Database, *runs: Run) -> None:
    store.Writer(database).save([store.Changed(run, True, (), ()) for run in runs], [])


def ids(database: Database, limit: int = 50, **wanted: Any) -> list[str]:
    return [r.id for r in search.listing(database, Wanted(**wanted), limit=limit)]


def pages(database: Database, limit: int, **wanted: Any) -> list[str]:
    found: list[str] = []
    before: Place | None = None
    while page := search.listing(database, Wanted(before=before, **wanted), limit=limit):
        found += [r.id for r in page]
        before = page[-1].place
    return found


def test_runs_are_found_by_the_beginning_of_their_id(database: Database) -> None:
    save(database, *(run_of(run_id) for run_id in ("abc-1", "abd-2", "ABC-3", "abd-22")))
    assert search.find(database, "abc") == "abc-1"
    assert search.find(database, "A") == "ABC-3"
    assert search.find(database, "abd-2") == "abd-2"  # whole, although another begins with it
    for prefix in ("ab", "x", "", "a%", "\udcff", "a\0"):
        with pytest.raises(NotFound):
            search.find(database, prefix)


def test_the_last_run_is_the_newest(database: Database) -> None:
    save(database, run_of("b", 1.0), run_of("a", 3.0), run_of("c", 2.0))
    assert search.find(database, "last") == "a"


def test_listing_filters_and_counts(database: Database) -> None:
    for i in range(5):
        save(database, run_of(f"r{i}", float(i), status=RunStatus.DONE if i % 2 else RunStatus.FAILED))
    assert ids(database, 2) == ["r4", "r3"]
    assert ids(database, status="done") == ["r3", "r1"]
    assert ids(database, since=1.0, until=3.0) == ["r2", "r1"]
    assert ids(database, status="failed", until=4.0) == ["r2", "r0"]
    assert ids(database, workflow="none") == []
    assert search.counts(database) == {"done": 2, "failed": 3}
    assert search.ended(database, [f"r{i}" for i in range(5)]) == {f"r{i}" for i in range(5)}
    assert search.known(database, ["r1", "x"]) == {"r1"}


def test_pages_hold_each_run_once_also_when_many_began_at_once(database: Database) -> None:
    save(database, *(run_of(f"r{i:02}", float(i // 7), named=("/d/f",)) for i in range(30)))
    expected = [f"r{i:02}" for i in reversed(range(30))]
    for limit in (1, 4, 30, 50):
        assert pages(database, limit) == expected
        assert pages(database, limit, workflow="w") == expected
        assert pages(database, limit, file="f") == expected


def test_a_run_is_found_by_its_file_by_its_path_and_by_words_of_its_name(database: Database) -> None:
    path = "/data/Smith 2026/Sample3_scan_00042.nexus.h5"
    save(database, run_of("r", named=(path,)), run_of("other", named=("/data/x.h5",)))
    for text in (path, path.upper(), "/data/smith", "sample3", "Sample3_scan_00042", "scan_00042", "00042", "3_scan"):
        assert ids(database, file=text) == ["r"], text
    for text in ("ample3", "h5", "/data/smith/", "00042.h5", "data", "%", "_"):
        assert ids(database, file=text) == [], text
    assert ids(database, file="/data") == ["r", "other"]


def test_file_names_of_any_bytes_and_length_are_found(database: Database) -> None:
    odd, none = "/d/\udcff\0é'\n%_.h5", "/d/\ud800.h5"
    long = "/" + "ab\u00e9" * 400 + "/" + "x" * 3000
    save(database, run_of("odd", named=(odd, none)), run_of("long", named=(long,)), run_of("empty", named=("", "/")))
    assert ids(database, file=odd) == ["odd"]
    assert ids(database, file="\udcff\0") == ids(database, file="\ud800") == ["odd"]
    assert ids(database, file=long) == ["long"]
    assert ids(database, file="x" * 3000) == ["long"]


def test_the_argument_is_the_file_of_a_run_that_does_not_go_file_by_file(database: Database) -> None:
    plan = Plan("w", "o", (), variables={"filePath": "raw/../a.h5", "dataDir": "data"}, directory="/home/me")
    save(database, Run("r", plan, 5.0))
    assert ids(database, file="/home/me/data/a.h5") == ["r"]


def test_names_too_long_for_an_index_are_kept_apart(database: Database) -> None:
    letters = random.Random(1)
    names = ["".join(letters.choices("abcdefghijklmnop\u00e9", k=9000)) for _ in range(2)]
    names.append(names[0] + "x")
    save(database, *(run_of(f"r{i}", workflow=n, experiment=n) for i, n in enumerate(names)))
    for i, name in enumerate(names):
        assert ids(database, workflow=name) == ids(database, experiment=name) == [f"r{i}"]
        assert store.load(database, f"r{i}").plan.workflow == name


def test_the_states_of_a_run_are_followed(database: Database) -> None:
    run = run_of("r", experiment="e", status=RunStatus.RUNNING)
    save(database, run)
    done = Run(run.id, run.plan, run.created_at, status=RunStatus.DONE, variables=Map())
    store.Writer(database).save([store.Changed(done, False, (), ())], [])
    assert ids(database, experiment="e", status="running") == []
    assert ids(database, experiment="e", status="done") == ids(database, experiment="e") == ["r"]


NAMES = ("scan_1", "scan_2", "dark", "scan")
MADE = [
    run_of(
        f"{chance.randrange(10**9):09}",
        float(chance.randrange(8)) * PART / 2 + chance.choice([0, 1]),
        workflow=chance.choice("uv"),
        experiment=chance.choice(["", "e", "f"]),
        status=chance.choice(list(RunStatus)),
        named=tuple(chance.sample([f"/d/{n}.h5" for n in NAMES], chance.randrange(3))),
    )
    for chance in [random.Random(7)]
    for _ in range(120)
]


@pytest.fixture
def filled(database: Database) -> Database:
    save(database, *MADE)
    return database


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.builds(
        Wanted,
        status=st.sampled_from(["", "done", "running"]),
        workflow=st.sampled_from(["", "u", "v"]),
        experiment=st.sampled_from(["", "e", "f"]),
        file=st.sampled_from(["", "scan", "scan_1", "/d/", "dark.h5", "none"]),
        since=st.sampled_from([0.0, PART, 2 * PART + 1]),
        until=st.sampled_from([0.0, PART, 3 * PART]),
        before=st.none() | st.sampled_from([(r.created_at, r.id) for r in MADE]),
    ),
    limit=st.sampled_from([1, 5, 200]),
    many=st.sampled_from([1, 20, 1000]),
)
def test_a_search_finds_what_a_filter_over_all_runs_finds(
    filled: Database, wanted: Wanted, limit: int, many: int
) -> None:
    def fits(run: Run) -> bool:
        return (
            wanted.status in ("", run.status.value)
            and wanted.workflow in ("", run.plan.workflow)
            and wanted.experiment in ("", run.plan.variables["experimentName"])
            and (not wanted.file or any(wanted.file in f"{n} {n[3:]}" for n in run.files))
            and run.created_at >= wanted.since
            and (not wanted.until or run.created_at < wanted.until)
            and (wanted.before is None or (run.created_at, run.id) < wanted.before)
        )

    expected = sorted(filter(fits, MADE), key=lambda r: (r.created_at, r.id), reverse=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "MANY", many)  # so that both ways to search for files and something else are gone
        assert [r.id for r in search.listing(filled, wanted, limit=limit)] == [r.id for r in expected[:limit]]


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(),
        Wanted(since=1.0, until=9e9, before=(5.0, "x")),
        *(Wanted(status=status, before=(5.0, "x")) for status in ("done", "running")),
        *(Wanted(status=status, workflow="u") for status in ("", "done")),
        *(Wanted(status=status, experiment="e", workflow="u") for status in ("", "done")),
        Wanted(file="scan"),
        Wanted(file="scan", status="done", since=1.0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("many", [1, 1000])
def test_no_search_reads_a_whole_table(
    filled: Database, wanted: Wanted, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MANY", many)
    asked: list[tuple[str, Any]] = []
    with filled.read() as connection:
        event.listen(connection.engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    search.listing(filled, wanted, limit=3)
    plans = []
    with filled.read() as connection:
        if filled.postgresql:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # a small table is read whole otherwise
        for text, parameters in [(t, p) for t, p in asked if not t.startswith("SET")]:
            explain = "EXPLAIN" if filled.postgresql else "EXPLAIN QUERY PLAN"
            plans.append(str(connection.exec_driver_sql(f"{explain} {text}", parameters).all()))
    assert plans
    for plan in plans:
        assert "Seq Scan" not in plan, plan
        assert "SCAN run" not in plan, plan
