from __future__ import annotations

import pytest

from orchestrator.agent import interchange
from orchestrator.agent.interchange import Last


@pytest.mark.parametrize(("size", "kept"), [(100, interchange.KEPT_MOST), (interchange.KEPT_BYTES // 10, 10)])
def test_of_many_results_the_last_are_kept(size: int, kept: int) -> None:
    last, number = Last(), kept + 50
    result = b"r" * size
    for each in range(number):
        last.add(each, (f"r.{each}.1", ""), result)
    assert list(last.results) == list(range(number - kept, number))
