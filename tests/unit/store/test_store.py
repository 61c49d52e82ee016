from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from immutables import Map
from msgspec.structs import replace

from orchestrator.errors import NotFound, Unavailable
from orchestrator.model import Outcome, Plan, Run, RunStatus, StageKind, StagePlan, StageState, Task, TaskStatus
from orchestrator.store import database as module
from orchestrator.store import runs as store
from orchestrator.store.database import HEAD, Database
from orchestrator.store.schema import metadata

MIGRATIONS = Path(module.__file__).parent / "migrations"


def run_of(run_id: str = "r1", **more: object) -> Run:
    plan = Plan("w", "o", (StagePlan("1", StageKind.COMMAND, command="true"),), variables={"a": "1"}, directory="/d")
    return Run(run_id, plan, 5.0, variables=Map(plan.variables), **more)  # type: ignore[arg-type]


def save(database: Database, run: Run, *, new: bool = True, tasks: tuple[int, ...] = ()) -> None:
    store.Writer(database).save([store.Changed(run, new, tuple(run.stages), tasks)], [])


def test_the_migrations_make_the_tables_the_code_uses(database: Database) -> None:
    script = ScriptDirectory(str(MIGRATIONS))
    assert script.get_current_head() == HEAD
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_upgrade_twice_changes_nothing(database: Database) -> None:
    database.upgrade()


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path}/x.db")
    made.upgrade()
    return made


def test_a_commit_is_flushed_to_the_disk(sqlite: Database) -> None:
    with sqlite.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_a_run_comes_back_as_it_was(database: Database) -> None:
    outcome = Outcome(captures={"x": "7"}, ended_at=3.0)
    task = Task(0, "1", item="/a/ok\udcff\n'.h5", status=TaskStatus.DONE, outcome=outcome, ended_at=3.0)
    run = run_of(
        files=("/a/ok\udcff\n'.h5",),
        stages=Map({"1": StageState("1", tasks=1)}),
        tasks=Map({0: task}),
        next_number=1,
        username="me",
    )
    save(database, run, tasks=(0,))
    back = store.load(database, "r1")
    assert back.item_variables == Map({("/a/ok\udcff\n'.h5", "x"): "7"})
    assert replace(back, item_variables=Map()) == run


def test_a_change_replaces_what_was_stored(database: Database) -> None:
    run = run_of()
    save(database, run)
    changed = replace(run, status=RunStatus.FAILED, error="why", variables=run.variables.set("b", "2"))
    save(database, changed, new=False)
    assert store.load(database, "r1") == changed


def test_texts_that_a_database_refuses_are_escaped(database: Database) -> None:
    odd = "a\0b\udcff\n'é"
    run = run_of(error=odd, stage=odd, files=(odd,), stages=Map({odd: StageState(odd)}), username=odd)
    run = replace(run, plan=replace(run.plan, owner=odd, stages=(replace(run.plan.stages[0], name=odd),)))
    store.Writer(database).save([store.Changed(run, True, (odd,), ())], [store.EventRow("r1", 1.0, "k", odd, text=odd)])
    back = store.load(database, "r1")
    assert (back.files, back.plan.owner, back.username, back.stages[odd].name) == ((odd,), odd, odd, odd)
    shown = "a\\x00b\\udcff\n'é"
    assert (back.error, store.events_after(database, "r1")[0].text) == (shown, shown)
    assert store.listing(database)[0].owner == shown


def test_a_plan_that_was_not_written_is_written_with_the_next_run(database: Database) -> None:
    writer = store.Writer(database)
    with pytest.raises(Unavailable):
        writer.save([store.Changed(run_of("a"), True, (), ())] * 2, [])
    writer.save([store.Changed(run_of("a"), True, (), ())], [])
    assert store.load(database, "a").plan == run_of().plan


def test_many_runs_share_one_plan(database: Database) -> None:
    writer = store.Writer(database)
    writer.save([store.Changed(run_of(f"r{i}"), True, (), ()) for i in range(5)], [])
    store.Writer(database).save([store.Changed(run_of("other"), True, (), ())], [])
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM plans").scalar() == 1


def test_a_batch_is_written_whole_or_not_at_all(database: Database) -> None:
    writer = store.Writer(database)
    with pytest.raises(Unavailable):
        writer.save([store.Changed(run_of("a"), True, (), ()), store.Changed(run_of("a"), True, (), ())], [])
    assert store.known(database, ["a"]) == set()


def test_runs_are_found_by_the_beginning_of_their_id(database: Database) -> None:
    for run_id in ("abc-1", "abd-2", "a%c-3"):
        save(database, run_of(run_id))
    assert store.find(database, "abc") == "abc-1"
    assert store.find(database, "a%") == "a%c-3"
    for prefix in ("ab", "x", ""):
        with pytest.raises(NotFound):
            store.find(database, prefix)


def test_listing_pages_and_filters(database: Database) -> None:
    for i in range(5):
        save(
            database,
            replace(run_of(f"r{i}"), created_at=float(i), status=RunStatus.DONE if i % 2 else RunStatus.FAILED),
        )
    assert [r.id for r in store.listing(database, limit=2)] == ["r4", "r3"]
    assert [r.id for r in store.listing(database, limit=2, before=3.0)] == ["r2", "r1"]
    assert [r.id for r in store.listing(database, status="done")] == ["r3", "r1"]
    assert store.counts(database) == {"done": 2, "failed": 3}
    assert store.ended(database, [f"r{i}" for i in range(5)]) == {f"r{i}" for i in range(5)}


def test_only_unfinished_runs_are_taken_up(database: Database) -> None:
    save(database, run_of("open"))
    save(database, replace(run_of("over"), status=RunStatus.DONE))
    assert [r.id for r in store.load_unfinished(database)] == ["open"]


def test_events_are_numbered_as_they_come(database: Database) -> None:
    events = [store.EventRow("r1", 1.0, "run begun"), store.EventRow("r1", 2.0, "stage opened", "1")]
    store.Writer(database).save([store.Changed(run_of(), True, (), ())], events)
    assert store.last_event(database, "r1") == 2
    assert [e.kind for e in store.events_after(database, "r1", 1)] == ["stage opened"]
    assert store.last_event(database, "absent") == 0


def test_a_writer_waits_for_another_instead_of_failing(sqlite: Database, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    import threading

    threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
    save(sqlite, run_of())
    assert store.known(sqlite, ["r1"]) == {"r1"}
    other.close()
