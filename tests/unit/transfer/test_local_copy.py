"""Local copies: whole and verified under the final name, or not there at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import InputError
from orchestrator.model import FailureClass
from orchestrator.transfer import disk, local, pump
from orchestrator.transfer.base import TransferCancelled, TransferError, TransferRefused, failure_of
from orchestrator.transfer.local import copy
from tests.unit.transfer.copies import mounted

MB = 1 << 20


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "BLOCK_BYTES", 64 << 10)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    with mounted(tmp_path / "disk", "size=4m") as place:
        yield place


def noise(path: Path, size: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(hashlib.shake_128(str(seed).encode()).digest(size))
    return path


def tree(root: Path) -> dict[bytes, bytes]:
    found = {}
    for folder, _folders, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            found[os.fsencode(os.path.relpath(path, root))] = Path(path).read_bytes()
    return found


# ------------------------------------------------------------------------------------------------- one file


def test_a_file_is_copied_verified_and_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = noise(tmp_path / "a.h5", 300_000)
    os.chmod(source, 0o640)
    synced: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1])
    steps: list[tuple[int, int]] = []
    report = copy(str(source), str(tmp_path / "new" / "b.h5"), progress=lambda *s: steps.append(s))
    target = tmp_path / "new" / "b.h5"
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o640
    assert (report.files, report.bytes, report.skipped) == (1, 300_000, 0)
    assert report.checksum == "xxh3:" + xxhash.xxh3_128_hexdigest(source.read_bytes())
    assert steps[-1] == (300_000, 300_000)
    assert steps == sorted(steps)
    assert f"{target}.part" in synced  # the file before its name, the folder after
    assert synced.index(f"{target}.part") < len(synced) - 1 - synced[::-1].index(str(target.parent))
    assert os.listdir(target.parent) == ["b.h5"]


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_file_goes_into_a_directory(tmp_path: Path, ending: str) -> None:
    source = noise(tmp_path / "a.h5", 10)
    if not ending:
        (tmp_path / "d").mkdir()
    report = copy(str(source), str(tmp_path / "d") + ending)
    assert report.destination == str(tmp_path / "d" / "a.h5")
    assert (tmp_path / "d" / "a.h5").read_bytes() == source.read_bytes()


def test_without_checksum(tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 3 * MB)
    report = copy(str(source), str(tmp_path / "b"), checks=())
    assert (tmp_path / "b").read_bytes() == source.read_bytes()
    assert report.checksum == ""
    with pytest.raises(TransferRefused, match=r"no transfer check 'cheksum'\. Did you mean 'checksum'"):
        copy(str(source), str(tmp_path / "c"), checks="cheksum")


def test_what_is_there_already_is_skipped_and_what_differs_replaced(tmp_path: Path) -> None:
    source, target = noise(tmp_path / "a", 200_000), tmp_path / "b"
    copy(str(source), str(target))
    before = target.stat()
    report = copy(str(source), str(target))
    assert (report.skipped, report.skipped_bytes) == (1, 200_000)
    assert report.checksum == "xxh3:" + xxhash.xxh3_128_hexdigest(source.read_bytes())
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    spoilt = bytearray(target.read_bytes())
    spoilt[150_000] ^= 1
    target.write_bytes(spoilt)
    steps: list[int] = []
    assert copy(str(source), str(target), progress=lambda done, _: steps.append(done)).skipped == 0
    assert steps[-1] == 200_000
    assert target.read_bytes() == source.read_bytes()


def test_a_destination_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 1000)
    victim = noise(tmp_path / "victim", 1000, seed=1)
    before = victim.read_bytes()
    (tmp_path / "b").symlink_to(victim)
    (tmp_path / "b.part").symlink_to(victim)
    copy(str(source), str(tmp_path / "b"))
    assert victim.read_bytes() == before
    assert not (tmp_path / "b").is_symlink()


# ---------------------------------------------------------------------------------------- what is refused


def test_bad_sources(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "nothing").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("gone")
    noise(tmp_path / "piped" / "a", 10)
    os.mkfifo(tmp_path / "piped" / "p")
    noise(tmp_path / "leaking" / "a", 10)
    (tmp_path / "leaking" / "l").symlink_to("/etc/passwd")
    noise(tmp_path / "broken" / "a", 10)
    (tmp_path / "broken" / "l").symlink_to("gone")
    for name, clause in {
        "gone": "is not there",
        "empty": "is empty",
        "nothing": "is empty",
        "pipe": "neither a file nor a directory",
        "dangling": "target is gone",
        "piped": "'p', which is not a regular file",
        "leaking": "link 'l' to '/etc/passwd', outside of it",
        "broken": "which is not there",
    }.items():
        with pytest.raises(InputError, match=clause) as caught:
            copy(str(tmp_path / name), str(tmp_path / "out"))
        assert failure_of(caught.value) is FailureClass.BAD_INPUT
        assert not (tmp_path / "out").exists()


def test_bad_destinations(tmp_path: Path) -> None:
    source = noise(tmp_path / "tree" / "a", 10).parent
    (tmp_path / "alias").symlink_to(source)
    noise(tmp_path / "file", 10)
    cases = [
        (source, source, "both"),
        (source, tmp_path / "alias", "both"),
        (source, source / "sub" / "deeper", "inside the source"),
        (source, tmp_path / "alias" / "sub", "inside the source"),
        (source, tmp_path, "inside the destination"),
        (source, tmp_path / "file", "is a file and the source a directory"),
        (source, tmp_path / "file" / "below", "is a file"),
        (source / "a", source / "a", "both"),
        (source / "a", source, "both"),
        (source / "a", "", "not a path"),
        (source / "a", "a\0b", "not a path"),
        (source / "a", tmp_path / ("x" * 256), "too long"),
    ]
    for origin, target, clause in cases:
        with pytest.raises(TransferRefused, match=clause) as caught:
            copy(str(origin), str(target))
        assert caught.value.failure is FailureClass.USER
    assert tree(tmp_path) == {
        b"tree/a": (source / "a").read_bytes(),
        b"file": (tmp_path / "file").read_bytes(),
    }


def test_permission() -> None:
    script = "copy(sys.argv[1], sys.argv[2])"
    if os.getuid() == 0:  # root may write everywhere: become somebody else
        script = f"os.setuid(65534); {script}"
    script = f"import os, sys; from orchestrator.transfer.local import copy; {script}"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        source = noise(place / "a", 10)
        (place / "locked").mkdir(mode=0o555)
        command = [sys.executable, "-c", script, source, place / "locked" / "b"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert "may not be written" in done.stderr


# ---------------------------------------------------------------------------------------- when things happen


def test_a_full_disk(tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = noise(tmp_path / "big" / "a", 6 * MB)
    with pytest.raises(TransferError, match="bytes free and the copy needs") as caught:
        copy(str(source), str(small_disk / "a"))
    assert caught.value.failure is FailureClass.TRANSIENT
    # Somebody else fills the disk after the check.
    monkeypatch.setattr(local, "_check_space", lambda *_, **__: None)
    for origin, target in ((source, "a"), (source.parent, "tree")):
        with pytest.raises(TransferError, match="is full; nothing was left under its final name") as caught:
            copy(str(origin), str(small_disk / target))
        assert caught.value.failure is FailureClass.TRANSIENT
        assert os.listdir(small_disk) == []


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
@pytest.mark.parametrize("whole", [False, True], ids=["file", "tree"])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_source_that_changes_in_flight_fails(
    tmp_path: Path, change: Callable[[Path], Any], checks: tuple[str, ...], whole: bool
) -> None:
    source = noise(tmp_path / "s" / "a", MB)
    os.utime(source, (1_700_000_000, 1_700_000_000))  # not in the clock tick in which it is changed
    other = noise(tmp_path / "other", MB, seed=1)
    changed = False

    def meddle(done: int, total: int) -> None:
        nonlocal changed
        if not changed and done > total // 3:
            changed = True
            if other.exists():
                other.rename(source.with_name("other"))
            change(source)

    target = tmp_path / "out"
    with pytest.raises(TransferError, match="changed while it was copied") as caught:
        copy(str(source.parent if whole else source), str(target), checks=checks, progress=meddle)
    assert caught.value.failure is FailureClass.TRANSIENT
    assert not target.exists()
    assert not any(b.endswith(b"a.part") for b in tree(tmp_path))


@pytest.mark.parametrize("end", ["source", "destination"])
def test_a_directory_that_vanishes(tmp_path: Path, end: str) -> None:
    for number in range(8):
        noise(tmp_path / "s" / f"d{number}" / "a", MB, seed=number)
    gone = tmp_path / ("s" if end == "source" else "t.part")
    with pytest.raises((TransferError, InputError)) as caught:
        copy(str(tmp_path / "s"), str(tmp_path / "t"), progress=lambda *_: shutil.rmtree(gone, ignore_errors=True))
    assert failure_of(caught.value) in (FailureClass.TRANSIENT, FailureClass.BAD_INPUT)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "t").exists()


def test_a_file_that_appears_in_the_tree_meanwhile_fails(tmp_path: Path) -> None:
    source = noise(tmp_path / "s" / "a", MB).parent
    with pytest.raises(TransferError, match="changed while"):
        copy(str(source), str(tmp_path / "t"), progress=lambda *_: (source / "late").touch())
    assert not (tmp_path / "t").exists()
    assert copy(str(source), str(tmp_path / "t")).skipped == 1
    assert tree(tmp_path / "t") == tree(source)


@pytest.mark.parametrize("read_back", ["memory", "disk"])
@pytest.mark.parametrize("size", [MB, 10_000])
def test_a_copy_that_reads_back_wrong_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_back: str, size: int
) -> None:
    source = noise(tmp_path / "a", size)
    monkeypatch.setattr(disk, "reflink", lambda *_: False)
    write = os.pwrite

    def flip(fd: int, data: memoryview, offset: int) -> int:
        length = write(fd, data, offset)
        if offset <= size // 2 < offset + length:
            write(fd, bytes([data[size // 2 - offset] ^ 1]), size // 2)
        return length

    monkeypatch.setattr(os, "pwrite", flip)
    with pytest.raises(TransferError, match="reads back with another checksum"):
        copy(str(source), str(tmp_path / "b"), options={"read_back": read_back})
    assert os.listdir(tmp_path) == ["a"]


def test_read_back_from_the_disk_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = noise(tmp_path / "a", 3 * MB)
    forgotten: list[tuple[int, int]] = []
    forget = disk.forget
    monkeypatch.setattr(disk, "forget", lambda fd, *span: (forgotten.append(span), forget(fd, *span))[1])
    monkeypatch.setattr(disk, "reflink", lambda *_: False)
    copy(str(source), str(tmp_path / "b"))
    assert not forgotten
    copy(str(source), str(tmp_path / "c"), options={"read_back": "disk"})
    assert forgotten == [(0, 2 * MB), (2 * MB, MB)]
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("kind", ["sha256", "md5"])
@pytest.mark.parametrize("size", [300_000, 1000])
def test_other_checksums(tmp_path: Path, kind: str, size: int) -> None:
    source = noise(tmp_path / "a", size)
    for _ in ("copied", "there"):
        report = copy(str(source), str(tmp_path / "b"), options={"checksum": kind})
        assert report.checksum == f"{kind}:{hashlib.new(kind, source.read_bytes()).hexdigest()}"


def test_bad_options(tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 10)
    for options, words in (
        ({"checksum": "sha265"}, "Did you mean 'sha256'"),
        ({"read_back": "tape"}, "from memory or from disk"),
        ({"streams": 4}, "no option 'streams'"),
    ):
        with pytest.raises(TransferRefused, match=words):
            copy(str(source), str(tmp_path / "b"), options=options)


def test_short_writes_and_broken_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = noise(tmp_path / "a", 300_000)
    write, read = os.pwrite, os.preadv
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda fd, data, offset: write(fd, data[:1000], offset))
        patch.setattr(os, "preadv", lambda fd, buffers, offset: read(fd, [b[:3000] for b in buffers], offset))
        copy(str(source), str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == source.read_bytes()

    def broken(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset >= 64 << 10:
            raise OSError(errno.EIO, "Input/output error")
        return read(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(TransferError, match="Input/output error") as caught:
        copy(str(source), str(tmp_path / "c"))
    assert caught.value.failure is FailureClass.TRANSIENT
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("whole", [False, True], ids=["file", "tree"])
def test_cancelled(tmp_path: Path, whole: bool) -> None:
    source = noise(tmp_path / "s" / "a", MB)
    seen: list[int] = []
    with pytest.raises(TransferCancelled) as caught:
        copy(
            str(source.parent if whole else source),
            str(tmp_path / "out"),
            progress=lambda done, _: seen.append(done),
            cancelled=lambda: len(seen) > 3,
        )
    assert caught.value.failure is FailureClass.CANCELLED
    assert seen[-1] < MB
    assert os.listdir(tmp_path) == ["s"]


KILLED = """if True:
    import sys, time
    from orchestrator.transfer import local
    local.pump.BLOCK_BYTES = 64 << 10
    def slow(done, total):
        print(done, flush=True)
        time.sleep(0.01)
    local.copy(sys.argv[1], sys.argv[2], progress=slow)
