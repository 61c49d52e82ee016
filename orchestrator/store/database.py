"""Opens the database: SQLite in the home directory by default, any SQLAlchemy URL otherwise.

SQLite runs in WAL mode with `synchronous=FULL`: a commit is on the disk before it returns. Each transaction says
beforehand whether it writes, because SQLite refuses at once, whatever the time-out, to turn a reading transaction into
a writing one while another writer is active.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import Unavailable

HEAD = "0009"  # the migration this code expects; checked against the files by a test


class Database:
    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
        if self._engine.dialect.name == "sqlite":
            _prepare_sqlite(self._engine)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                connection.info["begin"] = begin
                with connection.begin():
                    yield connection
        except DBAPIError as error:
            raise Unavailable(
                f"The database {self._engine.url.render_as_string(hide_password=True)} failed: {error.orig}.",
                "Look at the free space and the rights of its disk; nothing that was accepted is lost.",
            ) from error

    def prepare(self, statement: Any, table: Table | None = None, without: Sequence[str] = ()) -> Prepared:
        """The statement as text of this database, for rows of plain values; `table`: whose columns an insert fills."""
        keys = [c.name for c in table.columns if c.name not in without] if table is not None else None
        return Prepared(statement.compile(dialect=self._engine.dialect, column_keys=keys))

    def upgrade(self) -> None:
        """Bring the tables to `HEAD`; a fresh database is created. Does nothing (and imports nothing) when current."""
        if self._revision() == HEAD:
            return
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _revision(self) -> str:
        with self.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return ""
            return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()


class Prepared:
    """A statement compiled once. Executing it costs a fifth of what the general way does, which counts in a turn."""

    def __init__(self, compiled: Any) -> None:
        self._text: str = compiled.string
        self._order: list[str] | None = compiled.positiontup if compiled.positional else None

    def __call__(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        given: Any = [tuple(row[k] for k in self._order) for row in rows] if self._order is not None else list(rows)
        connection.exec_driver_sql(self._text, given)


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=30000")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA wal_autocheckpoint=8000")  # pages; a checkpoint stalls the commit that triggers it
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.info.pop("begin", "BEGIN"))
