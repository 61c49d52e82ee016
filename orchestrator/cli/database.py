"""Commands about the tables of the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click

from orchestrator.cli.group import Commands
from orchestrator.cli.session import json_option

if TYPE_CHECKING:
    from orchestrator.store.database import Database


@click.group(cls=Commands, invoke_without_command=True)
@click.pass_context
def db(context: click.Context) -> None:
    """Show which tables the database has, and bring them up to this version."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@db.command()
@json_option
def status(as_json: bool) -> None:
    """Show where the database is, and whether its tables are those of this version; exit 1 when not."""
    with _database() as database:
        revision = database.revision()
        _tell(database, revision, as_json=as_json)
    click.get_current_context().exit(0 if _current(revision) else 1)


@db.command()
@json_option
def upgrade(as_json: bool) -> None:
    """Bring the tables up to this version; what runs meanwhile goes on."""
    with _database() as database:
        before = database.revision()
        if not _current(before):
            database.require_known(before)
            database.upgrade()
        _tell(database, database.revision(), as_json=as_json, before=before)


@contextmanager
def _database() -> Iterator[Database]:
    from orchestrator import settings
    from orchestrator.store.database import Database

    configured = settings.load()
    settings.ensure_home(configured.home)
    with closing(Database(configured.database_url)) as database:
        yield database


def _current(revision: str) -> bool:
    from orchestrator.store.database import HEAD

    return revision == HEAD


def _tell(database: Database, revision: str, *, as_json: bool, before: str | None = None) -> None:
    from orchestrator.cli import formats
    from orchestrator.errors import printable
    from orchestrator.store.database import HEAD

    if as_json:
        record = {"database": database.where, "revision": revision or None, "expected": HEAD}
        formats.emit({**record, "current": _current(revision)} | ({} if before is None else {"before": before or None}))
        return
    click.echo(f"database  {printable(database.where)}")
    was = f" (was {before or 'empty'})" if before is not None and before != revision else ""
    click.echo(f"revision  {revision or 'none: it has no tables'}{was}")
    if not _current(revision):
        then = "`beamway db upgrade` brings it there" if revision < HEAD else "a newer version has been here"
        click.echo(f"expected  {HEAD}; {then}")
