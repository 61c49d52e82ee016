"""Runs are found by what they are, whole pages at a time, as a plain filter over all of them would."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from immutables import Map
from msgspec.structs import replace
from sqlalchemy import event

from orchestrator.errors import NotFound
from orchestrator.model import Plan, Run, RunStatus
from orchestrator.store import experiments, files, search
from orchestrator.store import runs as store
from orchestrator.store.database import Database
from orchestrator.store.experiments import Experiment, Part
from orchestrator.store.search import Place, Wanted

PART = files.PART_S


def run_of(run_id: str, at: float = 5.0, *, workflow: str = "w", named: tuple[str, ...] = (), **more: Any) -> Run:
    variables = {"experimentName": more.pop("experiment", "")}
    return Run(run_id, Plan(workflow, "o", (), variables=variables), at, files=named, **more)


def part(database: Database, experiment: str, *people: str) -> None:
    experiments.create(database, Experiment(experiment, people=dict.fromkeys(people, Part.VIEWER)))


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
        username=chance.choice(["ann", "bob"]),
        named=tuple(chance.sample([f"/d/{n}.h5" for n in NAMES], chance.randrange(3))),
    )
    for chance in [random.Random(7)]
    for _ in range(120)
]


PEOPLE = {"e": "ann", "f": "carol", "g": "dora"}  # who has a part in which experiment; bob in none


@pytest.fixture
def filled(database: Database) -> Database:
    """Some runs were begun before their experiment had people, some after."""
    part(database, "e", PEOPLE["e"])
    save(database, *MADE)
    part(database, "f", PEOPLE["f"])
    part(database, "g", PEOPLE["g"])
    return database


def may_see(person: str | None, run: Run) -> bool:
    return person in (None, run.username, PEOPLE.get(run.plan.variables["experimentName"], person))


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
        seen_by=st.sampled_from([None, "ann", "bob", "carol", "dora", ""]),
    ),
    limit=st.sampled_from([1, 5, 200]),
    few=st.sampled_from([1, 5000]),
    dearer=st.sampled_from([0, 1, 1000]),
)
def test_a_search_finds_what_a_filter_over_all_runs_finds(
    filled: Database, wanted: Wanted, limit: int, few: int, dearer: int
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
            and may_see(wanted.seen_by, run)
        )

    expected = sorted(filter(fits, MADE), key=lambda r: (r.created_at, r.id), reverse=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "FEW", few)  # so that all ways to search for files and something else are gone
        patch.setattr(search, "DEARER", dearer)
        assert [r.id for r in search.listing(filled, wanted, limit=limit)] == [r.id for r in expected[:limit]]


BY_FILE = [
    Wanted(file="scan"),
    Wanted(file="scan", status="done", since=1.0),
    Wanted(file="/d/", status="failed", before=(5 * PART, "x")),
    Wanted(file="scan", workflow="u"),
    Wanted(file="scan", experiment="e"),
    Wanted(file="scan", experiment="e", workflow="u", until=9e9),
]
OTHERS = [
    Wanted(),
    Wanted(since=1.0, until=9e9, before=(5.0, "x")),
    *(Wanted(status=status, before=(5.0, "x")) for status in ("done", "running")),
    *(Wanted(status=status, workflow="u") for status in ("", "done")),
    *(Wanted(status=status, experiment="e", workflow="u", since=1.0) for status in ("", "done")),
]


@pytest.mark.parametrize("wanted", [*OTHERS, *BY_FILE], ids=repr)
@pytest.mark.parametrize("dearer", [0, 1000])
def test_no_search_reads_a_whole_table(
    filled: Database, wanted: Wanted, dearer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "DEARER", dearer)
    plans = plans_of(filled, wanted)
    assert plans
    for plan in plans:
        assert "Seq Scan" not in plan, plan
        assert "SCAN run" not in plan, plan


@pytest.mark.parametrize("wanted", OTHERS, ids=repr)
def test_the_answer_comes_in_the_order_of_an_index(filled: Database, wanted: Wanted) -> None:
    """Nothing is gathered and sorted: it could be everything."""
    (plan,) = plans_of(filled, wanted)
    assert "Sort  (" not in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize("wanted", BY_FILE, ids=repr)
def test_whether_a_run_with_the_file_is_what_is_wanted_is_read_in_an_index_at_its_time(
    filled: Database, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never by its id, nor in the run itself: those are all over the disk. Only what is answered is read there."""
    monkeypatch.setattr(search, "DEARER", 1000)
    *searched, _answer = plans_of(filled, wanted)
    for plan in searched:
        assert "pk_runs" not in plan
        assert "autoindex_runs" not in plan
        assert "Index Scan" not in plan
        assert "Heap Scan" not in plan
        assert not re.search(r"SEARCH runs USING INDEX|SEARCH runs USING COVERING(?!.*created_at|.*AS)", plan), plan
    if wanted.status or wanted.workflow or wanted.experiment:
        assert re.search(r"COVERING INDEX ix_runs_.*created_at=\?|Index Only Scan.* ix_runs_", searched[-1])


