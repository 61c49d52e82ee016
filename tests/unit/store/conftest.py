from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.store.database import Database


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    """The store, once on each database."""
    made = Database(store_url)
    made.upgrade()
    yield made
    made.close()
