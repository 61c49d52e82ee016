"""GridFTP copies while something goes wrong: changed, corrupted, cancelled, killed, cut off, hanging."""

from __future__ import annotations

import ftplib
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import xxhash

from orchestrator.errors import InputError
from orchestrator.model import FailureClass
from orchestrator.transfer import local, url_copy
from orchestrator.transfer.base import (
    TransferCancelled,
    TransferDown,
    TransferError,
    failure_of,
)
from orchestrator.transfer.pieces import Sums
from tests.gridftp import Gridftp, missing
from tests.unit.transfer.copies import MB, at, copy, noise, parts, tree

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.usefixtures("small_pieces"),
]


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"x" * path.stat().st_size),
        lambda path: path.open("ab").write(b"more") and None,
        lambda path: os.truncate(path, 1000),
        lambda path: path.with_name("other").rename(path),
        lambda path: path.unlink(),
    ],
    ids=["rewritten", "grown", "cut", "replaced", "removed"],
)
@pytest.mark.parametrize("checks", [("checksum",), ()])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_source_that_changes_in_flight_fails(
    one: Gridftp, other: Gridftp, change: Callable[[Path], Any], checks: tuple[str, ...]
) -> None:
    source = noise(one.root / "s" / "a", 6 * MB)
    noise(one.root / "s" / "other", 6 * MB, seed=1)
    os.utime(source, (1_700_000_000, 1_700_000_000))  # not in the second in which it is changed
    with pytest.raises((TransferError, InputError)) as caught:
        copy(one.url("s/a"), other.url("b"), checks=checks, progress=at(0.2, lambda: change(source)))
    assert failure_of(caught.value) is FailureClass.TRANSIENT
    assert "changed while it was copied" in str(caught.value)
    assert tree(other.root) == {}


