"""Copies between real GridFTP servers: whole and verified under the final name, or not there at all."""

from __future__ import annotations

import hashlib
import os
import subprocess
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import xxhash

from orchestrator.errors import BeamwayError, InputError
from orchestrator.model import FailureClass
from orchestrator.transfer import carrying, gridftp, pieces, url_copy
from orchestrator.transfer.base import (
    TransferDown,
    TransferError,
    TransferRefused,
    failure_of,
)
from orchestrator.transfer.gridftp_server import ServerEnd
from tests.gridftp import Gridftp, missing
from tests.unit.transfer.copies import MB, at, copy, mounted, noise, parts, tree

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.usefixtures("small_pieces"),
]


# ------------------------------------------------------------------------------------------------- one file


@pytest.mark.parametrize("way", ["put", "get", "third party"])
def test_a_file_goes_every_way(way: str, one: Gridftp, other: Gridftp, tmp_path: Path) -> None:
    here = way == "put"
    source = noise((tmp_path if here else one.root) / "a.h5", 3 * MB + 5)
    target = (tmp_path if way == "get" else other.root) / "new" / "b.h5"
    steps: list[tuple[int, int]] = []
    report = copy(
        source if here else one.url("a.h5"),
        target if way == "get" else other.url("new/b.h5"),
        progress=lambda *step: steps.append(step),
    )
    assert target.read_bytes() == source.read_bytes()
    assert (report.files, report.bytes, report.skipped) == (1, 3 * MB + 5, 0)
    assert report.destination == (str(target) if way == "get" else other.url("new/b.h5"))
    assert steps[-1] == (3 * MB + 5, 3 * MB + 5)
    assert steps == sorted(set(steps))
    assert os.listdir(target.parent) == ["b.h5"]
    if way == "third party":  # of what the servers say of the pieces
        assert report.checksum == f"adler32:{zlib.adler32(source.read_bytes()):08x}"
    else:
        assert report.checksum == "xxh3:" + xxhash.xxh3_128_hexdigest(source.read_bytes())


def test_the_pieces_of_a_file() -> None:
    assert [piece.length for piece in pieces.cut("", 0)] == [0]
    assert [piece.length for piece in pieces.cut("", 1 << 20)] == [1 << 20]
    for size in (100 << 20, 20_000_000_001, 1 << 40):
        cut = pieces.cut("a", size)
        assert [piece.offset for piece in cut] == [0, *(piece.end for piece in cut[:-1])]
        assert cut[-1].end == size
        assert len(cut) < 50
    assert [piece.length for piece in cut] == sorted((piece.length for piece in cut), reverse=True)
    assert cut[-1].length <= pieces.LAST_BYTES  # what is done about it when all has arrived takes no time


@pytest.mark.parametrize("way", ["put", "get", "third party"])
def test_over_a_long_way_pieces_of_one_file_move_side_by_side(
    way: str, one: Gridftp, other: Gridftp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gridftp, "FAR_S", 0.0)
    paces: list[url_copy.Pace] = []
    run = url_copy.run
    monkeypatch.setattr(url_copy, "run", lambda moves, pace, **more: (paces.append(pace), run(moves, pace, **more))[1])
    source = noise((tmp_path if way == "put" else one.root) / "a", 9 * MB + 5)
    target = (tmp_path if way == "get" else other.root) / "b"
    copy(source if way == "put" else one.url("a"), target if way == "get" else other.url("b"))
    assert target.read_bytes() == source.read_bytes()
    assert [pace.side_by_side for pace in paces] == [4]


