"""A transfer stage with several sources puts each of them into the destination folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.agent import wrapper
from orchestrator.model import FailureClass, Order, StageKind
from tests.gridftp import Gridftp, missing


def order(**arguments: object) -> Order:
    return Order("r.0.1", StageKind.TRANSFER, "01", arguments=arguments)


def test_several_sources_go_into_a_folder(tmp_path: Path) -> None:
    sources = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for source in sources:
        source.write_bytes(b"x" * 10)
    out = tmp_path / "out"
    outcome = wrapper._call_transfer(order(**{"from": [str(s) for s in sources], "to": str(out)}))
    assert outcome.failure is None
    assert sorted(p.name for p in out.iterdir()) == ["a.h5", "b.h5"]
    assert [p.path for p in outcome.products] == [str(out / "a.h5"), str(out / "b.h5")]


def test_one_source_keeps_the_name_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"x")
    outcome = wrapper._call_transfer(order(**{"from": str(tmp_path / "a.h5"), "to": str(tmp_path / "b.h5")}))
    assert [p.path for p in outcome.products] == [str(tmp_path / "b.h5")]


def test_a_missing_source_fails_and_tells_what_was_copied(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"x")
    sources = [str(tmp_path / "a.h5"), str(tmp_path / "none")]
    outcome = wrapper._call_transfer(order(**{"from": sources, "to": str(tmp_path / "out")}))
    assert outcome.failure is FailureClass.BAD_INPUT
    assert len(outcome.products) == 1


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_addresses_go_by_gridftp(tmp_path: Path) -> None:
    with Gridftp() as server:
        sources = [tmp_path / "a.h5", tmp_path / "b 1.h5"]
        for source in sources:
            source.write_bytes(source.name.encode())
        wanted = {"from": [str(s) for s in sources], "to": server.url("new"), "options": {"streams": 2}}
        outcome = wrapper._call_transfer(order(**wanted))
        assert outcome.failure is None, outcome.reason
        assert [p.path for p in outcome.products] == [server.url("new/a.h5"), server.url("new") + "/b 1.h5"]
        assert (server.root / "new" / "b 1.h5").read_bytes() == b"b 1.h5"
        back = wrapper._call_transfer(order(**{"from": server.url("new/a.h5"), "to": str(tmp_path / "back")}))
        assert back.failure is None, back.reason
        assert (tmp_path / "back").read_bytes() == b"a.h5"


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_who_is_not_let_in_holds_the_stage_and_the_site_is_not_to_blame(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with Gridftp("-anonymous-names-allowed", "someone") as strict:
        outcome = wrapper._call_transfer(order(**{"from": str(tmp_path / "a"), "to": strict.url("a")}))
    assert outcome.failure is FailureClass.AUTHENTICATION
    assert outcome.exit_status is not None


def test_a_scheme_that_nobody_carries(tmp_path: Path) -> None:
    outcome = wrapper._call_transfer(order(**{"from": "s3://bucket/a", "to": str(tmp_path)}))
    assert outcome.failure is FailureClass.USER
    assert "'s3://'" in outcome.reason
