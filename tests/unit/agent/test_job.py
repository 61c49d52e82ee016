"""The payload of a batch job: its outcome is on the disk before it ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator import codec
from orchestrator.agent import around, job, output
from orchestrator.agent.around import Around
from orchestrator.agent.output import known_end
from orchestrator.agent.ranks import RankOrder
from orchestrator.model import Expectation, FailureClass, Order, Outcome, StageKind
from tests.unit.agent.test_target import profile

ROOT = Path(__file__).resolve().parents[3]


class World:
    def __init__(self, place: Path) -> None:
        self.place, self.order = place, Order("r.0.1", StageKind.COMMAND, "s")

    def start(self, command: str, **more: object) -> subprocess.Popen[bytes]:
        given = {"command": command, "working_dir": str(self.place), "log_dir": str(self.place), **more}
        self.order = Order("r.0.1", StageKind.COMMAND, "s", **given)  # type: ignore[arg-type]
        path = self.place / "order"
        path.write_text(codec.dumps(RankOrder(self.order, Around())))
        paths = output.Paths(self.order)
        with open(paths.stdout, "wb") as out, open(paths.stderr, "wb") as err:
            argv = [sys.executable, "-m", job.__name__, str(path)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            return subprocess.Popen(argv, stdout=out, stderr=err, env=environment)

    def run(self, command: str, **more: object) -> tuple[int, Outcome | None]:
        status = self.start(command, **more).wait(30)
        return status, known_end(output.Paths(self.order))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_went_well_ends_with_0(world: World) -> None:
    status, outcome = world.run(
        "echo n: 5 >made; cat made", captures=(r"n: (?P<n>\d+)",), expect=(Expectation("made"),)
    )
    assert status == 0
    assert outcome is not None
    assert (outcome.failure, outcome.captures) == (None, {"n": "5"})
    assert [p.path for p in outcome.products] == [str(world.place / "made")]


@pytest.mark.parametrize(
    ("command", "failure"),
    [
        ("exit 3", FailureClass.USER),
        ("exit 75", FailureClass.TRANSIENT),
        ("true", FailureClass.BAD_OUTPUT),
    ],
)
def test_what_went_wrong_ends_with_1_and_says_how(command: str, failure: FailureClass, world: World) -> None:
    status, outcome = world.run(command, expect=(Expectation("made"),))
    assert status == job.NOT_WELL
    assert outcome is not None
    assert outcome.failure is failure


def test_a_directory_that_is_not_there_is_named(world: World) -> None:
    status, outcome = world.run("true", working_dir=str(world.place / "none"))
    assert status == job.NOT_WELL
    assert outcome is not None
    assert outcome.failure is FailureClass.USER
    assert "does not exist" in outcome.reason


def test_the_mark_keeps_it_from_beginning(world: World) -> None:
    (world.place / "0.1.cancelled").touch()
    status, outcome = world.run("touch ran")
    assert status == job.NOT_WELL
    assert outcome is not None
    assert outcome.failure is FailureClass.CANCELLED
    assert not (world.place / "ran").exists()


def test_a_warning_of_the_scheduler_leaves_time_to_clean_up(world: World) -> None:
    process = world.start("trap 'touch tidy; exit' TERM; touch ready; while :; do sleep 0.05; done")
    deadline = time.monotonic() + 20
    while not (world.place / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == job.NOT_WELL
    outcome = known_end(output.Paths(world.order))
    assert outcome is not None
    assert (outcome.failure, outcome.reason) == (FailureClass.CANCELLED, "asked to end")
    assert (world.place / "tidy").exists()


def test_an_order_that_cannot_be_read_leaves_no_outcome(world: World, tmp_path: Path) -> None:
    (tmp_path / "order").write_text("{")
    with pytest.raises(ValueError, match="truncated"):
        job.main(str(tmp_path / "order"))
    assert list(tmp_path.glob("*.exit")) == []


def test_the_profile_surrounds_an_order() -> None:
    site = profile(
        node={"cores": 8, "gpus": 4, "accelerator": {"kind": "rocm"}},
        launcher={"kind": "srun", "options": ["--overlap"]},
        environment={"python": "/opt/python", "container": ["run", "image"]},
    )
    found = around.of(site, "/slots")
    assert (found.slots, found.launcher, found.launcher_options) == ("/slots", "srun", ("--overlap",))
    assert found.program == ("run", "image", "/opt/python")
    assert (found.variable, found.gpus, found.far) == ("ROCR_VISIBLE_DEVICES", 4, True)
    assert around.read(codec.dumps(found)) == found
    here = around.of(profile(scheduler={"kind": "local"}), "")
    assert (here.far, here.launcher, here.program) == (False, "none", (sys.executable,))
