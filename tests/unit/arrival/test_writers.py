"""Who has a file open for writing, and on which file systems that can be known."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.arrival import mounts, writers


@pytest.fixture(params=["lease", "proc"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By lease, and as where leases cannot be had."""
    if request.param == "proc":

        def refuse(*_: object) -> None:
            raise OSError(22, "Invalid argument")

        monkeypatch.setattr(writers.fcntl, "fcntl", refuse)
    return str(request.param)


def has_writer(path: Path) -> bool | None:
    handle = os.open(path, os.O_RDONLY)
    try:
        return writers.Writers().of(handle)
    finally:
        os.close(handle)


@pytest.mark.usefixtures("asked")
def test_a_writer_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("1")
    if has_writer(path) is None:
        pytest.skip("not all processes can be looked into here")
    assert has_writer(path) is False
    program = f"f = open({str(path)!r}, 'a'); print(1, flush=True); input()"
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert has_writer(path) is True
        process.communicate(b"\n")
    assert has_writer(path) is False
    with path.open():
        assert has_writer(path) is False  # a reader is no writer


def test_a_file_that_is_only_mapped_for_writing_still_has_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"1" * 4096)
    handle = os.open(path, os.O_RDWR)
    with mmap.mmap(handle, 4096):
        os.close(handle)
        assert has_writer(path) is True
    assert has_writer(path) is False


def test_of_a_file_of_another_account_it_cannot_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(writers.fcntl, "fcntl", refuse)
    (tmp_path / "x").touch()
    assert has_writer(tmp_path / "x") is None


def test_opening_a_file_for_writing_while_it_is_asked_about_harms_nobody(tmp_path: Path) -> None:
    """A lease that is broken sends a signal, which by itself would end the process."""
    path = tmp_path / "x"
    path.touch()
    program = f"""
import os
for _ in range(3000):
    os.close(os.open({str(path)!r}, os.O_WRONLY))
"""
    asked: set[bool | None] = set()
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        while process.poll() is None:
            asked.add(has_writer(path))
    assert process.returncode == 0
    assert asked <= {True, False}


def test_where_a_directory_is() -> None:
    text = (
        b"22 1 254:0 / / rw - ext4 /dev/vda rw\n"
        b"30 22 0:40 / /data rw shared:5 - nfs4 server:/x rw\n"
        b"31 30 0:41 / /data/my\\040disk rw - xfs /dev/sdb rw\n"
        b"32 22 0:42 / /remote rw - fuse.sshfs me@there: rw\n"
        b"33 32 0:43 / /remote rw - tmpfs none rw\n"
        b"broken line\n"
    )
    kinds = {p: mounts.kind(p, text) for p in ("/", "/database", "/data", "/data/a/b", "/data/my disk/x", "/remote/x")}
    assert kinds == {
        "/": "ext4",
        "/database": "ext4",
        "/data": "nfs4",
        "/data/a/b": "nfs4",
        "/data/my disk/x": "xfs",
        "/remote/x": "tmpfs",
    }
    network = {kind for kind in ("ext4", "xfs", "tmpfs", "nfs4", "fuse.sshfs", "lustre", "") if mounts.is_network(kind)}
    assert network == {"nfs4", "fuse.sshfs", "lustre", ""}
    assert not mounts.is_network(mounts.kind("/proc"))
