"""PostgreSQL's connections: none waits for ever, whatever has become of the server, the network or us.

Three things can hang, and each has its own bound. A statement that is slow or waits for a lock is ended by the server.
A server that is silent (paused, or behind a network that drops everything) is given up by us. And when we are silent in
the middle of a transaction, the server ends it, so that our locks do not stand in the way of whoever takes over.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import Any

import psycopg
from sqlalchemy import Engine, event

CONNECT_S = 5
STATEMENT_S = 10.0  # the server ends a statement then
SILENCE_S = 12.0  # we end a connection whose server has not answered by then: later than it would by itself
IDLE_S = 5.0  # the server ends a transaction of ours in which it has not heard of us for so long

SESSION = {
    "statement_timeout": f"{STATEMENT_S * 1000:.0f}",
    "idle_in_transaction_session_timeout": f"{IDLE_S * 1000:.0f}",
    "timezone": "UTC",
    "application_name": "beamway",
}
CONNECT: dict[str, Any] = {
    "connect_timeout": CONNECT_S,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "options": " ".join(f"-c {name}={value}" for name, value in SESSION.items()),
}


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed when nothing is heard on it for `silence_s`; what is asked may take longer."""

    silence_s: float = SILENCE_S

    def wait(self, gen: Generator[Any, Any, Any], *more: Any, **named: Any) -> Any:
        try:
            return super().wait(_heard(gen, self.silence_s), *more, **named)
        except TimeoutError:
            self.pgconn.finish()  # nothing more is said on it, and it is not given out again
            raise psycopg.OperationalError(f"no answer within {self.silence_s:g} s") from None


def _heard(gen: Generator[Any, Any, Any], silence_s: float) -> Generator[Any, Any, Any]:
    """`gen`, which asks for its socket to be ready and is told now and then that it is not."""
    heard_at = time.monotonic()
    try:
        asked = next(gen)
        while True:
            ready = yield asked
            now = time.monotonic()
            if ready:
                heard_at = now
            elif now - heard_at > silence_s:
                raise TimeoutError
            asked = gen.send(ready)
    except StopIteration as end:
        return end.value


def prepare(engine: Engine) -> None:
    @event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, words: Sequence[Any], named: dict[str, Any]) -> BoundedConnection:
        options = " ".join(o for o in (CONNECT["options"], named.get("options", "")) if o)
        return BoundedConnection.connect(*words, **{**CONNECT, **named, "options": options})


def unhurried(connection: Any) -> None:
    """Take off the bounds of a connection, for changes of the tables themselves; it is not to be used again."""
    connection.exec_driver_sql("SET statement_timeout = 0")
    connection.exec_driver_sql("SET idle_in_transaction_session_timeout = 0")
    connection.connection.dbapi_connection.silence_s = float("inf")


def look_at(connection: Any, table: str, least: int = 1000) -> None:
    """Have the server look at a table of which a quarter, and `least` rows, have changed since it did last.

    It does so by itself only once a minute, and until then makes its plans for the small table that it knows.
    """
    asked = "SELECT n_mod_since_analyze, n_live_tup FROM pg_stat_user_tables WHERE relid = to_regclass(%(table)s)"
    changed, rows = connection.exec_driver_sql(asked, {"table": table}).one()
    if changed > max(least, rows // 4):
        connection.exec_driver_sql(f"ANALYZE {table}")
