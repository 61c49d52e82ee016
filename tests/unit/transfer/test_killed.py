"""Copies whose process is killed at each point, or in the middle: the next one goes on, and all is there once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.transfer import carry
from tests import gridftp, sshd
from tests.gridftp import Gridftp
from tests.sshd import Sshd
from tests.unit.transfer.copies import noise, parts, tree

MB = 1 << 20
COPY = """if True:
    import json, sys
    from orchestrator.transfer import carry, local, pieces, pump
    pump.BLOCK_BYTES = pieces.PIECE_BYTES = 1 << 16
    pieces.PIECES = 10_000
    source, target, options = sys.argv[1:]
    tell = lambda done, total: print(done, flush=True)
    carry.copy(source, target, token="r.1", options=json.loads(options), progress=tell)
"""


@pytest.fixture(scope="module", params=["local", "gridftp", "rsync"])
def there(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """A folder, its address for copies, and their options."""
    if request.param == "local":
        folder = tmp_path_factory.mktemp("there")
        yield folder, str(folder), "{}"
        return
    part = gridftp if request.param == "gridftp" else sshd
    if reason := part.missing():
        pytest.skip(reason)
    with Gridftp() if request.param == "gridftp" else Sshd() as server:
        options = f'{{"ssh_config": "{server.config}"}}' if isinstance(server, Sshd) else "{}"
        yield server.root, server.url(), options


def started(source: Path, to: str, options: str, **environment: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", COPY, str(source), to, options]
    return subprocess.Popen(words, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("whole", [False, True], ids=["file", "tree"])
@pytest.mark.parametrize(
    "point", ["transfer.run:before", "transfer.run:after", "file.publish:before", "file.publish:after"]
)
def test_killed_at_each_point(there: tuple[Path, str, str], point: str, whole: bool, tmp_path: Path) -> None:
    folder, address, options = there
    if "://" not in address and point.startswith("transfer"):
        pytest.skip("a copy between paths runs no program")
    source = noise(tmp_path / "s" / "a", 300_000)
    noise(tmp_path / "s" / "d" / "b", 200_000, seed=1)
    name = f"{point.replace(':', '-')}-{whole}"
    first = started(source.parent if whole else source, f"{address}/{name}", options, BEAMWAY_CRASH=point)
    first.communicate(timeout=60)
    assert first.returncode == -signal.SIGKILL
    assert (folder / name).exists() is (point == "file.publish:after")
    second = started(source.parent if whole else source, f"{address}/{name}", options)
    second.communicate(timeout=60)
    assert second.returncode == 0
    if whole:
        assert tree(folder / name) == tree(source.parent)
    else:
        assert (folder / name).read_bytes() == source.read_bytes()
    assert parts(folder) == []


def test_killed_in_the_middle(there: tuple[Path, str, str], tmp_path: Path) -> None:
    folder, address, options = there
    for number in range(4):
        noise(tmp_path / "s" / str(number), 8 * MB, seed=number)
    first = started(tmp_path / "s", f"{address}/middle", options)
    assert first.stdout is not None
    for line in first.stdout:
        if int(line) > 10 * MB:
            break
    first.kill()
    first.wait()
    first.stdout.close()
    if (folder / "middle").exists():
        pytest.skip("it was done before it could be killed")
    report = carry.copy(str(tmp_path / "s"), f"{address}/middle", token="r.1", options=json.loads(options))
    assert tree(folder / "middle") == tree(tmp_path / "s")
    assert report.files == 4
    assert parts(folder) == []
