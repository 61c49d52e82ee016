"""`make chaos`, five minutes of it."""

from __future__ import annotations

import pytest

from tests.chaos.storm.__main__ import main, missing


@pytest.mark.timeout(1200)
def test_nothing_is_lost_in_a_storm(capfd: pytest.CaptureFixture[str]) -> None:
    if reason := missing():
        pytest.skip(reason)
    with capfd.disabled():  # it is long, and says how it goes
        assert main(["--runs", "500", "--minutes", "5", "--seed", "1"]) == 0
