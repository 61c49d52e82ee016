"""One job per token: what is done when the answer of a submit is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from orchestrator.jobs import Job, JobState, Refused, SchedulerSilent
from orchestrator.schedulers import once
from orchestrator.schedulers.calls import NotStarted


class Script:
    """A scheduler whose answers are written down in advance; an exception is raised, the last word is repeated."""

    def __init__(self, submits: Sequence[str | Exception], finds: Sequence[list[Job] | Exception]) -> None:
        self.submits, self.finds = list(submits), list(finds)
        self.did: list[str] = []
        self.cancelled: list[str] = []

    def submit(self) -> str:
        return self._next("submit", self.submits)

    def find(self) -> list[Job]:
        return self._next("find", self.finds)

    def _next(self, what: str, words: list[Any]) -> Any:
        self.did.append(what)
        word = words.pop(0) if len(words) > 1 else words[0]
        if isinstance(word, Exception):
            raise word
        return word

    def cancel(self, ids: Sequence[str]) -> None:
        self.cancelled += ids

    def run(self, *, known: bool = False) -> str:
        sleep: Callable[[float], None] = lambda s: self.did.append(f"sleep {s:g}")  # noqa: E731
        return once.submit_once(
            "bw-1", known=known, submit=self.submit, find=self.find, cancel=self.cancel, sleep=sleep
        )


def job(number: str, state: JobState = JobState.PENDING, at: float = 0.0) -> Job:
    return Job(number, "bw-1", state, submitted_at=at)


LOST = SchedulerSilent("no answer")


def test_an_answer_is_taken() -> None:
    script = Script(["7"], [[]])
    assert script.run() == "7"
    assert script.did == ["submit"]


def test_a_token_that_may_be_known_is_looked_for_twice_before_it_is_submitted() -> None:
    script = Script(["7"], [[]])
    assert script.run(known=True) == "7"
    assert script.did == ["find", "sleep 2", "find", "submit"]
    script = Script(["7"], [[job("3")]])
    assert script.run(known=True) == "3"
    assert script.did == ["find"]


def test_after_a_lost_answer_the_job_is_found() -> None:
    script = Script([LOST], [[], [job("4")]])
    assert script.run() == "4"
    assert script.did == ["submit", "find", "sleep 2", "find"]


def test_only_two_trusted_looks_make_it_absent() -> None:
    script = Script([LOST, "9"], [[]])
    assert script.run() == "9"
    assert script.did == ["submit", "find", "sleep 2", "find", "submit"]


@pytest.mark.parametrize("finds", [[LOST], [[], LOST]])
def test_a_look_without_an_answer_is_no_look(finds: list[list[Job] | Exception]) -> None:
    script = Script([LOST, "9"], finds)
    with pytest.raises(SchedulerSilent):
        script.run()
    assert script.did.count("submit") == 1


def test_a_scheduler_that_loses_everything_is_silent() -> None:
    script = Script([LOST], [[]])
    with pytest.raises(SchedulerSilent):
        script.run()
    assert script.did.count("submit") == once.ATTEMPTS


@pytest.mark.parametrize("error", [Refused("no such queue"), NotStarted("no qsub")])
def test_what_was_certainly_not_submitted_is_not_looked_for(error: Exception) -> None:
    script = Script([error], [[]])
    with pytest.raises(type(error)):
        script.run()
    assert script.did == ["submit"]


def test_of_several_the_oldest_is_kept() -> None:
    script = Script([LOST], [[job("12", at=2), job("9", at=1), job("11", at=1), job("5", JobState.CANCELLED)]])
    assert script.run() == "9"
    assert sorted(script.cancelled) == ["11", "12"]


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.SUSPENDED, JobState.DONE, JobState.FAILED])
def test_of_several_the_one_that_has_the_claim_is_kept(state: JobState) -> None:
    script = Script([LOST], [[job("1"), job("2", state), job("3", JobState.REFUSED)]])
    assert script.run() == "2"
    assert script.cancelled == ["1"]