@pytest.mark.parametrize("way", ["get", "third party"])
def test_a_corrupted_byte_is_noticed_and_only_its_piece_moved_again(
    way: str, one: Gridftp, other: Gridftp, tmp_path: Path, moved: list[url_copy.Move], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = noise(one.root / "a", 5 * MB)
    folder = tmp_path / "here" if way == "get" else other.root
    target = str(folder) + "/" if way == "get" else other.url()
    run, times = url_copy.run, 0

    def spoiling(*given: Any, **more: Any) -> BaseException | None:
        nonlocal times
        times += 1
        ended = run(*given, **{**more, "begun": lambda _number: None})  # it is compared at the end
        part = folder / parts(folder)[0]
        with part.open("r+b") as file:
            file.seek(3 * MB + 11)
            byte = file.read(1)
            if times <= spoilt:
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 1]))
        return ended

    monkeypatch.setattr(url_copy, "run", spoiling)
    spoilt = 1
    report = copy(one.url("a"), target + "b")
    assert (folder / "b").read_bytes() == source.read_bytes()
    assert (times, report.skipped) == (2, 0)
    if way == "get":
        assert report.checksum == "xxh3:" + xxhash.xxh3_128_hexdigest(source.read_bytes())
    assert [move.offset // MB for move in moved] == [0, 1, 2, 3, 4, 3]
    times, spoilt = 0, 9
    with pytest.raises(TransferError, match="another checksum than its source, twice") as caught:
        copy(one.url("a"), target + "c")
    assert caught.value.failure is FailureClass.TRANSIENT
    assert os.listdir(folder) == ["b"]


@pytest.mark.parametrize("kind", ["md5", "sha256"])
@pytest.mark.parametrize("way", ["get", "third party"])
def test_a_checksum_that_is_asked_for_is_that_of_the_whole_file_at_both_ends(
    kind: str, way: str, one: Gridftp, other: Gridftp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = noise(one.root / "a", 3 * MB + 5)
    target = str(tmp_path / "b") if way == "get" else other.url("b")
    report = copy(one.url("a"), target, options={"checksum": kind})
    assert report.checksum == f"{kind}:{hashlib.new(kind, source.read_bytes()).hexdigest()}"
    monkeypatch.setattr(Sums, "agree", lambda *_: True)  # as if the damage were one that the cheap one does not see
    run = url_copy.run

    def spoiling(*given: Any, **more: Any) -> BaseException | None:
        ended = run(*given, **{**more, "begun": lambda _number: None})
        folder = tmp_path if way == "get" else other.root
        with (folder / parts(folder)[0]).open("r+b") as file:
            file.write(b"other")
        return ended

    monkeypatch.setattr(url_copy, "run", spoiling)
    with pytest.raises(TransferError, match=f"has another {kind} than its source"):
        copy(one.url("a"), str(tmp_path / "c") if way == "get" else other.url("c"), options={"checksum": kind})


def test_a_tree_between_servers_has_one_checksum(one: Gridftp, other: Gridftp, tmp_path: Path) -> None:
    noise(one.root / "s" / "large", MB + 1)
    noise(one.root / "s" / "small", 10)
    report = copy(one.url("s"), other.url("t"))
    assert report.checksum.startswith("adler32-tree:")
    assert copy(one.url("s"), other.url("t")).checksum == report.checksum
    brought = copy(one.url("s"), tmp_path / "t").checksum
    assert brought == local.copy(str(one.root / "s"), str(tmp_path / "u")).checksum  # the same, whoever carried it


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize("whole", [False, True], ids=["file", "tree"])
def test_cancelled(one: Gridftp, other: Gridftp, whole: bool) -> None:
    noise(one.root / "s" / "a", 6 * MB)
    wanted = threading.Event()
    with pytest.raises(TransferCancelled) as caught:
        copy(
            one.url("s" if whole else "s/a"),
            other.url("out"),
            progress=at(0.2, wanted.set),
            cancelled=wanted.is_set,
        )
    assert caught.value.failure is FailureClass.CANCELLED
    assert os.listdir(other.root) == []


@pytest.mark.usefixtures("slowly")
def test_the_server_is_killed_in_the_middle_and_the_copy_goes_on(
    one: Gridftp, tmp_path: Path, moved: list[url_copy.Move]
) -> None:
    source = noise(tmp_path / "a", 6 * MB)
    with Gridftp() as frail:
        begun = threading.Event()

        def crash() -> None:
            frail.kill()
            threading.Timer(0.5, frail.start).start()
            begun.set()

        report = copy(source, frail.url("b"), progress=at(0.2, crash))
        assert begun.is_set()
        assert (frail.root / "b").read_bytes() == source.read_bytes()
        assert report.skipped == 0
        assert parts(frail.root) == []


@pytest.mark.usefixtures("slowly")
def test_a_server_that_stays_away_leaves_no_final_name_and_a_later_copy_goes_on(
    tmp_path: Path, moved: list[url_copy.Move]
) -> None:
    source = noise(tmp_path / "a", 6 * MB)
    with Gridftp() as frail:
        with pytest.raises(TransferDown):
            copy(source, frail.url("b"), progress=at(0.4, frail.kill), options={"retries": 0})
        assert not (frail.root / "b").exists()
        assert len(parts(frail.root)) == 1
        frail.start()
        moved.clear()
        copy(source, frail.url("b"))
        assert 0 < len(moved) < 6 * 64
        assert (frail.root / "b").read_bytes() == source.read_bytes()


@pytest.mark.usefixtures("slowly")
def test_connections_that_are_cut(one: Gridftp, other: Gridftp, tmp_path: Path) -> None:
    source = noise(one.root / "a", 6 * MB)
    copy(one.url("a"), other.url("b"), progress=at(0.3, lambda: (one.cut(), other.cut())))
    assert (other.root / "b").read_bytes() == source.read_bytes()


@pytest.mark.usefixtures("slowly")
def test_a_server_that_hangs_is_given_up(tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 6 * MB)
    with Gridftp() as slow:
        with pytest.raises(TransferDown, match="Nothing was heard"):
            copy(
                source,
                slow.url("b"),
                checks=(),
                progress=at(0.2, slow.pause),
                options={"silence_s": 1, "retries": 0},
            )
        slow.resume()
        assert not (slow.root / "b").exists()


def test_a_lost_answer_to_the_rename(one: Gridftp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = noise(tmp_path / "a", MB)
    send, lost = ftplib.FTP.sendcmd, []

    def losing(self: ftplib.FTP, line: str) -> str:
        answer = send(self, line)
        if line.startswith("RNTO") and not lost:
            lost.append(line)
            raise EOFError
        return answer

    monkeypatch.setattr(ftplib.FTP, "sendcmd", losing)
    copy(source, one.url("b"))
    assert lost
    assert tree(one.root) == {b"b": source.read_bytes()}


DYING = """if True:
    import sys
    from orchestrator.transfer import url_copy
    moves = [url_copy.Move("file://" + sys.argv[1], sys.argv[2], 0, -1)]
    say = lambda: print("on", flush=True)
    url_copy.run(moves, url_copy.Pace(), begun=print, moved=print, cancelled=say)
"""


def test_the_program_dies_with_us(one: Gridftp, tmp_path: Path) -> None:
    source = noise(tmp_path / "a", MB)
    one.pause()
    try:
        argv = [sys.executable, "-c", DYING, source, one.url("b")]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"on\n"
            children = psutil.Process(process.pid).children(recursive=True)
            assert children
            process.kill()
        assert psutil.wait_procs(children, timeout=5)[1] == []
    finally:
        one.resume()
