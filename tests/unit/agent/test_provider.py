"""Blocks of workers as jobs of our scheduler: what Parsl is told of them, and what a lost answer leaves."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import cast

import pytest
from parsl.jobs.states import JobState as BlockState

from orchestrator.agent import provider
from orchestrator.agent.provider import Block, BlockProvider
from orchestrator.agent.tracker import Tracker
from orchestrator.jobs import Job, JobSpec, JobState, Refused, Scheduler, SchedulerSilent


class Script:
    """A scheduler that says what the test has put in."""

    def __init__(self) -> None:
        self.known: dict[str, Job] = {}
        self.submitted: list[JobSpec] = []
        self.cancelled: list[str] = []
        self.error: Exception | None = None
        self.loses_answers = False

    def submit_once(self, spec: JobSpec, *, known: bool = False) -> str:
        if self.error is not None:
            raise self.error
        self.submitted.append(spec)
        number = str(len(self.submitted))
        self.known[number] = Job(number, spec.token, JobState.PENDING)
        if self.loses_answers:
            raise SchedulerSilent("No answer.")
        return number

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        return {n: self.known.get(n, Job(n, "", JobState.GONE)) for n in ids}

    def find(self, token: str) -> list[Job]:
        if self.error is not None:
            raise self.error
        return [job for job in self.known.values() if job.token == token]

    def cancel(self, ids: Collection[str]) -> None:
        if self.error is not None:
            raise self.error
        self.cancelled += ids


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def tracker(script: Script) -> Tracker:
    return Tracker(cast("Scheduler", script), poll_s=60.0)


@pytest.fixture
def blocks(script: Script, tracker: Tracker, tmp_path: Path) -> BlockProvider:
    return BlockProvider(
        "site-1",
        cast("Scheduler", script),
        tracker,
        prefix="bwp-x-",
        directory=tmp_path / "blocks",
        script_of=lambda command, record: f"{command}\n# {record}\n",
        spec_of=lambda token, text, stem: JobSpec(token, text, f"{stem}.out", f"{stem}.err"),
        nodes=2,
    )


def states(blocks: BlockProvider, *numbers: str) -> list[BlockState]:
    return [status.state for status in blocks.status(numbers)]


def test_a_block_is_a_job_with_its_script_beside_it(blocks: BlockProvider, script: Script, tmp_path: Path) -> None:
    assert blocks.submit("start workers", 1) == "1"
    (spec,) = script.submitted
    assert spec.token.startswith("bwp-x-")
    stem = tmp_path / "blocks" / spec.token
    assert spec.script == f"start workers\n# {stem}.job\n"
    assert Path(f"{stem}.sh").read_text() == "#!/bin/bash\n" + spec.script
    assert blocks.blocks["1"].record == f"{stem}.job"


def test_parsl_hears_what_the_tracker_saw(blocks: BlockProvider, script: Script, tracker: Tracker) -> None:
    blocks.submit("x", 1)
    assert states(blocks, "1", "9") == [BlockState.PENDING, BlockState.MISSING]
    for state, said in [
        (JobState.HELD, BlockState.HELD),
        (JobState.RUNNING, BlockState.RUNNING),
        (JobState.SUSPENDED, BlockState.HELD),
        (JobState.UNKNOWN, BlockState.UNKNOWN),
        (JobState.ENDING, BlockState.RUNNING),
        (JobState.NODE, BlockState.FAILED),
    ]:
        script.known["1"] = Job("1", "", state)
        tracker.look()
        assert states(blocks, "1") == [said]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (JobState.DONE, BlockState.COMPLETED),
        (JobState.WALLTIME, BlockState.TIMEOUT),
        (JobState.CANCELLED, BlockState.CANCELLED),
        (JobState.PREEMPTED, BlockState.FAILED),
        (JobState.REFUSED, BlockState.FAILED),
    ],
)
def test_a_block_that_is_over_is_over(
    state: JobState, said: BlockState, blocks: BlockProvider, script: Script, tracker: Tracker
) -> None:
    blocks.submit("x", 1)
    script.known["1"] = Job("1", "", state)
    assert blocks.blocks["1"].alive
    tracker.look()
    assert not blocks.blocks["1"].alive
    assert states(blocks, "1") == [said]


def test_a_job_that_vanished_is_no_completed_one(blocks: BlockProvider, script: Script, tracker: Tracker) -> None:
    blocks.submit("x", 1)
    script.known.clear()
    tracker.look()
    assert states(blocks, "1") == [BlockState.PENDING]
    tracker.look()
    assert states(blocks, "1") == [BlockState.FAILED]


def test_a_refused_block_is_remembered_until_one_is_taken(blocks: BlockProvider, script: Script) -> None:
    script.error = Refused("Invalid account.")
    with pytest.raises(Refused):
        blocks.submit("x", 1)
    assert blocks.trouble is script.error
    assert blocks.blocks == {}
    assert blocks.end_doubtful(), "a refusal leaves no job"
    script.error = None
    blocks.submit("x", 1)
    assert blocks.trouble is None


def test_a_job_whose_answer_was_lost_is_ended_before_the_next_is_submitted(
    blocks: BlockProvider, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.loses_answers = True
    with pytest.raises(SchedulerSilent):
        blocks.submit("x", 1)
    assert not blocks.end_doubtful(), "it is asked some time later"
    monkeypatch.setattr(provider, "AGAIN_S", 0.0)
    blocks._ask_at = 0.0
    script.error = SchedulerSilent("No answer.")
    assert not blocks.end_doubtful()
    script.error = None
    assert blocks.end_doubtful()
    assert script.cancelled == ["1"]
    assert blocks.end_doubtful()
    assert script.cancelled == ["1"]


def test_a_job_that_was_never_there_is_not_waited_for(blocks: BlockProvider, script: Script) -> None:
    script.error = SchedulerSilent("No answer.")
    with pytest.raises(SchedulerSilent):
        blocks.submit("x", 1)
    script.error = None
    blocks._ask_at = 0.0
    assert blocks.end_doubtful()


def test_a_cancelled_block_is_dismissed_at_once(blocks: BlockProvider, script: Script) -> None:
    blocks.submit("x", 1)
    assert blocks.cancel(["1"]) == [True]
    assert blocks.blocks["1"].dismissed
    assert script.cancelled == ["1"]
    script.error = SchedulerSilent("No answer.")
    assert blocks.cancel(["1"]) == [False]


def test_a_block_says_what_went_wrong_with_it(tmp_path: Path) -> None:
    block = Block("7", str(tmp_path / "x"))
    assert block.words() == "job 7: unknown"
    block.last = Job("7", "", JobState.NODE, reason="node n3 went down")
    assert block.words() == "job 7: node failure (node n3 went down)"
    (tmp_path / "x.err").write_text("bash: module: command not found\n\n")
    (tmp_path / "x.job").write_text("job=7\nstep=init\nstatus=127\n")
    assert block.words() == (
        "job 7: the environment could not be prepared, exit status 127: bash: module: command not found"
    )
    assert abs(block.begun_at - time.time()) < 5