@pytest.mark.parametrize("person", ["ann", "bob", "carol", "dora"])
def test_a_person_finds_by_id_what_they_may_see(filled: Database, person: str) -> None:
    """Others are not there: neither by their id, nor to tell the beginnings of ids apart, nor as the last."""
    seen = [run.id for run in MADE if may_see(person, run)]
    for run in MADE:
        if run.id in seen:
            assert search.find(filled, run.id, seen_by=person) == run.id
        else:
            with pytest.raises(NotFound, match="no run"):
                search.find(filled, run.id, seen_by=person)
    newest = max((run for run in MADE if run.id in seen), key=lambda r: (r.created_at, r.id))
    assert search.find(filled, "last", seen_by=person) == newest.id
    everyone = [run.id for run in MADE]
    assert search.ended(filled, everyone, seen_by=person) == search.ended(filled, everyone) & set(seen)


def test_runs_of_an_experiment_whose_people_are_all_gone_are_everybodys(filled: Database) -> None:
    of_e = [run.id for run in MADE if run.plan.variables["experimentName"] == "e"]
    assert set(ids(filled, 500, experiment="e", seen_by="dora")) == set()
    experiments.remove_person(filled, "e", "ann")
    assert set(ids(filled, 500, seen_by="dora")) >= set(of_e)
    part(filled, "e2", "ann")
    save(filled, run_of("r", experiment="e2"))
    assert "r" not in ids(filled, 500, seen_by="dora")
    experiments.remove(filled, "e2")
    assert "r" in ids(filled, 500, seen_by="dora")


def plans_of(database: Database, wanted: Wanted) -> list[str]:
    """How the database goes about each query of the search."""
    explain = "EXPLAIN" if database.postgresql else "EXPLAIN QUERY PLAN"
    queries = queries_of(database, wanted)
    with database.read() as connection:
        if database.postgresql:
            for way in ("seqscan", "bitmapscan"):  # which suit a small table
                connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
        rows = [connection.exec_driver_sql(f"{explain} {text}", given).all() for text, given in queries]
    return ["\n".join(str(row[-1]) for row in some) for some in rows]


def queries_of(database: Database, wanted: Wanted, limit: int = 3) -> list[tuple[str, Any]]:
    asked: list[tuple[str, Any]] = []

    def note(*given: Any) -> None:
        asked.append((given[2], given[3]))

    with database.read() as connection:
        engine = connection.engine
    event.listen(engine, "before_cursor_execute", note)
    search.listing(database, wanted, limit=limit)
    event.remove(engine, "before_cursor_execute", note)
    return [(text, given) for text, given in asked if text.startswith(("SELECT", "WITH"))]


