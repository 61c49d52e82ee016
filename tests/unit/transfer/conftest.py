from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.settings import Secret
from orchestrator.transfer.globus.transfer import GlobusTransfer
from tests.globus import CLIENT, SECRET, Globus
from tests.globus.ends import Ends


@pytest.fixture
def globus() -> Iterator[Globus]:
    """The stand-in for Globus, for the real SDK."""
    with Globus() as running:
        yield running


@pytest.fixture
def ends(globus: Globus, tmp_path: Path) -> Iterator[Ends]:
    raw, archive = globus.collection(tmp_path / "raw"), globus.collection(tmp_path / "archive")
    folder = tmp_path / "globus"
    made = Ends(globus, raw, archive, folder, GlobusTransfer(CLIENT, Secret(SECRET), folder, retries=1))
    made.fill("a.h5")
    yield made
    made.transfer.close()
