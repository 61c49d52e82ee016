"""Two installations on one machine never meet; one installation has one service however many ask for it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from orchestrator.client import Client
from orchestrator.errors import NotFound
from orchestrator.model import RunStatus
from orchestrator.settings import Settings
from tests.conftest import end_processes_of, submit, wait, workflow


def test_two_homes_never_meet(tmp_path: Path) -> None:
    homes = [tmp_path / "one", tmp_path / ("two" + "-long" * 30)]
    try:
        with Client(Settings(home=homes[0])) as one, Client(Settings(home=homes[1])) as two:
            first, second = (submit(c, workflow(s1={"command": "sleep 0.5"})) for c in (one, two))
            assert wait(one, first).status is wait(two, second).status is RunStatus.DONE
            with pytest.raises(NotFound):
                one.run(second)
            pids = {c.service().pid for c in (one, two)}  # type: ignore[union-attr]
            assert len(pids) == 2
            one.stop_service()
            assert two.service() is not None
            two.stop_service()
    finally:
        for home in homes:
            end_processes_of(home)


def test_clients_that_start_at_once_share_one_service(home: Path) -> None:
    Client(Settings(home=home)).close()
    seen: list[int] = []
    problems: list[BaseException] = []

    def ask() -> None:
        try:
            with Client(Settings(home=home)) as client:
                client.ensure_service()
                pong = client.service()
                assert pong is not None
                seen.append(pong.pid)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            problems.append(error)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert len(seen) == 6
    assert len(set(seen)) == 1
    with Client(Settings(home=home)) as client:
        client.stop_service()
