"""An upgrade with runs in flight, in the order of docs/operations: nothing is lost and nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.test_takeover import Pair, all_done, until
from tests.postgres import Postgres

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def pair(postgres: Postgres, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path, postgres.new_database())
    try:
        yield made
    finally:
        made.close()


def test_services_then_agents_are_started_again_while_runs_flow(pair: Pair) -> None:
    agent = pair.agent("one")
    with pair.client() as client:
        ids = pair.start(client, 4, 2.0)
        until(lambda: len(pair.times()) >= 2, 30.0, "some stages")

        pair.second.terminate()  # the one that stands by
        assert pair.second.wait(30.0) == 0
        pair.b.start(path="/health/live")
        ids += pair.start(client, 1, 1.0)

        pair.first.terminate()  # the one that has the engine
        assert pair.first.wait(30.0) == 0
        until(pair.b.ready, 15.0, "the other service")
        pair.a.start(path="/health/live")
        ids += pair.start(client, 1, 1.0)

        agent.kill()  # as the unit does
        agent.wait(30.0)
        pair.agent("one")
        ids += pair.start(client, 1, 1.0)
        all_done(pair, client, ids)
