"""The disk of the home is full: what cannot be written down is refused in a sentence, and nothing accepted is lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.client import Client
from orchestrator.errors import Unavailable
from orchestrator.model import RunStatus
from orchestrator.settings import Settings
from tests.conftest import end_processes_of, submit, wait, workflow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a small tmpfs needs root")
    yield place
    end_processes_of(place / "home")
    time.sleep(0.2)
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def submit_many(client: Client, number: int) -> None:
    for _ in range(number):
        submit(client, workflow(s1={"command": "true"}))


def test_a_full_disk(small_disk: Path) -> None:
    with Client(Settings(home=small_disk / "home")) as client:
        before = submit(client, workflow(s1={"command": "sleep 2"}, s2={"command": "true"}))
        filler = small_disk / "filler"
        fill(filler)
        with pytest.raises(Unavailable, match="full"):
            submit_many(client, 20)
        accepted = len(client.runs())
        time.sleep(3)
        filler.unlink()
        run = wait(client, before)
        assert run.status is RunStatus.DONE, run.error
        for summary in client.runs():
            assert wait(client, summary.id).status is RunStatus.DONE
        assert len(client.runs()) == accepted, "a refused run must not appear later"
        client.stop_service()
