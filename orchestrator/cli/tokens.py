"""Commands about tokens, in the store of this home: whoever may read its database may make them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.group import Commands
from orchestrator.cli.session import json_option

if TYPE_CHECKING:
    from orchestrator.store.database import Database
    from orchestrator.store.tokens import Token


@click.group(cls=Commands)
def token() -> None:
    """By which clients and agents are known over HTTP: make, list, revoke."""


@token.command()
@click.argument("name")
@click.option("--role", required=True, help="viewer, user, author, operator, admin or agent.")
@click.option("--site", default="", help="Of an agent: the one site it serves.")
@click.option("--lasts", default="90 d", show_default=True, help="How long it is good: `8 h`, `30 d`.")
@json_option
def create(name: str, role: str, site: str, lasts: str, as_json: bool) -> None:
    """Make a token for NAME, a person or a program. It is shown this once."""
    import time

    from orchestrator.cli import formats
    from orchestrator.definition.units import duration_s
    from orchestrator.errors import ArgumentError
    from orchestrator.service import permission
    from orchestrator.store import tokens

    permission.check_role(role, site)
    try:
        lasts_s = duration_s(lasts)
    except ValueError as error:
        raise ArgumentError(f"--lasts {lasts!r}: {error}") from None
    now = time.time()
    with _database() as database:
        made, text = tokens.create(database, name=name, role=role, site=site, now=now, expires_at=now + lasts_s)
    if as_json:
        formats.emit({**_record(made), "token": text})
        return
    click.echo(text)
    click.echo(f"{made.id}: {role}, until {formats.local(made.expires_at)}; it is shown this once.", err=True)


@token.command()
@json_option
def ls(as_json: bool) -> None:
    """List the tokens, without their secrets."""
    from orchestrator.cli import formats
    from orchestrator.store import tokens

    with _database() as database:
        found = tokens.ls(database)
    if as_json:
        formats.emit([_record(each) for each in found])
        return
    rows = [
        (t.id, t.name, t.role, t.site, formats.local(t.created_at), formats.local(t.expires_at), _state(t))
        for t in found
    ]
    click.echo(formats.table(("id", "name", "role", "site", "made", "until", "state"), rows) if rows else "No tokens.")


@token.command()
@click.argument("token_id", metavar="ID")
@json_option
def revoke(token_id: str, as_json: bool) -> None:
    """End a token: a service refuses it within seconds."""
    import time

    from orchestrator.cli import formats
    from orchestrator.store import tokens

    with _database() as database:
        tokens.revoke(database, token_id, now=time.time())
    if as_json:
        formats.emit({"id": token_id, "revoked": True})
    else:
        click.echo(f"{token_id} is revoked.")


def _database() -> Database:
    from orchestrator import settings
    from orchestrator.store.database import Database

    configured = settings.load()
    settings.ensure_home(configured.home)
    database = Database(configured.database_url)
    database.ensure()
    return database


def _state(token: Token) -> str:
    import time

    if token.revoked_at:
        return "revoked"
    return "over" if token.expires_at and time.time() >= token.expires_at else "good"


def _record(token: Token) -> dict[str, object]:
    from orchestrator.codec import iso

    return {
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "site": token.site,
        "created_at": iso(token.created_at),
        "expires_at": iso(token.expires_at),
        "revoked_at": iso(token.revoked_at),
        "state": _state(token),
    }
