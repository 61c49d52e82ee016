"""An agent without its lease submits nothing, and sees everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.agent.leased import Leased
from orchestrator.jobs import JobSpec, SchedulerSilent
from orchestrator.schedulers.local import LocalScheduler


def test_nothing_is_submitted_without_the_lease(tmp_path: Path) -> None:
    valid = [False]
    scheduler = Leased(LocalScheduler(tmp_path / "ledger"), lambda: valid[0])
    spec = JobSpec(
        "bw-r.0.1", "true", stdout=str(tmp_path / "out"), stderr=str(tmp_path / "err"), directory=str(tmp_path)
    )
    with pytest.raises(SchedulerSilent, match="lease"):
        scheduler.submit_once(spec)
    assert scheduler.find("bw-r.0.1") == []
    valid[0] = True
    number = scheduler.submit_once(spec)
    assert [job.id for job in scheduler.find("bw-r.0.1")] == [number]
    assert set(scheduler.jobs([number])) == {number}
    assert scheduler.kind == "local"
    scheduler.cancel([number])


def test_everything_else_is_the_schedulers(tmp_path: Path) -> None:
    inner = LocalScheduler(tmp_path / "ledger")
    scheduler = Leased(inner, lambda: False)
    assert scheduler.ping() == inner.ping()
    assert scheduler.queues() == inner.queues()
    assert scheduler.accounts() == inner.accounts()
    assert scheduler.reservations() == inner.reservations()
    assert scheduler.mine("bw-") == []