"""


@pytest.mark.parametrize("whole", [False, True], ids=["file", "tree"])
def test_kill_leaves_no_final_name_and_the_next_copy_goes_on(tmp_path: Path, whole: bool) -> None:
    source = tmp_path / "s"
    for i in range(4):
        noise(source / f"{i}.bin", MB, seed=i)
    origin, target = (source, tmp_path / "out") if whole else (source / "0.bin", tmp_path / "out.bin")
    with subprocess.Popen([sys.executable, "-c", KILLED, origin, target], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) > (2.5 * MB if whole else MB / 2):
                with pytest.raises(TransferError, match="Another copy is writing"):
                    copy(str(origin), str(target))
                process.send_signal(signal.SIGKILL)
                break
    assert not target.exists()
    assert Path(f"{target}.part").exists()
    if whole:
        noise(Path(f"{target}.part") / "stranger", 10)
    report = copy(str(origin), str(target))
    assert report.skipped == (2 if whole else 0)
    assert not Path(f"{target}.part").exists()
    assert (tree(target) == tree(source)) if whole else (target.read_bytes() == origin.read_bytes())


# ---------------------------------------------------------------------------------------------------- trees


def test_a_new_tree_appears_at_once(tmp_path: Path) -> None:
    source = tmp_path / "s"
    for i in range(5):
        noise(source / f"d{i % 2}" / f"{i}", 100_000, seed=i)
    (source / "d0" / "empty").touch()
    (source / "bare").mkdir()
    (source / "latest").symlink_to("d0/4")
    (source / "whole").symlink_to(source / "d1")
    target = tmp_path / "t"
    there: list[bool] = []
    report = copy(str(source), str(target), progress=lambda *_: there.append(target.exists()))
    assert not any(there)
    assert tree(target) == tree(source)
    assert (target / "bare").is_dir()
    assert os.readlink(target / "latest") == "d0/4"
    assert os.readlink(target / "whole") == "d1"
    assert (report.files, report.bytes) == (6, 500_000)
    again = copy(str(source), str(target))
    assert (again.skipped, again.checksum) == (6, report.checksum)
    (source / "d0" / "4").rename(source / "d0" / "5")
    (source / "latest").unlink()
    assert copy(str(source), str(tmp_path / "u")).checksum != report.checksum


def test_a_tree_goes_into_one_that_is_there_without_touching_the_rest(tmp_path: Path) -> None:
    source, target = tmp_path / "s", tmp_path / "t"
    noise(source / "sub" / "a", 1000)
    noise(target / "mine", 10, seed=5)
    copy(str(source), str(target))
    assert tree(target) == {**tree(source), b"mine": (target / "mine").read_bytes()}
    noise(source / "mine" / "x", 10)
    with pytest.raises(TransferRefused, match="in the way"):
        copy(str(source), str(target))
    (target / "mine").unlink()
    (tmp_path / "elsewhere").mkdir()
    (target / "mine").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TransferRefused, match="holds the link"):
        copy(str(source), str(target))
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_tree_of_many_small_files(tmp_path: Path) -> None:
    source, target = tmp_path / "s", tmp_path / "t"
    for i in range(300):
        noise(source / f"d{i % 7}" / f"{i}", 10 + i, seed=i)
    seen: list[int] = []
    with pytest.raises(TransferCancelled):
        copy(str(source), str(target), progress=lambda n, _: seen.append(n), cancelled=lambda: len(seen) > 100)
    report = copy(str(source), str(target), progress=lambda done, _: seen.append(done))
    assert tree(target) == tree(source)
    assert (report.files, seen[-1]) == (300, report.bytes)
    assert copy(str(source), str(target)).skipped == 300
    os.truncate(target / "d0" / "0", 3)
    mended = copy(str(source), str(target))
    assert (mended.skipped, mended.checksum) == (299, report.checksum)
    assert tree(target) == tree(source)


def test_what_a_crash_left_half_finished_gets_its_permissions(tmp_path: Path) -> None:
    source, part = noise(tmp_path / "s" / "a", 1000), tmp_path / "t.part" / "a"
    source.chmod(0o644)
    noise(part, 1000).chmod(0o600)
    copy(str(source.parent), str(tmp_path / "t"))
    assert (tmp_path / "t" / "a").stat().st_mode & 0o777 == 0o644


def test_two_copies_to_one_place(tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 4 * MB)
    results: list[object] = []

    def one() -> None:
        try:
            results.append(copy(str(source), str(tmp_path / "b"), progress=lambda *_: time.sleep(0.002)))
        except TransferError as error:
            results.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any(isinstance(r, local.TransferReport) for r in results)
    assert all(r.failure is FailureClass.TRANSIENT for r in results if isinstance(r, TransferError))
    assert (tmp_path / "b").read_bytes() == source.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_another_copy_finishes_between_opening_and_locking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, other = noise(tmp_path / "a", 1000), noise(tmp_path / "other", 1000, seed=1)
    content = other.read_bytes()
    flock = fcntl.flock

    def late(fd: int, how: int) -> None:
        Path(os.readlink(f"/proc/self/fd/{fd}")).write_bytes(content)
        (tmp_path / "b.part").rename(tmp_path / "b")
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(TransferError, match="has just finished"):
        copy(str(source), str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == content  # not emptied


names = st.binary(min_size=1, max_size=255).filter(
    lambda n: n not in (b".", b"..") and b"/" not in n and b"\0" not in n
)


@settings(max_examples=40, deadline=None)
@given(files=st.dictionaries(names, st.binary(min_size=1, max_size=300), min_size=1, max_size=5))
def test_any_name_and_content_arrives(tmp_path_factory: pytest.TempPathFactory, files: dict[bytes, bytes]) -> None:
    base = tmp_path_factory.mktemp("x")
    source = base / "s"
    source.mkdir()
    for name, content in files.items():
        (source / os.fsdecode(name)).write_bytes(content)
    copy(str(source), str(base / "t"))
    assert tree(base / "t") == files
    for name, content in files.items():
        copy(str(source / os.fsdecode(name)), str(base / "one") + "/")
        assert (base / "one" / os.fsdecode(name)).read_bytes() == content


def test_hostile_names_in_errors_stay_on_their_line(tmp_path: Path) -> None:
    for name in (b"-rf", b"a\nb", b"'\"$(x)`", b"ok\xff.h5"):
        source = noise(tmp_path / os.fsdecode(name), 10)
        copy(str(source), str(tmp_path / "t" / os.fsdecode(name)))
        with pytest.raises(TransferRefused) as caught:
            copy(str(source), str(source))
        assert str(caught.value).isprintable()
        assert str(caught.value).encode()
