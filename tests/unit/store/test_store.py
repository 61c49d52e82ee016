from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from immutables import Map
from msgspec.structs import replace
from sqlalchemy import Connection, event, text

from orchestrator import codec
from orchestrator.errors import Unavailable
from orchestrator.model import Outcome, Plan, Run, RunStatus, StageKind, StagePlan, StageState, Task, TaskStatus
from orchestrator.store import database as module
from orchestrator.store import experiments, search
from orchestrator.store import runs as store
from orchestrator.store.database import HEAD, Database
from orchestrator.store.experiments import Experiment, Part
from orchestrator.store.schema import metadata
from orchestrator.store.search import Wanted

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
    assert search.listing(database)[0].owner == shown


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
    assert search.known(database, ["a"]) == set()


def test_only_unfinished_runs_are_taken_up(database: Database) -> None:
    save(database, run_of("open"))
    save(database, replace(run_of("over"), status=RunStatus.DONE))
    assert [r.id for r in store.load_unfinished(database)] == ["open"]


class Deaf(Database):
    """Loses the answer to a commit when told to."""

    lose = False

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with super().write() as connection:
            yield connection
        if self.lose:
            raise Unavailable("The answer was lost.")


@pytest.mark.parametrize("committed", [True, False])
def test_a_batch_whose_fate_is_unknown_is_written_once(database: Database, committed: bool) -> None:
    deaf = Deaf(database.url)
    writer = store.Writer(deaf)
    noted = [store.EventRow("r1", float(i), "noted", text="\0") for i in range(4)]
    run = run_of(files=("/d/f",))
    writer.save([], noted[:1])
    if committed:
        deaf.lose = True
        with pytest.raises(Unavailable):
            writer.save([store.Changed(run, True, (), ())], noted[1:3])
        deaf.lose = False
    with pytest.raises(Unavailable):  # and then one that is not committed for sure
        writer.save([store.Changed(run_of("twice"), True, (), ())] * 2, noted[1:])
    changed = replace(run, status=RunStatus.RUNNING)
    writer.save([store.Changed(c, True, (), ()) for c in (changed, run_of("r2"))], noted[1:])
    writer.save([store.Changed(run_of("r3"), True, (), ())], [])
    assert store.load(database, "r1") == changed
    assert search.known(database, ["r1", "r2", "r3", "twice"]) == {"r1", "r2", "r3"}
    assert [e.at for e in store.events_after(database, "r1")] == [0.0, 1.0, 2.0, 3.0]
    deaf.close()


def test_runs_are_taken_up_with_a_fixed_number_of_queries(database: Database) -> None:
    task = Task(0, "1", item="/a", outcome=Outcome(captures={"x": "7"}, ended_at=3.0), status=TaskStatus.DONE)
    made = run_of(stages=Map({"1": StageState("1")}), tasks=Map({n: replace(task, number=n) for n in range(3)}))
    queries: list[str] = []

    def taken_up() -> int:
        queries.clear()
        with database.read() as connection:
            engine = connection.engine
        event.listen(engine, "before_cursor_execute", note)
        found = store.load_unfinished(database)
        event.remove(engine, "before_cursor_execute", note)
        assert [r.id for r in found] == sorted(r.id for r in found)
        assert all(r.tasks == made.tasks and r.stages == made.stages for r in found)
        return len(found)

    def note(*given: object) -> None:
        queries.append(str(given[2]))

    counts = []
    for start, end in ((0, 2), (2, 40)):
        runs = [replace(made, id=f"r{i:02}", created_at=float(i)) for i in range(start, end)]
        store.Writer(database).save([store.Changed(r, True, ("1",), (0, 1, 2)) for r in runs], [])
        assert taken_up() == end
        counts.append(len(queries))
    assert counts[0] == counts[1] > 0


def test_a_run_that_cannot_be_read_hides_no_other(database: Database) -> None:
    other = replace(run_of(), plan=replace(run_of().plan, workflow="other"))
    for i in range(4):
        save(database, replace(run_of() if i % 2 else other, id=f"r{i}", created_at=float(i)))
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE runs SET request = '{' WHERE id = 'r1'")
        connection.exec_driver_sql("UPDATE runs SET plan = 'gone' WHERE id = 'r2'")
    assert [r.id for r in store.load_unfinished(database)] == ["r0", "r3"]
    for run_id in ("r1", "r2"):
        with pytest.raises((msgspec.MsgspecError, LookupError)):
            store.load(database, run_id)


def test_an_older_database_is_brought_up_with_what_it_holds(store_url: str) -> None:
    database = Database(store_url)
    database.upgrade("0002")
    request = Plan("w", "o", (), variables={"experimentName": "2026-3-smith", "filePath": "\udcff.h5"}, directory="/d")
    asked = store.Request(request.variables, (), request.files, "/d", (), "me", "host")
    columns = "id,workflow,owner,status,stage,error,parent,created_at,started_at,ended_at,plan,request,doc"
    names = columns.split(",")
    insert = text(f"INSERT INTO runs ({columns}) VALUES ({','.join(f':{c}' for c in names)})")
    with database.write() as connection:
        for i in range(3):
            row = {
                **dict.fromkeys(names, "w"),
                **dict.fromkeys(("started_at", "ended_at"), 0.0),
                "created_at": float(i),
            }
            connection.execute(insert, {**row, "id": f"r{i}", "status": "done", "request": codec.dumps(asked)})
    database.upgrade()
    assert database.revision() == HEAD
    for wanted in (Wanted(experiment="2026-3-smith"), Wanted(file="/d/\udcff"), Wanted(workflow="w")):
        assert [r.id for r in search.listing(database, wanted)] == ["r2", "r1", "r0"]
    experiments.create(database, Experiment("2026-3-smith", people={"ann": Part.OWNER}))
    for person, count in (("ann", 3), ("me", 3), ("bob", 0)):
        assert len(search.listing(database, Wanted(seen_by=person))) == count
    database.close()


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
    assert search.known(sqlite, ["r1"]) == {"r1"}
    other.close()
