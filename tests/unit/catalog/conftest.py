from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store.database import Database
from tests.unit.catalog.keep import Beamline


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    """The store, once on each database."""
    made = Database(store_url)
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def beamline(tmp_path: Path, database: Database) -> Beamline:
    return Beamline(tmp_path / "home", database)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Beamline]:
    """On SQLite only: for what the database has no part in."""
    with Database(f"sqlite:///{tmp_path}/alone.db") as made:
        made.upgrade()
        yield Beamline(tmp_path / "home", made)
