"""A scan finds every file, says what else is there, and never leaves its root."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.arrival.scan import DEEPEST, Batch, Root
from orchestrator.errors import InputError, SettingsError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    place = tmp_path / "tree"
    place.mkdir()
    return place


@pytest.fixture
def root(tree: Path) -> Iterator[Root]:
    with Root(str(tree)) as made:
        yield made


def whole(root: Root, below: str = "", batch: int = 2000) -> Batch:
    found = Batch()
    for part in root.scan(below, batch=batch):
        found.files += part.files
        found.odd += part.odd
        found.troubles += part.troubles
        found.folders += part.folders
    return found


def names(root: Root, below: str = "") -> list[str]:
    return sorted(f.name for f in whole(root, below).files)


def test_fifteen_thousand_files_in_fresh_nested_folders(tree: Path, root: Root) -> None:
    for number in range(15_000):
        folder = tree / f"a{number % 50}" / f"b{number % 250}"
        if number < 250:
            folder.mkdir(parents=True)
        (folder / f"{number}.h5").touch()
    found = whole(root)
    assert len({f.name for f in found.files}) == len(found.files) == 15_000
    assert len(found.folders) == 1 + 50 + 250
    assert max(len(part.files) for part in root.scan(batch=500)) <= 500 + 256


def test_a_fingerprint_is_what_the_file_system_says(tree: Path, root: Root) -> None:
    (tree / "x").write_bytes(b"abc")
    (found,) = whole(root).files
    status = (tree / "x").stat()
    assert found.fingerprint == (status.st_dev, status.st_ino, 3, status.st_mtime_ns)
    assert root.look("x") == found
    with Root(str(tree), device=7) as known_by_another_number:
        assert known_by_another_number.look("x") == found._replace(device=7)


def test_what_is_no_file_is_said_and_not_followed(tree: Path, root: Root, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    (tree / "file").symlink_to(tmp_path / "outside/secret")
    (tree / "folder").symlink_to(tmp_path / "outside")
    (tree / "gone").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tree)  # a socket's path is short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        found = whole(root)
    assert found.files == []
    assert {o.name: o.reason.partition(",")[0] for o in found.odd} == {
        "file": "a symbolic link",
        "folder": "a symbolic link",
        "gone": "a symbolic link",
        "fifo": "a FIFO",
        "socket": "a socket",
    }
    for name in ("file", "folder/secret", "fifo", "../outside/secret", "nowhere", "x\0y", "folder"):
        assert root.look(name) is None
        with pytest.raises(InputError):
            root.open(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a device")
def test_a_device(tree: Path, root: Root) -> None:
    try:
        os.mknod(tree / "null", 0o20600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no devices can be made here")
    assert [o.reason for o in whole(root).odd] == ["a device, not a file"]


def test_hard_links_are_seen_as_such(tree: Path, root: Root) -> None:
    (tree / "a").touch()
    os.link(tree / "a", tree / "b")
    one, two = sorted(whole(root).files)
    assert one.links == two.links == 2
    assert one.fingerprint == two.fingerprint


def test_a_name_in_any_encoding_leads_back_to_its_file(tree: Path, root: Root) -> None:
    raw = [b"\xff\xfe.h5", "é.h5".encode("latin-1"), b"new\nline", "日本.h5".encode()]
    for name in raw:
        (tree / os.fsdecode(name)).write_bytes(name)
    found = whole(root).files
    assert sorted(os.fsencode(f.name) for f in found) == sorted(raw)
    for file in found:
        handle = root.open(file.name)
        assert os.read(handle, 100) == os.fsencode(file.name)
        os.close(handle)


def test_a_root_that_is_not_there_or_goes_away(tmp_path: Path, tree: Path, root: Root) -> None:
    with pytest.raises(SettingsError, match="cannot be watched"):
        Root(str(tmp_path / "nowhere"))
    assert root.gone() == ""
    (tree / "x").touch()
    tree.rename(tmp_path / "moved")
    assert "not there any more" in root.gone()
    tree.mkdir()
    assert "another directory" in root.gone()
    assert names(root) == ["x"]


def test_a_folder_that_vanishes_while_it_is_looked_at(tree: Path, root: Root) -> None:
    for folder in ("a", "b", "c"):
        (tree / folder / "deep").mkdir(parents=True)
        (tree / folder / "deep/x").touch()
    parts = root.scan(batch=1)
    seen = {f.name for f in next(parts).files}
    for folder in ("a", "b", "c"):
        shutil.rmtree(tree / folder)
    rest = list(parts)
    assert all(not part.troubles for part in rest)
    assert len(seen | {f.name for part in rest for f in part.files}) <= 1
    assert list(root.scan("a/deep")) == []


def test_a_folder_that_becomes_a_link_is_not_followed(tree: Path, root: Root, tmp_path: Path) -> None:
    """One thread swaps a folder for a link to the outside all the time; what lies outside is never seen."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    (tree / "d").mkdir()
    (tree / "d/x").touch()
    (tmp_path / "link").symlink_to(outside)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            (tree / "d").rename(tmp_path / "d")
            (tmp_path / "link").rename(tree / "d")
            (tree / "d").rename(tmp_path / "link")
            (tmp_path / "d").rename(tree / "d")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(300):
            assert set(names(root)) <= {"d/x"}
            assert root.look("d/secret") is None
    finally:
        over.set()
        thread.join()


def test_too_deep_is_said(tree: Path, root: Root) -> None:
    deep = tree
    for _ in range(DEEPEST + 1):
        deep /= "d"
    deep.mkdir(parents=True)
    (deep / "x").touch()
    (deep.parent / "y").touch()
    found = whole(root)
    assert [f.name.count("/") for f in found.files] == [DEEPEST]
    assert [t.reason for t in found.troubles] == [f"more than {DEEPEST} folders deep"]


def test_what_may_not_be_read_is_said(tree: Path) -> None:
    for name in ("open", "closed"):
        (tree / name).mkdir()
        (tree / name / "x").touch()
    (tree / "closed").chmod(0)
    os.chmod(tree.parent, 0o755)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # as somebody who is not root
        try:
            with Root(str(tree)) as root:
                if os.geteuid() == 0:
                    os.setuid(65534)
                found = whole(root)
            os.write(writer, repr(([f.name for f in found.files], [tuple(t) for t in found.troubles])).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    said = os.read(reader, 10_000).decode()
    os.close(reader)
    (tree / "closed").chmod(0o700)
    assert said == repr((["open/x"], [("closed", "Permission denied")]))


def test_memory_does_not_grow_with_the_tree(tree: Path, root: Root) -> None:
    for number in range(8000):
        (tree / f"{number:06}").touch()
    tracemalloc.start()
    count = sum(len(part.files) for part in root.scan(batch=200))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 8000
    assert peak < 8000 * 100  # all of them held at once take some 400 bytes each
