"""Two hundred scans arrive while watcher, service and agent are killed: `python -m tests.chaos.arrivals`, once."""

from __future__ import annotations

import pytest

from tests.chaos.arrivals.__main__ import main


@pytest.mark.timeout(600)
def test_every_whole_scan_runs_once_and_the_others_say_why_not(capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():  # it is long, and says how it goes
        assert main(["--scans", "200", "--minutes", "1", "--seed", "1"]) == 0
