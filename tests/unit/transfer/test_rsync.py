"""Copies by rsync through a real sshd: whole and verified under the final name, or not there at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash

from orchestrator.errors import InputError
from orchestrator.model import FailureClass
from orchestrator.transfer import carry, carrying, local, rsync
from orchestrator.transfer.base import TransferDown, TransferError, TransferRefused, TransferReport, failure_of
from tests.sshd import Sshd, missing
from tests.unit.transfer.copies import mounted, noise, parts, tree

MB = 1 << 20

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def running() -> Iterator[Sshd]:
    with Sshd() as server:
        yield server


@pytest.fixture
def server(running: Sshd, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    shutil.rmtree(running.root)
    running.root.mkdir()
    monkeypatch.setattr(carrying, "PAUSE_S", 0.1)
    return running


def copy(server: Sshd, source: str | Path, destination: str | Path, **more: Any) -> TransferReport:
    options = {"ssh_config": str(server.config), **more.pop("options", {})}
    return carry.copy(str(source), str(destination), **{"token": "r.1.1", **more}, options=options)


def at(fraction: float, act: Callable[[], Any]) -> Callable[[int, int], None]:
    """A progress that does something once, when so much has moved."""
    done = threading.Event()

    def look(moved: int, total: int) -> None:
        if not done.is_set() and moved > fraction * total:
            done.set()
            act()

    return look


# ------------------------------------------------------------------------------------------------- what arrives


@pytest.mark.parametrize("way", ["put", "get"])
def test_a_file_goes_both_ways(way: str, server: Sshd, tmp_path: Path) -> None:
    source = noise((tmp_path if way == "put" else server.root) / "a.h5", 3 * MB + 5)
    target = (server.root if way == "put" else tmp_path) / "new" / "b.h5"
    steps: list[tuple[int, int]] = []
    places = (source, server.url("new/b.h5")) if way == "put" else (server.url("a.h5"), target)
    report = copy(server, *places, progress=lambda *step: steps.append(step))
    assert target.read_bytes() == source.read_bytes()
    assert (report.files, report.bytes, report.skipped) == (1, 3 * MB + 5, 0)
    assert report.destination == str(places[1])
    assert report.checksum == "xxh3:" + xxhash.xxh3_128_hexdigest(source.read_bytes())
    assert steps[-1] == (3 * MB + 5, 3 * MB + 5)
    assert steps == sorted(set(steps))
    assert os.listdir(target.parent) == ["b.h5"]
    again = copy(server, *places, options={"checksum": "md5"})
    assert (again.skipped, again.skipped_bytes, again.rate) == (1, 3 * MB + 5, 0)
    assert again.checksum == f"md5:{hashlib.md5(source.read_bytes()).hexdigest()}"


def test_a_file_goes_into_a_folder(server: Sshd, tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 1000)
    assert copy(server, source, server.url()).destination == server.url("a")
    assert copy(server, server.url("a"), f"{tmp_path}/in/", checks="size").checksum == ""
    assert (tmp_path / "in" / "a").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("way", ["put", "get"])
def test_a_tree_with_any_names(way: str, server: Sshd, tmp_path: Path) -> None:
    source = (tmp_path if way == "put" else server.root) / "s"
    for number, name in enumerate((b"-rf", b"a\nb", b"'\"$(x)`", b"ok\xff.h5", b"d e/*.tif", b"%41", b"d e/\x1b[2J")):
        noise(source / os.fsdecode(name), 100 + number, seed=number)
    (source / "d e" / "empty").touch()
    (source / "bare").mkdir()
    target = (server.root if way == "put" else tmp_path) / "t"
    there: list[bool] = []
    places = (source, server.url("t")) if way == "put" else (server.url("s"), target)
    report = copy(server, *places, progress=lambda *_: there.append(target.exists()) if len(there) < 1 else None)
    assert there == [False]  # it appears at once
    assert tree(target) == tree(source)
    assert (target / "bare").is_dir()
    assert report.checksum == local.copy(str(source), str(tmp_path / "u")).checksum
    assert copy(server, *places).skipped == 8


def test_into_a_tree_that_is_there(server: Sshd, tmp_path: Path) -> None:
    for name in ("same", "d/other", "d/new"):
        noise(tmp_path / "s" / name, 1000)
    noise(server.root / "t" / "same", 1000)
    noise(server.root / "t" / "d" / "other", 1000, seed=1)
    noise(server.root / "t" / "mine", 10, seed=2)
    report = copy(server, tmp_path / "s", server.url("t"))
    assert (report.skipped, report.skipped_bytes) == (1, 1000)
    mine = {b"mine": (server.root / "t" / "mine").read_bytes()}
    assert tree(server.root / "t") == {**tree(tmp_path / "s"), **mine}
    assert sorted(os.listdir(server.root / "t")) == ["d", "mine", "same"]
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(server.root / "t" / "d")
    (server.root / "t" / "d").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TransferRefused, match="holds the link"):
        copy(server, tmp_path / "s", server.url("t"))
    assert os.listdir(tmp_path / "elsewhere") == []


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ssh://host/a/../b", "holds '..'"),
        ("ssh://host/a/%2e%2e/b", "holds '..'"),
        ("ssh://u:secret@host/a", "holds a password"),
        ("ssh://-oProxyCommand=x/a", "is wrong"),
        ("ssh://-l@host/a", "is wrong"),
        ("ssh://host:70000/a", "is wrong"),
        ("ssh://host", "is wrong"),
        ("ssh://host/a%00b", "is not a path"),
    ],
)
def test_bad_addresses(address: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(TransferRefused, match=words) as caught:
        rsync.copy(address, str(tmp_path / "b"), token="t")
    assert "secret" not in str(caught.value)


def test_bad_requests(server: Sshd, tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 10)
    for places, options, words in (
        ((server.url("a"), server.url("b")), {}, "between two other hosts"),
        ((server.url("a"), "ftp://127.0.0.1/b"), {}, "between a host by ssh and a GridFTP server"),
        ((source, server.url("b")), {"streams": 4}, "no option 'streams'"),
        ((source, server.url("b")), {"retries": "x"}, "is a number"),
        ((source, server.url("b")), {"ssh_config": "/none"}, "is not there"),
        ((source, server.url("b")), {"checksum": "crc"}, "no checksum 'crc'"),
    ):
        with pytest.raises(TransferRefused, match=words):
            copy(server, *places, options=options)


def test_bad_sources_and_destinations(server: Sshd, tmp_path: Path) -> None:
    noise(server.root / "a", 10)
    (server.root / "empty").touch()
    noise(server.root / "linked" / "x", 10)
    (server.root / "linked" / "y").symlink_to("/etc/passwd")
    noise(server.root / "piped" / "x", 10)
    os.mkfifo(server.root / "piped" / "y")
    for name, words in (
        ("none", "is not there"),
        ("empty", "is empty"),
        ("linked", "holds the link 'y'"),
        ("piped", "not a regular file"),
    ):
        with pytest.raises(InputError, match=words):
            copy(server, server.url(name), tmp_path / "b")
    source = noise(tmp_path / "s" / "x", 10)
    with pytest.raises(TransferRefused, match="is a file and the source a directory"):
        copy(server, source.parent, server.url("a"))
    with pytest.raises(TransferRefused, match="in the way"):
        copy(server, source, server.url("a/b"))
    assert os.listdir(tmp_path) == ["s"]


def test_who_is_not_let_in_is_held(server: Sshd, tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 10)
    for config, words in (
        (server.configured("stranger", key="other", host="host"), "does not let us in: .*publickey"),
        (server.configured("changed", key="user", host="other"), "is not the one that is known here"),
    ):
        with pytest.raises(TransferError, match=words) as caught:
            copy(server, source, server.url("b"), options={"ssh_config": str(config)})
        assert failure_of(caught.value) is FailureClass.AUTHENTICATION
    assert os.listdir(server.root) == []


def test_no_server(server: Sshd, tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 10)
    address = server.url("b").replace(str(server.port), "1")
    with pytest.raises(TransferDown, match=r"does not answer: .*[Rr]efused"):
        copy(server, source, address, options={"retries": 0})


@pytest.mark.parametrize("words", ["ro", "size=4m"], ids=["read-only", "full"])
def test_a_disk_that_takes_nothing(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    source = noise(tmp_path / "a", 6 * MB)
    with mounted(server.root / "disk", words) as place:
        if words == "ro":
            with pytest.raises(TransferRefused, match=r"may not be read or written: .*Read-only"):
                copy(server, source, server.url("disk/b"))
            return
        with pytest.raises(TransferError, match="bytes free and the copy needs"):
            copy(server, source, server.url("disk/b"))
        monkeypatch.setattr("orchestrator.transfer.ssh_end.SshEnd.free", lambda *_: None)
        with pytest.raises(TransferError, match="is full; nothing was left") as caught:
            copy(server, source, server.url("disk/b"))
        assert failure_of(caught.value) is FailureClass.TRANSIENT
        assert os.listdir(place) == []


@pytest.mark.parametrize("size", [10, 3 * MB])
def test_a_file_of_one_person_is_nobody_elses_here(server: Sshd, tmp_path: Path, size: int) -> None:
    (source := noise(server.root / "a", size)).chmod(0o600)
    copy(server, server.url("a"), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == source.read_bytes()
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600


# ------------------------------------------------------------------------------------------------- what happens


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for something to happen while a file moves."""
    popen = subprocess.Popen

    def slower(words: list[Any], *rest: Any, **more: Any) -> Any:
        if "--inplace" in words:
            words = [*words[: words.index("--inplace")], "--bwlimit=8m", *words[words.index("--inplace") :]]
        return popen(words, *rest, **more)

    monkeypatch.setattr(rsync.subprocess, "Popen", slower)


