"""A transfer stage with several sources puts each of them into the destination folder."""

from __future__ import annotations

from pathlib import Path

from orchestrator.agent import wrapper
from orchestrator.model import FailureClass, Order, StageKind


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
