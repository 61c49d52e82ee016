"""kill -9 at every named point of an outside effect, for every kind of stage, on both databases.

Each run ends done, and each effect happened once, or once for each attempt that was recorded. Here one run of each kind
is killed at all its points in turn; `make sweep` kills a run of its own at each.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator import outside
from tests.chaos import crashes
from tests.chaos.crashes import KINDS, Case

pytestmark = pytest.mark.timeout(900)

AT_ONCE = 3
ALL = {
    f"{name}:{when}"
    for name in ("store.commit", "orders.send", "report.send", "agent.start")
    for when in ("before", "after")
}
CALL = {"call.submit:before", "call.submit:after", "call.run:before", "call.run:after"}
OF_KIND = {
    "command": {"command.start:before", "command.start:after"},
    "function": CALL,
    "kernel": CALL,
    "transfer": CALL | {"file.publish:before", "file.publish:after"},
    "workflow": {"command.start:before", "command.start:after"},
}


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest) -> Callable[[], str]:
    if request.param == "sqlite":
        return lambda: ""
    cluster = request.getfixturevalue("postgres")
    return lambda: cluster.new_database()


def test_one_run_is_killed_at_all_its_points(new_database: Callable[[], str], tmp_path: Path) -> None:
    def crash(kind: str) -> list[str]:
        case = Case(tmp_path / kind, new_database())
        with case.client(*outside.POINTS) as client:
            run = crashes.carry_out(case, client, kind)
            wrong = crashes.judge(case, client, run, kind)
        wrong += [f"nothing was killed at {point}" for point in sorted((ALL | OF_KIND[kind]) - case.crashed())]
        return [f"{kind}: {each}" for each in wrong]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert [each for wrong in pool.map(crash, KINDS) for each in wrong] == []
