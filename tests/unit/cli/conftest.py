"""A client that needs no service, and a way to call the command line as a shell would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from cli_samples import Beamway, FakeClient, Said

from orchestrator import cli
from orchestrator.cli import session


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """A command that configures the logs does it for itself and not for the tests that follow."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient(tmp_path / "home")
    monkeypatch.setenv("BEAMWAY_HOME", str(fake.settings.home))
    monkeypatch.setattr(session, "client", lambda: fake)
    return fake


@pytest.fixture
def beamway(capfd: pytest.CaptureFixture[str]) -> Iterator[Beamway]:
    """Call the command line in this process, through its real entry point."""

    def call(*words: str) -> Said:
        exit_code = cli.main(words)
        out, err = capfd.readouterr()
        return Said(exit_code, out, err)

    yield call
    structlog.reset_defaults()  # commands send logs to the stderr of their process, which here ends with the test
