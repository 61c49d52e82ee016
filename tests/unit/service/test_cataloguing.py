"""The catalog follows the runs that end, and none of them holds it up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from immutables import Map
from sqlalchemy.exc import DataError

from orchestrator.errors import Unavailable
from orchestrator.model import Plan, Run, RunStatus
from orchestrator.service import cataloguing
from orchestrator.store import catalog, lineage
from orchestrator.store import runs as store
from orchestrator.store.database import Database
from orchestrator.store.lineage import Account
from orchestrator.store.runs import Changed, EventRow


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    with Database(store_url) as made:
        made.upgrade()
        yield made


def ended(database: Database, *ids: str) -> None:
    writer = store.Writer(database)
    for run_id in ids:
        plan = Plan("w", "me", (), variables={"filePath": f"/d/{run_id}"}, directory="/")
        run = Run(run_id, plan, 1.0, RunStatus.DONE, 1.0, 2.0, variables=Map())
        writer.save([Changed(run, True, (), ())], [EventRow(run_id, 2.0, lineage.FILES)])


def followed(database: Database) -> int:
    total = 0
    while count := cataloguing.follow(database, "local"):
        total += count
    return total


def test_all_in_their_order_and_each_once(database: Database) -> None:
    ids = [f"r{n:02}" for n in range(cataloguing.BATCH + 3)]
    ended(database, *ids)
    assert followed(database) == len(ids)
    assert followed(database) == 0
    names = [catalog.get(database, n + 1).name for n in range(len(ids))]
    assert names == [f"/d/{run_id}" for run_id in ids]


@pytest.mark.parametrize("how", ["a fault of ours", "the database refuses it"])
def test_a_run_that_cannot_be_written_holds_up_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    ended(database, "a", "bad", "c")
    real = lineage.write

    def write(database: Database, cursor: int, accounts: Sequence[Account], upto: int, **more: Any) -> bool:
        if any(account.run_id == "bad" for account in accounts):
            if how == "a fault of ours":
                raise ValueError("no")
            raise Unavailable("refused") from DataError("", None, ValueError("too long"))
        return real(database, cursor, accounts, upto, **more)

    monkeypatch.setattr(lineage, "write", write)
    assert followed(database) == 3
    with database.read() as connection:
        assert {use.run_id for use in lineage.uses_of_runs(connection, ["a", "bad", "c"])} == {"a", "c"}


def test_a_store_that_is_away_is_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(database, "a")

    def away(*_: Any, **__: Any) -> bool:
        raise Unavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(lineage, "write", away)
        with pytest.raises(Unavailable):
            cataloguing.follow(database, "local")
    assert followed(database) == 1


def test_a_run_that_goes_again_is_written_when_it_has_ended(database: Database) -> None:
    ended(database, "a")
    run = store.load(database, "a")
    going = Run(run.id, run.plan, 1.0, RunStatus.RUNNING, 1.0, variables=Map())
    store.Writer(database).save([Changed(going, False, (), ())], [])
    assert followed(database) == 1
    assert catalog.number_of_files(database) == 0
    store.Writer(database).save([Changed(run, False, (), ())], [EventRow("a", 3.0, lineage.FILES)])
    assert followed(database) == 1
    assert catalog.number_of_files(database) == 1
