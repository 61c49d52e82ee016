"""Copies between real GridFTP servers: whole and verified under the final name, or not there at all."""

from __future__ import annotations

import ftplib
import hashlib
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import xxhash

from orchestrator.errors import InputError
from orchestrator.model import FailureClass
from orchestrator.transfer import carrying, gridftp, local, pieces, url_copy
from orchestrator.transfer.base import (
    TransferCancelled,
    TransferDown,
    TransferError,
    TransferRefused,
    TransferReport,
    failure_of,
)
from orchestrator.transfer.pieces import Sums
from tests.gridftp import Gridftp, missing

MB = 1 << 20
TOKEN = "r.1.1"

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Gridftp, Gridftp]]:
    with Gridftp() as one, Gridftp() as other:
        yield one, other


@pytest.fixture
def one(servers: tuple[Gridftp, Gridftp]) -> Gridftp:
    return _emptied(servers[0])


@pytest.fixture
def other(servers: tuple[Gridftp, Gridftp]) -> Gridftp:
    return _emptied(servers[1])


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", MB)
    monkeypatch.setattr(pieces, "SMALL_BYTES", MB // 2)
    monkeypatch.setattr(carrying, "PAUSE_S", 0.1)


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for something to happen between two pieces: a piece costs a few words, however small it is."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", MB // 64)
    monkeypatch.setattr(pieces, "PIECES", 1_000_000)


def _emptied(server: Gridftp) -> Gridftp:
    subprocess.run(["find", server.root, "-mindepth", "1", "-delete"], check=True)
    return server


def noise(path: Path, size: int, seed: int = 0) -> Path:
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o777)
    path.write_bytes(hashlib.shake_128(str(seed).encode()).digest(size))
    path.chmod(0o666)
    return path


def tree(root: Path) -> dict[bytes, bytes]:
    found = {}
    for folder, _folders, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            found[os.fsencode(os.path.relpath(path, root))] = Path(path).read_bytes()
    return found


def copy(source: str | Path, destination: str | Path, **more: Any) -> TransferReport:
    return gridftp.copy(str(source), str(destination), **{"token": TOKEN, **more})


def parts(root: Path) -> list[str]:
    return [name for _, folders, names in os.walk(root) for name in (*folders, *names) if name.endswith(".part")]


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[url_copy.Move]:
    """What the program was asked to move."""
    asked: list[url_copy.Move] = []
    run = url_copy.run
    monkeypatch.setattr(url_copy, "run", lambda moves, *a, **k: (asked.extend(moves), run(moves, *a, **k))[1])
    return asked


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
        subprocess.run(["rm", "-rf", gone], check=True)

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
    with Gridftp() as small:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "tmpfs", small.root], check=False)
        if made.returncode:
            pytest.skip("a small file system cannot be mounted here")
        try:
            source = noise(one.root / "big" / "a", 6 * MB)
            with pytest.raises(TransferError, match="bytes free and the copy needs") as caught:
                copy(one.url("big/a"), small.root / "a")
            assert caught.value.failure is FailureClass.TRANSIENT
            for origin, target in ((one.url("big/a"), "a"), (source.parent, "tree")):
                with pytest.raises(TransferError, match="is full; nothing was left") as caught:
                    copy(origin, small.url(target))
                assert caught.value.failure is FailureClass.TRANSIENT
                assert os.listdir(small.root) == []
        finally:
            subprocess.run(["umount", small.root], check=True)


def at(wanted: float, do: Callable[[], object]) -> Callable[[int, int], None]:
    """A `progress` that does something once, when that part of the bytes has moved."""
    waiting = [do]

    def progress(done: int, total: int) -> None:
        if waiting and done >= wanted * total:
            waiting.pop()()

    return progress


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
