"""What the tests of watches share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store.database import Database
from tests.unit.arrival.test_watch import Bench


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """The queries are tried on both databases beside the store; here it is one of memory's speed."""
    with Database(f"sqlite:///{tmp_path}/x.db") as made:
        made.upgrade()
        yield made


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(database, tmp_path)
    yield made
    made.watcher.close()
