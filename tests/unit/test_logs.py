"""No secret reaches a log, wherever in an event it stands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import logs
from orchestrator.settings import Secret
from orchestrator.store import tokens
from orchestrator.store.database import Database

SECRET = "s3cr3t-Zq_9xW.k~"
NAMES = ["token", "Password", "authorization", "db_password", "client_secret", "X-Auth-Token", "api_key", "tokens"]
SHAPES = [
    f"bw_0123456789abcdef_{SECRET.replace('.', '_').replace('~', '_')}",
    f"postgresql+psycopg://beamway:{SECRET}@db.example.org/beamway",
    f"postgresql://:{SECRET}@db",
    f"https://ann:p@{SECRET}@host:80/x",
    f"Authorization: Bearer {SECRET}",
    f"connection failed: password={SECRET} host=db",
    f"{{'password': '{SECRET}'}}",
]
CORE = "s3cr3t-Zq_9xW"  # of all of the above

harmless = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20))
keyed = st.builds(lambda name, other: {name: SECRET, "run": other}, st.sampled_from(NAMES), harmless)
within = st.builds(lambda before, text, after: f"{before} {text} {after}", st.text(max_size=9), st.sampled_from(SHAPES),
                   st.text(max_size=9))  # fmt: skip
objects = within.map(lambda text: ValueError(text)) | within.map(str.encode)
nested = st.recursive(
    keyed | within | objects | st.sampled_from(NAMES).map(lambda name: {name: [{"deep": SECRET}]}),
    lambda inner: (
        st.lists(inner | harmless, min_size=1, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, min_size=1, max_size=3)
        | inner.map(lambda value: (value,))
        | within.map(lambda text: {text: 1})
    ),
    max_leaves=6,
)


@given(nested)
def test_no_secret_in_any_nesting_is_rendered(value: Any) -> None:
    fields = logs.redact(None, "info", {"event": "it.happened", "detail": value})
    assert CORE not in structlog.processors.JSONRenderer()(None, "info", dict(fields))
    assert CORE not in str(structlog.dev.ConsoleRenderer(colors=False)(None, "info", dict(fields)))


@given(st.dictionaries(st.sampled_from(["run", "site", "count", "reason"]), harmless))
def test_what_is_no_secret_stays(fields: dict[str, Any]) -> None:
    assert logs.redact(None, "info", {"event": "x", **fields}) == {"event": "x", **fields}


def test_what_helps_stays() -> None:
    fields = {
        "event": "x",
        "token": "1b2c-3d.0.2",
        "url": "http://host:80/a",
        "n": [1],
        "why": "token='r.1.2' is gone",
        "secret": Secret("a"),
    }
    assert logs.redact(None, "info", dict(fields)) == {**fields, "secret": logs.MASK}


def test_tokens_as_they_are_made_are_masked_but_for_their_id(tmp_path: Path) -> None:
    with Database(f"sqlite:///{tmp_path}/x.db") as database:
        database.upgrade()
        made, text = tokens.create(database, name="ann", role="user", site="", now=0.0, expires_at=0.0)
    assert logs.without_secrets(f"it is {text}, said ann") == f"it is bw_{made.id}_{logs.MASK}, said ann"


@pytest.fixture
def configuration() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("for_people", [False, True])
@pytest.mark.usefixtures("configuration")
def test_both_kinds_of_logs_redact_fields_and_tracebacks(for_people: bool, capsys: pytest.CaptureFixture[str]) -> None:
    if for_people:
        logs.configure_for_people()
    else:
        logs.configure()
    log = structlog.get_logger()
    try:
        raise ValueError(f"no way to {SHAPES[1]}")
    except ValueError:
        log.exception("it.failed", password=SECRET, run="r1")
    said = capsys.readouterr().err
    assert CORE not in said
    assert "r1" in said
    assert "ValueError: no way to postgresql+psycopg://beamway:" in said
    assert sys.exc_info() == (None, None, None)
    if not for_people:
        assert json.loads(said)["password"] == logs.MASK
