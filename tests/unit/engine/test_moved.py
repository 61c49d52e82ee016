"""How fast data went between sites, from the transfers of a run."""

from __future__ import annotations

from typing import Any

import pytest
from immutables import Map

from orchestrator.engine.moved import moved, site_at
from orchestrator.model import Outcome, Plan, Run, RunStatus, StageKind, StagePlan, Task, TaskStatus
from sites.schema import SiteProfile

UUID = "0a1b2c3d-0000-4000-8000-000000000001"


def site(name: str, *doors: tuple[str, str]) -> SiteProfile:
    return SiteProfile.model_validate(
        {
            "identity": {"name": name, "contact": "nobody"},
            "scheduler": {"kind": "local"},
            "node": {"cores": 1},
            "paths": {"scratch": "/scratch"},
            "execution": {"mode": "pilot"},
            "doors": [{"kind": kind, "endpoint": endpoint} for kind, endpoint in doors],
        }
    )


SITES = [
    site("far", ("gridftp", "data.far.org:2811"), ("rsync", "login.far.org")),
    site("store", ("globus", UUID), ("gridftp", "ftp://store.org:21")),
]


@pytest.mark.parametrize(
    ("end", "name"),
    [
        ("/data/x", "here"),
        ("gsiftp://Data.Far.org/x", "far"),
        ("gsiftp://data.far.org:2811/x", "far"),
        ("gsiftp://data.far.org:2812/x", ""),
        ("ssh://me@login.far.org/x", "far"),
        ("ssh://me@login.far.org:22/x", "far"),
        (f"globus://{UUID}/x", "store"),
        ("ftp://store.org/x", "store"),
        ("ftp://data.far.org/x", ""),
        ("site://far/x", "far"),
        ("s3://bucket/x", ""),
    ],
)
def test_whose_an_end_is(end: str, name: str) -> None:
    assert site_at(end, "here", SITES) == name


def run(*tasks: dict[str, Any], kind: StageKind = StageKind.TRANSFER) -> Run:
    usual = {"status": TaskStatus.DONE, "ended_at": 9.0, "outcome": Outcome(transfer_s=2.0, moved_bytes=8)}
    made = {n: Task(n, "a", **{**usual, **task}) for n, task in enumerate(tasks)}
    return Run("r", Plan("w", "o", (StagePlan("a", kind),)), 1.0, status=RunStatus.DONE, tasks=Map(made))


def test_what_counts() -> None:
    def found(*tasks: dict[str, Any], **more: Any) -> list[tuple[Any, ...]]:
        rows = moved(run(*tasks, **more), lambda name: name or "here", lambda: SITES)
        return [(m.from_site, m.to_site, m.bytes, m.seconds, m.at) for m in rows]

    away = {"from": "/x", "to": "ssh://login.far.org/x"}
    assert found({"arguments": away}) == [("here", "far", 8, 2.0, 9.0)]
    assert found({"arguments": away, "site": "beamline"}) == [("beamline", "far", 8, 2.0, 9.0)]
    several = {"from": ["gsiftp://data.far.org/x", "gsiftp://data.far.org/y"], "to": f"globus://{UUID}/z/"}
    assert found({"arguments": several}) == [("far", "store", 8, 2.0, 9.0)]
    assert found({"arguments": {"from": "/x", "to": "/y"}}) == []  # within a site
    assert found({"arguments": {"from": ["/x", "gsiftp://data.far.org/y"], "to": "site://store/z/"}}) == []  # from two
    assert found({"arguments": {"from": "/x", "to": "gsiftp://unknown.org/x"}}) == []
    assert found({"arguments": away, "outcome": Outcome(transfer_s=2.0)}) == []  # all was there already
    assert found({"arguments": away, "status": TaskStatus.FAILED}) == []
    assert found({"arguments": away}, kind=StageKind.KERNEL) == []
