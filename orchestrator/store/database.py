"""Opens the database: SQLite in the home directory by default, PostgreSQL where an address of one is set.

SQLite runs in WAL mode with `synchronous=FULL`: a commit is on the disk before it returns. Each transaction says
beforehand whether it writes, because SQLite refuses at once, whatever the time-out, to turn a reading transaction into
a writing one while another writer is active.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from orchestrator.errors import SettingsError, Unavailable

HEAD = "0013"  # the migration this code expects; checked against the files by a test
UPGRADING = 0x6265616D  # PostgreSQL's lock of that number: one upgrade at a time
_alembic = threading.Lock()  # it keeps what it works on in module variables
READING = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


class Database:
    def __init__(self, url: str) -> None:
        """Opens nothing yet. Raises SettingsError when `url` is no address of a database that can be used."""
        self.url = url
        try:
            self._engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
            if self._engine.dialect.name not in ("sqlite", "postgresql") or self._engine.driver == "psycopg2":
                raise ValueError(f"{self._engine.name}+{self._engine.driver} is not built")
        except (SQLAlchemyError, ImportError, ValueError) as error:
            raise SettingsError(
                f"The setting 'database' is not an address that can be used: {_secretless(error, url)}.",
                "PostgreSQL's reads `postgresql+psycopg://USER:PASSWORD@HOST/NAME`.",
            ) from None
        if self.postgresql:
            from orchestrator.store import postgresql

            postgresql.prepare(self._engine)
        else:
            _prepare_sqlite(self._engine)

    @property
    def postgresql(self) -> bool:
        return self._engine.dialect.name == "postgresql"

    @property
    def where(self) -> str:
        """Its address without the password."""
        return self._engine.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees the database as it is at one moment, and changes nothing."""
        with self._transaction("BEGIN", **READING) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str, **options: Any) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                if self.postgresql:
                    if options:
                        connection = connection.execution_options(**options)
                else:
                    connection.info["begin"] = begin
                with connection.begin():
                    yield connection
        except DBAPIError as error:
            raise Unavailable(
                f"The database {self.where} failed: {_first_line(error.orig)}.",
                "Is it up, and is there room on its disk? Nothing that was accepted is lost.",
            ) from error

    def prepare(self, statement: Any, table: Table | None = None, without: Sequence[str] = ()) -> Prepared:
        """The statement as text of this database, for rows of plain values; `table`: whose columns an insert fills."""
        keys = [c.name for c in table.columns if c.name not in without] if table is not None else None
        return Prepared(statement.compile(dialect=self._engine.dialect, column_keys=keys))

    def has_grown(self, table: Table) -> None:
        """Many rows were written into it, and its statistics should say so. Whatever comes of that, they are there."""
        if not self.postgresql:
            return
        from orchestrator.store import postgresql

        with suppress(Unavailable), self.write() as connection:
            postgresql.look_at(connection, table.name)

    def ensure(self) -> None:
        """Make sure that the tables are those of `HEAD`: SQLite's are brought there, PostgreSQL's only looked at.

        Others may be at work on a PostgreSQL, so that changing its tables is a decision of whoever runs it. Raises
        Unavailable when they are older, or newer than this version knows.
        """
        revision = self.revision()
        if revision == HEAD:
            return
        self.close()  # whoever is refused has nothing to close
        self.require_known(revision)
        if self.postgresql:
            found = f"is at revision {revision}" if revision else "has no tables yet"
            raise Unavailable(
                f"The database {self.where} {found}, this version of Beamway needs {HEAD}.",
                "`beamway db upgrade` brings it there.",
            )
        self.upgrade()

    def require_known(self, revision: str) -> None:
        """Raises Unavailable when the tables are newer than this version knows."""
        if revision > HEAD:
            raise Unavailable(
                f"The database {self.where} is at revision {revision}, this version of Beamway knows {HEAD}.",
                "A newer version has been here; use that one.",
            )

    def upgrade(self, revision: str = HEAD) -> None:
        """Bring the tables to this revision; a fresh database is created. Two at once follow one another."""
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        with _alembic, self.write() as connection:
            if self.postgresql:
                from orchestrator.store import postgresql

                postgresql.unhurried(connection)
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({UPGRADING})")
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
        self._engine.dispose()

    def revision(self) -> str:
        """Of the tables as they are; empty for a database that has none."""
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


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _secretless(error: Exception, url: str) -> str:
    """What went wrong, unless it repeats the address, which may hold a password."""
    line = _first_line(error)
    return "it cannot be read" if url in line else line


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
