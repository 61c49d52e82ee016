"""What becomes of us when PostgreSQL hangs, dies, comes back, or must not wait for us."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from orchestrator.errors import SettingsError, Unavailable
from orchestrator.store import postgresql, search
from orchestrator.store import runs as store
from orchestrator.store.database import HEAD, Database
from tests.postgres import Postgres, missing


@pytest.fixture(scope="module")
def cluster() -> Iterator[Postgres]:
    """One that these tests may harm."""
    if reason := missing():
        pytest.skip(reason)
    with Postgres() as made:
        yield made


@pytest.fixture
def database(cluster: Postgres) -> Iterator[Database]:
    made = Database(cluster.new_database())
    made.upgrade()
    yield made
    made.close()


def test_a_database_that_hangs_is_given_up(
    cluster: Postgres, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql.BoundedConnection, "silence_s", 0.5)
    monkeypatch.setitem(postgresql.CONNECT, "connect_timeout", 2)  # the least that libpq allows
    search.counts(database)  # so that a connection is open
    cluster.pause()
    try:
        for _ in range(2):  # on the open connection, and on a new one
            begun = time.monotonic()
            with pytest.raises(Unavailable, match="failed"):
                search.counts(database)
            assert time.monotonic() - begun < 6
    finally:
        cluster.resume()
    assert search.counts(database) == {}


def test_much_to_do_is_no_silence(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql.BoundedConnection, "silence_s", 1.5)
    with database.write() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_sleep(0.001); RETURN new; END'"
        )
        connection.exec_driver_sql("CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow()")
    begun = time.monotonic()
    store.Writer(database).save([], [store.EventRow("r", 1.0, "k")] * 2000)
    assert time.monotonic() - begun > 1.5  # each some rows PostgreSQL says what is done


def test_one_that_was_killed_is_used_again_when_it_is_back(cluster: Postgres, database: Database) -> None:
    search.counts(database)
    cluster.kill()
    with pytest.raises(Unavailable):
        search.counts(database)
    cluster.start()
    assert search.counts(database) == {}


def test_a_statement_that_takes_too_long_is_ended(database: Database) -> None:
    def sleep(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 100")
        connection.exec_driver_sql("SELECT pg_sleep(30)")

    with pytest.raises(Unavailable, match="statement timeout"), database.write() as connection:
        sleep(connection)
    assert shown(database, "statement_timeout") == f"{postgresql.STATEMENT_S:g}s"
    assert postgresql.SILENCE_S > postgresql.STATEMENT_S


def test_a_transaction_that_we_leave_open_ends_and_its_locks_with_it(database: Database) -> None:
    def pause(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 200")
        connection.exec_driver_sql("LOCK TABLE runs")
        time.sleep(0.5)
        assert search.counts(database) == {}
        connection.exec_driver_sql("SELECT 1")

    with pytest.raises(Unavailable), database.write() as connection:
        pause(connection)
    assert shown(database, "idle_in_transaction_session_timeout") == f"{postgresql.IDLE_S:g}s"


def shown(database: Database, setting: str) -> str:
    with database.read() as connection:
        return str(connection.exec_driver_sql(f"SHOW {setting}").scalar())


def test_a_reader_sees_one_moment_and_writes_nothing(database: Database) -> None:
    with database.read() as connection:
        connection.exec_driver_sql("SELECT 1 FROM plans").all()
        with database.write() as other:
            other.exec_driver_sql("INSERT INTO plans VALUES ('d', '{}')")
        assert connection.exec_driver_sql("SELECT count(*) FROM plans").scalar() == 0
    with pytest.raises(Unavailable, match="read-only"), database.read() as connection:
        connection.exec_driver_sql("DELETE FROM plans")


def test_an_address_that_cannot_be_used_is_told_without_its_password() -> None:
    for url in ("postgres", "mysql://u:hidden@h/d", "postgresql+psycopg://u:hidden@h:port/d", "postgresql+nope://h/d"):
        with pytest.raises(SettingsError) as told:
            Database(url)
        assert "hidden" not in str(told.value)
    with pytest.raises(Unavailable) as failed:
        search.counts(Database("postgresql+psycopg://u:hidden@/d?host=/nowhere"))
    assert "hidden" not in str(failed.value)


def test_tables_that_are_not_those_of_this_version_are_left_alone(cluster: Postgres) -> None:
    database = Database(cluster.new_database())
    with pytest.raises(Unavailable, match="has no tables yet") as told:
        database.ensure()
    assert "beamway db upgrade" in told.value.hint
    database.upgrade()
    database.ensure()
    for revision, said in (("0001", f"needs {HEAD}"), ("9999", f"knows {HEAD}")):
        with database.write() as connection:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
        with pytest.raises(Unavailable, match=f"is at revision {revision}.*{said}"):
            database.ensure()
    database.close()


def test_two_upgrades_at_once_follow_one_another(cluster: Postgres) -> None:
    url = cluster.new_database()
    failures: list[Exception] = []

    def upgrade() -> None:
        database = Database(url)
        try:
            database.upgrade()
        except Exception as error:  # noqa: BLE001 - whatever it is, it fails the test
            failures.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    database = Database(url)
    assert database.revision() == HEAD
    database.close()
