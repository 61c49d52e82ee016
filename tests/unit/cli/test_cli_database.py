"""`beamway db`, on both databases, and who refuses older tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_samples import Beamway

from orchestrator.client import Client
from orchestrator.errors import Unavailable
from orchestrator.settings import Settings
from orchestrator.store.database import HEAD, Database


@pytest.fixture
def url(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BEAMWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BEAMWAY_DATABASE", store_url)
    return store_url


def test_an_empty_database_is_shown_and_brought_up(url: str, beamway: Beamway) -> None:
    said = beamway("db", "status")
    assert (said.exit_code, "has no tables" in said.out) == (1, True)
    where = Database(url).where
    assert beamway("db", "upgrade", "--json").json == {
        "database": where,
        "revision": HEAD,
        "expected": HEAD,
        "current": True,
        "before": None,
    }
    assert beamway("db", "status", "--json").json["current"] is True
    assert beamway("db", "upgrade").out == f"database  {where}\nrevision  {HEAD}\n"
    assert beamway("db", "status").exit_code == 0


def test_an_older_one_is_named_with_what_to_do(url: str, beamway: Beamway) -> None:
    database = Database(url)
    database.upgrade("0002")
    said = beamway("db", "status")
    assert (said.exit_code, "revision  0002\n" in said.out, "`beamway db upgrade`" in said.out) == (1, True, True)
    assert f"revision  {HEAD} (was 0002)" in beamway("db", "upgrade").out
    database.close()


def test_one_that_a_newer_version_has_changed_is_left_alone(url: str, beamway: Beamway, home: Path) -> None:
    database = Database(url)
    database.upgrade()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    assert "a newer version" in beamway("db", "status").out
    said = beamway("db", "upgrade")
    assert (said.exit_code, "9999" in said.err) == (75, True)
    with pytest.raises(Unavailable, match="9999"):
        Client(Settings(home=home, database=url))
