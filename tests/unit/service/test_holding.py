"""Who has the engine, where one home and its lock are all there is to it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.errors import Stale
from orchestrator.service import holding
from orchestrator.settings import Settings, ensure_home
from orchestrator.store.database import Database


def database_in(home: Path) -> Database:
    made = Database(Settings(home=home).database_url)
    made.ensure()
    return made


def test_a_home_that_was_moved_has_its_engine_at_once(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    ensure_home(old)
    with database_in(old) as database:
        first = holding.take(database, old, "")
        assert first is not None
    old.rename(new)
    with database_in(new) as database:
        second = holding.take(database, new, "")
        assert second is not None
        assert second.lease.fence > first.lease.fence
        assert str(new) in second.lease.holder


def test_a_database_that_two_homes_share_is_the_first_one_s(tmp_path: Path) -> None:
    """The lock of one home says nothing about the other."""
    url = f"sqlite:///{tmp_path}/shared.db"
    with Database(url) as database:
        database.ensure()
        assert holding.take(database, tmp_path / "a", "") is not None
        assert holding.take(database, tmp_path / "b", "") is None
        assert holding.take(database, tmp_path / "a", "") is not None, "it may have died"


def test_another_home_gets_the_engine_when_the_first_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "LEASE_S", 0.3)
    monkeypatch.setattr(holding, "RENEW_S", 0.0)
    with Database(f"sqlite:///{tmp_path}/shared.db") as database:
        database.upgrade()
        first = holding.take(database, tmp_path / "a", "")
        assert first is not None
        time.sleep(0.2)
        first.tend(time.monotonic())
        time.sleep(0.2)
        assert holding.take(database, tmp_path / "b", "") is None
        time.sleep(0.4)
        assert holding.take(database, tmp_path / "b", "") is not None
        with pytest.raises(Stale):
            first.tend(time.monotonic())
