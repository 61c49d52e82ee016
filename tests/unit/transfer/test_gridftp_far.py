"""A GridFTP server far away: packets to a network namespace that take their time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.transfer import url_copy
from tests.cluster import distance, hosts
from tests.gridftp import Gridftp, missing
from tests.unit.transfer.copies import MB, copy, noise

absent = missing() or hosts.missing() or distance.missing()
pytestmark = [pytest.mark.skipif(bool(absent), reason=absent), pytest.mark.usefixtures("small_pieces")]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Gridftp, Gridftp]]:
    with (
        distance.far(tmp_path, delay_s=0.02, gbit=1) as (host, here, there),
        Gridftp(host=host, address=there) as far,
        Gridftp(address=here) as near,
    ):
        yield far, near


def test_pieces_move_side_by_side_where_words_take_long(
    pair: tuple[Gridftp, Gridftp], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far, near = pair
    run, paces = url_copy.run, list[int]()
    monkeypatch.setattr(
        url_copy, "run", lambda moves, pace, **more: (paces.append(pace.side_by_side), run(moves, pace, **more))[1]
    )
    source = noise(far.root / "a", 9 * MB + 5)
    for destination, where in ((near.url("b"), near.root / "b"), (tmp_path / "c", tmp_path / "c")):
        copy(far.url("a"), destination)
        assert where.read_bytes() == source.read_bytes()
    copy(near.url("b"), far.url("d"))
    assert (far.root / "d").read_bytes() == source.read_bytes()
    assert paces == [4, 4, 4]


def test_a_lost_line_is_gone_on_with(pair: tuple[Gridftp, Gridftp], moved: list[url_copy.Move]) -> None:
    """Several pieces are on their way then; those that had arrived before are not moved again."""
    far, near = pair
    source, cut = noise(far.root / "a", 16 * MB), list[int]()

    def progress(done: int, total: int) -> None:
        if done >= total // 2 and not cut:
            cut.append(len(moved))
            far.cut()
            near.cut()

    report = copy(far.url("a"), near.url("b"), progress=progress)
    assert (near.root / "b").read_bytes() == source.read_bytes()
    assert report.bytes == 16 * MB
    assert cut == [16]
    assert 16 <= len(moved) < 32
