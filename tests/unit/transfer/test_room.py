"""The room of a copy on its disk: found before the first byte, and its own when it goes on."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.transfer import disk, gridftp, local, pump, rsync, url_copy
from orchestrator.transfer.base import TransferError
from orchestrator.transfer.ends import LocalEnd
from tests import sshd
from tests.gridftp import Gridftp, missing
from tests.sshd import Sshd
from tests.unit.transfer.copies import MB, TOKEN, mounted, noise, tree

pytestmark = pytest.mark.usefixtures("small_pieces")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A file system that holds a copy of 6 MB once, and what has to stay free, and no other 6 MB beside it."""
    with mounted(tmp_path / "disk", "size=24m,mode=777") as place:
        yield place


def reserved(path: Path, size: int = 6 * MB) -> None:
    """What a copy leaves that was killed right after its beginning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        disk.reserve(out.fileno(), size)
    assert disk.held(str(path)) >= size


def test_what_is_reserved_is_there_and_the_length_stays(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as out:
        out.write(b"abc")
        disk.reserve(out.fileno(), 3 * MB)
    assert (tmp_path / "a").read_bytes() == b"abc"
    assert disk.held(str(tmp_path / "a")) >= 3 * MB
    assert disk.held(str(tmp_path)) == disk.held(str(tmp_path / "a"))
    assert disk.held(str(tmp_path / "nothing")) == 0


def test_a_file_system_that_cannot_reserve(tmp_path: Path) -> None:
    made = subprocess.run(["mount", "-t", "ramfs", "ramfs", tmp_path], capture_output=True)
    if made.returncode:
        pytest.skip(f"a file system cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        with (tmp_path / "a").open("wb") as out:
            disk.reserve(out.fileno(), MB)
            out.write(b"abc")
        assert (tmp_path / "a").read_bytes() == b"abc"
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_more_than_the_disk_has(room: Path) -> None:
    with (room / "a").open("wb") as out, pytest.raises(OSError, match="No space") as caught:
        disk.reserve(out.fileno(), 30 * MB)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("into", ["file", "tree", "tree that is there"])
def test_a_local_copy_that_was_killed_has_its_room(into: str, tmp_path: Path, room: Path) -> None:
    source = noise(tmp_path / "source" / "a", 6 * MB)
    origin, target = (source, room / "copy") if into == "file" else (source.parent, room / "copy")
    if into == "tree that is there":
        target.mkdir()
    part = {"file": room / "copy.part", "tree": room / "copy.part" / "a"}.get(into, target / "a.part")
    refused_then_done(lambda: local.copy(str(origin), str(target)), part, room)
    assert (target if into == "file" else target / "a").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("checks", [("checksum",), ()])
def test_a_local_copy_has_its_room_before_the_first_byte(
    checks: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, found = noise(tmp_path / "a", 6 * MB), list[int]()
    name = "pump" if checks else "unchecked"
    write = getattr(pump, name)
    monkeypatch.setattr(
        pump, name, lambda *a, **k: (found.append(disk.held(str(tmp_path / "b.part"))), write(*a, **k))[1]
    )
    local.copy(str(source), str(tmp_path / "b"), checks=checks)
    if not found:
        pytest.skip("this file system shares the blocks of the source instead")
    assert found[0] >= 6 * MB
    assert (tmp_path / "b").read_bytes() == source.read_bytes()


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("whole", [False, True], ids=["file", "tree"])
def test_a_copy_from_a_server_has_its_room_before_the_first_byte(
    whole: bool, one: Gridftp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, found, run = noise(one.root / "source" / "a", 6 * MB), list[int](), url_copy.run

    def looked(moves: Sequence[url_copy.Move], *rest: Any, **more: Any) -> Any:
        found.append(disk.held(moves[0].destination.removeprefix("file://")))
        return run(moves, *rest, **more)

    monkeypatch.setattr(url_copy, "run", looked)
    gridftp.copy(one.url("source" if whole else "source/a"), str(tmp_path / "b"), token=TOKEN)
    assert found[0] >= 6 * MB
    assert (tmp_path / "b/a" if whole else tmp_path / "b").read_bytes() == source.read_bytes()


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_disk_that_fills_after_the_look_is_told_before_the_first_byte(
    one: Gridftp, room: Path, moved: list[url_copy.Move], monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(one.root / "a", 30 * MB)
    monkeypatch.setattr(LocalEnd, "free", lambda *_: None)
    with pytest.raises(TransferError, match="is full; nothing was left under its final name"):
        gridftp.copy(one.url("a"), str(room / "a"), token=TOKEN)
    assert moved == []
    assert os.listdir(room) == []


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("whole", [False, True], ids=["file", "tree"])
def test_a_copy_from_a_server_that_was_killed_has_its_room(whole: bool, one: Gridftp, room: Path) -> None:
    source, target = noise(one.root / "source" / "a", 6 * MB), room / "copy"
    top = Path(disk.part_of(str(target), TOKEN))
    origin = one.url("source" if whole else "source/a")
    refused_then_done(lambda: gridftp.copy(origin, str(target), token=TOKEN), top / "a" if whole else top, room)
    assert tree(room) == {b"copy/a" if whole else b"copy": source.read_bytes()}


@pytest.mark.skipif(bool(sshd.missing()), reason=sshd.missing())
@pytest.mark.parametrize("whole", [False, True], ids=["file", "tree"])
def test_a_copy_to_a_host_that_was_killed_has_its_room(whole: bool, tmp_path: Path, room: Path) -> None:
    source = noise(tmp_path / "source" / "a", 6 * MB)
    with Sshd() as server:
        place = server.root / "disk"
        place.mkdir()
        subprocess.run(["mount", "--bind", room, place], check=True)
        try:
            top = Path(disk.part_of(str(place / "copy"), TOKEN))
            origin, target = source.parent if whole else source, server.url("disk/copy")
            options = {"ssh_config": str(server.config)}
            refused_then_done(
                lambda: rsync.copy(str(origin), target, token=TOKEN, options=options),
                top / "a" if whole else top,
                room,
            )
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)
    assert tree(room) == {b"copy/a" if whole else b"copy": source.read_bytes()}


def refused_then_done(copy: Callable[[], object], part: Path, room: Path) -> None:
    """With as much of somebody else there is no room; with as much that the copy itself has left, there is."""
    reserved(room / "other")
    with pytest.raises(TransferError, match="bytes free and the copy needs"):
        copy()
    os.unlink(room / "other")
    reserved(part)
    copy()