def test_a_source_is_not_read_far_ahead_of_the_copy(
    one: Gridftp, other: Gridftp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying, "AHEAD_BYTES", MB)
    noise(one.root / "a", 8 * MB)
    run, digest, reached, asked = url_copy.run, ServerEnd.digest, [-1], list[tuple[int, int]]()

    def counting(
        moves: Sequence[url_copy.Move], pace: url_copy.Pace, *, begun: Callable[[int], None], **more: Any
    ) -> BeamwayError | None:
        def seen(number: int) -> None:
            reached.append(number)
            begun(number)

        return run(moves, pace, begun=seen, **more)

    def noting(end: ServerEnd, path: str, kind: str, offset: int, length: int) -> str:
        if end.place in one.url():
            asked.append((offset // MB, reached[-1]))
        return digest(end, path, kind, offset, length)

    monkeypatch.setattr(url_copy, "run", counting)
    monkeypatch.setattr(ServerEnd, "digest", noting)
    copy(one.url("a"), other.url("b"))
    assert sorted(number for number, _ in asked) == list(range(8))
    assert all(number <= max(at_piece, 0) + 1 for number, at_piece in asked), asked


def test_the_checksum_of_a_small_file(one: Gridftp, other: Gridftp, tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 1000)
    assert copy(source, one.url("b")).checksum == "xxh3:" + xxhash.xxh3_128_hexdigest(source.read_bytes())
    assert copy(one.url("b"), other.url("b")).checksum == "sha256:" + hashlib.sha256(source.read_bytes()).hexdigest()
    assert copy(source, one.url("c"), checks="size").checksum == ""
    assert (one.root / "c").read_bytes() == source.read_bytes()


def test_what_is_there_already_is_skipped_and_what_differs_replaced(
    one: Gridftp, tmp_path: Path, moved: list[url_copy.Move]
) -> None:
    source = noise(tmp_path / "a", 2 * MB)
    copy(source, one.url())  # a folder: into it
    moved.clear()
    report = copy(source, one.url("a"), token="r.2.1")
    assert (report.skipped, report.skipped_bytes, moved) == (1, 2 * MB, [])
    spoilt = bytearray((one.root / "a").read_bytes())
    spoilt[MB + 7] ^= 1
    (one.root / "a").write_bytes(spoilt)
    assert copy(source, one.url("a"), token="r.3.1").skipped == 0
    assert (one.root / "a").read_bytes() == source.read_bytes()


# ---------------------------------------------------------------------------------------------------- trees


def test_a_new_tree_appears_at_once(one: Gridftp, other: Gridftp) -> None:
    for i in range(12):
        noise(one.root / "s" / f"d{i % 3}" / f"{i}", 1000 * i, seed=i)
    (one.root / "s" / "hollow").mkdir()
    seen: list[list[str]] = []
    report = copy(one.url("s"), other.url("t"), progress=lambda *_: seen.append(os.listdir(other.root)))
    assert len(seen) > 2
    assert all("t" not in names for names in seen[:-1])
    assert tree(other.root / "t") == tree(one.root / "s")
    assert (other.root / "t" / "hollow").is_dir()
    assert report.files == 12
    assert os.listdir(other.root) == ["t"]


def test_into_a_tree_that_is_there(one: Gridftp, tmp_path: Path, moved: list[url_copy.Move]) -> None:
    for name in ("a", "sub/b"):
        noise(one.root / "s" / name, 1000, seed=len(name))
    noise(tmp_path / "t" / "mine", 10, seed=5)
    noise(tmp_path / "t" / "a", 1000, seed=1)
    report = copy(one.url("s/"), tmp_path / "t")
    assert report.skipped == 1
    assert [os.path.basename(move.source) for move in moved] == ["b"]
    assert tree(tmp_path / "t") == {**tree(one.root / "s"), b"mine": (tmp_path / "t" / "mine").read_bytes()}


# ---------------------------------------------------------------------------------------------- hostile names

NAMES = [
    b"with space",
    b" lead",
    b"trail ",
    b"100%41",
    b"-rf",
    b'"q"',
    b"'$(x)`",
    b"a\\b",
    b"a;b",
    b"*?[x]",
    b"#h?",
    b"~",
]


def test_any_printable_name_arrives(one: Gridftp, other: Gridftp, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        noise(one.root / "s" / os.fsdecode(name), 100 + number, seed=number)
    copy(one.url("s"), other.url("100%41 t"))
    assert os.listdir(other.root) == ["100%41 t"]
    copy(other.url("100%41 t"), tmp_path / "u")
    assert tree(tmp_path / "u") == tree(one.root / "s")
    for name in NAMES[3:6]:
        copy(one.url(b"s/" + name), tmp_path / "one" / os.fsdecode(name))
        report = copy(tmp_path / "one" / os.fsdecode(name), other.url(b"one/" + name))
        assert copy(report.destination, tmp_path / "again" / os.fsdecode(name)).bytes == report.bytes
        assert (other.root / "one" / os.fsdecode(name)).read_bytes() == (
            tmp_path / "u" / os.fsdecode(name)
        ).read_bytes()


def test_long_names(one: Gridftp, tmp_path: Path) -> None:
    for name in ("n" * 255, "n" * 240 + "other"):
        copy(noise(tmp_path / name, 10, seed=len(name)), one.url(name))
        assert (one.root / name).read_bytes() == (tmp_path / name).read_bytes()
    assert parts(one.root) == []
    with pytest.raises(TransferRefused):
        copy(tmp_path / ("n" * 255), one.url("m" * 256))


@pytest.mark.parametrize("name", [b"ok\xff.h5", "é".encode(), b"a\nb", b"a\rb", b"\x1b[2J", b"\t"])
def test_a_name_that_the_server_would_change_is_refused(name: bytes, one: Gridftp, tmp_path: Path) -> None:
    """The server drops such bytes, and would write to another name."""
    source = noise(tmp_path / "s" / os.fsdecode(name), 10)
    for origin, target in ((source, one.url(name)), (source.parent, one.url("t")), (source, one.url())):
        with pytest.raises(TransferRefused, match="printable ASCII") as caught:
            copy(origin, target)
        assert str(caught.value).isprintable()
    assert tree(one.root) == {}
    noise(one.root / "s" / os.fsdecode(name), 10)
    with pytest.raises((TransferRefused, InputError), match=r"cannot be carried|cannot carry"):
        copy(one.url("s"), tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_name_that_pretends_to_be_two(one: Gridftp, tmp_path: Path) -> None:
    noise(one.root / "secret", 10)
    forged = "x\n Type=file;Modify=20200101000000;Size=10;Perm=r; y"
    noise(one.root / "s" / forged, 10)
    noise(one.root / "s" / "x", 10)
    with pytest.raises(InputError, match="GridFTP cannot carry"):
        copy(one.url("s"), tmp_path / "t")


# ---------------------------------------------------------------------------------------- what is refused


def test_bad_sources(one: Gridftp, tmp_path: Path) -> None:
    noise(one.root / "empty", 0)
    (one.root / "nothing").mkdir()
    noise(one.root / "linked" / "a", 10)
    (one.root / "linked" / "l").symlink_to("a")
    noise(tmp_path / "linked" / "a", 10)
    (tmp_path / "linked" / "l").symlink_to("a")
    for source, clause in {
        one.url("gone"): "is not there",
        str(tmp_path / "gone"): "is not there",
        one.url("empty"): "is empty",
        one.url("nothing"): "is empty",
        one.url("linked"): "link 'l'",
        str(tmp_path / "linked"): "link 'l'",
    }.items():
        with pytest.raises(InputError, match=clause) as caught:
            copy(source, one.url("out"))
        assert failure_of(caught.value) is FailureClass.BAD_INPUT
    assert not (one.root / "out").exists()


def test_bad_destinations(one: Gridftp, other: Gridftp, tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 10)
    noise(one.root / "file", 10)
    noise(one.root / "tree" / "a", 10)
    outside = f"ftp://127.0.0.1:{one.port}{other.root}/b"
    upward = f"ftp://127.0.0.1:{one.port}{one.root}"
    cases = [
        (source, outside, "refuses .*not allowed"),
        (source, f"{upward}/../b", r"holds '\.\.'"),
        (source, f"{upward}/%2e%2E/b", r"holds '\.\.'"),
        (source, f"ftp://127.0.0.1:{one.port}/etc/passwd", "not allowed"),
        (source, "ftp://me:secret@127.0.0.1/b", "holds a name or password"),
        (source, "ftp://127.0.0.1:99999/b", "is wrong"),
        (source, "ftp://127.0.0.1", "is wrong"),
        (source, one.url("file/below/b"), "which is a file"),
        (tmp_path, one.url("file"), "is a file and the source a directory"),
        (one.url("file"), one.url("file"), "are both"),
        (one.url("tree"), one.url("tree/sub"), "one is in the other"),
        (one.url("tree"), one.url(), "one is in the other"),
    ]
    before = tree(one.root)
    for origin, target, clause in cases:
        with pytest.raises(TransferRefused, match=clause) as caught:
            copy(origin, target)
        assert caught.value.failure is FailureClass.USER
        assert "secret" not in str(caught.value)
    assert tree(one.root) == before
    with pytest.raises(TransferRefused, match=r"no option 'steams'\. Did you mean 'streams'"):
        copy(source, one.url("b"), options={"steams": 4})
    with pytest.raises(TransferRefused, match="is a number"):
        copy(source, one.url("b"), options={"streams": 0})


@pytest.mark.parametrize("way", ["put", "get"])
def test_a_link_where_a_folder_goes_is_not_written_through(way: str, one: Gridftp, tmp_path: Path) -> None:
    source = (tmp_path if way == "put" else one.root) / "s"
    noise(source / "d" / "a", 10)
    target = (one.root if way == "put" else tmp_path) / "t"
    target.mkdir(mode=0o777)
    target.chmod(0o777)
    elsewhere = one.root / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    (target / "d").symlink_to(elsewhere)
    with pytest.raises(TransferRefused, match="holds the link"):
        copy(source if way == "put" else one.url("s"), one.url("t") if way == "put" else target)
    assert os.listdir(elsewhere) == []


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize("end", ["source", "destination"])
def test_a_directory_that_vanishes(end: str, one: Gridftp, other: Gridftp) -> None:
    for number in range(3):
        noise(one.root / "s" / f"d{number}" / "a", MB, seed=number)

    def vanish() -> None:
        gone = one.root / "s" if end == "source" else other.root / parts(other.root)[0]
        while subprocess.run(["rm", "-rf", gone], stderr=subprocess.DEVNULL).returncode:
            pass  # the server has just written another file there

    with pytest.raises((TransferError, InputError)) as caught:
        copy(one.url("s"), other.url("t"), progress=at(0.3, vanish), options={"retries": 0})
    assert str(caught.value).isprintable()
    assert not (other.root / "t").exists()


def test_a_folder_that_may_not_be_written(one: Gridftp, tmp_path: Path) -> None:
    (one.root / "locked").mkdir(mode=0o555)
    with pytest.raises(TransferRefused, match=r"[Pp]ermission denied") as caught:
        copy(noise(tmp_path / "a", 10), one.url("locked/b"))
    assert caught.value.failure is FailureClass.USER


def test_without_the_program(one: Gridftp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_copy, "PROGRAM", "globus-url-copy-that-is-nowhere")
    with pytest.raises(TransferRefused, match="globus-gass-copy-progs"):
        copy(noise(tmp_path / "a", 10), one.url("b"))


# ---------------------------------------------------------------------------------------- when things happen


def test_no_server(tmp_path: Path) -> None:
    with Gridftp() as gone:
        target = gone.url("b")
    with pytest.raises(TransferDown, match="does not answer: Connection refused") as caught:
        copy(noise(tmp_path / "a", 10), target)
    assert caught.value.failure is FailureClass.TRANSIENT


def test_a_server_that_lets_nobody_in(tmp_path: Path) -> None:
    with Gridftp("-anonymous-names-allowed", "someone") as strict, pytest.raises(TransferError) as caught:
        copy(noise(tmp_path / "a", 10), strict.url("b"))
    assert caught.value.failure is FailureClass.AUTHENTICATION
    assert "does not let us in" in caught.value.sentence


def test_a_full_disk(one: Gridftp, tmp_path: Path) -> None:
    with Gridftp() as small, mounted(small.root, "size=4m,mode=777"):
        source = noise(one.root / "big" / "a", 6 * MB)
        with pytest.raises(TransferError, match="bytes free and the copy needs") as caught:
            copy(one.url("big/a"), small.root / "a")
        assert caught.value.failure is FailureClass.TRANSIENT
        for origin, target in ((one.url("big/a"), "a"), (source.parent, "tree")):
            with pytest.raises(TransferError, match="is full; nothing was left") as caught:
                copy(origin, small.url(target))
            assert caught.value.failure is FailureClass.TRANSIENT
            assert os.listdir(small.root) == []