@pytest.mark.usefixtures("slow")
def test_connections_that_are_cut_and_a_server_that_comes_back(server: Sshd, tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 12 * MB)
    cut: list[int] = []
    copy(server, source, server.url("b"), progress=at(0.3, lambda: cut.append(server.cut())))
    assert cut[0] > 0
    assert (server.root / "b").read_bytes() == source.read_bytes()
    with pytest.raises(TransferDown):
        copy(server, source, server.url("c"), progress=at(0.3, server.kill), options={"retries": 0})
    assert not (server.root / "c").exists()
    assert len(parts(server.root)) == 1
    server.start()
    copy(server, source, server.url("c"))
    assert (server.root / "c").read_bytes() == source.read_bytes()
    assert parts(server.root) == []


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("way", ["put", "get"])
def test_a_source_that_changes_in_flight_fails(way: str, server: Sshd, tmp_path: Path) -> None:
    source = noise((tmp_path if way == "put" else server.root) / "s" / "a", 8 * MB)
    places = (source, server.url("b")) if way == "put" else (server.url("s/a"), tmp_path / "b")
    other = noise(tmp_path / "other", 8 * MB, seed=1)
    for change in (
        lambda: os.truncate(source, 4 * MB),
        lambda: other.replace(source),
        lambda: shutil.rmtree(source.parent),
    ):
        with pytest.raises((TransferError, InputError)) as caught:
            copy(server, *places, progress=at(0.2, change))
        assert "changed while it was copied" in str(caught.value)
        assert not (server.root / "b").exists()
        assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("times", [1, 9])
