"""What tests of copies make, look at and call."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.transfer import gridftp
from orchestrator.transfer.base import TransferReport

MB = 1 << 20
TOKEN = "r.1.1"


def noise(path: Path, size: int, seed: int = 0) -> Path:
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o777)
    path.write_bytes(hashlib.shake_128(str(seed).encode()).digest(size))
    path.chmod(0o666)
    return path


@contextmanager
def mounted(place: Path, words: str) -> Iterator[Path]:
    """A file system in memory of its own at `place`, with these options; the test is skipped where none can be."""
    place.mkdir(exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", words, "tmpfs", place], capture_output=True)
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


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


def at(wanted: float, do: Callable[[], object]) -> Callable[[int, int], None]:
    """A `progress` that does something once, when that part of the bytes has moved."""
    waiting = [do]

    def progress(done: int, total: int) -> None:
        if waiting and done >= wanted * total:
            waiting.pop()()

    return progress
