"""Dead letters: who is on the list, what takes a run off it, and that both are one transaction with the run."""

from __future__ import annotations

import threading

import pytest
from immutables import Map
from msgspec.structs import replace
from sqlalchemy import insert

from orchestrator.errors import NotFound
from orchestrator.model import (
    FailureClass,
    Outcome,
    Plan,
    Run,
    RunStatus,
    StageKind,
    StagePlan,
    StageState,
    StageStatus,
    Task,
    TaskStatus,
)
from orchestrator.store import leases, letters, schema
from orchestrator.store import runs as store
from orchestrator.store.database import Database

PLAN = Plan("recon", "o", (StagePlan("a", StageKind.COMMAND),), variables={"experimentName": "e1"})


def failed(run_id: str = "r", *, at: float = 9.0, site: str = "far", **more: object) -> Run:
    outcome = Outcome(FailureClass.MEMORY, "too little")
    return Run(
        run_id,
        PLAN,
        1.0,
        status=RunStatus.FAILED,
        ended_at=at,
        error="stage 'a': too little",
        stages=Map({"a": StageState("a", StageStatus.FAILED, ended_at=at, failed=1)}),
        tasks=Map({0: Task(0, "a", status=TaskStatus.FAILED, outcome=outcome, site=site)}),
        **more,  # type: ignore[arg-type]
    )


def save(database: Database, run: Run, *, new: bool = True, dealt_with: tuple[str, ...] = ()) -> None:
    change = store.Changed(run, new, tuple(run.stages), tuple(run.tasks), letters.of(run, "local"), dealt_with)
    store.Writer(database).save([change], [])


def test_a_letter_names_what_failed_and_where(database: Database) -> None:
    save(database, failed())
    expected = letters.Letter("r", 9.0, "recon", "e1", "far", "a", str(FailureClass.MEMORY), "stage 'a': too little")
    assert letters.ls(database) == [expected]
    assert letters.get(database, "r") == expected


def test_the_site_of_stages_that_name_none() -> None:
    found = letters.of(failed(site=""), "local")
    assert found is not None
    assert found.site == "local"


@pytest.mark.parametrize("run", [failed(parent="p.0.1"), replace(failed(), status=RunStatus.ABORTED)])
def test_who_needs_no_letter(run: Run) -> None:
    assert letters.of(run, "local") is None


def test_a_stage_that_could_not_be_opened_is_the_users(database: Database) -> None:
    found = letters.of(replace(failed(), tasks=Map()), "local")
    assert found is not None
    assert (found.failure, found.site) == (str(FailureClass.USER), "local")


def test_the_list_is_searched(database: Database) -> None:
    for n, site in enumerate(("far", "near", "far")):
        save(database, failed(f"r{n}", at=float(n), site=site))
    assert [x.run_id for x in letters.ls(database)] == ["r2", "r1", "r0"]
    assert [x.run_id for x in letters.ls(database, site="far", since=1.0)] == ["r2"]
    assert [x.run_id for x in letters.ls(database, workflow="recon", experiment="e1", limit=1)] == ["r2"]
    assert letters.ls(database, experiment="e2") == []


def test_what_was_fixed_is_kept_and_added_to(database: Database) -> None:
    save(database, failed())
    letters.fix(database, "r", {"a": "1", "b": "1"})
    assert letters.fix(database, "r", {"b": "2\udcff"}).fixes == {"a": "1", "b": "2\udcff"}
    assert letters.get(database, "r").fixes == {"a": "1", "b": "2\udcff"}
    with pytest.raises(NotFound, match="dead letters"):
        letters.fix(database, "x", {"a": "1"})


def test_a_run_that_is_dealt_with_is_off_the_list(database: Database) -> None:
    for run_id in ("r", "s"):
        save(database, failed(run_id))
    save(database, replace(failed("r"), status=RunStatus.RUNNING), new=False, dealt_with=("r",))
    save(database, Run("t", PLAN, 2.0, instead_of="s"), dealt_with=("s",))
    assert letters.ls(database) == []
    assert store.load(database, "t").instead_of == "s"


def test_dismissal_is_in_the_history_of_the_run(database: Database) -> None:
    save(database, failed())
    letters.dismiss(database, "r", who="ann", now=12.0)
    assert letters.ls(database) == []
    (event,) = store.events_after(database, "r")
    assert (event.kind, event.at, event.text) == ("dismissed", 12.0, "by ann")
    assert store.load(database, "r").status is RunStatus.FAILED
    with pytest.raises(NotFound):
        letters.dismiss(database, "r", who="ann", now=13.0)


def test_a_dismissal_is_not_seen_before_what_has_an_earlier_number(database: Database) -> None:
    """Who follows the events asks for those after the last one seen: one that came later with less would be lost."""
    save(database, failed())
    lease = leases.acquire(database, "engine", "e", lease_s=60.0)
    assert lease is not None
    with database.write() as connection:
        leases.prove(connection, lease)
        engines = {"run_id": "r", "at": 11.0, "kind": "retry asked", "stage": "", "attempt": 0, "text": ""}
        connection.execute(insert(schema.events).values(**engines, number=-1))
        thread = threading.Thread(target=letters.dismiss, args=(database, "r"), kwargs={"who": "ann", "now": 12.0})
        thread.start()
        thread.join(0.3)
        seen = store.newest_event(database)
    thread.join(10.0)
    assert [e.kind for e in store.events_after(database, "r", seen)] == ["retry asked", "dismissed"]
