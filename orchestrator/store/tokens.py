"""Tokens by which clients and agents are known. Only a digest is stored: a token is shown once, when it is made."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from msgspec import Struct
from sqlalchemy import insert, select, update

from orchestrator.errors import NotFound
from orchestrator.store import schema
from orchestrator.store.database import Database

PREFIX = "bw"


class Token(Struct, frozen=True):
    """What is known of a token. Times are epoch seconds, 0: never."""

    id: str
    name: str  # whose it is
    role: str
    site: str = ""  # of an agent: the only one it may serve
    created_at: float = 0.0
    expires_at: float = 0.0
    revoked_at: float = 0.0


_COLUMNS = [schema.tokens.c[name] for name in Token.__struct_fields__]


def create(database: Database, *, name: str, role: str, site: str, now: float, expires_at: float) -> tuple[Token, str]:
    """(the token, its text). The text holds 256 random bits, so a plain digest of it keeps it secret."""
    made = Token(secrets.token_hex(8), name, role, site, now, expires_at)
    secret = secrets.token_urlsafe(32)
    row = {name: getattr(made, name) for name in Token.__struct_fields__}
    with database.write() as connection:
        connection.execute(insert(schema.tokens).values(**row, digest=_digest(secret)))
    return made, f"{PREFIX}_{made.id}_{secret}"


def find(database: Database, text: str, *, now: float) -> Token | None:
    """The token of this text; None when there is none, or it is over."""
    kind, _, rest = text.partition("_")
    number, _, secret = rest.partition("_")
    if kind != PREFIX or not number.isalnum() or not secret:
        return None
    with database.read() as connection:
        query = select(schema.tokens.c.digest, *_COLUMNS).where(schema.tokens.c.id == number[:16])
        row = connection.execute(query).mappings().first()
    if row is None or not hmac.compare_digest(row["digest"], _digest(secret)):
        return None
    found = Token(**{name: row[name] for name in Token.__struct_fields__})
    over = found.revoked_at or (found.expires_at and now >= found.expires_at)
    return None if over else found


def ls(database: Database) -> list[Token]:
    with database.read() as connection:
        rows = connection.execute(select(*_COLUMNS).order_by(schema.tokens.c.created_at)).mappings()
        return [Token(**row) for row in rows]


def revoke(database: Database, token_id: str, *, now: float) -> None:
    """Raises NotFound. A token that was revoked stays so."""
    with database.write() as connection:
        this = schema.tokens.c.id == token_id
        if connection.execute(select(schema.tokens.c.id).where(this)).first() is None:
            raise NotFound(f"There is no token {token_id!r}.", "`beamway token ls` lists them.")
        fresh = this & (schema.tokens.c.revoked_at == 0.0)
        connection.execute(update(schema.tokens).where(fresh).values(revoked_at=now))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
