"""The room of a copy on its disk: found before the first byte, and its own when it goes on."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.transfer import carrying, disk, gridftp, local, rsync
from orchestrator.transfer.base import TransferError
from tests import sshd
from tests.gridftp import Gridftp, missing
from tests.sshd import Sshd
from tests.unit.transfer.copies import MB, TOKEN, noise, tree

pytestmark = pytest.mark.usefixtures("small_pieces")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A file system that holds a copy of 6 MB once, and what has to stay free, and no other 6 MB beside it."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=777", "tmpfs", place], capture_output=True)
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


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
    (tmp_path / "a").write_bytes(b"")
    with (tmp_path / "a").open("rb") as file:  # as refused as any other reason but a full disk
        disk.reserve(file.fileno(), MB)


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


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("whole", [False, True], ids=["file", "tree"])
def test_a_copy_from_a_server_that_was_killed_has_its_room(
    whole: bool, one: Gridftp, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(one.root / "source" / "a", 6 * MB)
    target = room / "copy"
    top = Path(disk.part_of(str(target), TOKEN))
    from_there = one.url("source" if whole else "source/a")
    found: list[int] = []
    run = carrying.Carrying._move

    def move(job: carrying.Carrying, todo: list[carrying.Piece]) -> object:
        found.append(disk.held(job._staged(todo[0].name)))
        return run(job, todo)

    monkeypatch.setattr(carrying.Carrying, "_move", move)
    refused_then_done(lambda: gridftp.copy(from_there, str(target), token=TOKEN), top / "a" if whole else top, room)
    assert found[0] >= 6 * MB, "the room was there before the first byte"
    assert tree(room) == {b"copy/a" if whole else b"copy": (one.root / "source" / "a").read_bytes()}


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