def test_a_corrupted_byte_at_the_destination(
    times: int, server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = noise(tmp_path / "a", MB)
    run, runs = rsync.Rsync._run, 0

    def spoiling(*given: Any) -> Any:
        nonlocal runs
        runs += 1
        ended = run(*given)
        if runs <= times:
            with (server.root / parts(server.root)[0]).open("r+b") as file:
                file.seek(500_000)
                file.write(bytes([source.read_bytes()[500_000] ^ 1]))
        return ended

    monkeypatch.setattr(rsync.Rsync, "_run", spoiling)
    if times == 1:
        copy(server, source, server.url("b"))
        assert runs == 2
        assert (server.root / "b").read_bytes() == source.read_bytes()
        return
    with pytest.raises(TransferError, match="another checksum than its source, twice"):
        copy(server, source, server.url("b"))
    assert os.listdir(server.root) == []


@pytest.mark.usefixtures("slow")
def test_cancelled(server: Sshd, tmp_path: Path) -> None:
    source = noise(tmp_path / "a", 12 * MB)
    stop = threading.Event()
    with pytest.raises(TransferError, match="was cancelled") as caught:
        copy(server, source, server.url("b"), progress=at(0.2, stop.set), cancelled=stop.is_set)
    assert failure_of(caught.value) is FailureClass.CANCELLED
    assert os.listdir(server.root) == []


def test_a_lost_answer_to_the_rename(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.transfer.ssh_end import SshEnd

    source, asked, lost = noise(tmp_path / "a", 1000), SshEnd._asked, []

    def losing(end: SshEnd, line: str, answer_s: float) -> Any:
        answer = asked(end, line, answer_s)
        if line.startswith("mv ") and not lost:
            lost.append(line)
            end._drop()
            raise TransferDown("lost")
        return answer

    monkeypatch.setattr(SshEnd, "_asked", losing)
    copy(server, source, server.url("b"))
    assert len(lost) == 1
    assert os.listdir(server.root) == ["b"]
