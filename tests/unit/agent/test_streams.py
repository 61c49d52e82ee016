"""What a worker writes while the runs lie on another file system than the agent's home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import codec
from orchestrator.agent import output, wrapper
from orchestrator.agent.around import Around
from orchestrator.model import Order, Outcome, StageKind

ELSEWHERE = Path("/dev/shm")

CALL = """
import os, sys
from orchestrator.agent import wrapper
said = os.dup(1)  # a worker's own stdout goes to its streams
results = [wrapper.run(text, sys.argv[1]) for text in sys.argv[2:]]
os.write(said, results[0].encode())
"""


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    if not os.access(ELSEWHERE, os.W_OK) or os.stat(ELSEWHERE).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip(f"{ELSEWHERE} is no second file system here")
    made = Path(tempfile.mkdtemp(prefix="bw-runs-", dir=ELSEWHERE))
    yield made
    shutil.rmtree(made)


def test_it_can_be_followed_and_is_kept(runs: Path, tmp_path: Path) -> None:
    orders = [
        Order(
            f"r.{n}.1", StageKind.COMMAND, "s", command=command, working_dir=str(runs), log_dir=str(runs / "r" / "logs")
        )
        for n, command in enumerate(
            ["echo one; echo grumble >&2; while [ ! -e on ]; do sleep 0.02; done; echo two", "true"]
        )
    ]
    slots, paths = tmp_path / "slots", output.Paths(orders[0])
    words = [codec.dumps(Around(slots=str(slots))), *[codec.dumps(order) for order in orders]]
    worker = subprocess.Popen([sys.executable, "-c", CALL, *words], stdout=subprocess.PIPE, text=True)
    over = time.monotonic() + 20.0
    while output.read(paths.stdout) != "one\n":
        assert time.monotonic() < over
        time.sleep(0.02)
        if os.path.exists(slots / str(worker.pid)):
            wrapper.show(slots, wrapper.Slot(worker.pid), paths)
    (runs / "on").touch()
    outcome = codec.loads(worker.communicate(timeout=20.0)[0], Outcome)
    assert outcome.failure is None
    assert Path(outcome.stdout).read_text() == "one\ntwo\n"
    assert Path(outcome.stderr).read_text() == "grumble\n"
    assert not Path(outcome.stdout).is_symlink()
    wrapper.hide(paths)
    assert Path(outcome.stdout).exists(), "it is nobody's but the attempt's now"


def test_nothing_of_the_next_attempt_is_shown_under_this_ones_name(runs: Path, tmp_path: Path) -> None:
    order = Order("r.0.1", StageKind.COMMAND, "s", working_dir=str(runs), log_dir=str(runs / "r" / "logs"))
    paths = output.Paths(order)
    (tmp_path / "7.out").write_text("of another")
    wrapper.show(tmp_path, wrapper.Slot(7), paths)
    assert output.read(paths.stdout) == "of another"
    wrapper.hide(paths)
    assert not os.path.lexists(paths.stdout)
    assert (tmp_path / "7.out").exists()
