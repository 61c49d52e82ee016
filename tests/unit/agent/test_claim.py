from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from orchestrator import codec
from orchestrator.agent import claim, output
from orchestrator.agent.around import Around
from orchestrator.model import FailureClass, Order, Outcome, StageKind


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order(
        "r.0.1",
        StageKind.FUNCTION,
        "s",
        call="tests.chaos.calls:mark",
        arguments={"directory": str(tmp_path), "name": "times", "seconds": 0.0},
        working_dir=str(tmp_path),
        log_dir=str(tmp_path / "r" / "logs"),
    )


def test_one_of_many_takes_it(order: Order) -> None:
    path = output.Paths(order).claim(0)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim.take, [path] * 50)) == 1
    assert claim.begun(output.Paths(order)) == path


def test_what_was_withdrawn_cannot_be_taken(order: Order) -> None:
    paths = output.Paths(order)
    assert claim.withdraw(paths) == 1
    assert not claim.take(paths.claim(0))
    assert claim.begun(paths) == ""
    assert claim.withdraw(paths) == 2, "a third agent takes it from the second"
    assert not claim.take(paths.claim(1))
    assert claim.take(paths.claim(2))
    assert claim.withdraw(paths) is None
    assert claim.begun(paths) == paths.claim(2)


@pytest.mark.parametrize("began", [False, True])
@pytest.mark.parametrize("left", [None, Outcome(FailureClass.USER, "bad"), Outcome()])
def test_a_call_that_another_agent_had_is_begun_or_known(order: Order, left: Outcome | None, began: bool) -> None:
    paths = output.Paths(order)
    if began:
        claim.take(paths.claim(0))
    if left is not None:
        Path(paths.exit).parent.mkdir(parents=True)
        Path(paths.exit).write_text(codec.dumps(left))
    again, known = claim.adopt_call(order, paths)
    if left is not None:
        assert known == left
    elif began:
        assert known is not None
        assert known.failure is FailureClass.LOST
    else:
        assert known is None
        assert again.claim == 1


WORKER = """
import os, sys, time
from orchestrator.agent import claim
os.setpgid(0, 0)
claim.take(sys.argv[1])
print("at it", flush=True)
time.sleep(60)
"""


def test_the_worker_of_an_agent_that_hangs_is_ended(order: Order) -> None:
    """Else the next attempt would run beside it, and both write the same files."""
    paths = output.Paths(order)
    worker = subprocess.Popen([sys.executable, "-c", WORKER, paths.claim(0)], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    worker.stdout.readline()
    assert claim.adopt_call(order, paths)[1] is not None
    assert not psutil.pid_exists(worker.pid)
    worker.wait()
    worker.stdout.close()
    assert os.path.exists(paths.cancelled), "for a worker on another host"


def test_a_process_that_has_only_the_number_of_the_worker_is_left_alone(order: Order) -> None:
    paths = output.Paths(order)
    claim.take(paths.claim(0))
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        time.sleep(0.05)
        path = Path(paths.claim(0))
        path.write_text(path.read_text().replace(str(os.getpid()), str(other.pid), 1))
        os.utime(path, (0, time.time() - 3600))
        assert claim.adopt_call(order, paths)[1] is not None
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


CALL = """
import sys
from orchestrator.agent import wrapper
print(wrapper.run(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "times"), [(0, 0), (1, 1)])
def test_a_worker_begins_only_by_a_claim_that_stands(order: Order, tmp_path: Path, number: int, times: int) -> None:
    claim.withdraw(output.Paths(order))
    words = [codec.dumps(replace(order, claim=number)), codec.dumps(Around(slots=str(tmp_path / "slots")))]
    answer = subprocess.run([sys.executable, "-c", CALL, *words], check=True, capture_output=True, text=True)
    made = tmp_path / "times"
    assert (len(made.read_text().splitlines()) if made.exists() else 0) == times, answer.stdout