def test_what_a_search_reads_does_not_grow_with_the_store(database: Database) -> None:
    newest, older = range(2400, 3000), range(2400)
    last = made_of(newest[-1])
    page = made_of(2900)
    narrow = [
        Wanted(),
        Wanted(before=(page.created_at, page.id)),
        *(Wanted(status=status) for status in ("failed", "done", "pending")),
        Wanted(workflow="w1"),
        Wanted(experiment="e29"),
        Wanted("failed", experiment="e28"),
        Wanted("failed", since=page.created_at),
        Wanted(since=page.created_at, until=last.created_at, before=(last.created_at, last.id)),
        Wanted(file="scan"),
        *(Wanted(status, file="scan") for status in ("done", "failed", "pending")),
        Wanted(file="bone", experiment="e29"),
        Wanted("done", file="/data/e28", experiment="e28"),
        Wanted("done", file="/data/e29", since=page.created_at),
    ]
    wide = [  # each part has to be looked into
        Wanted(file="/data/e29"),
        Wanted("aborted", file="/data/e29/"),
        Wanted(file=last.files[0], workflow="w1"),
        Wanted("failed", file="none"),
    ]
    save(database, *map(made_of, newest))
    narrow += [replace(wanted, seen_by=person) for person in ("ann", "bob") for wanted in narrow if not wanted.file]
    for i in (25, 28):
        part(database, f"e{i}", "ann")
    before = [work(database, wanted) for wanted in [*narrow, *wide]]
    for i in range(24):  # to nobody else the older ones are there
        part(database, f"e{i}", "cleo")
    save(database, *map(made_of, older))
    after = [work(database, wanted) for wanted in [*narrow, *wide]]
    look = 3 if database.postgresql else 60  # at each part that is new, in all queries together
    for i, wanted in enumerate([*narrow, *wide]):
        looks = len(older) // 100 if wanted in wide else 1
        twice = 2 * before[i]  # as another plan may be taken; there are five times as many runs
        assert after[i] <= twice + looks * look, (wanted, before[i], after[i])


def test_a_later_page_reads_no_more_than_the_first(database: Database) -> None:
    save(database, *map(made_of, range(600)))
    until, later = made_of(599).created_at, made_of(100)
    for wanted in (Wanted(until=until), Wanted("done", until=until), Wanted(file="scan", workflow="w1", until=until)):
        first = work(database, wanted)
        assert work(database, replace(wanted, before=(later.created_at, later.id))) <= 2 * first, wanted


def made_of(i: int) -> Run:
    """A hundred runs a part and an experiment, of all kinds."""
    state = RunStatus.ABORTED if i % 50 == 7 else RunStatus.FAILED if i % 10 == 3 else RunStatus.DONE
    named = f"/data/e{i // 100}/{('bone', 'leaf')[i // 7 % 2]}_scan_{i:05}.h5"
    more = {"workflow": f"w{i % 3}", "experiment": f"e{i // 100}", "status": state}
    return run_of(f"{i * 7919 % 10007:05}", 1e9 + i * PART / 100, named=(named,), **more)


def work(database: Database, wanted: Wanted) -> int:
    """How much the search goes through: the rows of PostgreSQL, the steps of SQLite."""
    queries = queries_of(database, wanted, limit=10)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    with database.read() as connection:
        if not database.postgresql:
            sqlite: Any = connection.connection.dbapi_connection
            sqlite.set_progress_handler(step, 1)
            for text, given in queries:
                connection.exec_driver_sql(text, given).all()
            sqlite.set_progress_handler(None, 0)
            return steps
        engine = connection.engine
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")  # as autovacuum does in time
    with database.read() as connection:
        for way in ("seqscan", "bitmapscan"):  # which suit a small table
            connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
        for text, given in queries:
            explained = connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", given
            ).scalar_one()
            steps += rows_of(explained[0]["Plan"])
    return steps


def rows_of(plan: dict[str, Any]) -> int:
    below = sum(map(rows_of, plan.get("Plans", [])))
    rows = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) + 1
    return below + (int(rows * plan["Actual Loops"]) if "Scan" in plan["Node Type"] else 0)
