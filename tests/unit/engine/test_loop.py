"""The engine on a real store: what is handed out is on the disk, and trouble stays where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator import events
from orchestrator.definition import loader
from orchestrator.definition.plan import compile_plan
from orchestrator.engine import loop, opening
from orchestrator.engine.loop import Engine, new_run
from orchestrator.errors import Conflict, NotFound, Unavailable
from orchestrator.model import FailureClass, Outcome, Run, RunStatus, split_token
from orchestrator.store import runs as store
from orchestrator.store import search
from orchestrator.store.database import Database
from tests.conftest import workflow


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path}/x.db")
    made.upgrade()
    return made


def engine_on(database: Database, tmp_path: Path) -> Engine:
    return Engine(database, tmp_path, clock=lambda: 100.0)


def run_of(run_id: str, **stages: Any) -> Run:
    plan = compile_plan(loader.load(workflow(**stages)), {}, directory="/")
    return new_run(run_id, plan, 1.0)


def end(engine: Engine, token: str, outcome: Outcome | None = None) -> None:
    run_id, number, attempt = split_token(token)
    engine.feed(run_id, events.TaskEnded(100.0, number, attempt, outcome or Outcome()))


def test_what_is_handed_out_is_stored_first(database: Database, tmp_path: Path) -> None:
    engine = engine_on(database, tmp_path)
    engine.submit(run_of("r", s1={"command": "true"}, s2={"command": "echo $id"}))
    ((site, order),) = engine.turn().launches
    assert (site, order.token, order.command) == ("local", "r.0.1", "true")
    assert store.load(database, "r").tasks[0].status == "pending"
    end(engine, "r.0.1")
    ((_, order),) = engine.turn().launches
    assert order.command == "echo r"
    end(engine, "r.1.1")
    (finished,) = engine.turn().finished
    assert finished.status is RunStatus.DONE
    assert store.load(database, "r") == finished
    assert engine.runs == {}


def test_a_run_asked_for_twice_begins_once(database: Database, tmp_path: Path) -> None:
    engine = engine_on(database, tmp_path)
    for _ in range(2):
        engine.submit(run_of("r", s1={"command": "true"}))
    assert len(engine.turn().launches) == 1
    engine.submit(run_of("r", s1={"command": "true"}))
    assert engine.turn().launches == []


def test_a_new_engine_says_again_what_is_outstanding(database: Database, tmp_path: Path) -> None:
    engine = engine_on(database, tmp_path)
    engine.submit(run_of("r", s1={"command": "true"}, s2={"command": "false"}))
    engine.turn()
    end(engine, "r.0.1")
    engine.turn()
    again = engine_on(database, tmp_path)
    assert again.recover() == 1
    ((_, order),) = again.turn().launches
    assert (order.token, order.adopt) == ("r.1.1", True)


def test_a_store_that_fails_loses_nothing(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_on(database, tmp_path)
    engine.submit(run_of("r", s1={"command": "true"}, s2={"command": "true"}))
    engine.turn()
    save = store.Writer.save

    def broken(*_: object, **__: object) -> None:
        raise Unavailable("The disk is full.")

    monkeypatch.setattr(store.Writer, "save", broken)
    end(engine, "r.0.1")
    with pytest.raises(Unavailable):
        engine.turn()
    engine.forget_unsaved()
    monkeypatch.setattr(store.Writer, "save", save)
    ((_, order),) = engine.turn().launches
    assert order.token == "r.1.1"
    assert store.load(database, "r").tasks[0].status == "done"


def test_a_run_that_could_not_be_stored_is_forgotten(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_on(database, tmp_path)
    save = store.Writer.save

    def broken(*_: object, **__: object) -> None:
        raise Unavailable("The disk is full.")

    monkeypatch.setattr(store.Writer, "save", broken)
    engine.submit(run_of("r", s1={"command": "true"}))
    with pytest.raises(Unavailable):
        engine.turn()
    engine.forget_unsaved()
    monkeypatch.setattr(store.Writer, "save", save)
    assert engine.turn().launches == []
    assert search.known(database, ["r"]) == set()


def test_a_run_whose_commit_was_made_and_not_answered_goes_on(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_on(database, tmp_path)
    save = store.Writer.save

    def unanswered(writer: store.Writer, *changed: Any, **more: Any) -> None:
        save(writer, *changed, **more)
        raise Unavailable("The connection was lost.")

    monkeypatch.setattr(store.Writer, "save", unanswered)
    engine.submit(run_of("r", s1={"command": "true"}))
    with pytest.raises(Unavailable):
        engine.turn()
    engine.forget_unsaved()
    monkeypatch.setattr(store.Writer, "save", save)
    ((_, order),) = engine.turn().launches
    assert (order.token, order.adopt) == ("r.0.1", True)
    end(engine, order.token)
    assert [run.status for run in engine.turn().finished] == [RunStatus.DONE]


def test_a_child_run_that_could_not_be_stored_is_not_forgotten(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("{'name': 'c', 'owner': 'o', 'stages': {'1': {'command': 'true'}}}")
    definition = loader.load(workflow(s1={"command": "true"}, s2={"workflow": str(child)}))
    plan = compile_plan(definition, {}, directory="/", find_child=loader.load)
    engine = engine_on(database, tmp_path)
    engine.submit(new_run("parent", plan, 1.0))
    engine.turn()
    save = store.Writer.save

    def broken(*_: object, **__: object) -> None:
        raise Unavailable("The disk is full.")

    monkeypatch.setattr(store.Writer, "save", broken)
    end(engine, "parent.0.1")
    with pytest.raises(Unavailable):
        engine.turn()
    engine.forget_unsaved()
    monkeypatch.setattr(store.Writer, "save", save)
    ((_, order),) = engine.turn().launches
    end(engine, order.token)
    assert {r.id: r.status for r in engine.turn().finished}["parent"] is RunStatus.DONE


def test_a_bug_met_by_one_run_fails_that_run_only(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_on(database, tmp_path)
    answer = opening.answer

    def buggy(run: Run, *rest: Any, **more: Any) -> events.Event:
        if run.id == "bad":
            raise ZeroDivisionError("a bug")
        return answer(run, *rest, **more)

    monkeypatch.setattr(loop.opening, "answer", buggy)
    for run_id in ("bad", "good"):
        engine.submit(run_of(run_id, s1={"command": "true"}))
    effects = engine.turn()
    assert [order.token for _, order in effects.launches] == ["good.0.1"]
    assert [r.id for r in effects.finished] == ["bad"]
    assert "internal error: ZeroDivisionError" in store.load(database, "bad").error


def test_a_child_run_is_cancelled_with_its_parent(database: Database, tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text("{'name': 'c', 'owner': 'o', 'stages': {'1': {'command': 'sleep 9'}}}")
    definition = loader.load(workflow(s1={"workflow": str(child)}))
    plan = compile_plan(definition, {}, directory="/", find_child=loader.load)
    engine = engine_on(database, tmp_path)
    engine.submit(new_run("parent", plan, 1.0))
    ((_, order),) = engine.turn().launches
    child_id = split_token(order.token)[0]
    engine.feed("parent", events.CancelAsked(100.0))
    assert [token for _, token in engine.turn().kills] == [order.token]
    end(engine, order.token, Outcome(FailureClass.CANCELLED, "cancelled"))
    assert {r.id: r.status for r in engine.turn().finished} == {
        child_id: RunStatus.ABORTED,
        "parent": RunStatus.ABORTED,
    }


def test_what_cannot_be_tried_again(database: Database, tmp_path: Path) -> None:
    engine = engine_on(database, tmp_path)
    engine.submit(run_of("r", s1={"command": "true"}))
    engine.turn()
    with pytest.raises(Conflict, match="running"):
        engine.retry("r", "")
    with pytest.raises(NotFound):
        engine.retry("absent", "")
    end(engine, "r.0.1")
    engine.turn()
    with pytest.raises(Conflict, match="--from"):
        engine.retry("r", "")
    with pytest.raises(Conflict, match="no stage"):
        engine.retry("r", "2")


def test_a_hold_is_in_the_store_and_a_new_engine_resumes_it(database: Database, tmp_path: Path) -> None:
    engine = engine_on(database, tmp_path)
    engine.submit(run_of("r", s1={"command": "true"}))
    engine.turn()
    end(engine, "r.0.1", Outcome(FailureClass.DOWN, "nobody answers", unsure=True))
    engine.turn()
    assert [s.status for s in search.listing(database, search.Wanted("held"))] == [RunStatus.HELD]
    again = engine_on(database, tmp_path)
    again.recover()
    assert again.turn().launches == []
    due = again.next_due
    assert due is not None
    assert due > 100.0
    assert again.resume_site("elsewhere") == []
    assert again.resume_site("local") == ["r"]
    again.turn()
    again.due(100.0)
    ((_, order),) = again.turn().launches
    assert (order.token, order.adopt) == ("r.0.1", True)
    assert store.load(database, "r").status is RunStatus.RUNNING


def test_who_was_not_let_in_tries_again_by_itself_after_a_restart(database: Database, tmp_path: Path) -> None:
    """Nobody asks for it: the door is tried ever more rarely, and a run goes on when it is open."""
    engine = engine_on(database, tmp_path)
    engine.submit(run_of("r", s1={"command": "true"}))
    engine.turn()
    expired = Outcome(FailureClass.AUTHENTICATION, "ticket expired, https://sign.in")
    end(engine, "r.0.1", expired)
    engine.turn()
    for attempt in (2, 3):
        again = engine_on(database, tmp_path)
        again.recover()
        again.turn()
        held = store.load(database, "r")
        hold = held.tasks[0].hold
        assert hold is not None
        assert (held.status, hold.link, hold.since, hold.probes) == (
            RunStatus.HELD,
            "https://sign.in",
            100.0,
            attempt - 2,
        )
        due = again.next_due
        assert due is not None
        again.due(due - 1.0)
        assert again.turn().launches == []
        again.due(due)
        ((_, order),) = again.turn().launches
        assert order.token == f"r.0.{attempt}"
        assert not order.adopt
        end(again, order.token, expired if attempt == 2 else None)
        again.turn()
    done = store.load(database, "r")
    assert (done.status, done.tasks[0].used) == (RunStatus.DONE, {})


def test_what_is_not_on_hold_cannot_be_resumed(database: Database, tmp_path: Path) -> None:
    engine = engine_on(database, tmp_path)
    engine.submit(run_of("r", s1={"command": "true"}))
    engine.turn()
    with pytest.raises(Conflict, match="Nothing of run r is on hold"):
        engine.resume("r")
